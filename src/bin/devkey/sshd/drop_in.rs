//! What is added to sshd's configuration.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use super::paths::Paths;

/// The first line: what we wrote, and may write anew or remove.
const OURS: &str = "# By `devkey sshd enable`; `devkey sshd disable` takes it out. docs/sshd.md\n";

/// The lines of the configuration.
#[derive(Debug, Default, Clone)]
pub(super) struct DropIn {
    /// OpenSSH's certificate of the device's key.
    pub(super) certificate: Option<PathBuf>,
    /// The host keys of before.
    pub(super) old: Vec<PathBuf>,
}

impl DropIn {
    /// The one that is in place.
    pub(super) fn read(paths: &Paths) -> Option<Self> {
        let text = fs::read_to_string(&paths.drop_in).ok()?;
        let mut drop_in = DropIn::default();
        for line in text.lines() {
            match line.split_once(' ') {
                Some(("HostKey", file)) if Path::new(file) != paths.host_key => {
                    drop_in.old.push(file.into());
                }
                Some(("HostCertificate", file)) => drop_in.certificate = Some(file.into()),
                _ => {}
            }
        }
        Some(drop_in)
    }

    /// Whether the file that is in place may be written over.
    pub(super) fn is_ours(paths: &Paths) -> bool {
        match fs::read_to_string(&paths.drop_in) {
            Ok(text) => text.starts_with(OURS),
            Err(e) => e.kind() == std::io::ErrorKind::NotFound,
        }
    }

    pub(super) fn text(&self, paths: &Paths) -> String {
        let mut text = OURS.to_owned();
        let _ = writeln!(text, "HostKeyAgent {}", paths.socket.display());
        let _ = writeln!(text, "HostKey {}", paths.host_key.display());
        if let Some(file) = &self.certificate {
            let _ = writeln!(text, "HostCertificate {}", file.display());
        }
        if !self.old.is_empty() {
            text += "# The host keys of before: once one is named, sshd has no others.\n";
        }
        for file in &self.old {
            let _ = writeln!(text, "HostKey {}", file.display());
        }
        text
    }
}
