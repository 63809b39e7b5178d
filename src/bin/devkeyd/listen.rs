//! `devkeyd --listen`: one service for many processes, of one user or of the system.

use std::collections::HashMap;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::{self, ExitCode};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use devkey::Result;
use devkey::config::{Config, Environment};
use devkey::service::{self, Listener};
use listenfd::ListenFd;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use super::registry::Registry;
use super::{BACK_ENDS, complain, prepare};

/// Most connections at a time, each with a thread.
const MAX_CONNECTIONS: usize = 512;
/// Most of them of one user; root has no such limit.
const MAX_OF_USER: usize = 128;
/// What is kept for root beside them, who is to get through when all others are there.
const FOR_ROOT: usize = 32;
/// What is logged without being asked for: troubles, and what clients do. The TPM's own crate calls an
/// error what was asked only to see whether it is there; what is one reaches the client as ours.
const LOGGED: &str = "warn,tss_esapi=off,audit=info";
/// Pause after a failure to accept, which may last: no descriptors are left.
const PAUSE: Duration = Duration::from_millis(100);

/// Listens until a signal ends it: at `path`, or at the socket that was passed, or where the
/// configuration says.
pub(super) fn run(path: Option<&Path>) -> ExitCode {
    if let Err(e) = prepare(Some(LOGGED)) {
        return complain(&e.to_string());
    }
    // Before the socket: a signal between the two would leave it behind.
    let signals = match Signals::new([SIGINT, SIGTERM, SIGHUP]) {
        Ok(signals) => signals,
        Err(e) => return complain(&format!("waiting for signals: {e}")),
    };
    let (registry, listener) = match start(path) {
        Ok((registry, listener)) => (Arc::new(registry), Arc::new(listener)),
        Err(e) => return complain(&e.to_string()),
    };
    if let Err(e) = end_by(signals, listener.clone(), registry.clone()) {
        listener.remove();
        return complain(&e.to_string());
    }
    let connections = Arc::new(Connections::default());
    loop {
        match listener.accept() {
            Ok((client, user)) => serve(client, user, &connections, &registry),
            Err(e) => {
                log::warn!("{e}");
                thread::sleep(PAUSE);
            }
        }
    }
}

fn start(path: Option<&Path>) -> Result<(Registry, Listener)> {
    let config = Config::load(&Environment::of_process(false))?;
    let configured = config.sockets().first().map(PathBuf::from);
    let registry = Registry::new(config, BACK_ENDS);
    let passed = ListenFd::from_env().take_unix_listener(0);
    let passed = passed.map_err(|e| devkey::Error::io("the socket that was passed", e))?;
    let listener = match (path, passed, configured) {
        (None, Some(passed), _) => Listener::inherited(OwnedFd::from(passed))?,
        (Some(path), ..) => Listener::bind(path, registry.audience())?,
        (None, None, Some(path)) => Listener::bind(&path, registry.audience())?,
        (None, None, None) => {
            return Err(devkey::Error::input(
                "no socket: name one, here or as `socket` in devkey.toml",
            ));
        }
    };
    Ok((registry, listener))
}

/// Has a signal take the socket away and end the process, with all that it holds.
fn end_by(
    mut signals: Signals,
    listener: Arc<Listener>,
    registry: Arc<Registry>,
) -> io::Result<()> {
    let wait = move || {
        signals.forever().next();
        listener.remove();
        registry.close();
        process::exit(0);
    };
    thread::Builder::new().spawn(wait).map(drop)
}

/// How many connections each user has.
#[derive(Default)]
struct Connections(Mutex<HashMap<u32, usize>>);

impl Connections {
    fn counts(&self) -> MutexGuard<'_, HashMap<u32, usize>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts one more for as long as the result lives; `None` where that is too many.
    fn admit(self: &Arc<Self>, user: u32) -> Option<Counted> {
        let mut counts = self.counts();
        let all: usize = counts.values().sum();
        let own = counts.entry(user).or_default();
        let full = match user {
            0 => all >= MAX_CONNECTIONS + FOR_ROOT,
            _ => all >= MAX_CONNECTIONS || *own >= MAX_OF_USER,
        };
        if full {
            return None;
        }
        *own += 1;
        Some(Counted(self.clone(), user))
    }
}

/// A connection that is counted.
struct Counted(Arc<Connections>, u32);

impl Drop for Counted {
    fn drop(&mut self) {
        let mut counts = self.0.counts();
        if let Some(own) = counts.get_mut(&self.1) {
            *own -= 1;
            if *own == 0 {
                counts.remove(&self.1);
            }
        }
    }
}

/// Serves a client in a thread of its own; one too many is closed.
fn serve(client: OwnedFd, user: u32, connections: &Arc<Connections>, registry: &Arc<Registry>) {
    let Some(counted) = connections.admit(user) else {
        return log::warn!("too many connections; another one of user {user} was refused");
    };
    let registry = registry.clone();
    let serve = move || {
        let _counted = counted;
        if let Err(e) = service::serve(client, &*registry) {
            log::warn!("a connection of user {user} was ended: {e}");
        }
    };
    if let Err(e) = thread::Builder::new().spawn(serve) {
        log::warn!("a thread for a connection: {e}");
    }
}
