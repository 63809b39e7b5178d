//! devkeyd, the key service: private operations of tokens, in a process of their own.
#![forbid(unsafe_code)]

#[path = "devkeyd/connections.rs"]
mod connections;
#[path = "devkeyd/listen.rs"]
mod listen;
#[path = "devkeyd/quiet.rs"]
mod quiet;
#[path = "devkeyd/registry.rs"]
mod registry;

use std::env;
use std::fs::OpenOptions;
use std::io::{self, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::panic;
use std::path::Path;
use std::process::ExitCode;

use devkey::backends;
use devkey::provider::BackEnd;
use devkey::service;
use fork::Fork;
use rustix::fs::Mode;
use rustix::mm::{MlockAllFlags, mlockall};
use rustix::net::sockopt::{socket_domain, socket_type};
use rustix::net::{AddressFamily, SocketType};
use rustix::process::{DumpableBehavior, Resource, Rlimit, getrlimit};

/// The back ends that tokens may have.
const BACK_ENDS: &[BackEnd] = &[
    backends::file::BACK_END,
    backends::puf::SHARED,
    #[cfg(feature = "kernel")]
    backends::kernel::BACK_END,
    #[cfg(feature = "tpm")]
    backends::tpm::SHARED,
];

const HELP: &str = "\
devkeyd - the key service of devkey

Runs private operations of tokens for other programs, outside their memory.

Usage: devkeyd --listen [SOCKET]  serve programs at a Unix socket until SIGTERM: at SOCKET,
                                  or at the one that systemd passes, or at `socket` in
                                  devkey.toml. They may use the tokens that are this
                                  user's own, as devkey.toml allows
       devkeyd --private          serve the program at the other end of standard input, a
                                  Unix stream socket, until it closes it: devkey's PKCS#11
                                  module starts this itself where nobody listens
       devkeyd --version
       devkeyd --help

Each operation of a program leaves a line on standard error, which systemd puts into the
journal: token, key, user, process, program, result.

Environment: DEVKEY_LOG=debug  say on standard error what else is being done
             DEVKEY_CONFIG=FILE  the configuration to use";

fn main() -> ExitCode {
    let arguments: Vec<_> = env::args_os().skip(1).collect();
    let only = match arguments.as_slice() {
        [listen] if listen == "--listen" => return listen::run(None),
        [listen, path] if listen == "--listen" => return listen::run(Some(Path::new(path))),
        [only] => only.to_str(),
        _ => None,
    };
    match only {
        Some("--private") => private(),
        Some("--version") => say(concat!("devkeyd ", env!("CARGO_PKG_VERSION"))),
        Some("--help" | "-h") => say(HELP),
        _ => complain("one of --listen [SOCKET], --private, --version and --help is wanted"),
    }
}

/// Leaves the parent, which so has no child to wait for but the one that ends at once, and serves.
fn private() -> ExitCode {
    let socket = match standard_input() {
        Ok(socket) => socket,
        Err(reason) => return complain(&reason),
    };
    // No thread was started yet, so the child may do what it likes.
    match fork::fork() {
        Ok(Fork::Parent(_)) => ExitCode::SUCCESS,
        Ok(Fork::Child) => serve(socket),
        Err(e) => complain(&format!("fork: {e}")),
    }
}

fn serve(socket: OwnedFd) -> ExitCode {
    if let Err(e) = prepare(None) {
        return complain(&e.to_string());
    }
    match service::serve(socket, &service::Private(BACK_ENDS)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            log::error!("{e}");
            ExitCode::FAILURE
        }
    }
}

/// What comes before serving anybody.
///
/// Nothing is said unless DEVKEY_LOG asks for it, but for what `always` names.
fn prepare(always: Option<&str>) -> io::Result<()> {
    let mut logger = env_logger::Builder::new();
    always.into_iter().for_each(|filters| {
        logger.parse_filters(filters);
    });
    match env::var("DEVKEY_LOG") {
        Ok(filters) => {
            logger.parse_filters(&filters).init();
        }
        Err(_) if always.is_some() => logger.init(),
        Err(_) => {}
    }
    panic::set_hook(Box::new(|what| log::error!("{what}")));
    harden()
}

/// The socket, under another number that no program started from here would inherit.
fn standard_input() -> Result<OwnedFd, String> {
    let stdin = io::stdin();
    let stream = socket_domain(&stdin) == Ok(AddressFamily::UNIX)
        && socket_type(&stdin) == Ok(SocketType::STREAM);
    if !stream {
        return Err("standard input is not a Unix stream socket; \
                    devkeyd --private is started by devkey's PKCS#11 module, not by hand"
            .to_owned());
    }
    let socket = stdin.as_fd().try_clone_to_owned();
    let socket = socket.map_err(|e| format!("standard input: {e}"))?;
    replace_standard_input().map_err(|e| format!("/dev/null: {e}"))?;
    Ok(socket)
}

fn replace_standard_input() -> io::Result<()> {
    let null = OpenOptions::new().read(true).open("/dev/null")?;
    Ok(rustix::stdio::dup2_stdin(null)?)
}

/// No core dumps, no debugger of the same user, no files that others can read, no directory kept
/// busy.
fn harden() -> io::Result<()> {
    let none = Rlimit {
        current: Some(0),
        maximum: Some(0),
    };
    rustix::process::setrlimit(Resource::Core, none)?;
    rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable)?;
    rustix::process::umask(Mode::RWXG | Mode::RWXO);
    lock_memory();
    env::set_current_dir("/")
}

/// No page of this process is swapped out, where the system permits it.
///
/// Not where the amount is limited: what is beyond the limit could not be allocated at all then, and
/// a process that cannot allocate ends. Root is not limited, nor is who has CAP_IPC_LOCK; a unit of
/// systemd says LimitMEMLOCK=infinity.
fn lock_memory() {
    let unlimited = getrlimit(Resource::Memlock).current.is_none();
    if !unlimited && !rustix::process::geteuid().is_root() {
        log::debug!("memory is not locked: LimitMEMLOCK is not infinity");
        return;
    }
    // Pages as they are touched: the whole of each thread's stack would be megabytes.
    let all = MlockAllFlags::CURRENT | MlockAllFlags::FUTURE | MlockAllFlags::ONFAULT;
    match mlockall(all) {
        Ok(()) => log::debug!("memory is locked"),
        Err(e) => log::debug!("memory is not locked: {e}"),
    }
}

fn say(text: &str) -> ExitCode {
    match writeln!(io::stdout(), "{text}") {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}

fn complain(reason: &str) -> ExitCode {
    // Where standard error is closed, the exit status must do.
    let _ = writeln!(io::stderr(), "devkeyd: {reason}");
    ExitCode::from(2)
}
