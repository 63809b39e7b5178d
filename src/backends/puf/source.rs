//! What is read: one measurement of a device, by the settings of its token.

use super::node::{Node, Wanted};
use super::options::{Kind, Options};
use super::patience::Patience;
use super::{serial, stable};
use crate::error::{Error, Result};
use crate::fuzzy;
use crate::secret::Secret;

/// A device to read from.
#[derive(Debug, Clone)]
pub(super) struct Source {
    pub(super) options: Options,
    pub(super) patience: Patience,
}

/// A part of a measurement, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Window {
    /// Where it begins.
    pub(super) offset: usize,
    /// How long it has to be.
    pub(super) least: usize,
    /// How long it may be.
    pub(super) most: usize,
}

impl Window {
    /// A window of a fixed length.
    pub(super) fn exactly(offset: usize, length: usize) -> Self {
        Window {
            offset,
            least: length,
            most: length,
        }
    }

    /// The part of a whole measurement that begins at 0.
    pub(super) fn cut(self, whole: &Secret) -> Result<Secret> {
        let end = whole.len().min(self.offset.saturating_add(self.most));
        let part = whole.expose().get(self.offset..end).unwrap_or_default();
        match part.len() >= self.least {
            true => Ok(Secret::new(part.to_vec())),
            false => Err(Error::Internal("a measurement is too short".to_owned())),
        }
    }
}

impl Source {
    /// A window of a fresh measurement, or of the only one that a latched device has.
    ///
    /// # Errors
    /// Those of [`Node`], and what the kind of device says of what it read.
    pub(super) fn read(&self, window: Window) -> Result<Secret> {
        let options = self.options.clone();
        self.patience.run(
            &self.options.device,
            self.options.timeout,
            move || match options.kind {
                Kind::Raw => raw(&options, window),
                Kind::Stable { .. } => raw(&options, window).and_then(stable::check),
                Kind::Serial => serial::read(&options, window),
            },
        )
    }

    /// How helper data names it.
    pub(super) fn named(&self, offset: usize) -> fuzzy::Source {
        let kind = match self.options.kind {
            Kind::Serial => fuzzy::SourceKind::Serial,
            _ if self.options.allow_file => fuzzy::SourceKind::File,
            _ => fuzzy::SourceKind::Raw,
        };
        fuzzy::Source {
            kind,
            offset: offset as u64,
        }
    }
}

/// One open, one measurement, read from its beginning: a character device need not seek.
fn raw(options: &Options, window: Window) -> Result<Secret> {
    let wanted = Wanted {
        file: options.allow_file,
        write: false,
    };
    let node = Node::open(&options.device, wanted, options.timeout)?;
    let mut whole = Secret::new(vec![0; window.offset + window.most]);
    let got = node.fill(whole.expose_mut(), window.offset + window.least)?;
    whole.truncate(got);
    window.cut(&whole)
}
