//! Steps that are taken back where a later one fails.

use std::fs::{self, File, Permissions};
use std::io::Write;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use devkey::Error;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::flag;

use crate::failure::{Failure, Result};

/// What takes the steps back, the last one first, unless they are kept.
#[derive(Default)]
pub(super) struct Undo<'a> {
    steps: Vec<Box<dyn FnOnce() -> Result<()> + 'a>>,
    /// Whether a signal came.
    ended: Arc<AtomicBool>,
}

impl<'a> Undo<'a> {
    /// Has a signal that would end the process fail the next step, so that all is taken back.
    pub(super) fn at_a_signal() -> Result<Self> {
        let undo = Undo::default();
        for signal in [SIGINT, SIGTERM, SIGHUP] {
            flag::register(signal, undo.ended.clone())
                .map_err(|e| Error::io("waiting for signals", e))?;
        }
        Ok(undo)
    }

    /// What takes back the step that is about to be taken.
    pub(super) fn by(&mut self, step: impl FnOnce() -> Result<()> + 'a) {
        self.steps.push(Box::new(step));
    }

    /// All went well, unless a signal came.
    pub(super) fn keep(mut self) -> Result<()> {
        self.check()?;
        self.steps.clear();
        Ok(())
    }

    fn check(&self) -> Result<()> {
        match self.ended.load(Ordering::Relaxed) {
            false => Ok(()),
            true => Err(Failure::new(
                "a signal ended the command; all is as it was before",
                "run it again",
            )),
        }
    }

    /// Writes a file, readable to all, whole or not at all.
    pub(super) fn write(&mut self, path: &Path, text: &str) -> Result<()> {
        self.check()?;
        // A symbolic link stays one.
        let path = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
        let before = fs::read(&path).ok();
        let owned = path.clone();
        self.by(move || match before {
            Some(before) => put(&owned, &before),
            None => remove(&owned),
        });
        put(&path, text.as_bytes())
    }

    /// Removes a file.
    pub(super) fn remove(&mut self, path: &Path) -> Result<()> {
        self.check()?;
        if let Ok(before) = fs::read(path) {
            let owned = path.to_owned();
            self.by(move || put(&owned, &before));
        }
        remove(path)
    }

    /// Makes a directory, where it is missing.
    pub(super) fn make_dir(&mut self, path: &Path) -> Result<()> {
        if path.is_dir() {
            return Ok(());
        }
        let made = fs::create_dir(path)
            .and_then(|()| fs::set_permissions(path, Permissions::from_mode(0o755)));
        made.map_err(|e| Error::io(format!("making {}", path.display()), e))?;
        let path = path.to_owned();
        self.by(move || {
            let _ = fs::remove_dir(path);
            Ok(())
        });
        Ok(())
    }
}

impl Drop for Undo<'_> {
    fn drop(&mut self) {
        while let Some(step) = self.steps.pop() {
            if let Err(failure) = step() {
                log::error!("taking back what was done: {}", failure.what);
            }
        }
    }
}

fn put(path: &Path, bytes: &[u8]) -> Result<()> {
    let temporary = path.with_extension("devkey-new");
    let failed = |e| Error::io(format!("writing {}", path.display()), e);
    let mut options = File::options();
    let options = options.write(true).create(true).truncate(true).mode(0o600);
    let written = options.open(&temporary).and_then(|mut file| {
        file.set_permissions(Permissions::from_mode(0o644))?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&temporary, path)
    });
    written.map_err(|e| {
        let _ = fs::remove_file(&temporary);
        failed(e).into()
    })
}

fn remove(path: &Path) -> Result<()> {
    match fs::remove_file(path) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
            Err(Error::io(format!("removing {}", path.display()), e).into())
        }
        _ => Ok(()),
    }
}
