//! A device node: opened, judged, and read within a deadline; and what its errors mean.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{self, FileType, Mode, OFlags, Stat};
use rustix::io::{self, Errno};
use rustix::process::geteuid;

use crate::error::{Error, Result};

/// How long a device that says that it is busy is asked again.
const BUSY: Duration = Duration::from_secs(2);
/// The first pause between two such attempts; each next is twice as long.
const PAUSE: Duration = Duration::from_millis(10);

/// How a node is to be opened.
#[derive(Debug, Clone, Copy)]
pub(super) struct Wanted {
    /// Besides character devices, regular files are taken.
    pub(super) file: bool,
    /// It is written to as well.
    pub(super) write: bool,
}

/// An open node and the time until which it may take to answer.
#[derive(Debug)]
pub(super) struct Node {
    fd: OwnedFd,
    path: PathBuf,
    patience: Duration,
    deadline: Instant,
}

impl Node {
    /// Opens a device that nobody but its owner and its group can read, and waits if it is busy.
    ///
    /// # Errors
    /// [`Error::DeviceGone`] where it is not there or access to it is denied, [`Error::Refused`] for
    /// what is no device or open to all, [`Error::DeviceError`] and [`Error::Timeout`].
    pub(super) fn open(path: &Path, wanted: Wanted, patience: Duration) -> Result<Self> {
        let access = match wanted.write {
            true => OFlags::RDWR,
            false => OFlags::RDONLY,
        };
        // Without O_NONBLOCK the opening itself waits: of a FIFO for a writer, of a tty for a carrier.
        let flags = access | OFlags::CLOEXEC | OFlags::NOCTTY | OFlags::NONBLOCK;
        // Looked at before it is opened, since that alone makes some nodes do things, and after.
        let before = fs::stat(path).map_err(|e| fault(path, e))?;
        judge(path, &before, wanted)?;
        let start = Instant::now();
        let fd = while_busy(path, patience, || fs::open(path, flags, Mode::empty()))?;
        let stat = fs::fstat(&fd).map_err(|e| fault(path, e))?;
        judge(path, &stat, wanted)?;
        Ok(Node {
            fd,
            path: path.to_owned(),
            patience,
            deadline: start + patience,
        })
    }

    /// Its path.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Waits until another time instead.
    pub(super) fn until(&mut self, deadline: Instant) {
        self.deadline = deadline;
    }

    /// Fills `buffer`, however the device cuts its answer, and asks for no byte more: some drivers
    /// have no end. Returns how many bytes there were.
    ///
    /// # Errors
    /// [`Error::DeviceError`] where it ends before `least` bytes.
    pub(super) fn fill(&self, buffer: &mut [u8], least: usize) -> Result<usize> {
        let mut got = 0;
        while let Some(rest) = buffer.get_mut(got..).filter(|rest| !rest.is_empty()) {
            match self.read(rest)? {
                0 if got < least => return Err(self.short(got, least)),
                0 => break,
                n => got += n,
            }
        }
        Ok(got)
    }

    /// What comes next, at most as much as fits; 0 at the end.
    pub(super) fn read(&self, buffer: &mut [u8]) -> Result<usize> {
        self.wait(PollFlags::IN)?;
        while_busy(&self.path, self.left()?, || {
            io::read(&self.fd, &mut *buffer)
        })
    }

    /// Writes all of it.
    pub(super) fn write_all(&self, mut bytes: &[u8]) -> Result<()> {
        while !bytes.is_empty() {
            self.wait(PollFlags::OUT)?;
            let n = while_busy(&self.path, self.left()?, || io::write(&self.fd, bytes))?;
            bytes = bytes.get(n..).unwrap_or_default();
        }
        Ok(())
    }

    /// Waits until it can be read or written. A device whose driver cannot tell is always ready.
    fn wait(&self, what: PollFlags) -> Result<()> {
        loop {
            let left = self.left()?;
            let time = Timespec {
                tv_sec: left.as_secs() as i64,
                tv_nsec: left.subsec_nanos().into(),
            };
            let mut fds = [PollFd::new(&self.fd, what)];
            match poll(&mut fds, Some(&time)) {
                Ok(0) => return Err(self.silent()),
                Ok(_) => return Ok(()),
                Err(Errno::INTR) => {}
                Err(e) => return Err(fault(&self.path, e)),
            }
        }
    }

    fn left(&self) -> Result<Duration> {
        let left = self.deadline.saturating_duration_since(Instant::now());
        match left.is_zero() {
            true => Err(self.silent()),
            false => Ok(left),
        }
    }

    fn silent(&self) -> Error {
        Error::Timeout {
            what: self.path.display().to_string(),
            seconds: self.patience.as_secs(),
        }
    }

    fn short(&self, got: usize, wanted: usize) -> Error {
        failed(
            &self.path,
            format!("it gave {got} bytes and then no more; {wanted} are needed"),
        )
    }
}

impl AsFd for Node {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// Judges a node without opening it, which alone makes some nodes do things.
///
/// # Errors
/// As [`Node::open`].
pub(super) fn look(path: &Path, wanted: Wanted) -> Result<()> {
    let stat = fs::stat(path).map_err(|e| fault(path, e))?;
    judge(path, &stat, wanted)
}

/// An error that the device answered with, or an answer that is none.
pub(super) fn failed(path: &Path, reason: impl Into<String>) -> Error {
    Error::DeviceError {
        device: path.display().to_string(),
        reason: reason.into(),
    }
}

/// What an errno of a device means for its user.
pub(super) fn fault(path: &Path, errno: Errno) -> Error {
    let gone = |reason: String| Error::DeviceGone {
        device: path.display().to_string(),
        reason,
    };
    match errno {
        Errno::NOENT | Errno::NOTDIR => gone(
            "not there; plug the device in, load its driver, or correct the setting device".into(),
        ),
        Errno::NODEV | Errno::NXIO => {
            gone("the device behind it has gone; plug it in again, or load its driver".into())
        }
        Errno::ACCESS | Errno::PERM => gone(format!("no permission{}", who_may(path))),
        Errno::AGAIN | Errno::BUSY => {
            gone("busy all the time; end the other program that uses it, and try again".to_owned())
        }
        Errno::IO => failed(path, "the device reports an I/O error (EIO)"),
        other => failed(path, std::io::Error::from(other).to_string()),
    }
}

/// Does it again while the device says that it is busy, for [`BUSY`] at most, and after signals.
fn while_busy<T>(
    path: &Path,
    patience: Duration,
    mut op: impl FnMut() -> io::Result<T>,
) -> Result<T> {
    let end = Instant::now() + BUSY.min(patience);
    let mut pause = PAUSE;
    loop {
        match op() {
            Err(Errno::INTR) => {}
            Err(Errno::AGAIN | Errno::BUSY) if Instant::now() < end => {
                std::thread::sleep(pause.min(end.saturating_duration_since(Instant::now())));
                pause *= 2;
            }
            result => return result.map_err(|e| fault(path, e)),
        }
    }
}

/// Refuses what is no device, and what others can read, since whoever reads it has its keys.
fn judge(path: &Path, stat: &Stat, wanted: Wanted) -> Result<()> {
    let refused = |reason: String| {
        Err(Error::Refused {
            path: path.to_owned(),
            reason,
        })
    };
    let kind = FileType::from_raw_mode(stat.st_mode);
    let what = match kind {
        FileType::CharacterDevice => None,
        FileType::RegularFile if wanted.file => None,
        FileType::RegularFile => Some(
            "a regular file, and no device; where it is one all the same, as sysfs' *.sram \
             attributes are, say so with allow_file = \"yes\"",
        ),
        FileType::Fifo => Some("a FIFO is no device: anyone could be writing into it"),
        FileType::Socket => Some("a socket is no device"),
        FileType::Directory => Some("a directory; name the device's node itself"),
        FileType::BlockDevice => Some("a block device; a PUF is a character device"),
        _ => Some("not a character device"),
    };
    if let Some(what) = what {
        return refused(what.to_owned());
    }
    let (shown, us) = (path.display(), geteuid().as_raw());
    if stat.st_mode & 0o006 != 0 {
        return refused(format!(
            "others can read or write it, and what is read from it is the key; \
             chmod o-rw {shown}, and give it MODE=\"0440\" in a udev rule"
        ));
    }
    if stat.st_uid != us && stat.st_uid != 0 {
        let owner = stat.st_uid;
        return refused(format!(
            "belongs to user {owner}, who could read it; chown root {shown}"
        ));
    }
    Ok(())
}

/// Owner, group and mode of a node that we may not open, and what to do about it.
fn who_may(path: &Path) -> String {
    let Ok(stat) = fs::stat(path) else {
        return " to look into its directory".to_owned();
    };
    let (mode, gid) = (stat.st_mode & 0o777, stat.st_gid);
    let group = group_name(gid).unwrap_or_else(|| gid.to_string());
    format!(
        ": it has mode {mode:04o} and group {group}; run as a member of that group \
         (usermod -aG {group} USER), or give it another by a udev rule"
    )
}

/// The name of a group in /etc/group.
fn group_name(gid: u32) -> Option<String> {
    let groups = std::fs::read_to_string("/etc/group").ok()?;
    let mut fields = groups
        .lines()
        .map(|line| line.split(':').collect::<Vec<_>>());
    let found = fields.find(|fields| fields.get(2).is_some_and(|id| *id == gid.to_string()))?;
    found.first().map(|name| (*name).to_owned())
}
