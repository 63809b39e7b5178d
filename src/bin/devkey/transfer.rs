//! Files that cross between a device and its CA: from a file or standard input, to a file or standard
//! output.

use std::fs::{self, File, Permissions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use devkey::Error;
use devkey::identity::bundle::{self, Most};
use devkey::identity::flow::{self, Digest};
use devkey::key::PublicKey;

use crate::failure::{Failure, Result};
use crate::output::Answer;

/// Where a result goes.
#[derive(Debug, clap::Args)]
pub(crate) struct Out {
    /// Write the result to this file, whole or not at all [default: standard output]
    #[arg(long, short, value_name = "FILE")]
    out: Option<PathBuf>,
}

impl Out {
    /// Writes what is public: to a file that all may read, or with the answer.
    pub(crate) fn put(&self, bytes: Vec<u8>) -> Result<Answer> {
        match self.file() {
            None => Ok(Answer::bytes(bytes)),
            Some(path) => {
                replace(path, &bytes)?;
                Ok(Answer::text(format!("wrote {}", path.display())))
            }
        }
    }

    fn file(&self) -> Option<&Path> {
        let standard = ["-", "/dev/stdout"].map(Path::new);
        self.out.as_deref().filter(|path| !standard.contains(path))
    }
}

/// Reads a file that crosses; `-` is standard input.
pub(crate) fn read(path: &Path) -> Result<Vec<u8>> {
    read_most(path, flow::MAX)
}

/// The certificates of a file, DER.
pub(crate) fn certificates(path: &Path) -> Result<Vec<Vec<u8>>> {
    let bytes = read_most(path, Most::ANCHORS.bytes)?;
    let named = |e: Error| Error::input(format!("{}: {e}", path.display()));
    Ok(bundle::certificates(&bytes, Most::ANCHORS).map_err(named)?)
}

/// The key of a CA: from its certificate, or the fingerprint itself.
pub(crate) fn authority(text: &str) -> Result<Digest> {
    if let Ok(fingerprint) = text.parse() {
        return Ok(fingerprint);
    }
    let path = Path::new(text);
    let explained = |failure: Failure| {
        let remedy = "name a file with the CA's certificate, or its fingerprint: devkey ca show";
        Failure::new(failure.what, remedy)
    };
    let all = certificates(path).map_err(explained)?;
    let own = all.first().map(Vec::as_slice).unwrap_or_default();
    Ok(flow::fingerprint(&PublicKey::from_certificate(own)?))
}

/// One byte more than the most is read, to see that it is too long.
fn read_most(path: &Path, most: usize) -> Result<Vec<u8>> {
    let shown = path.display();
    let failed = |e: io::Error| match e.kind() {
        io::ErrorKind::NotFound => Failure::from(Error::NotFound(shown.to_string())),
        _ => Error::io(format!("reading {shown}"), e).into(),
    };
    let mut bytes = Vec::new();
    let limit = most as u64 + 1;
    match path == Path::new("-") {
        true => io::stdin().lock().take(limit).read_to_end(&mut bytes),
        false => File::open(path).and_then(|file| file.take(limit).read_to_end(&mut bytes)),
    }
    .map_err(failed)?;
    match bytes.len() <= most {
        true => Ok(bytes),
        false => Err(Error::input(format!("{shown} has more than {most} bytes")).into()),
    }
}

/// Writes a file: the old contents or the new, never anything between.
fn replace(path: &Path, bytes: &[u8]) -> Result<()> {
    let shown = path.display();
    let failed = |e| {
        let error = Error::io(format!("writing {shown}"), e);
        Failure::new(
            error,
            "name another file with -o, and run the command again",
        )
    };
    // What is no file is not replaced: a FIFO, or a symbolic link, whose place is its maker's choice.
    if fs::symlink_metadata(path).is_ok_and(|there| !there.is_file()) {
        let file = File::options().write(true).truncate(true).open(path);
        return file
            .and_then(|mut file| file.write_all(bytes))
            .map_err(failed);
    }
    let Some(name) = path.file_name() else {
        return Err(Error::input(format!("{shown} is no file")).into());
    };
    let random = Digest::random()?.to_string();
    let temporary = path.with_file_name(format!(".{}.{random:.16}", name.display()));
    let written = write_new(&temporary, bytes).and_then(|()| fs::rename(&temporary, path));
    written.map_err(|e| {
        // The name is ours alone.
        let _ = fs::remove_file(&temporary);
        failed(e)
    })
}

/// Of mode 0644 whatever the umask: nothing that crosses is a secret.
fn write_new(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut options = File::options();
    let mut file = options
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)?;
    file.set_permissions(Permissions::from_mode(0o644))?;
    file.write_all(bytes)?;
    file.sync_all()
}
