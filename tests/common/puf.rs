//! PUFs for a test: a chip as a FUSE file, each opening of which is another noisy measurement, and a
//! microcontroller at a pty. Both are seeded, and both can fail in every way that real ones do.
//!
//! FUSE gives regular files, so that chips need `allow_file`; the pty is a character device.

#![allow(
    dead_code,
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "not every test needs all of it; what cannot go on has failed"
)]

use std::collections::HashMap;
use std::ffi::OsStr;
use std::fs::File;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread::{self, JoinHandle};
use std::time::{Duration, UNIX_EPOCH};

use devkey::provider::Settings;
use fuser::{
    BackgroundSession, BsdFileFlags, Config, Errno, FileAttr, FileHandle, FileType, Filesystem,
    FopenFlags, Generation, INodeNo, LockOwner, MountOption, OpenFlags, ReplyAttr, ReplyData,
    ReplyEmpty, ReplyEntry, ReplyOpen, ReplyWrite, Request, TimeOrNow, WriteFlags,
};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use tempfile::TempDir;

use super::seed::seed;

/// Length of a chip's measurement in bytes.
pub(crate) const LEN: usize = 2048;
/// Share of cells that read differently than at the first measurement, by default.
pub(crate) const NOISE: f64 = 0.05;

/// What is wrong with a chip.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Fault {
    /// Nothing.
    None,
    /// There is no such node.
    Missing,
    /// Opening fails with this errno, so many times.
    Open(Errno, usize),
    /// Reading fails with this errno, so many times.
    Read(Errno, usize),
    /// So many bytes, then the end; so many times.
    Short(usize, usize),
    /// So many bytes, then ENODEV.
    Unplugged(usize),
    /// Reading never ends.
    Silent,
    /// All bytes are this one.
    Stuck(u8),
    /// So many measurements are nothing but noise.
    Noisy(usize),
}

/// A chip with a node of its own. Unplugged when dropped.
pub(crate) struct Chip {
    // Declared first: unmounted before the directory goes.
    session: Option<BackgroundSession>,
    dir: TempDir,
    state: Arc<Mutex<State>>,
}

/// What a chip is and does.
pub(crate) struct State {
    cells: Vec<u8>,
    seed: u64,
    /// See [`NOISE`].
    pub(crate) noise: f64,
    /// All openings give one measurement, which can be overwritten.
    pub(crate) latched: bool,
    pub(crate) fault: Fault,
    /// Mode of the node.
    pub(crate) mode: u16,
    /// Most bytes that one read gives.
    pub(crate) chunk: usize,
    /// How often it was opened.
    pub(crate) opened: u64,
    open: HashMap<u64, Vec<u8>>,
    /// Readers that wait for ever.
    waiting: Vec<ReplyData>,
}

impl Chip {
    /// A chip like no other of the test's.
    pub(crate) fn new() -> Self {
        Chip::of(seed())
    }

    /// The chip of a seed.
    pub(crate) fn of(seed: u64) -> Self {
        let mut random = Random(seed);
        let cells = (0..LEN).map(|_| random.next() as u8).collect();
        Chip::with(cells, seed)
    }

    /// A chip that starts with these values.
    pub(crate) fn with(cells: Vec<u8>, seed: u64) -> Self {
        let state = Arc::new(Mutex::new(State {
            cells,
            seed,
            noise: NOISE,
            latched: false,
            fault: Fault::None,
            mode: 0o600,
            chunk: 700,
            opened: 0,
            open: HashMap::new(),
            waiting: Vec::new(),
        }));
        let dir = tempfile::Builder::new().prefix("puf-").tempdir().unwrap();
        let mut config = Config::default();
        config.mount_options = vec![MountOption::FSName("devkey-test-puf".to_owned())];
        let session =
            fuser::spawn_mount(Node(state.clone()), dir.path(), &config).unwrap_or_else(|e| {
                panic!(
                    "mounting a simulated PUF (needs /dev/fuse, and fusermount3 unless root): {e}"
                )
            });
        Chip {
            session: Some(session),
            dir,
            state,
        }
    }

    /// Where its node is.
    pub(crate) fn path(&self) -> PathBuf {
        self.dir.path().join("puf0")
    }

    /// The settings of a token on it.
    pub(crate) fn settings(&self) -> Settings {
        settings(&[
            ("device", self.path().to_str().unwrap()),
            ("allow_file", "yes"),
            ("timeout", "2"),
        ])
    }

    /// To look at it and to break it.
    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    /// Breaks it.
    pub(crate) fn fault(&self, fault: Fault) {
        self.state().fault = fault;
    }

    /// Puts another chip into its place.
    pub(crate) fn exchange(&self) {
        let mut state = self.state();
        let mut random = Random(state.seed ^ 0x5eed);
        state.cells = (0..LEN).map(|_| random.next() as u8).collect();
    }

    /// The values that it starts with but for noise.
    pub(crate) fn cells(&self) -> Vec<u8> {
        self.state().cells.clone()
    }
}

impl Drop for Chip {
    fn drop(&mut self) {
        self.state().waiting.clear();
        if let Some(session) = self.session.take() {
            let _ = session.umount_and_join();
        }
    }
}

/// Settings by name.
pub(crate) fn settings(pairs: &[(&str, &str)]) -> Settings {
    let owned = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
    pairs.iter().map(owned).collect()
}

impl State {
    /// A measurement: the cells, of which some flip.
    fn measure(&mut self) -> Vec<u8> {
        self.opened += 1;
        if let Fault::Stuck(byte) = self.fault {
            return vec![byte; self.cells.len()];
        }
        let n = if self.latched { 0 } else { self.opened };
        let mut noise = self.noise;
        if let Fault::Noisy(times @ 1..) = self.fault {
            self.fault = Fault::Noisy(times - 1);
            noise = 0.5;
        }
        noisy(&self.cells, noise, self.seed ^ n << 20)
    }

    fn attributes(&self, request: &Request, ino: INodeNo) -> FileAttr {
        let root = ino == INodeNo::ROOT;
        FileAttr {
            ino,
            size: self.cells.len() as u64,
            blocks: 0,
            atime: UNIX_EPOCH,
            mtime: UNIX_EPOCH,
            ctime: UNIX_EPOCH,
            crtime: UNIX_EPOCH,
            kind: match root {
                true => FileType::Directory,
                false => FileType::RegularFile,
            },
            perm: if root { 0o755 } else { self.mode },
            nlink: 1,
            uid: request.uid(),
            gid: request.gid(),
            rdev: 0,
            blksize: 512,
            flags: 0,
        }
    }
}

/// The file system of one file.
struct Node(Arc<Mutex<State>>);

/// Nothing is remembered by the kernel.
const TTL: Duration = Duration::ZERO;
const FILE: INodeNo = INodeNo(2);

impl Filesystem for Node {
    fn lookup(&self, request: &Request, _parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let state = self.0.lock().unwrap();
        match name == "puf0" && state.fault != Fault::Missing {
            true => reply.entry(&TTL, &state.attributes(request, FILE), Generation(0)),
            false => reply.error(Errno::ENOENT),
        }
    }

    fn getattr(&self, request: &Request, ino: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        let state = self.0.lock().unwrap();
        reply.attr(&TTL, &state.attributes(request, ino));
    }

    fn setattr(
        &self,
        request: &Request,
        ino: INodeNo,
        mode: Option<u32>,
        _uid: Option<u32>,
        _gid: Option<u32>,
        _size: Option<u64>,
        _atime: Option<TimeOrNow>,
        _mtime: Option<TimeOrNow>,
        _ctime: Option<std::time::SystemTime>,
        _fh: Option<FileHandle>,
        _crtime: Option<std::time::SystemTime>,
        _chgtime: Option<std::time::SystemTime>,
        _bkuptime: Option<std::time::SystemTime>,
        _flags: Option<BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        let mut state = self.0.lock().unwrap();
        state.mode = mode.map_or(state.mode, |mode| mode as u16);
        reply.attr(&TTL, &state.attributes(request, ino));
    }

    fn open(&self, _: &Request, _: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        let mut state = self.0.lock().unwrap();
        if let Fault::Open(errno, times @ 1..) = state.fault {
            state.fault = Fault::Open(errno, times - 1);
            return reply.error(errno);
        }
        let measurement = state.measure();
        let handle = state.opened;
        state.open.insert(handle, measurement);
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
        let mut state = self.0.lock().unwrap();
        let mut end = offset as usize + (size as usize).min(state.chunk);
        match state.fault {
            Fault::Silent => return state.waiting.push(reply),
            Fault::Read(errno, times @ 1..) => {
                state.fault = Fault::Read(errno, times - 1);
                return reply.error(errno);
            }
            Fault::Short(at, times @ 1..) => {
                end = end.min(at);
                if offset as usize >= at {
                    state.fault = Fault::Short(at, times - 1);
                }
            }
            Fault::Unplugged(at) if offset as usize >= at => return reply.error(Errno::ENODEV),
            Fault::Unplugged(at) => end = end.min(at),
            _ => {}
        }
        let measurement = &state.open[&handle.0];
        let end = end.min(measurement.len());
        reply.data(measurement.get(offset as usize..end).unwrap_or_default());
    }

    fn write(
        &self,
        _: &Request,
        _: INodeNo,
        _: FileHandle,
        offset: u64,
        data: &[u8],
        _: WriteFlags,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        let mut state = self.0.lock().unwrap();
        if state.latched {
            let start = offset as usize;
            state.cells[start..start + data.len()].copy_from_slice(data);
            state.noise = 0.0;
        }
        reply.written(data.len() as u32);
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
        self.0.lock().unwrap().open.remove(&handle.0);
        reply.ok();
    }

    fn flush(&self, _: &Request, _: INodeNo, _: FileHandle, _: LockOwner, reply: ReplyEmpty) {
        reply.ok();
    }
}

/// What is wrong with a line.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum LineFault {
    None,
    /// Nothing is answered.
    Silent,
    /// So many replies get lost.
    Lost(usize),
    /// A bit of so many replies is changed.
    Garbled(usize),
    /// Each reply is sent twice, as by a line that was read late.
    Twice,
    /// The reader restarts before each reply, so that its memory is measured anew.
    Resets,
    /// It goes away instead of the reply of that number.
    Unplugged(usize),
}

/// A microcontroller that reads a memory, at the other end of a pty.
pub(crate) struct Mcu {
    path: PathBuf,
    shared: Arc<Mutex<McuState>>,
    thread: Option<JoinHandle<()>>,
    // Keeps the pty's name while no program has it open.
    _slave: Arc<Mutex<Option<File>>>,
}

/// What a microcontroller does.
pub(crate) struct McuState {
    pub(crate) fault: LineFault,
    /// It can switch its memory off and on.
    pub(crate) live: bool,
    pub(crate) replies: usize,
    ends: bool,
}

struct Cells {
    stable: Vec<u8>,
    now: Vec<u8>,
    cycles: u32,
    shared: Arc<Mutex<McuState>>,
}

impl puf_reader::Memory for Cells {
    fn measure(&mut self) -> bool {
        if self.shared.lock().unwrap().live {
            self.cycle();
        }
        true
    }

    fn power_cycles(&self) -> u32 {
        self.cycles
    }

    fn cells(&self) -> &[u8] {
        &self.now
    }
}

impl Cells {
    fn cycle(&mut self) {
        self.cycles += 1;
        self.now = noisy(&self.stable, NOISE, u64::from(self.cycles) << 20 | 1);
    }
}

impl Mcu {
    /// One with a chip of that seed.
    pub(crate) fn of(seed: u64) -> Self {
        let mut random = Random(seed);
        let stable: Vec<u8> = (0..LEN).map(|_| random.next() as u8).collect();
        let shared = Arc::new(Mutex::new(McuState {
            fault: LineFault::None,
            live: true,
            replies: 0,
            ends: false,
        }));
        let cells = Cells {
            now: noisy(&stable, NOISE, 1),
            stable,
            cycles: 1,
            shared: shared.clone(),
        };
        let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
        grantpt(&master).unwrap();
        unlockpt(&master).unwrap();
        let path = PathBuf::from(ptsname(&master, Vec::new()).unwrap().into_string().unwrap());
        let slave = File::options().read(true).write(true).open(&path).unwrap();
        let slave = Arc::new(Mutex::new(Some(slave)));
        let (state, held) = (shared.clone(), slave.clone());
        let thread = thread::spawn(move || serve(File::from(master), cells, &state, &held));
        Mcu {
            path,
            shared,
            thread: Some(thread),
            _slave: slave,
        }
    }

    /// The tty.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// To look at it and to break it.
    pub(crate) fn state(&self) -> MutexGuard<'_, McuState> {
        self.shared.lock().unwrap()
    }

    /// The settings of a token on it.
    pub(crate) fn settings(&self) -> Settings {
        settings(&[
            ("device", self.path.to_str().unwrap()),
            ("kind", "serial"),
            ("timeout", "5"),
        ])
    }
}

impl Drop for Mcu {
    fn drop(&mut self) {
        self.state().ends = true;
        let _ = self.thread.take().unwrap().join();
    }
}

fn serve(mut line: File, cells: Cells, shared: &Mutex<McuState>, slave: &Mutex<Option<File>>) {
    let mut reader = puf_reader::Reader::new(cells);
    loop {
        let time = Timespec {
            tv_sec: 0,
            tv_nsec: 10_000_000,
        };
        let ready = poll(&mut [PollFd::new(&line, PollFlags::IN)], Some(&time));
        if shared.lock().unwrap().ends {
            return;
        }
        let mut bytes = [0; 64];
        if ready != Ok(1) {
            continue;
        }
        let Ok(got) = line.read(&mut bytes) else {
            continue;
        };
        for byte in &bytes[..got] {
            let Some(frame) = reader.byte(*byte).map(<[u8]>::to_vec) else {
                continue;
            };
            let mut state = shared.lock().unwrap();
            state.replies += 1;
            let mut frame = frame;
            let mut times = 1;
            match state.fault {
                LineFault::Silent => times = 0,
                LineFault::Lost(n @ 1..) => {
                    state.fault = LineFault::Lost(n - 1);
                    times = 0;
                }
                LineFault::Garbled(n @ 1..) => {
                    state.fault = LineFault::Garbled(n - 1);
                    let middle = frame.len() / 2;
                    frame[middle] ^= 2;
                }
                LineFault::Twice => times = 2,
                LineFault::Resets => {
                    drop(state);
                    reader.memory().cycle();
                    line.write_all(&frame).unwrap();
                    continue;
                }
                LineFault::Unplugged(n) if state.replies >= n => {
                    slave.lock().unwrap().take();
                    return;
                }
                _ => {}
            }
            for _ in 0..times {
                line.write_all(&frame).unwrap();
            }
        }
    }
}

/// Bytes of which each bit is flipped with a probability of `noise`.
fn noisy(cells: &[u8], noise: f64, seed: u64) -> Vec<u8> {
    let mut random = Random(seed);
    let flips = |random: &mut Random| (random.next() >> 11) as f64 / (1u64 << 53) as f64 <= noise;
    let flip = |cell: &u8| {
        (0..8).fold(*cell, |cell, bit| {
            cell ^ u8::from(flips(&mut random)) << bit
        })
    };
    match noise > 0.0 {
        true => cells.iter().map(flip).collect(),
        false => cells.to_vec(),
    }
}

/// SplitMix64 (Steele, Lea, Flood 2014).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ z >> 31
    }
}
