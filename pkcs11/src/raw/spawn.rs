//! Starts the key service as a private child. posix_spawn(3) and not fork(2): between a fork and
//! an exec of a process with threads hardly anything may be called.

use std::ffi::{CString, c_char, c_int};
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::{env, io, ptr};

use devkey::{Error, Result};

/// The child's environment, whatever the host's is: the TSS must say nothing on the host's
/// standard error, and nobody's configuration of OpenSSL is wanted.
const ENVIRONMENT: [&std::ffi::CStr; 2] = [c"OPENSSL_CONF=/dev/null", c"TSS2_LOG=all+none"];
/// The first descriptor that the child does not inherit.
const FIRST_CLOSED: c_int = 3;

/// Starts `program --private` in a session of its own, the socket as its standard input.
///
/// The program forks once more and its first process ends at once; that one is waited for, so that
/// no zombie stays with the host.
pub(crate) fn spawn(program: &Path, socket: OwnedFd) -> Result<()> {
    let path = CString::new(program.as_os_str().as_bytes())
        .map_err(|_| Error::input("a NUL in the path of devkeyd"))?;
    let log = env::var_os("DEVKEY_LOG")
        .filter(|_| !super::is_secure())
        .and_then(|level| CString::new([b"DEVKEY_LOG=", level.as_bytes()].concat()).ok());
    let failed = |e| Error::DeviceGone {
        device: program.display().to_string(),
        reason: format!("the key service does not start: {e}"),
    };
    let child = start(&path, &socket, log.as_ref()).map_err(failed)?;
    wait(child);
    Ok(())
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

/// Waits for the intermediate process. The host may have reaped it (ECHILD), with a handler of
/// SIGCHLD or by ignoring that signal.
fn wait(child: libc::pid_t) {
    let mut status = 0;
    loop {
        // SAFETY: writes the status of one process, by its id.
        let done = unsafe { libc::waitpid(child, &mut status, 0) };
        if done != -1 || io::Error::last_os_error().kind() != io::ErrorKind::Interrupted {
            return;
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
