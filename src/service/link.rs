//! The way to the key service: started when it is needed, started again when it is gone.

mod greet;

use std::borrow::Cow;
use std::fmt;
use std::os::fd::{OwnedFd, RawFd};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicI32, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rustix::net::sockopt::set_socket_passcred;
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};

use super::TokenPlace;
use super::channel::{Channel, Failure};
use super::frame::Malformed;
use super::meet;
use super::program;
use super::protocol::{PROTOCOL, Reply, Request, Response};
use crate::error::{Error, Result};
use crate::files::Keeper;
use crate::provider::Settings;

/// Starts the program as a private child (`devkeyd --private`) with the socket as its standard
/// input, and leaves no other copy of the socket open.
pub type Launcher = fn(program: &Path, socket: OwnedFd) -> Result<()>;

/// How long an operation may take where nothing says otherwise: longer than the service waits,
/// which gives a device 30 s by default; see [`patience`].
const PATIENCE: Duration = Duration::from_secs(75);
/// What the service takes beside the device.
const MARGIN: Duration = Duration::from_secs(15);
/// The setting that says how long a device may take, in seconds.
const TIMEOUT: &str = "timeout";

/// [`Link::raw_fd`] of a link without a connection.
const NO_FD: RawFd = -1;

/// The way to the key service, shared by all remote tokens of a process.
///
/// There is no connection before the first operation that needs one. The lock is held for one
/// request and its response.
///
/// A forked child must not use its parent's link: the service refuses it. It closes
/// [`Link::socket`], forgets the link ([`std::mem::forget`]) and makes one of its own.
pub struct Link {
    service: Service,
    patience: Duration,
    connection: Mutex<Option<Connection>>,
    fd: Arc<AtomicI32>,
    inode: AtomicU64,
    /// Numbers given to remote tokens so far.
    tokens: AtomicU32,
}

/// Which service it is.
enum Service {
    /// A private child of this process.
    Child { program: PathBuf, launch: Launcher },
    /// One that listens, as root, as us or as the user `keeper`.
    Listening { socket: PathBuf, keeper: Keeper },
}

/// A token as its service knows it, and its settings.
#[derive(Debug)]
pub(super) enum Sought {
    /// By its place: a private child.
    Place(TokenPlace),
    /// By its name: one that listens.
    Name(String, Settings),
}

impl Sought {
    fn settings(&self) -> &Settings {
        match self {
            Sought::Place(place) => &place.settings,
            Sought::Name(_, settings) => settings,
        }
    }

    fn request(&self) -> Request<'_> {
        match self {
            Sought::Place(place) => Request::Open {
                place: Cow::Borrowed(place),
            },
            Sought::Name(name, _) => Request::Find { name },
        }
    }
}

/// A remote token as its link knows it.
#[derive(Debug)]
pub(super) struct Linked {
    sought: Sought,
    patience: Duration,
    /// Names the token among those of the link, over all connections.
    number: u32,
}

struct Connection {
    channel: Channel,
    /// Our numbers of the tokens that were opened, and the service's. They are few.
    opened: Vec<(u32, u32)>,
    fd: Arc<AtomicI32>,
}

impl Link {
    /// A link that starts `program` by `launch` at the first operation that needs it.
    pub fn new(program: PathBuf, launch: Launcher) -> Self {
        Link::with(Service::Child { program, launch })
    }

    /// A link to the service that listens at `socket`, run by root, by us or by the user `keeper`.
    pub fn to(socket: PathBuf, keeper: Option<u32>) -> Self {
        Link::with(Service::Listening { socket, keeper })
    }

    fn with(service: Service) -> Self {
        Link {
            service,
            patience: PATIENCE,
            connection: Mutex::default(),
            fd: Arc::new(AtomicI32::new(NO_FD)),
            inode: AtomicU64::new(0),
            tokens: AtomicU32::new(0),
        }
    }

    /// Sets how long an operation may take; key generation five times that. A token whose
    /// `timeout` asks for more gets more.
    pub fn with_patience(self, patience: Duration) -> Self {
        Link { patience, ..self }
    }

    /// The connection's descriptor, if there is a connection. Takes no lock: a forked child closes
    /// this descriptor, whatever its parent's threads were doing, lest the service outlive the
    /// parent.
    pub fn raw_fd(&self) -> Option<RawFd> {
        match self.fd.load(Ordering::Acquire) {
            NO_FD => None,
            fd => Some(fd),
        }
    }

    /// [`Link::raw_fd`] and the inode of its socket: the host may have closed the descriptor and the
    /// number may be something else's.
    pub fn socket(&self) -> Option<(RawFd, u64)> {
        let fd = self.raw_fd()?;
        Some((fd, self.inode.load(Ordering::Relaxed)))
    }

    pub(super) fn register(&self, sought: Sought) -> Linked {
        let number = self.tokens.fetch_add(1, Ordering::Relaxed);
        let own = patience(sought.settings());
        Linked {
            patience: own.map_or(self.patience, |own| own.max(self.patience)),
            sought,
            number,
        }
    }

    /// Has the service do what `ask` asks of a token, and takes what is wanted from its reply.
    ///
    /// A service that ended is started again, once, unless the request may have been carried out
    /// and doing it twice would not be the same. A reply that `take` does not accept ends the
    /// connection.
    pub(super) fn call<'r, T>(
        &self,
        token: &Linked,
        ask: impl Fn(u32) -> Request<'r>,
        take: impl FnOnce(Reply) -> Option<T>,
    ) -> Result<T> {
        let mut slot = self
            .connection
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let mut outcome = self.attempt(&mut slot, token, &ask);
        if let Err(Failure::Ended { sent }) = outcome
            && (!sent || ask(0).repeatable())
        {
            log::warn!("{} ended; starting it again", self.service().display());
            outcome = self.attempt(&mut slot, token, &ask);
        }
        let reply = outcome.map_err(|failure| self.explain(failure, token, &ask(0)))??;
        take(reply).ok_or_else(|| {
            *slot = None;
            self.explain(
                Failure::Malformed(Malformed("not what was asked for")),
                token,
                &ask(0),
            )
        })
    }

    /// Sees to it that a service which listens is there and has the token, so that who is about to
    /// ask it for something learns early that it cannot. Where it is there already nothing is sent.
    pub(super) fn ready(&self, token: &Linked) -> Result<()> {
        if let Service::Child { .. } = self.service {
            return Ok(());
        }
        // Another thread's request finds out.
        let Ok(mut slot) = self.connection.try_lock() else {
            return Ok(());
        };
        let outcome = match self.open(&mut slot, token) {
            Err(Failure::Ended { .. }) => self.open(&mut slot, token),
            outcome => outcome,
        };
        let nothing = Request::Logout { token: 0 };
        outcome.map_err(|failure| self.explain(failure, token, &nothing))?
    }

    fn open(&self, slot: &mut Option<Connection>, token: &Linked) -> Result<Result<()>, Failure> {
        let usable = |known: &Connection| {
            (known.has(token) || known.channel.is_there()) && known.channel.is_open()
        };
        let known = slot.take().filter(usable);
        let mut connection = match known {
            Some(connection) => connection,
            None => self.connect()?.0,
        };
        let opened = connection.open(token)?;
        *slot = Some(connection);
        Ok(opened.map(drop))
    }

    /// Asks once. A connection that failed is gone, as is one that a panic interrupted.
    fn attempt<'r>(
        &self,
        slot: &mut Option<Connection>,
        token: &Linked,
        ask: &impl Fn(u32) -> Request<'r>,
    ) -> Result<Response, Failure> {
        // A host may close descriptors that it does not know: daemons do.
        let known = slot.take().filter(|known| known.channel.is_there());
        let mut connection = match known {
            Some(connection) => connection,
            None => self.connect().map_err(before_sending)?.0,
        };
        let opened = match ask(0).needs_token() {
            true => connection.open(token).map_err(before_sending)?,
            false => Ok(0),
        };
        let response = match opened {
            Ok(number) => connection.ask(&ask(number), token.patience)?,
            Err(e) => Err(e),
        };
        *slot = Some(connection);
        Ok(response)
    }

    /// A connection with a service that was greeted, and its version.
    fn connect(&self) -> Result<(Connection, String), Failure> {
        let mut connection = match &self.service {
            Service::Listening { socket, keeper } => {
                self.known(meet::connect(socket, *keeper, self.patience)?)?
            }
            Service::Child { program, launch } => self.start(program, *launch)?,
        };
        match connection.ask(&Request::Hello { protocol: PROTOCOL }, self.patience)? {
            Ok(Reply::Welcome {
                protocol: PROTOCOL,
                version,
            }) => Ok((connection, version)),
            Ok(Reply::Welcome { protocol, version }) => {
                Err(Failure::NotStarted(self.other_version(protocol, &version)))
            }
            _ => Err(Malformed("no welcome").into()),
        }
    }

    /// A connection with a private child.
    fn start(&self, program: &Path, launch: Launcher) -> Result<Connection, Failure> {
        let program = program::check(program).map_err(Failure::NotStarted)?;
        let (family, kind) = (AddressFamily::UNIX, SocketType::STREAM);
        let (ours, theirs) =
            socketpair(family, kind, SocketFlags::CLOEXEC, None).map_err(Failure::Socket)?;
        // From here on every message bears its sender's process id, the first one too.
        set_socket_passcred(&theirs, true).map_err(Failure::Socket)?;
        let connection = self.known(ours)?;
        launch(&program, theirs).map_err(Failure::NotStarted)?;
        Ok(connection)
    }

    /// A connection whose descriptor [`Link::socket`] tells.
    fn known(&self, socket: OwnedFd) -> Result<Connection, Failure> {
        let connection = Connection {
            channel: Channel::new(socket)?,
            opened: Vec::new(),
            fd: self.fd.clone(),
        };
        self.inode
            .store(connection.channel.inode(), Ordering::Relaxed);
        self.fd
            .store(connection.channel.raw_fd(), Ordering::Release);
        Ok(connection)
    }

    /// What is at the other end, for messages.
    fn service(&self) -> &Path {
        match &self.service {
            Service::Child { program, .. } => program,
            Service::Listening { socket, .. } => socket,
        }
    }

    fn other_version(&self, protocol: u32, version: &str) -> Error {
        let advice = match protocol < PROTOCOL {
            true => "upgrade devkeyd",
            false => "upgrade this program's devkey, and restart it",
        };
        Error::DeviceError {
            device: self.service().display().to_string(),
            reason: format!(
                "devkeyd is version {version} and speaks protocol {protocol}, not {PROTOCOL}; {advice}"
            ),
        }
    }

    /// What a failure means to the caller who made `request`.
    fn explain(&self, failure: Failure, token: &Linked, request: &Request<'_>) -> Error {
        let device = self.service().display().to_string();
        match failure {
            Failure::NotStarted(error) => error,
            Failure::Late => Error::Timeout {
                what: device,
                seconds: (token.patience * request.slowness()).as_secs(),
            },
            Failure::Malformed(Malformed(what)) => Error::DeviceError {
                device,
                reason: format!("it answered what is no answer ({what}); is it devkeyd?"),
            },
            Failure::Socket(errno) => Error::io(format!("talking to {device}"), errno.into()),
            Failure::Ended { sent } => Error::DeviceGone {
                device,
                reason: match sent && !request.repeatable() {
                    false => "it ended before it answered".to_owned(),
                    true => "it ended before it answered; look whether the change was made \
                             before you try again"
                        .to_owned(),
                },
            },
        }
    }
}

impl fmt::Debug for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Link")
            .field("service", &self.service())
            .field("fd", &self.raw_fd())
            .finish_non_exhaustive()
    }
}

impl Connection {
    /// Whether the token is open: then [`Connection::open`] sends nothing.
    fn has(&self, token: &Linked) -> bool {
        self.number(token).is_some()
    }

    fn number(&self, token: &Linked) -> Option<u32> {
        let mut opened = self.opened.iter();
        Some(opened.find(|(ours, _)| *ours == token.number)?.1)
    }

    /// The service's number of a token.
    fn open(&mut self, token: &Linked) -> Result<Result<u32>, Failure> {
        if let Some(number) = self.number(token) {
            return Ok(Ok(number));
        }
        match self.ask(&token.sought.request(), token.patience)? {
            Ok(Reply::Opened(number)) => {
                self.opened.push((token.number, number));
                Ok(Ok(number))
            }
            Ok(_) => Err(Malformed("no number of a token").into()),
            Err(e) => Ok(Err(e)),
        }
    }

    fn ask(&mut self, request: &Request<'_>, patience: Duration) -> Result<Response, Failure> {
        self.channel
            .exchange(request, patience * request.slowness())
    }
}

impl Drop for Connection {
    /// Before the descriptor is closed, for its number may be another's the moment after.
    fn drop(&mut self) {
        self.fd.store(NO_FD, Ordering::Release);
    }
}

/// How long a token with a `timeout` may take: an operation asks its device twice at most, for the
/// token's secret and for what is to be done.
fn patience(settings: &Settings) -> Option<Duration> {
    let seconds: u32 = settings.get(TIMEOUT)?.parse().ok()?;
    Some(Duration::from_secs(seconds.into()) * 2 + MARGIN)
}

/// A failure that came before the request itself was sent.
fn before_sending(failure: Failure) -> Failure {
    match failure {
        Failure::Ended { .. } => Failure::Ended { sent: false },
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Seen to fail without `max` in `register`, and without the `* 2` in `patience`.
    #[test]
    fn a_token_is_given_longer_than_its_device() {
        let link = Link::new("/nonexistent".into(), |_, _| Ok(()));
        let given = |timeout: &str| {
            let mut place = TokenPlace::default();
            place.settings.insert(TIMEOUT.into(), timeout.into());
            link.register(Sought::Place(place)).patience.as_secs()
        };
        let none = Sought::Name(String::new(), Settings::new());
        assert_eq!(link.register(none).patience, PATIENCE);
        assert_eq!([given("1"), given("30"), given("nonsense")], [75; 3]);
        assert!(given("600") > 1200);
    }
}
