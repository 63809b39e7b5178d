//! All that is unsafe: pointers in, pointers out, the `C_` functions' names, system calls.
//!
//! PKCS#11 makes the caller vouch for its pointers: each is NULL or valid for the length that
//! stands beside it, until the function returns. Nothing else is believed of them: they may be
//! unaligned, alias one another, and come with any length. So no reference to memory that is
//! written is ever made, and what is read is borrowed from a [`Call`], which ends with the call.

mod answer;
mod call;
mod structures;

use std::ffi::{CStr, CString, OsStr, c_char, c_int, c_ulong, c_void};
use std::marker::PhantomData;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use std::{env, io, ptr, slice, thread};

use cryptoki_sys::*;
use devkey::{Error, fork};
use zeroize::{Zeroize, Zeroizing};

pub(crate) use answer::{Answer, Room, fill, put_list};
pub(crate) use call::{Argument, entries, guard};
pub(crate) use structures::{Attribute, Mechanism, attributes};

use crate::rv::{Result, Rv};

/// `CK_ULONG` and all that is one: lengths, handles, slot ids, types of attributes.
pub(crate) type Ulong = c_ulong;

/// One call into the module, which the caller's memory is borrowed from.
pub(crate) struct Call(());

/// A pointer from the caller that nobody has looked at.
pub(crate) struct Ptr<'c, T> {
    at: *mut T,
    call: PhantomData<&'c Call>,
}

impl<T> Clone for Ptr<'_, T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for Ptr<'_, T> {}

/// Types of which every bit pattern is a value.
///
/// # Safety
/// Implemented for integers, and structures of integers, raw pointers and optional functions only.
pub(crate) unsafe trait Plain: Copy {}

macro_rules! plain {
    ($($type:ty),*) => {
        // SAFETY: integers, and bindgen's structures of integers, raw pointers and `Option<fn>`.
        $(unsafe impl Plain for $type {})*
    };
}

plain!(u8, Ulong, CK_ATTRIBUTE, CK_MECHANISM, CK_VERSION);
plain!(
    CK_C_INITIALIZE_ARGS,
    CK_RSA_PKCS_PSS_PARAMS,
    CK_RSA_PKCS_OAEP_PARAMS
);
plain!(
    CK_ECDH1_DERIVE_PARAMS,
    CK_EDDSA_PARAMS,
    CK_SIGN_ADDITIONAL_CONTEXT
);

impl<'c, T> Ptr<'c, T> {
    /// Whether the caller gave none.
    pub(crate) fn is_null(self) -> bool {
        self.at.is_null()
    }

    /// The same pointer to something else.
    pub(crate) fn cast<U>(self) -> Ptr<'c, U> {
        self.of(self.at.cast())
    }

    /// Writes one value.
    pub(crate) fn write(self, value: T) -> Result<()> {
        self.put(0, slice::from_ref(&value))
    }

    /// A pointer that the caller handed over inside of what this one points to.
    fn of<U>(self, at: *mut U) -> Ptr<'c, U> {
        Ptr {
            at,
            call: PhantomData,
        }
    }

    /// Writes values at an offset, in elements.
    fn put(self, offset: usize, values: &[T]) -> Result<()> {
        if self.is_null() {
            return Err(Rv::ARGUMENTS_BAD);
        }
        // SAFETY: not NULL, and the caller vouches for the room, which was compared before. Bytes
        // are copied, so alignment does not matter; `values` is the module's own memory.
        unsafe {
            let to = self.at.cast::<u8>().add(offset * size_of::<T>());
            ptr::copy_nonoverlapping(values.as_ptr().cast(), to, size_of_val(values));
        }
        Ok(())
    }
}

impl<'c, T: Plain> Ptr<'c, T> {
    /// Reads one value.
    pub(crate) fn read(self) -> Result<T> {
        if self.is_null() {
            return Err(Rv::ARGUMENTS_BAD);
        }
        // SAFETY: not NULL, valid by the caller's word, and any bits are a `T`.
        Ok(unsafe { self.at.read_unaligned() })
    }

    /// Reads one value, where there is one.
    pub(crate) fn optional(self) -> Result<Option<T>> {
        (!self.is_null()).then(|| self.read()).transpose()
    }
}

impl<'c> Ptr<'c, u8> {
    /// Bytes of the caller. NULL is fine where there are none.
    pub(crate) fn slice(self, length: Ulong) -> Result<&'c [u8]> {
        match usize::try_from(length) {
            Ok(0) => Ok(&[]),
            Ok(length) if !self.is_null() && isize::try_from(length).is_ok() => {
                // SAFETY: not NULL, no longer than memory can be, and the caller vouches for it
                // until the call ends, which is as long as the slice can live.
                Ok(unsafe { slice::from_raw_parts(self.at, length) })
            }
            _ => Err(Rv::ARGUMENTS_BAD),
        }
    }

    /// Text that ends in a NUL, which is not looked for beyond `most` bytes.
    pub(crate) fn text(self, most: usize) -> Result<Vec<u8>> {
        let mut text = Vec::new();
        for offset in 0..=most {
            // SAFETY: at most one past the last byte read, and that one was no NUL.
            let next = self.of(unsafe { self.at.cast::<u8>().add(offset) });
            match next.read()? {
                0 => return Ok(text),
                byte => text.push(byte),
            }
        }
        Err(Rv::ARGUMENTS_BAD)
    }

    /// Fills the caller's buffer piece by piece.
    pub(crate) fn fill_by(
        self,
        length: Ulong,
        mut source: impl FnMut(&mut [u8]) -> Result<()>,
    ) -> Result<()> {
        // Random bytes become keys: nothing of them stays on the stack.
        let mut buffer = Zeroizing::new([0; 4096]);
        let length = usize::try_from(length).map_err(|_| Rv::ARGUMENTS_BAD)?;
        if self.is_null() && length > 0 {
            return Err(Rv::ARGUMENTS_BAD);
        }
        for offset in (0..length).step_by(buffer.len()) {
            let size = buffer.len().min(length - offset);
            let piece = buffer.get_mut(..size).unwrap_or_default();
            source(piece)?;
            self.put(offset, piece)?;
        }
        Ok(())
    }
}

/// An interface in static memory.
#[derive(Clone)]
#[repr(transparent)]
pub(crate) struct Interface(pub(crate) CK_INTERFACE);

// SAFETY: its pointers are to other statics, and nothing of it is ever written.
unsafe impl Sync for Interface {}

impl Zeroize for Interface {
    /// Where the function lists are is no secret.
    fn zeroize(&mut self) {}
}

/// Whether the process runs with rights that its caller has not, so that the environment is not
/// to be believed.
pub(crate) fn is_secure() -> bool {
    // SAFETY: getauxval(3) reads a constant of the process.
    unsafe { libc::getauxval(libc::AT_SECURE) != 0 }
}

/// The path by which the host loaded the module (dladdr(3)): links in it are not resolved. `None`
/// where the loader does not know. The C library renews the loader's lock in a forked child.
pub(crate) fn own_file() -> Option<PathBuf> {
    let mut about = MaybeUninit::<libc::Dl_info>::zeroed();
    let inside: fn() -> Option<PathBuf> = own_file;
    // SAFETY: looks an address up and writes to memory of ours, which is all pointers.
    let (found, about) = unsafe {
        let found = libc::dladdr(inside as *const c_void, about.as_mut_ptr());
        (found, about.assume_init())
    };
    if found == 0 || about.dli_fname.is_null() {
        return None;
    }
    // SAFETY: the loader's own string, which lives as long as the module is loaded: for ever.
    let path = unsafe { CStr::from_ptr(about.dli_fname) };
    Some(PathBuf::from(OsStr::from_bytes(path.to_bytes())))
}

/// Has the host's forks wait for operations in other threads; see [`fork`]. Once in a process and
/// its children: the module stays loaded, so the handlers stay good.
pub(crate) fn watch_forks() {
    static WATCHED: AtomicBool = AtomicBool::new(false);
    extern "C" fn close() {
        fork::close();
    }
    extern "C" fn open() {
        fork::open();
    }
    extern "C" fn reset() {
        fork::reset();
    }
    if !WATCHED.swap(true, Ordering::Relaxed) {
        // SAFETY: functions of ours that are never unloaded and touch atomic numbers only. Where
        // there is no memory for them, forks are as dangerous as without.
        unsafe { libc::pthread_atfork(Some(close), Some(open), Some(reset)) };
    }
}

/// Writes a line to standard error in one go and without any lock. What cannot be written is lost.
pub(crate) fn write_stderr(line: &[u8]) {
    // SAFETY: write(2) from memory of ours.
    unsafe { libc::write(2, line.as_ptr().cast(), line.len()) };
}

/// Closes a descriptor if it still is the socket of that inode. A forked child closes what it inherited
/// so, unless the host closed it already and the number is something else's now.
///
/// fstat64, for fstat has 32 bits for an inode where `long` has.
pub(crate) fn close_inherited(fd: RawFd, inode: u64) {
    let mut stat = MaybeUninit::<libc::stat64>::zeroed();
    // SAFETY: written to memory of ours, which is all integers.
    let (found, stat) = unsafe {
        let found: c_int = libc::fstat64(fd, stat.as_mut_ptr());
        (found, stat.assume_init())
    };
    if found == 0 && stat.st_mode & libc::S_IFMT == libc::S_IFSOCK && stat.st_ino == inode {
        // SAFETY: nothing of this process uses it: its owner is forgotten.
        unsafe { libc::close(fd) };
    }
}

/// Defines one `C_` function; used by [`entries`].
macro_rules! entry {
    ($mend:path; exported $name:ident($($arg:ident: $type:ty),*) = $body:expr) => {
        /// One of the three symbols of the shared object.
        // SAFETY: PKCS#11 gives the name to this function alone.
        #[allow(unsafe_code)]
        #[unsafe(no_mangle)]
        extern "C" fn $name($($arg: $type),*) -> CK_RV {
            $crate::raw::guard(None, $mend, |_call| {
                $(let $arg = $crate::raw::Argument::wrap($arg, _call);)*
                $body
            })
        }
    };
    ($mend:path; global $name:ident($($arg:ident: $type:ty),*) = $body:expr) => {
        extern "C" fn $name($($arg: $type),*) -> CK_RV {
            $crate::raw::guard(None, $mend, |_call| {
                $(let $arg = $crate::raw::Argument::wrap($arg, _call);)*
                $body
            })
        }
    };
    ($mend:path; session $name:ident($first:ident: $of:ty $(, $arg:ident: $type:ty)*) = $body:expr) => {
        extern "C" fn $name($first: $of $(, $arg: $type)*) -> CK_RV {
            $crate::raw::guard(Some($first), $mend, |_call| {
                $(let $arg = $crate::raw::Argument::wrap($arg, _call);)*
                $body
            })
        }
    };
}

pub(crate) use entry;

/// The child's environment, whatever the host's is: the TSS must say nothing on the host's
/// standard error, and nobody's configuration of OpenSSL is wanted.
const ENVIRONMENT: [&CStr; 2] = [c"OPENSSL_CONF=/dev/null", c"TSS2_LOG=all+none"];
/// The first descriptor that the child does not inherit.
const FIRST_CLOSED: c_int = 3;
/// How long the intermediate process may take: devkeyd needs milliseconds, a busy machine seconds.
const START: Duration = Duration::from_secs(10);
/// How long a process may take to end that was killed.
const AT_ONCE: Duration = Duration::from_secs(1);
/// Between two looks at a process: at first, and after a while.
const FIRST_PAUSE: Duration = Duration::from_micros(200);
const LAST_PAUSE: Duration = Duration::from_millis(20);

/// Starts `program --private` in a session of its own, the socket as its standard input.
/// By posix_spawn(3) and not fork(2): between a fork and an exec of a process with threads hardly
/// anything may be called.
///
/// The program forks once more and its first process ends at once; that one is waited for, so that
/// no zombie stays with the host.
///
/// # Errors
/// [`Error::DeviceGone`] where it cannot be run, fails, or does not let go of us in time.
pub(crate) fn spawn(program: &Path, socket: OwnedFd) -> devkey::Result<()> {
    spawn_within(START, program, socket)
}

fn spawn_within(within: Duration, program: &Path, socket: OwnedFd) -> devkey::Result<()> {
    let path = CString::new(program.as_os_str().as_bytes())
        .map_err(|_| Error::input("a NUL in the path of devkeyd"))?;
    let log = env::var_os("DEVKEY_LOG")
        .filter(|_| !is_secure())
        .and_then(|level| CString::new([b"DEVKEY_LOG=", level.as_bytes()].concat()).ok());
    let failed = |e: io::Error| unfit(program, &e.to_string(), "is it a program?");
    let child = start(&path, &socket, log.as_ref()).map_err(failed)?;
    match wait(child, within) {
        Some(status) => ended(program, status),
        None => {
            // SAFETY: our child, not waited for, and so not another process by that number.
            unsafe { libc::kill(child, libc::SIGKILL) };
            wait(child, AT_ONCE);
            Err(unfit(
                program,
                "it does not answer",
                "name devkeyd, and nothing else, as devkeyd",
            ))
        }
    }
}

/// What the end of the intermediate process means.
fn ended(program: &Path, status: c_int) -> devkey::Result<()> {
    let try_it = format!("run it to see why: {} --version", program.display());
    match (libc::WIFEXITED(status), libc::WEXITSTATUS(status)) {
        (true, 0) => Ok(()),
        // The dynamic loader's.
        (true, 127) => Err(unfit(
            program,
            "it cannot run, a library is missing?",
            &try_it,
        )),
        (true, code) => Err(unfit(program, &format!("exit status {code}"), &try_it)),
        (false, _) => {
            let signal = format!("ended by signal {}", libc::WTERMSIG(status));
            Err(unfit(program, &signal, &try_it))
        }
    }
}

fn unfit(program: &Path, reason: &str, remedy: &str) -> Error {
    Error::DeviceGone {
        device: program.display().to_string(),
        reason: format!("the key service does not start: {reason}; {remedy}"),
    }
}

fn start(path: &CString, socket: &OwnedFd, log: Option<&CString>) -> io::Result<libc::pid_t> {
    let arguments = [path.as_ptr(), c"--private".as_ptr(), ptr::null()];
    let [openssl, tss] = ENVIRONMENT;
    let last = log.map_or(ptr::null(), |log| log.as_ptr());
    let environment = [openssl.as_ptr(), tss.as_ptr(), last, ptr::null()];
    let files = FileActions::new(socket, log.is_some())?;
    let attributes = Attributes::new()?;
    let mut child = 0;
    // SAFETY: NUL-terminated strings in NULL-terminated arrays, and initialised attributes and
    // actions, all alive until it returns.
    check(unsafe {
        libc::posix_spawn(
            &mut child,
            path.as_ptr(),
            &files.0,
            &attributes.0,
            arguments.as_ptr().cast::<*mut c_char>(),
            environment.as_ptr().cast::<*mut c_char>(),
        )
    })?;
    Ok(child)
}

/// Waits for the intermediate process; `None` where it has not ended in time. The host may have
/// reaped it (ECHILD), with a handler of SIGCHLD or by ignoring that signal: its status is then not
/// known and taken for good. By looking again and again, for waitpid(2) has no deadline.
fn wait(child: libc::pid_t, within: Duration) -> Option<c_int> {
    let (until, mut pause) = (Instant::now() + within, FIRST_PAUSE);
    loop {
        let mut status = 0;
        // SAFETY: writes the status of one process, by its id.
        match unsafe { libc::waitpid(child, &mut status, libc::WNOHANG) } {
            0 if Instant::now() >= until => return None,
            0 => {
                thread::sleep(pause);
                pause = (pause * 2).min(LAST_PAUSE);
            }
            -1 if io::Error::last_os_error().kind() == io::ErrorKind::Interrupted => {}
            -1 => return Some(0),
            _ => return Some(status),
        }
    }
}

/// What the child does with descriptors before it runs.
struct FileActions(libc::posix_spawn_file_actions_t);

impl FileActions {
    fn new(socket: &OwnedFd, keep_stderr: bool) -> io::Result<Self> {
        let mut actions = MaybeUninit::uninit();
        // SAFETY: initialises what is then taken as initialised.
        let mut this = unsafe {
            check(libc::posix_spawn_file_actions_init(actions.as_mut_ptr()))?;
            FileActions(actions.assume_init())
        };
        // The socket first: a host without standard output may have it there.
        let fd = socket.as_raw_fd();
        // SAFETY: initialised above. Where the socket is 0 already, adddup2 clears FD_CLOEXEC.
        check(unsafe { libc::posix_spawn_file_actions_adddup2(&mut this.0, fd, 0) })?;
        this.open_null(1)?;
        if !keep_stderr {
            this.open_null(2)?;
        }
        // SAFETY: initialised above.
        check(unsafe {
            libc::posix_spawn_file_actions_addclosefrom_np(&mut this.0, FIRST_CLOSED)
        })?;
        Ok(this)
    }

    fn open_null(&mut self, fd: c_int) -> io::Result<()> {
        let null = c"/dev/null".as_ptr();
        // SAFETY: initialised in `new`; the path is copied.
        check(unsafe {
            libc::posix_spawn_file_actions_addopen(&mut self.0, fd, null, libc::O_RDWR, 0)
        })
    }
}

impl Drop for FileActions {
    fn drop(&mut self) {
        // SAFETY: initialised in `new`, destroyed once.
        unsafe { libc::posix_spawn_file_actions_destroy(&mut self.0) };
    }
}

/// A new session, no signal blocked, none ignored.
struct Attributes(libc::posix_spawnattr_t);

impl Attributes {
    fn new() -> io::Result<Self> {
        let flags = libc::POSIX_SPAWN_SETSID as c_int
            | libc::POSIX_SPAWN_SETSIGMASK
            | libc::POSIX_SPAWN_SETSIGDEF;
        let mut attributes = MaybeUninit::uninit();
        // SAFETY: initialises what is then taken as initialised; the signal sets are copied.
        unsafe {
            check(libc::posix_spawnattr_init(attributes.as_mut_ptr()))?;
            let mut this = Attributes(attributes.assume_init());
            let (mut none, mut all) = (MaybeUninit::uninit(), MaybeUninit::uninit());
            libc::sigemptyset(none.as_mut_ptr());
            libc::sigfillset(all.as_mut_ptr());
            check(libc::posix_spawnattr_setsigmask(&mut this.0, none.as_ptr()))?;
            check(libc::posix_spawnattr_setsigdefault(
                &mut this.0,
                all.as_ptr(),
            ))?;
            check(libc::posix_spawnattr_setflags(&mut this.0, flags as _))?;
            Ok(this)
        }
    }
}

impl Drop for Attributes {
    fn drop(&mut self) {
        // SAFETY: initialised in `new`, destroyed once.
        unsafe { libc::posix_spawnattr_destroy(&mut self.0) };
    }
}

fn check(code: c_int) -> io::Result<()> {
    match code {
        0 => Ok(()),
        code => Err(io::Error::from_raw_os_error(code)),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::io::{Read, Write};
    use std::os::fd::IntoRawFd;
    use std::os::unix::fs::PermissionsExt;
    use std::os::unix::net::UnixStream;
    use std::sync::{Mutex, MutexGuard, PoisonError};

    use super::*;

    fn ptr<'c, T>(_: &'c Call, at: *mut T) -> Ptr<'c, T> {
        Ptr {
            at,
            call: PhantomData,
        }
    }

    /// R23. Fails where `fill` writes before it compares, or does not write the length.
    #[test]
    fn the_two_call_convention() {
        let call = Call(());
        let (mut buffer, mut length) = ([0_u8; 4], 0);
        let (out, len) = (ptr(&call, buffer.as_mut_ptr()), ptr(&call, &raw mut length));
        let none = ptr(&call, ptr::null_mut());
        let answer = |room: Result<Room>| Ok(room?.answer(&[1, 2, 3]));
        assert_eq!(fill(none, len, answer), Ok(()));
        assert_eq!(len.read(), Ok(3));
        len.write(2).unwrap();
        assert_eq!(fill(out, len, answer), Err(Rv::BUFFER_TOO_SMALL));
        assert_eq!((len.read(), out.slice(4).unwrap()), (Ok(3), &[0; 4][..]));
        len.write(4).unwrap();
        assert_eq!(fill(out, len, answer), Ok(()));
        assert_eq!(
            (len.read(), out.slice(4).unwrap()),
            (Ok(3), &[1, 2, 3, 0][..])
        );
        let no_length = ptr(&call, ptr::null_mut());
        assert_eq!(fill(out, no_length, answer), Err(Rv::ARGUMENTS_BAD));
    }

    /// Fails where `slice` does not look for NULL or at the length.
    #[test]
    fn absurd_pointers_and_lengths_are_refused() {
        let call = Call(());
        let mut byte = 7;
        let (one, none) = (ptr(&call, &raw mut byte), ptr::<u8>(&call, ptr::null_mut()));
        assert_eq!(none.slice(0), Ok(&[][..]));
        assert_eq!(none.slice(1), Err(Rv::ARGUMENTS_BAD));
        assert_eq!(one.slice(Ulong::MAX), Err(Rv::ARGUMENTS_BAD));
        assert_eq!(none.read(), Err(Rv::ARGUMENTS_BAD));
        assert_eq!(none.text(8), Err(Rv::ARGUMENTS_BAD));
        assert_eq!(none.fill_by(9, |_| Ok(())), Err(Rv::ARGUMENTS_BAD));
        let count = ptr(&call, ptr::null_mut());
        let listed = put_list(none, 0, count, |_| Ok(Vec::new()));
        assert_eq!(listed, Err(Rv::ARGUMENTS_BAD));
        let template = ptr::<CK_ATTRIBUTE>(&call, ptr::null_mut());
        assert!(attributes(template, 0).is_ok_and(|all| all.is_empty()));
        assert!(attributes(template, 1).is_err());
        assert!(attributes(template, Ulong::MAX).is_err());
    }

    /// Fails where `answer` does not write the length. (On x86 an aligned read would pass.)
    #[test]
    fn structures_may_be_unaligned() {
        let call = Call(());
        let mut words: [Ulong; 4] = [0; 4];
        let at = words.as_mut_ptr().cast::<u8>().wrapping_add(1).cast();
        let all = attributes(ptr(&call, at), 1).unwrap();
        assert_eq!(all[0].answer(Ok(b"value")), Ok(()));
        assert_eq!(words[2], 5 << 8);
    }

    /// Keeps the children of other tests away: one that has not begun its program yet holds what the
    /// process had open then, a script that is being written or a socket.
    fn alone() -> MutexGuard<'static, ()> {
        static ONE: Mutex<()> = Mutex::new(());
        ONE.lock().unwrap_or_else(PoisonError::into_inner)
    }

    const SCRIPT: &str = "#!/bin/sh
exec <&0 >&0
tr '\\0' '\\n' </proc/self/environ
echo arguments $*
readlink /proc/$$/fd/2
for fd in /proc/$$/fd/*; do echo ${fd##*/}; done
exec awk '/^SigBlk|^SigIgn/ {print $2}' /proc/self/status
";

    /// Fails without closefrom, without the actions on descriptor 2, with the host's environment,
    /// or where the signals of the host stay ignored.
    #[test]
    fn the_child_inherits_its_socket_and_nothing_else() {
        let _alone = alone();
        let dir = env::temp_dir().join(format!("devkey-spawn-{}", std::process::id()));
        fs::write(&dir, SCRIPT).unwrap();
        fs::set_permissions(&dir, fs::Permissions::from_mode(0o700)).unwrap();
        // SAFETY: this process has its own use for neither signal nor descriptor.
        unsafe {
            libc::signal(libc::SIGUSR1, libc::SIG_IGN);
            libc::dup(0);
        }
        let (mut ours, theirs) = UnixStream::pair().unwrap();
        spawn(&dir, theirs.into()).unwrap();
        let mut said = String::new();
        ours.read_to_string(&mut said).unwrap();
        fs::remove_file(&dir).unwrap();
        let lines: Vec<&str> = said.lines().collect();
        let expected = [
            "OPENSSL_CONF=/dev/null",
            "TSS2_LOG=all+none",
            "arguments --private",
            "/dev/null",
        ];
        assert!(lines.starts_with(&expected), "{said}");
        // 3 and 10 are the shell's own, for the directory and the script; signals 32 and 33 are
        // glibc's, which ignores them in every child of posix_spawn.
        let rest = [
            "0",
            "1",
            "10",
            "2",
            "3",
            "0000000000000000",
            "0000000180000000",
        ];
        assert_eq!(lines[expected.len()..], rest, "{said}");
    }

    /// Fails where `start` passes over what posix_spawn answers.
    #[test]
    fn a_service_that_is_not_there_is_an_error() {
        let _alone = alone();
        let (_, theirs) = UnixStream::pair().unwrap();
        let gone = spawn(Path::new("/nonexistent/devkeyd"), theirs.into());
        assert!(matches!(gone, Err(Error::DeviceGone { .. })));
    }

    /// Fails with `Ok(())` for what `ended` answers, or without the call of kill(2).
    #[test]
    fn a_service_that_fails_or_hangs_is_an_error() {
        let _alone = alone();
        let path = env::temp_dir().join(format!("devkey-unfit-{}", std::process::id()));
        let started = |script: &str| {
            fs::write(&path, format!("#!/bin/sh\n{script}\n")).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(0o700)).unwrap();
            let (ours, theirs) = UnixStream::pair().unwrap();
            (
                spawn_within(Duration::from_secs(2), &path, theirs.into()),
                ours,
            )
        };
        for (script, wanted) in [
            ("exit 127", "a library is missing?; run it to see why: "),
            ("exit 3", "exit status 3; run it to see why: "),
            ("kill -9 $$", "ended by signal 9; "),
            ("exec sleep 1000", "it does not answer; "),
        ] {
            let (failed, mut ours) = started(script);
            let Err(Error::DeviceGone { device, reason }) = failed else {
                panic!("{script}: {failed:?}");
            };
            assert_eq!(device, path.display().to_string());
            assert!(reason.contains(wanted), "{script}: {reason}");
            // Nobody has the socket any more.
            ours.set_read_timeout(Some(Duration::from_secs(20)))
                .unwrap();
            assert_eq!(ours.read(&mut [0]).unwrap(), 0);
        }
        assert!(started("exit 0").0.is_ok());
        fs::remove_file(&path).unwrap();
    }

    /// R5. Fails without the comparison of inodes, without that of the kind of file, or without the
    /// call of close(2).
    #[test]
    fn only_the_inherited_socket_is_closed() {
        let _alone = alone();
        use std::os::unix::fs::MetadataExt;
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        let inode = |fd: &dyn AsRawFd| {
            let path = format!("/proc/self/fd/{}", fd.as_raw_fd());
            fs::metadata(path).unwrap().ino()
        };
        let (socket, other) = (inode(&ours), inode(&theirs));
        close_inherited(ours.as_raw_fd(), other);
        Write::write_all(&mut theirs, b"open").unwrap();
        close_inherited(ours.into_raw_fd(), socket);
        assert!(Write::write_all(&mut theirs, b"closed").is_err());
        let file = fs::File::open("/dev/null").unwrap();
        close_inherited(file.as_raw_fd(), inode(&file));
        assert!(file.metadata().is_ok());
    }
}
