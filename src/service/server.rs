//! The server: tokens whose providers run in this process, for the process at the other end.

mod client;
mod deed;
mod execute;
mod local;
mod peer;

use std::borrow::Cow;
use std::os::fd::OwnedFd;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

pub use client::Client;
pub use local::{Private, create_local, known, open_local, open_store, open_views};

use self::deed::Deed;
use self::peer::Peer;
use super::frame::{Frame, Malformed};
use super::protocol::{MAX_RESPONSE, PROTOCOL, Reply, Request, Response};
use super::rights::{Accounts, Right, Rules};
use super::{NewToken, TokenPlace, Wanted};
use crate::error::{Error, Result};
use crate::provider;
use crate::store::{Certificate, KeyRecord, ObjectId};
use crate::token::{Pin, Token};

/// The log's target for what clients of a service that listens do.
pub const AUDIT: &str = "audit";
/// Most tokens of one connection.
const MAX_TOKENS: usize = 256;

/// The tokens that a service has.
pub trait Tokens {
    /// How long the rest of a message may take that has begun to arrive; for ever where `None`. Who
    /// has a deadline listens, and its clients are told apart and logged.
    fn arrival(&self) -> Option<Duration> {
        None
    }

    /// Does not return any more once the process is about to end: called before a request is carried out, and before
    /// a client is told that the device is gone. What is not answered the client asks the next service, for its
    /// connection ends with this one.
    fn rest(&self) {}

    /// A token by its place.
    ///
    /// # Errors
    /// Always, where clients may have fewer rights than the service.
    fn open(&self, place: &TokenPlace) -> Result<Granted>;

    /// Makes a token at a place, with a PIN for the SO.
    ///
    /// # Errors
    /// As [`Tokens::open`].
    fn create(&self, new: &NewToken, so: &Pin) -> Result<()>;

    /// A token by its name.
    ///
    /// # Errors
    /// [`Error::NotFound`], also for one that the client has no right to.
    fn find(&self, name: &str, client: &Client) -> Result<Granted>;

    /// Makes a token of the service's own.
    ///
    /// # Errors
    /// [`Error::Refused`] to a client without the right to.
    fn make(
        &self,
        wanted: &Wanted,
        user: Option<&Pin>,
        so: Option<&Pin>,
        client: &Client,
    ) -> Result<()> {
        let _ = (user, so, client);
        Err(Error::unsupported(format!("making {:?}", wanted.name)))
    }
}

/// A token for one client, and what the client may do with it.
#[derive(Debug)]
pub struct Granted {
    /// The token.
    pub token: Arc<dyn Token>,
    /// Its name, for the log.
    pub name: String,
    /// The rights that there are, to who has not all of them.
    pub rules: Option<(Rules, Arc<Accounts>)>,
}

impl Granted {
    /// A token for who may do everything.
    pub fn whole(token: Arc<dyn Token>) -> Self {
        Granted {
            token,
            name: String::new(),
            rules: None,
        }
    }

    fn allows(&self, right: Right, deed: &Deed<'_>, client: Option<&Client>) -> bool {
        let Some((rules, accounts)) = &self.rules else {
            return true;
        };
        // Most say nothing of single keys, and then nothing is made of the names.
        let names = match rules.keys.is_empty() {
            true => Vec::new(),
            false => deed.names(),
        };
        client.is_some_and(|client| rules.allow(right, &names, &client.ids, accounts))
    }

    /// Whether a key would get other users by another name: the right to manage is none to use.
    fn moves_rights(&self, deed: &Deed<'_>) -> bool {
        let named = |name: &String| {
            let rules = self.rules.as_ref();
            rules.is_some_and(|(rules, _)| rules.keys.contains_key(name))
        };
        deed.moves().iter().any(named)
    }
}

/// Serves one connection until the client closes it.
///
/// # Errors
/// Why the connection was ended otherwise: it was fed what is no message
/// ([`Error::BadInput`]) or used by a second process ([`Error::NotPermitted`]), it took too long
/// ([`Error::Timeout`]), or it failed.
pub fn serve(socket: OwnedFd, tokens: &dyn Tokens) -> Result<()> {
    let mut peer = Peer::new(socket, tokens.arrival())?;
    let mut response = Frame::new(MAX_RESPONSE);
    let mut session = Session {
        greeted: false,
        client: None,
        opened: Vec::new(),
        tokens,
        said: None,
    };
    let mut goes_on = true;
    while goes_on {
        // Who has no token to use does not keep others out.
        let idle = tokens.arrival().filter(|_| session.opened.is_empty());
        if !peer.receive(idle)? {
            break;
        }
        tokens.rest();
        if session.greeted && session.client.is_none() {
            session.client = peer.client()?;
            if let Some(client) = &session.client {
                provider::ask_for(client.ids.user);
            }
        }
        let answer;
        (answer, goes_on) = session.answer(peer.request().decode()?)?;
        if let Err(Error::DeviceGone { .. }) = answer {
            tokens.rest();
        }
        if response.encode(&answer).is_err() {
            response.encode(&unspeakable())?;
        }
        // Before anybody can know that it was done: a PIN may be in it.
        peer.wipe();
        peer.send(response.message())?;
        response.clear();
    }
    Ok(())
}

/// How a client asked for a token.
#[derive(Debug, PartialEq, Eq)]
enum Asked {
    Place(TokenPlace),
    Name(String),
}

/// What was said on one connection.
struct Session<'a> {
    greeted: bool,
    /// Who asks, where that makes a difference.
    client: Option<Client>,
    /// The tokens that were opened; a token's number is its index.
    opened: Vec<(Asked, Granted)>,
    tokens: &'a dyn Tokens,
    /// The last deed that was done, and its line.
    said: Option<(Deed<'static>, String)>,
}

impl Session<'_> {
    /// The response to a request, and whether there may be another one.
    fn answer(&mut self, request: Request<'_>) -> Result<(Response, bool), Malformed> {
        match request {
            Request::Hello { .. } if self.greeted => Err(Malformed("a second greeting")),
            Request::Hello { protocol } => {
                self.greeted = true;
                Ok((Ok(welcome()), protocol == PROTOCOL))
            }
            _ if !self.greeted => Err(Malformed("no greeting")),
            request => Ok(self.perform_or_end(request)),
        }
    }

    /// A defect in a back end ends the connection, for who knows what state it left behind; the
    /// client starts anew.
    fn perform_or_end(&mut self, request: Request<'_>) -> (Response, bool) {
        match catch_unwind(AssertUnwindSafe(|| self.perform(request))) {
            Ok(response) => (response, true),
            Err(_) => (Err(Error::Internal("a panic in devkeyd".to_owned())), false),
        }
    }

    /// Does what is asked, where there is the right to, and says so in the log before it answers.
    fn perform(&mut self, request: Request<'_>) -> Response {
        match request {
            Request::Open { place } => return self.open(Asked::Place(place.into_owned())),
            Request::Find { name } => return self.open(Asked::Name(name.to_owned())),
            _ => {}
        }
        let Some(mut deed) = Deed::of(&request) else {
            return self.execute(&request, None);
        };
        let looked = self.look_up(&deed);
        let certified = self.certified(&request);
        let (key, certified, failed) = match (looked, certified) {
            (Ok(key), Ok(certified)) => (key, certified, None),
            (Err(e), _) | (_, Err(e)) => (None, Vec::new(), Some(e)),
        };
        let mut permitted = match failed {
            // Whose it is to use, nobody knows.
            Some(e) => Err(e),
            None if key.is_none() && certified.is_empty() => self.permit(&deed, false),
            None => Ok(()),
        };
        for one in key.iter().chain(&certified) {
            deed.label = Some(Cow::Borrowed(&one.label));
            deed.cka_id = Some(Cow::Borrowed(&one.cka_id));
            permitted = permitted.and_then(|()| self.permit(&deed, key.is_some()));
        }
        let response = permitted.and_then(|()| self.execute(&request, key.as_ref()));
        self.log(deed, &response);
        response
    }

    /// The key that a deed is about, as the store has it now: the client has only said which one. `None`
    /// where it is about none, as one about a certificate.
    fn look_up(&self, deed: &Deed<'_>) -> Result<Option<Arc<KeyRecord>>> {
        let (Some(token), Some(id)) = (deed.token, &deed.object) else {
            return Ok(None);
        };
        let store = self.granted(token)?.token.store();
        match store.key_now(id)? {
            // It may have been made since the store was looked at last.
            None => Ok(store.list()?.key(id).cloned()),
            found => Ok(found),
        }
    }

    /// The keys whose certificates a request is about, where there are rights: a key's rules hold for them too.
    fn certified(&self, request: &Request<'_>) -> Result<Vec<Arc<KeyRecord>>> {
        let (token, new, old) = match request {
            Request::AddCertificate { token, request } => (*token, Some(&request.der), &[][..]),
            Request::ReplaceCertificates { token, old, chain } => (*token, chain.first(), &old[..]),
            Request::Rename { token, object, .. } | Request::Delete { token, object } => {
                (*token, None, std::slice::from_ref(&**object))
            }
            _ => return Ok(Vec::new()),
        };
        if self.client.is_none() {
            return Ok(Vec::new());
        }
        let listing = self.granted(token)?.token.store().list()?;
        // What is none is refused by whoever is to store it.
        let new = new
            .and_then(|der| Certificate::from_der(ObjectId::random_certificate().ok()?, der).ok());
        let old = listing
            .certificates
            .iter()
            .filter(|one| old.contains(&one.id));
        let mut keys: Vec<Arc<KeyRecord>> = Vec::new();
        for certificate in new.iter().chain(old.map(|one| &**one)) {
            let key = listing.key_of(certificate);
            keys.extend(
                key.filter(|key| keys.iter().all(|known| known.id != key.id))
                    .cloned(),
            );
        }
        Ok(keys)
    }

    /// Whether the right is there; `key` where the deed is about the key itself, by whose names there are rights.
    fn permit(&self, deed: &Deed<'_>, key: bool) -> Result<()> {
        let (Some(right), Some(token)) = (deed.right, deed.token) else {
            return Ok(());
        };
        let granted = self.granted(token)?;
        let dir = granted.token.store().dir();
        match granted.allows(right, deed, self.client.as_ref()) {
            false => Err(deed.refusal(right, &granted.name, dir)),
            true if key && granted.moves_rights(deed) => Err(Error::Refused {
                path: dir.to_owned(),
                reason:
                    "devkey.toml gives rights to keys by these labels: only root may rename such \
                         a key"
                        .to_owned(),
            }),
            true => Ok(()),
        }
    }

    /// One line for each deed of a client that is told apart. Never what was signed or tried.
    fn log(&mut self, deed: Deed<'_>, response: &Response) {
        let Some(client) = &self.client else {
            return;
        };
        let said = match (response, self.said.take()) {
            // Who signs again and again with one key leaves the same line each time.
            (Ok(_), Some(said)) if said.0 == deed => said,
            _ => {
                let token = deed.token.and_then(|token| self.granted(token).ok());
                let token = token.map_or(deed.makes.as_deref(), |granted| Some(&granted.name));
                let token = deed::cut(token.unwrap_or_default());
                let result = match response {
                    Ok(_) => "ok".to_owned(),
                    Err(e) => format!("{:?}", deed::cut(&e.to_string())),
                };
                let line = format!("token={token:?} {deed} {client} result={result}");
                (deed.into_owned(), line)
            }
        };
        log::info!(target: AUDIT, "{}", said.1);
        self.said = response.is_ok().then_some(said);
    }

    /// Opens a token, or gives the number that it has already.
    fn open(&mut self, asked: Asked) -> Response {
        let known = self.opened.iter().position(|(known, _)| *known == asked);
        let number = match known {
            Some(number) => number,
            None if self.opened.len() == MAX_TOKENS => {
                return Err(Error::Full(format!("{MAX_TOKENS} tokens are open")));
            }
            None => {
                let granted = match &asked {
                    Asked::Place(place) => self.tokens.open(place)?,
                    Asked::Name(name) => self.tokens.find(name, self.client()?)?,
                };
                self.opened.push((asked, granted));
                self.opened.len() - 1
            }
        };
        let number = u32::try_from(number);
        number
            .map(Reply::Opened)
            .map_err(|e| Error::Internal(e.to_string()))
    }

    fn client(&self) -> Result<&Client> {
        let unknown = || Error::unsupported("tokens by name, in a private child");
        self.client.as_ref().ok_or_else(unknown)
    }

    fn granted(&self, number: u32) -> Result<&Granted> {
        let index = usize::try_from(number).ok();
        let opened = index.and_then(|index| self.opened.get(index));
        let unknown = || Error::NotFound(format!("token number {number}"));
        Ok(&opened.ok_or_else(unknown)?.1)
    }
}

/// What the log says of a request.
pub(super) fn line(request: &Request<'_>) -> String {
    Deed::of(request).map_or_else(String::new, |deed| deed.to_string())
}

fn welcome() -> Reply {
    Reply::Welcome {
        protocol: PROTOCOL,
        version: env!("CARGO_PKG_VERSION").to_owned(),
    }
}

fn unspeakable() -> Response {
    Err(Error::Internal("the answer cannot be sent".to_owned()))
}
