//! A device to be tried: a back end with its settings, a directory, and what must outlive both.

use std::any::Any;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use devkey::provider::{BackEnd, Place, Provider, Settings};
use tempfile::TempDir;

use crate::devkeyd::Listening;

/// A device on which no token has been made yet.
pub(crate) struct Device {
    back_end: &'static BackEnd,
    settings: Settings,
    dir: TempDir,
    service: Mutex<Option<Listening>>,
    /// A simulator, say: ended when dropped.
    _guard: Box<dyn Any + Send + Sync>,
}

impl Device {
    pub(crate) fn new(
        back_end: &'static BackEnd,
        settings: Settings,
        guard: impl Any + Send + Sync,
    ) -> Self {
        (back_end.check)(&settings).unwrap();
        Device {
            back_end,
            settings,
            dir: TempDir::new().unwrap(),
            service: Mutex::default(),
            _guard: Box::new(guard),
        }
    }

    /// Prepares it for a token.
    pub(crate) fn create(&self) -> Arc<dyn Provider> {
        (self.back_end.create)(&self.place(None)).unwrap()
    }

    /// Opens it anew, as another process does.
    pub(crate) fn open(&self, binding: Option<&str>) -> Arc<dyn Provider> {
        (self.back_end.open)(&self.place(binding)).unwrap()
    }

    /// Its back end and settings, and the directory of a token on it.
    pub(crate) fn token(&self) -> (&'static BackEnd, &Settings, PathBuf) {
        (self.back_end, &self.settings, self.dir.path().join("token"))
    }

    /// The socket of a service that listens and has the token of this device, by the name `token`.
    pub(crate) fn socket(&self) -> PathBuf {
        let [config, socket] = ["devkey.toml", "socket"].map(|name| self.dir.path().join(name));
        self.service.lock().unwrap().get_or_insert_with(|| {
            let text = format!("[token.token]\ndirectory = {:?}\n", self.token().2);
            std::fs::write(&config, text).unwrap();
            Listening::start(&config, &socket)
        });
        socket
    }

    /// Ends that service; the next to want it starts another one, with its own rights.
    pub(crate) fn end_service(&self) {
        self.service.lock().unwrap().take();
    }

    /// All that the back end keeps in the token's directory.
    pub(crate) fn files(&self) -> Vec<Vec<u8>> {
        std::fs::read_dir(self.dir.path())
            .unwrap()
            .map(|entry| std::fs::read(entry.unwrap().path()).unwrap())
            .collect()
    }

    fn place<'a>(&'a self, binding: Option<&'a str>) -> Place<'a> {
        Place {
            dir: self.dir.path(),
            settings: &self.settings,
            binding,
        }
    }
}
