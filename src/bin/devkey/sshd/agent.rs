//! `devkey sshd agent`: signs with sshd's host key, and with no other.
//!
//! Not OpenSSH's own agent with the module in it: that one lists every key of the tokens it may use, has to be
//! told by ssh-add what to load, and has no PIN to give a second time once the key service was restarted.

use std::fs;
use std::io::BufReader;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use devkey::Error;
use devkey::config::{FoundToken, Service};
use devkey::identity::signer::TokenSigner;
use devkey::identity::ssh::agent::{Request, Response, sign};
use devkey::identity::ssh::key as ssh;
use devkey::key::{Hash, PublicKey};
use devkey::service::{Audience, Listener};
use devkey::store::KeyRecord;
use devkey::token::Token;
use listenfd::ListenFd;
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::paths::Paths;
use crate::failure::{Failure, Result};
use crate::output::Outcome;
use crate::pin::Access;
use crate::tokens::Tokens;

/// Most connections at a time, each with a thread: one for each login of the machine.
const MAX_CONNECTIONS: usize = 4096;
/// Of such a thread, in bytes: it reads a message, asks the key service and answers.
const STACK: usize = 256 * 1024;
/// Pause after a failure to accept, which may last: no descriptors are left.
const PAUSE: Duration = Duration::from_millis(100);

/// Sign with sshd's host key, and with nothing else, as an agent in the foreground
///
/// devkey-sshd-agent.service runs it, and has no other way to run than this. It serves root, or who started
/// it, at the socket that systemd passes or the one that is named, and asks the key service for each
/// signature. The key is the one whose public half is in the file that sshd reads, so that both mean the same.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example, where no systemd runs:
  setpriv --reuid devkey-sshd --regid devkey-sshd --clear-groups \\
    devkey sshd agent --socket /run/devkey-sshd/agent
Next: `devkey sshd status`.")]
pub(crate) struct Args {
    /// Where to listen [default: the socket that systemd passed]
    #[arg(long, value_name = "PATH")]
    socket: Option<PathBuf>,
    /// The key's public half [default: /etc/ssh/devkey_host_key.pub]
    #[arg(long, value_name = "FILE")]
    public_key: Option<PathBuf>,
    #[command(flatten)]
    access: Access,
}

pub(super) fn run(args: &Args) -> Outcome {
    let listener = listen(args.socket.as_deref())?;
    let default = || Paths::default().public;
    let agent = Arc::new(Agent {
        public_file: args.public_key.clone().unwrap_or_else(default),
        access: args.access.clone(),
        open: Mutex::default(),
    });
    let connections = Arc::new(AtomicUsize::new(0));
    loop {
        match listener.accept() {
            Ok((client, _)) => start(client, &agent, &connections),
            Err(e) => {
                log::warn!("{e}");
                thread::sleep(PAUSE);
            }
        }
    }
}

fn listen(path: Option<&Path>) -> Result<Listener> {
    let passed = ListenFd::from_env().take_unix_listener(0);
    let passed = passed.map_err(|e| Error::io("the socket that was passed", e))?;
    match (path, passed) {
        (Some(path), _) => Ok(Listener::bind(path, Audience::Own)?),
        (None, Some(passed)) => Ok(Listener::inherited(OwnedFd::from(passed))?),
        (None, None) => Err(Failure::new(
            "no socket to listen at",
            "systemctl start devkey-sshd-agent.socket, or name one with --socket",
        )),
    }
}

/// Serves a client in a thread of its own; one too many is closed.
fn start(client: OwnedFd, agent: &Arc<Agent>, connections: &Arc<AtomicUsize>) {
    if connections.fetch_add(1, Ordering::Relaxed) >= MAX_CONNECTIONS {
        connections.fetch_sub(1, Ordering::Relaxed);
        return log::warn!("too many connections; another one was refused");
    }
    let counted = Counted(connections.clone());
    let agent = agent.clone();
    let serve = move || {
        let _counted = counted;
        if let Err(e) = agent.serve(UnixStream::from(client)) {
            log::warn!("a connection was ended: {e}");
        }
    };
    if let Err(e) = thread::Builder::new().stack_size(STACK).spawn(serve) {
        log::warn!("a thread for a connection: {e}");
    }
}

/// A connection that is counted.
struct Counted(Arc<AtomicUsize>);

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The agent of one key.
struct Agent {
    public_file: PathBuf,
    access: Access,
    open: Mutex<Option<Open>>,
}

/// The key on its token.
struct Open {
    found: FoundToken,
    token: Arc<dyn Token>,
    key: Arc<KeyRecord>,
    /// Whether the PIN was given, where the token has one.
    ready: bool,
}

impl Agent {
    fn serve(&self, client: UnixStream) -> devkey::Result<()> {
        let mut from = BufReader::new(&client);
        while let Some(request) = Request::read(&mut from)? {
            let response = self.answer(&request, &client).unwrap_or_else(|failure| {
                log::error!("{}", in_a_line(&failure));
                Response::Failure
            });
            response.write(&mut &client)?;
        }
        Ok(())
    }

    fn answer(&self, request: &Request, client: &UnixStream) -> Result<Response> {
        match request {
            Request::Identities => {
                let (public, comment) = read_public(&self.public_file)?;
                Ok(Response::Identities(vec![(ssh::blob(&public)?, comment)]))
            }
            Request::Sign { key, data, hash } => {
                let (public, _) = read_public(&self.public_file)?;
                if *key != ssh::blob(&public)? {
                    return Err(Error::NotFound("the key that was asked for".into()).into());
                }
                Ok(Response::Signature(
                    self.sign(&public, data, *hash, client)?,
                ))
            }
            // What OpenSSH asks of every agent, and an agent need not know.
            Request::Other(_) => Ok(Response::Failure),
        }
    }

    fn sign(
        &self,
        public: &PublicKey,
        data: &[u8],
        hash: Option<Hash>,
        client: &UnixStream,
    ) -> Result<Vec<u8>> {
        let mut open = self.open();
        // While others were served before it, sshd may have given the login up.
        if has_gone(client) {
            return Err(Error::input("nobody waits for the signature any more").into());
        }
        if open.as_ref().is_none_or(|open| open.key.public != *public) {
            *open = Some(Open::find(public)?);
        }
        let Some(known) = open.as_mut() else {
            return Err(Error::Internal("no key was opened".into()).into());
        };
        match known.sign(&self.access, data, hash) {
            // The key service was restarted, or the key is another object now.
            Err(Tried::Again) => {
                *known = Open::find(public)?;
                known.sign(&self.access, data, hash)
            }
            outcome => outcome,
        }
        .map_err(|tried| match tried {
            Tried::Again => Failure::from(Error::LoginRequired),
            Tried::Failed(failure) => failure,
        })
    }

    fn open(&self) -> MutexGuard<'_, Option<Open>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Why there is no signature.
enum Tried {
    /// With the key opened anew there may be one.
    Again,
    Failed(Failure),
}

impl Open {
    /// The key with that public half, on a token of the key service.
    fn find(public: &PublicKey) -> Result<Self> {
        let tokens = Tokens::load()?;
        for mut found in tokens.config.tokens() {
            if found.reach.socket.is_none() || !found.is_permitted() {
                continue;
            }
            // A key that only this process could open is none for a server.
            found.service = Service::Always;
            let Ok(token) = tokens.open(&found) else {
                continue;
            };
            // What is wrong with another token is none of this key's business.
            let listing = token.store().list().unwrap_or_default();
            if let Some(key) = listing.keys.iter().find(|key| key.public == *public) {
                return Ok(Open {
                    ready: !token.store().token().pin,
                    key: key.clone(),
                    token,
                    found,
                });
            }
        }
        Err(Failure::new(
            Error::NotFound("sshd's host key, on a token that this user may use,".into()),
            "devkey sshd status, as root, says what is missing",
        ))
    }

    fn sign(
        &mut self,
        access: &Access,
        data: &[u8],
        hash: Option<Hash>,
    ) -> std::result::Result<Vec<u8>, Tried> {
        // A wrong PIN is tried again on the same connection, where it counts but once.
        if !self.ready {
            let told = access.log_in(&*self.token, &self.found.name);
            if let Some(note) = told.map_err(Tried::Failed)? {
                log::warn!("{note}");
            }
            self.ready = true;
        }
        let signer = TokenSigner {
            token: &*self.token,
            key: &self.key,
        };
        sign(&signer, data, hash).map_err(|e| match e {
            Error::LoginRequired | Error::NotFound(_) => Tried::Again,
            other => Tried::Failed(other.into()),
        })
    }
}

/// The public key that sshd has, and its comment.
pub(super) fn read_public(path: &Path) -> Result<(PublicKey, String)> {
    let text = fs::read_to_string(path).map_err(|e| {
        let error = Error::io(format!("reading {}", path.display()), e);
        Failure::new(error, "devkey sshd enable writes it")
    })?;
    let named = |e| Failure::new(format!("{}: {e}", path.display()), "devkey sshd enable");
    ssh::from_line(&text).map_err(named)
}

fn has_gone(client: &UnixStream) -> bool {
    let mut fds = [PollFd::new(client, PollFlags::RDHUP)];
    let now = Timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    poll(&mut fds, Some(&now)).is_ok_and(|ready| ready > 0)
}

fn in_a_line(failure: &Failure) -> String {
    match &failure.remedy {
        Some(remedy) => format!("{}; try: {remedy}", failure.what),
        None => failure.what.clone(),
    }
}
