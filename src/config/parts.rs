//! A configuration file with those in the directory beside it: `devkey.toml.d/*.toml`, which programs and packages
//! put there, so that none of them writes into an administrator's file.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use super::file::{self, Parsed};
use crate::error::Result;
use crate::files::Dir;

/// What all of them say, a later one before an earlier one, and which there are: the file itself first, then the
/// others in the order of their names.
pub(super) fn read(path: &Path, needed: bool) -> Result<(Parsed, Vec<PathBuf>)> {
    let mut all = Parsed::default();
    let mut files = parts(path)?;
    if needed || path.symlink_metadata().is_ok() {
        files.insert(0, path.to_owned());
    }
    for file in &files {
        all.heed(file::read(file)?);
    }
    Ok((all, files))
}

/// The directory of the other files.
pub fn parts_dir(path: &Path) -> PathBuf {
    let mut dir = OsString::from(path);
    dir.push(".d");
    dir.into()
}

fn parts(path: &Path) -> Result<Vec<PathBuf>> {
    let path = parts_dir(path);
    // Nor where nobody may look: a service whose HOME is still another user's.
    if path.symlink_metadata().is_err() {
        return Ok(Vec::new());
    }
    let dir = Dir::open(&path)?;
    // Not those of an editor or of dpkg, nor what is hidden.
    let is_part = |name: &String| name.ends_with(".toml") && !name.starts_with('.');
    let names = dir.names()?.into_iter().filter(is_part);
    Ok(names.map(|name| path.join(name)).collect())
}

#[cfg(test)]
mod tests {
    use std::fs::{self, Permissions};
    use std::os::unix::fs::PermissionsExt;

    use super::super::Service;
    use super::*;
    use crate::error::Error;

    fn write(path: &Path, text: &str) {
        fs::write(path, text).unwrap();
        fs::set_permissions(path, Permissions::from_mode(0o600)).unwrap();
    }

    /// Seen to fail with each line of both `heed` taken out, with `extend` for the search in `Parsed::heed`, with
    /// the names in the other order, with either half of `is_part`, and with `needed` alone in `read`.
    #[test]
    fn a_later_part_goes_before_an_earlier_one_key_by_key() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("devkey.toml");
        let dir = home.path().join("devkey.toml.d");
        fs::create_dir(&dir).unwrap();
        fs::set_permissions(&dir, Permissions::from_mode(0o755)).unwrap();
        write(
            &path,
            "store = '/1'\ndevkeyd = '/1'\nsocket = '/1'\nuser = '1'\nrenew.command = '1'\n\
             renew.after = '1'\n[token.a]\ndirectory = '/1'\nenabled = true\nalone = false\n\
             initialise = false\nback_end = 'file'\nservice = 'auto'\nuse = ['root']\n\
             t = '1'\nu = '1'\nkey.k.use = ['root']\n",
        );
        write(
            &dir.join("2.toml"),
            "store = '/3'\nrenew.after = '3'\n[token.b]\n",
        );
        let second = "store = '/2'\ndevkeyd = '/2'\nsocket = '/2'\nuser = '2'\nrenew.after = '2'\n\
                      [token.a]\ndirectory = '/2'\nenabled = false\nalone = true\ninitialise = true\n\
                      back_end = 'tpm'\nservice = 'never'\nt = '2'\nkey.k.manage = ['root']\n";
        write(&dir.join("1.toml"), second);
        for other in [".0.toml", "3.toml~", "3.toml.dpkg-new", "README"] {
            write(&dir.join(other), "is none");
        }
        let (parsed, files) = read(&path, false).unwrap();
        assert_eq!(files, [path, dir.join("1.toml"), dir.join("2.toml")]);
        assert_eq!(parsed.store, Some("/3".into()));
        assert_eq!(
            [parsed.devkeyd, parsed.socket],
            ["/2"; 2].map(|path| Some(path.into()))
        );
        assert_eq!(parsed.user.as_deref(), Some("2"));
        let renew = [parsed.renew.command, parsed.renew.after];
        assert_eq!(renew, ["1", "3"].map(|text| Some(text.to_owned())));
        let [a, b] = &*parsed.tokens else {
            panic!("{:?}", parsed.tokens)
        };
        assert_eq!([&*a.name, &*b.name], ["a", "b"]);
        assert_eq!(a.directory, Some("/2".into()));
        let flags = [a.enabled, a.alone, a.initialise];
        assert_eq!(flags, [false, true, true].map(Some));
        assert_eq!(
            (a.back_end.as_deref(), a.service),
            (Some("tpm"), Some(Service::Never))
        );
        assert!(a.rules.token.use_by.is_some());
        assert!(a.rules.keys["k"].use_by.is_some() && a.rules.keys["k"].manage_by.is_some());
        let settings = a.settings.iter().map(|one| (&*one.name, &*one.value));
        assert_eq!(settings.collect::<Vec<_>>(), [("u", "1"), ("t", "2")]);
    }

    /// Seen to fail without `needed` in `read`.
    #[test]
    fn parts_need_no_file_beside_them() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("devkey.toml");
        assert!(read(&path, false).unwrap().1.is_empty());
        assert!(matches!(
            read(&path, true),
            Err(Error::Io { .. } | Error::NotFound(_))
        ));
        fs::create_dir(parts_dir(&path)).unwrap();
        let part = parts_dir(&path).join("1.toml");
        write(&part, "store = '/1'\n");
        let (parsed, files) = read(&path, false).unwrap();
        assert_eq!((parsed.store, files), (Some("/1".into()), vec![part]));
    }

    /// Seen to fail with an error of `Dir::open` taken for an empty directory.
    #[test]
    fn a_directory_that_others_can_write_is_refused() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("devkey.toml");
        fs::create_dir(parts_dir(&path)).unwrap();
        fs::set_permissions(parts_dir(&path), Permissions::from_mode(0o777)).unwrap();
        assert!(matches!(read(&path, false), Err(Error::Refused { .. })));
    }
}
