//! What `fuzz/` tries for hours, tried for seconds: the committed seeds, and what becomes of them
//! when some of their bytes change. The same bytes at each run.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "what cannot go on has failed"
)]

use std::fs;
use std::path::{Path, PathBuf};

use devkey::untrusted::{READERS, Reader};

/// Changed copies of each seed.
const COPIES: usize = 400;

/// Seen to fail with `decode` giving its message where bytes are left over, and with the line of a
/// `BadConfig` counted from 0.
#[test]
fn whatever_is_read_is_read_to_the_end() {
    for (name, read) in READERS {
        let seeds = seeds(name);
        assert!(!seeds.is_empty(), "no seeds for {name}");
        for (path, seed) in &seeds {
            try_one(*read, seed, path);
            let mut random = Random(seed.len() as u64 + 1);
            for _ in 0..COPIES {
                try_one(*read, &random.change(seed.clone(), &seeds), path);
            }
        }
    }
}

/// What has no fuzz target is not tried for hours.
#[test]
fn every_kind_has_its_target() {
    let targets = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/targets");
    let mut files: Vec<_> = fs::read_dir(targets)
        .unwrap()
        .map(|entry| entry.unwrap().path().file_stem().unwrap().to_owned())
        .collect();
    files.sort();
    let mut names: Vec<_> = READERS.iter().map(|(name, _)| *name).collect();
    names.sort_unstable();
    assert_eq!(files, names);
}

fn try_one(read: Reader, bytes: &[u8], path: &Path) {
    if let Err(e) = read(bytes) {
        panic!("from {}: {e}: {bytes:02x?}", path.display());
    }
}

fn seeds(name: &str) -> Vec<(PathBuf, Vec<u8>)> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("fuzz/seeds")
        .join(name);
    let files = fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().path());
    let mut all: Vec<_> = files
        .map(|path| (path.clone(), fs::read(path).unwrap()))
        .collect();
    all.sort();
    all
}

/// xorshift64.
struct Random(u64);

impl Random {
    fn below(&mut self, most: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) as usize % most.max(1)
    }

    /// One to four changes: a bit, a byte, a cut, a piece of another seed, a repetition.
    fn change(&mut self, mut bytes: Vec<u8>, seeds: &[(PathBuf, Vec<u8>)]) -> Vec<u8> {
        for _ in 0..=self.below(4) {
            let at = self.below(bytes.len());
            match self.below(6) {
                _ if bytes.is_empty() => bytes.push(self.below(256) as u8),
                0 => bytes[at] ^= 1 << self.below(8),
                1 => bytes[at] = [0, 1, 0x7f, 0x80, 0xff][self.below(5)],
                2 => bytes.truncate(at),
                3 => drop(bytes.remove(at)),
                4 => {
                    let other = &seeds[self.below(seeds.len())].1;
                    let from = self.below(other.len());
                    bytes.splice(at.., other[from..].iter().copied());
                }
                _ => {
                    let piece = bytes[at..(at + 1 + self.below(16)).min(bytes.len())].to_vec();
                    bytes.splice(at..at, piece);
                }
            }
        }
        bytes
    }
}
