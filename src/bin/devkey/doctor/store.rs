//! The files of tokens: kind, owner, mode, what interrupted writes left, and room for new ones.

use std::fs::Metadata;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use devkey::config::FoundToken;
use devkey::store::{Entry, look};
use rustix::fs::{StatVfsMountFlags, statvfs};

use super::finding::{Area, Finding};

const AREA: Area = Area::Tokens;
const FILES: &str = "tokens.files";
const LEFTOVERS: &str = "tokens.leftovers";
const DISK: &str = "tokens.disk";
/// A write that is younger may still be going on.
const WRITING: Duration = Duration::from_secs(60);
/// Room for the largest file of a token.
const ROOM: u64 = 256 * 1024;
/// Holds the root of a file token: who reads it has all keys.
const ROOT: &str = "root";

/// The files of a token.
pub(super) fn files(found: &FoundToken, say: &mut dyn FnMut(Finding)) {
    let all = match look(&found.dir, found.reach.keeper) {
        Ok(all) => all,
        Err(error) => return say(Finding::refused(AREA, FILES, &error)),
    };
    let mut wrong: Vec<Finding> = all.iter().filter_map(wrong).collect();
    wrong.extend(open_root(&found.dir.join(ROOT)));
    if wrong.is_empty() {
        say(Finding::ok(AREA, FILES, "nobody else can change them"));
    }
    wrong.into_iter().for_each(&mut *say);
    say(match left(&all) {
        None => Finding::ok(AREA, LEFTOVERS, "no interrupted write"),
        Some(path) => Finding::warning(
            AREA,
            LEFTOVERS,
            format!(
                "a write was interrupted; what was there before is intact: {}",
                path.display()
            ),
        )
        .fix(format!(
            "nothing: the next change clears it away; or rm {}",
            path.display()
        )),
    });
}

/// What is left in the stores of tokens that were never finished.
pub(super) fn drafts(stores: &[PathBuf], say: &mut dyn FnMut(Finding)) {
    for store in stores {
        // That one cannot be listed is said of the configuration.
        let all = look(store, None).unwrap_or_default();
        if let Some(path) = left(&all) {
            let found = format!("a token that was never finished: {}", path.display());
            let finding = Finding::warning(AREA, LEFTOVERS, found).of(store.display());
            say(finding.fix(format!("rm -r {}", path.display())));
        }
    }
}

/// Whether there is room for another key.
pub(super) fn disk(found: &FoundToken, say: &mut dyn FnMut(Finding)) {
    let stat = match statvfs(&found.dir) {
        Ok(stat) => stat,
        Err(errno) => return say(Finding::none(AREA, DISK, errno)),
    };
    let room = stat.f_bavail.saturating_mul(stat.f_frsize);
    // Some file systems have no table of files, and count none.
    let files = stat.f_files == 0 || stat.f_favail > 0;
    say(if stat.f_flag.contains(StatVfsMountFlags::RDONLY) {
        let what = "mounted read-only: keys can be used, none made, and wrong PINs are not counted";
        Finding::warning(AREA, DISK, what).fix("mount it read-write, if that is not on purpose")
    } else if room < ROOM || !files {
        let what = "the disk is full: keys can be used, none made";
        let dir = found.dir.display();
        Finding::failed(AREA, DISK, what).fix(format!("make room: df -h {dir}; df -i {dir}"))
    } else {
        Finding::ok(AREA, DISK, format!("{} MiB free", room / (1024 * 1024)))
    });
}

fn wrong(entry: &Entry) -> Option<Finding> {
    let error = entry.wrong.as_ref()?;
    Some(Finding::error(AREA, FILES, error))
}

fn open_root(path: &Path) -> Option<Finding> {
    let open = |about: Metadata| about.is_file() && about.mode() & 0o004 != 0;
    if !path.symlink_metadata().is_ok_and(open) {
        return None;
    }
    let shown = path.display();
    let found = format!("{shown}: others can read it, and with it use every key of the token");
    Some(Finding::failed(AREA, FILES, found).fix(format!("chmod o-rwx {shown}")))
}

fn left(all: &[Entry]) -> Option<&PathBuf> {
    let old = |entry: &&Entry| entry.draft.is_some_and(|age| age > WRITING);
    all.iter().find(old).map(|entry| &entry.path)
}
