//! The simulated chip as a node of a file system (FUSE, which needs no library, only `/dev/fuse`).
//!
//! The directory that it is mounted on holds `puf0`, a fresh reading at each opening, and `control`,
//! into which conditions and faults are written while it runs.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::fmt;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, UNIX_EPOCH};

use fuser::{
    BackgroundSession, Config, Errno, FileAttr, FileHandle, FileType, Filesystem, FopenFlags,
    Generation, INodeNo, LockOwner, MountOption, OpenFlags, ReplyAttr, ReplyData, ReplyDirectory,
    ReplyEmpty, ReplyEntry, ReplyOpen, ReplyWrite, Request, SessionACL, TimeOrNow, WriteFlags,
};

use super::chip::{Chip, Conditions};
use crate::error::{Error, Result};
use crate::secret::Secret;

/// The device's name in the directory.
const DEVICE: &str = "puf0";
/// The name of what is written to.
const CONTROL: &str = "control";
/// Nothing is cached: modes and faults change.
const NOW: Duration = Duration::ZERO;

/// What is wrong with the device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// Nothing.
    None,
    /// There is no node.
    Missing,
    /// Opening it gives `EBUSY`.
    Busy,
    /// Reading it gives `EIO`.
    Io,
    /// A reading ends after half of it.
    Short,
    /// All bits are one.
    Stuck,
    /// A reading never comes.
    Silent,
    /// It goes away after the first 64 bytes: `ENODEV`.
    Unplugged,
    /// Every opening gives the same reading, as of a window that was latched at boot.
    Latched,
}

impl Fault {
    /// Every fault with its name.
    pub const ALL: [(&str, Fault); 9] = [
        ("none", Fault::None),
        ("missing", Fault::Missing),
        ("busy", Fault::Busy),
        ("io", Fault::Io),
        ("short", Fault::Short),
        ("stuck", Fault::Stuck),
        ("silent", Fault::Silent),
        ("unplugged", Fault::Unplugged),
        ("latched", Fault::Latched),
    ];
}

/// A mounted device. Dropping it takes it away.
#[derive(Debug)]
pub struct Node {
    state: Arc<Mutex<State>>,
    session: Option<BackgroundSession>,
}

/// What the device does now.
struct State {
    chip: Chip,
    conditions: Conditions,
    fault: Fault,
    mode: u16,
    /// User and group that it belongs to.
    owner: (u32, u32),
    /// Readings so far: the number of each is its noise.
    readings: u64,
    /// What is open, each with its reading, by handle.
    open: HashMap<u64, Secret>,
    /// Openings so far.
    openings: u64,
    /// Reads that are never answered.
    unanswered: Vec<ReplyData>,
}

impl Node {
    /// Mounts `chip` on a directory. The readings are numbered from `first`.
    ///
    /// # Errors
    /// [`Error::Io`] where there is no `/dev/fuse` or no right to mount; root needs no more.
    pub fn mount(chip: Chip, conditions: Conditions, first: u64, dir: &Path) -> Result<Self> {
        let state = Arc::new(Mutex::new(State {
            chip,
            conditions,
            fault: Fault::None,
            mode: 0o440,
            owner: mounter(),
            readings: first,
            open: HashMap::new(),
            openings: 0,
            unanswered: Vec::new(),
        }));
        let mut options = Config::default();
        options.mount_options = vec![
            MountOption::FSName("devkey-puf".to_owned()),
            MountOption::DefaultPermissions,
            MountOption::NoDev,
            MountOption::NoSuid,
        ];
        // Without it not even root could look into what another user mounted.
        options.acl = match rustix::process::geteuid().is_root() {
            true => SessionACL::All,
            false => SessionACL::Owner,
        };
        let session = fuser::spawn_mount(Device(state.clone()), dir, &options)
            .map_err(|e| Error::io(format!("mounting on {}", dir.display()), e))?;
        Ok(Node {
            state,
            session: Some(session),
        })
    }

    /// What the device is read under from now on.
    pub fn set(&self, conditions: Conditions) {
        lock(&self.state).conditions = conditions;
    }

    /// What is wrong with it from now on.
    pub fn fail(&self, fault: Fault) {
        lock(&self.state).fail(fault);
    }

    /// How many readings were taken.
    pub fn readings(&self) -> u64 {
        lock(&self.state).readings
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.fail(Fault::None);
        // Unmounts, and does not wait for the end of the session: that comes only when the last copy of
        // the mount is gone, and whoever has a mount namespace of his own may have one.
        drop(self.session.take());
    }
}

impl State {
    fn fail(&mut self, fault: Fault) {
        self.fault = fault;
        for reply in self.unanswered.drain(..) {
            reply.error(Errno::EIO);
        }
    }

    /// One line of what was written to `control`: `name value`.
    fn control(&mut self, line: &str) -> Option<()> {
        let (name, value) = line
            .split_once([' ', '='])
            .map(|(n, v)| (n.trim(), v.trim()))?;
        if name == "fault" {
            let fault = Fault::ALL.iter().find(|(known, _)| *known == value)?.1;
            self.fail(fault);
            return Some(());
        }
        let number: f64 = value
            .parse()
            .ok()
            .filter(|number: &f64| number.is_finite())?;
        match name {
            "noise" => self.conditions.noise = number,
            "temperature" => self.conditions.temperature = number,
            "age" => self.conditions.age = number,
            _ => return None,
        }
        Some(())
    }

    fn opened(&mut self) -> u64 {
        if self.fault != Fault::Latched {
            self.readings += 1;
        }
        let mut reading = self.chip.read(&self.conditions, self.readings);
        match self.fault {
            Fault::Stuck => reading.expose_mut().fill(0xff),
            Fault::Short => reading.truncate(reading.len() / 2),
            _ => {}
        }
        self.openings += 1;
        self.open.insert(self.openings, reading);
        self.openings
    }

    /// The bytes at an offset.
    fn bytes(&self, handle: FileHandle, offset: u64, size: u32) -> Result<&[u8], Errno> {
        let end = match self.fault {
            Fault::Io => return Err(Errno::EIO),
            Fault::Unplugged if offset > 0 => return Err(Errno::ENODEV),
            Fault::Unplugged => 64,
            _ => u64::from(size),
        };
        let reading = self.open.get(&handle.0).ok_or(Errno::EBADF)?;
        let start = usize::try_from(offset)
            .unwrap_or(usize::MAX)
            .min(reading.len());
        let rest = reading.expose().get(start..).unwrap_or_default();
        let end = usize::try_from(end.min(u64::from(size))).unwrap_or_default();
        Ok(rest.get(..end).unwrap_or(rest))
    }

    fn attributes(&self, inode: u64) -> Option<FileAttr> {
        let (kind, perm, nlink) = match inode {
            1 => (FileType::Directory, 0o755, 2),
            2 if self.fault != Fault::Missing => (FileType::RegularFile, self.mode, 1),
            3 => (FileType::RegularFile, 0o600, 1),
            _ => return None,
        };
        let (uid, gid) = match inode {
            2 => self.owner,
            _ => mounter(),
        };
        Some(FileAttr {
            ino: INodeNo(inode),
            size: 0,
            blocks: 0,
            atime: UNIX_EPOCH,
            mtime: UNIX_EPOCH,
            ctime: UNIX_EPOCH,
            crtime: UNIX_EPOCH,
            kind,
            perm,
            nlink,
            uid,
            gid,
            rdev: 0,
            blksize: 512,
            flags: 0,
        })
    }
}

/// User and group of this process.
fn mounter() -> (u32, u32) {
    let (uid, gid) = (rustix::process::geteuid(), rustix::process::getegid());
    (uid.as_raw(), gid.as_raw())
}

/// The file system.
struct Device(Arc<Mutex<State>>);

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Filesystem for Device {
    fn lookup(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let inode = match (parent.0, name.to_str()) {
            (1, Some(DEVICE)) => 2,
            (1, Some(CONTROL)) => 3,
            _ => 0,
        };
        match lock(&self.0).attributes(inode) {
            Some(attributes) => reply.entry(&NOW, &attributes, Generation(0)),
            None => reply.error(Errno::ENOENT),
        }
    }

    fn getattr(&self, _: &Request, inode: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        match lock(&self.0).attributes(inode.0) {
            Some(attributes) => reply.attr(&NOW, &attributes),
            None => reply.error(Errno::ENOENT),
        }
    }

    /// chmod(1) and chown(1) work on the device; what else would be set is not.
    fn setattr(
        &self,
        _: &Request,
        inode: INodeNo,
        mode: Option<u32>,
        uid: Option<u32>,
        gid: Option<u32>,
        _: Option<u64>,
        _: Option<TimeOrNow>,
        _: Option<TimeOrNow>,
        _: Option<std::time::SystemTime>,
        _: Option<FileHandle>,
        _: Option<std::time::SystemTime>,
        _: Option<std::time::SystemTime>,
        _: Option<std::time::SystemTime>,
        _: Option<fuser::BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        let mut state = lock(&self.0);
        if inode.0 == 2 {
            let (user, group) = state.owner;
            state.owner = (uid.unwrap_or(user), gid.unwrap_or(group));
            state.mode = mode.map_or(state.mode, |mode| (mode & 0o777) as u16);
        }
        match state.attributes(inode.0) {
            Some(attributes) => reply.attr(&NOW, &attributes),
            None => reply.error(Errno::ENOENT),
        }
    }

    fn open(&self, _: &Request, inode: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        let mut state = lock(&self.0);
        let handle = match (inode.0, state.fault) {
            (2, Fault::Busy) => return reply.error(Errno::EBUSY),
            (2, _) => state.opened(),
            _ => 0,
        };
        reply.opened(FileHandle(handle), FopenFlags::FOPEN_DIRECT_IO);
    }

    fn read(
        &self,
        _: &Request,
        _: INodeNo,
        handle: FileHandle,
        offset: u64,
        size: u32,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyData,
    ) {
        let mut state = lock(&self.0);
        if state.fault == Fault::Silent {
            return state.unanswered.push(reply);
        }
        match state.bytes(handle, offset, size) {
            Ok(bytes) => reply.data(bytes),
            Err(errno) => reply.error(errno),
        }
    }

    fn write(
        &self,
        _: &Request,
        inode: INodeNo,
        _: FileHandle,
        _: u64,
        data: &[u8],
        _: WriteFlags,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        if inode.0 != 3 {
            return reply.error(Errno::EPERM);
        }
        let text = String::from_utf8_lossy(data);
        let mut lines = text.lines().filter(|line| !line.trim().is_empty());
        let mut state = lock(&self.0);
        match lines.all(|line| state.control(line).is_some()) {
            true => reply.written(data.len() as u32),
            false => reply.error(Errno::EINVAL),
        }
    }

    fn release(
        &self,
        _: &Request,
        _: INodeNo,
        handle: FileHandle,
        _: OpenFlags,
        _: Option<LockOwner>,
        _: bool,
        reply: ReplyEmpty,
    ) {
        lock(&self.0).open.remove(&handle.0);
        reply.ok();
    }

    fn readdir(
        &self,
        _: &Request,
        _: INodeNo,
        _: FileHandle,
        from: u64,
        mut reply: ReplyDirectory,
    ) {
        let missing = lock(&self.0).fault == Fault::Missing;
        let entries = [
            (1, FileType::Directory, "."),
            (1, FileType::Directory, ".."),
            (3, FileType::RegularFile, CONTROL),
            (2, FileType::RegularFile, DEVICE),
        ];
        let entries = entries.iter().take(if missing { 3 } else { 4 });
        let start = usize::try_from(from).unwrap_or(usize::MAX);
        for (at, (inode, kind, name)) in entries.enumerate().skip(start) {
            if reply.add(INodeNo(*inode), at as u64 + 1, *kind, name) {
                break;
            }
        }
        reply.ok();
    }
}

impl fmt::Debug for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("State")
            .field("conditions", &self.conditions)
            .field("fault", &self.fault)
            .finish_non_exhaustive()
    }
}
