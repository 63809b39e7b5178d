//! The directories that tokens are looked for in.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use rustix::fs::stat;
use rustix::io::Errno;

use super::{Layer, check_name};
use crate::error::{Error, Result};
use crate::files::check_kept;
use crate::store::Store;

/// Refuses a store that others could put a token into. One that is not there is none.
pub(super) fn check_store(store: &Path, keeper: Option<u32>) -> Result<()> {
    match stat(store) {
        Ok(stat) => check_kept(store, &stat, keeper),
        Err(Errno::NOENT) => Ok(()),
        Err(e) => Err(unreadable(store, e.into())),
    }
}

/// The token of that name in a store that may be used.
pub(super) fn token_in(layer: &Layer, name: &str) -> Option<PathBuf> {
    let store = layer.store.as_ref()?;
    let dir = store.join(name);
    (check_store(store, layer.keeper).is_ok() && Store::exists(&dir)).then_some(dir)
}

/// A store's tokens, sorted. A store that cannot be used has none; it is said why.
pub(super) fn token_dirs(store: &Path, keeper: Option<u32>) -> Vec<(String, PathBuf)> {
    let listed = check_store(store, keeper).and_then(|()| list(store));
    let mut names = listed.unwrap_or_else(|e| {
        log::warn!("{e}");
        Vec::new()
    });
    names.sort_unstable();
    let place = |name: String| (name.clone(), store.join(name));
    let dirs = names.into_iter().map(place);
    dirs.filter(|(_, dir)| Store::exists(dir)).collect()
}

/// The names in a store that can be tokens'.
pub(super) fn list(store: &Path) -> Result<Vec<String>> {
    let entries = match std::fs::read_dir(store) {
        Ok(entries) => entries,
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        Err(e) => return Err(unreadable(store, e)),
    };
    let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    Ok(names.filter(|name| check_name(name).is_ok()).collect())
}

pub(super) fn unreadable(store: &Path, error: std::io::Error) -> Error {
    Error::io(format!("reading {}", store.display()), error)
}
