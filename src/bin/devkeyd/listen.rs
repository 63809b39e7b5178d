//! `devkeyd --listen`: one service for the processes of one user.

use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::process::{self, ExitCode};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use devkey::service::{self, Listener};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use super::{BACK_ENDS, complain, prepare};

/// Most connections at a time, each with a thread.
const MAX_CONNECTIONS: usize = 256;
/// Pause after a failure to accept, which may last: no descriptors are left.
const PAUSE: Duration = Duration::from_millis(100);

/// Listens at `path` until a signal ends it.
pub(super) fn run(path: &Path) -> ExitCode {
    if let Err(e) = prepare() {
        return complain(&e.to_string());
    }
    // Before the socket: a signal between the two would leave it behind.
    let signals = match Signals::new([SIGINT, SIGTERM, SIGHUP]) {
        Ok(signals) => signals,
        Err(e) => return complain(&format!("waiting for signals: {e}")),
    };
    let listener = match Listener::bind(path) {
        Ok(listener) => Arc::new(listener),
        Err(e) => return complain(&e.to_string()),
    };
    if let Err(e) = end_by(signals, listener.clone()) {
        listener.remove();
        return complain(&e.to_string());
    }
    let connections = Arc::new(AtomicUsize::new(0));
    loop {
        match listener.accept() {
            Ok(client) => serve(client, &connections),
            Err(e) => {
                log::warn!("{e}");
                thread::sleep(PAUSE);
            }
        }
    }
}

/// Has a signal take the socket away and end the process, with all that it holds.
fn end_by(mut signals: Signals, listener: Arc<Listener>) -> io::Result<()> {
    let wait = move || {
        signals.forever().next();
        listener.remove();
        process::exit(0);
    };
    thread::Builder::new().spawn(wait).map(drop)
}

/// Counts a connection for as long as it is there.
struct Counted(Arc<AtomicUsize>);

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Serves a client in a thread of its own; one too many is closed.
fn serve(client: OwnedFd, connections: &Arc<AtomicUsize>) {
    let before = connections.fetch_add(1, Ordering::Relaxed);
    let counted = Counted(connections.clone());
    if before >= MAX_CONNECTIONS {
        return log::warn!("{MAX_CONNECTIONS} connections are open; one more was refused");
    }
    let serve = move || {
        let _counted = counted;
        let served = service::serve(
            client,
            &|place| service::open_local(BACK_ENDS, place),
            &|new, so| service::create_local(BACK_ENDS, new, so),
        );
        if let Err(e) = served {
            log::error!("{e}");
        }
    };
    if let Err(e) = thread::Builder::new().spawn(serve) {
        log::warn!("a thread for a connection: {e}");
    }
}
