//! `devkeyd --listen`: one service for many processes, of one user or of the system.

use std::env;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::{self, ExitCode};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use devkey::Result;
use devkey::config::{Config, Environment};
use devkey::service::{self, Client, Granted, Listener, NewToken, TokenPlace, Tokens, Wanted};
use devkey::token::Pin;
use listenfd::ListenFd;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use super::connections::{Connections, Counted};
use super::registry::Registry;
use super::{BACK_ENDS, complain, prepare};

/// Descriptors that it wants, where it may have them: two for each connection and one more until it has a
/// token; the rest for stores and devices.
const DESCRIPTORS: u64 = 4096;
/// What is logged without being asked for: troubles, and what clients do. The TPM's own crate calls an
/// error what was asked only to see whether it is there; what is one reaches the client as ours.
const LOGGED: &str = "warn,tss_esapi=off,audit=info";
/// Between two looks at a configuration that cannot be read.
const LOOK: Duration = Duration::from_millis(500);
/// Pause after a failure to accept, which may last: no descriptors are left.
const PAUSE: Duration = Duration::from_millis(100);

/// Listens until a signal ends it: at `path`, or at the socket that was passed, or where the
/// configuration says.
pub(super) fn run(path: Option<&Path>) -> ExitCode {
    if let Err(e) = prepare(Some(LOGGED)) {
        return complain(&e.to_string());
    }
    want_descriptors();
    // Before the socket: a signal between the two would leave it behind.
    let mut signals = match Signals::new([SIGINT, SIGTERM, SIGHUP]) {
        Ok(signals) => signals,
        Err(e) => return complain(&format!("waiting for signals: {e}")),
    };
    let (registry, listener) = match start(path, &mut signals) {
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

/// Without a word where it may not: then fewer have to do.
fn want_descriptors() {
    let limit = getrlimit(Resource::Nofile);
    let wanted = limit
        .maximum
        .map_or(DESCRIPTORS, |most| most.min(DESCRIPTORS));
    if limit.current.is_some_and(|now| now < wanted) {
        let raised = Rlimit {
            current: Some(wanted),
            ..limit
        };
        let _ = setrlimit(Resource::Nofile, raised);
    }
}

fn start(path: Option<&Path>, signals: &mut Signals) -> Result<(Registry, Listener)> {
    let config = match load() {
        Err(e) if path.is_none() && env::var_os("LISTEN_FDS").is_some() => wait(e, signals),
        loaded => loaded?,
    };
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

fn load() -> Result<Config> {
    Config::load(&Environment::of_process(false))
}

/// Waits until the configuration can be read: systemd would start the service again each second, for ever, and each
/// time there would be another line.
fn wait(mut error: devkey::Error, signals: &mut Signals) -> Config {
    log::error!("{error}; waiting until that is corrected");
    loop {
        thread::sleep(LOOK);
        if signals.pending().next().is_some() {
            process::exit(0);
        }
        match load() {
            Ok(config) => return config,
            Err(e) if e.to_string() == error.to_string() => {}
            Err(e) => {
                log::error!("{e}");
                error = e;
            }
        }
    }
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

/// Serves a client in a thread of its own.
fn serve(client: OwnedFd, user: u32, connections: &Arc<Connections>, registry: &Arc<Registry>) {
    let counted = match connections.admit(&client, user) {
        Ok(counted) => counted,
        Err(e) if registry.lets_say(user) => return log::warn!("{e}"),
        Err(_) => return,
    };
    let registry = registry.clone();
    let serve = move || {
        let guest = Guest { registry, counted };
        if let Err(e) = service::serve(client, &guest)
            && guest.registry.lets_say(user)
        {
            log::warn!("a connection of user {user} was ended: {e}");
        }
    };
    if let Err(e) = thread::Builder::new().spawn(serve) {
        log::warn!("a thread for a connection: {e}");
    }
}

/// The tokens for one connection.
struct Guest {
    registry: Arc<Registry>,
    counted: Counted,
}

impl Tokens for Guest {
    fn rest(&self) {
        self.registry.rest();
    }

    fn arrival(&self) -> Option<Duration> {
        self.registry.arrival()
    }

    fn open(&self, place: &TokenPlace) -> Result<Granted> {
        self.registry.open(place)
    }

    fn create(&self, new: &NewToken, so: &Pin) -> Result<()> {
        self.registry.create(new, so)
    }

    fn find(&self, name: &str, client: &Client) -> Result<Granted> {
        let found = self.registry.find(name, client)?;
        self.counted.settle()?;
        Ok(found)
    }

    fn make(
        &self,
        wanted: &Wanted,
        user: Option<&Pin>,
        so: Option<&Pin>,
        client: &Client,
    ) -> Result<()> {
        self.registry.make(wanted, user, so, client)
    }
}
