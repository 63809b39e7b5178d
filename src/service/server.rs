//! The server: tokens whose providers run in this process, for the process at the other end.

mod peer;

use std::os::fd::OwnedFd;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use self::peer::Peer;
use super::frame::{Frame, Malformed};
use super::protocol::{MAX_RESPONSE, PROTOCOL, Reply, Request, Response};
use super::{NewToken, TokenPlace};
use crate::error::{Error, Result};
use crate::provider::BackEnd;
use crate::store::{KeyRecord, ObjectId, Store};
use crate::token::{DEFAULT_TRIES, LocalToken, Pin, Pins, Token, TokenRequest};

/// Opens the token of a place.
pub type Opener<'a> = dyn Fn(&TokenPlace) -> Result<Arc<dyn Token>> + 'a;

/// Makes a token, with a PIN for the SO.
pub type Creator<'a> = dyn Fn(&NewToken, &Pin) -> Result<()> + 'a;

/// Most tokens of one connection.
const MAX_TOKENS: usize = 256;

/// Serves one connection until the client closes it.
///
/// # Errors
/// Why the connection was ended otherwise: it was fed what is no message
/// ([`Error::BadInput`]) or used by a second process ([`Error::NotPermitted`]), or it failed.
pub fn serve(socket: OwnedFd, open: &Opener<'_>, create: &Creator<'_>) -> Result<()> {
    let mut peer = Peer::new(socket)?;
    let mut response = Frame::new(MAX_RESPONSE);
    let mut session = Session {
        greeted: false,
        tokens: Vec::new(),
        open,
        create,
    };
    let mut goes_on = true;
    while goes_on {
        let Some(request) = peer.receive()? else {
            break;
        };
        let answer;
        (answer, goes_on) = session.answer(request.decode()?)?;
        if response.encode(&answer).is_err() {
            response.encode(&unspeakable())?;
        }
        peer.send(response.message())?;
        response.clear();
    }
    Ok(())
}

/// Makes a token in this process: with a PIN for the SO, who sets the user's.
///
/// # Errors
/// [`Error::Unsupported`] for a back end that is not among `back_ends`.
pub fn create_local(back_ends: &[BackEnd], new: &NewToken, so: &Pin) -> Result<()> {
    absolute(&new.place)?;
    let back_end = known(back_ends, &new.back_end)?;
    let checked = back_end.check_settings(&new.place.settings);
    checked.map_err(|bad| new.place.blame(bad))?;
    let request = TokenRequest {
        dir: &new.place.dir,
        label: &new.label,
        settings: new.place.settings.clone(),
        pins: Some(Pins {
            user: None,
            so: Some(so),
            tries: DEFAULT_TRIES,
        }),
    };
    LocalToken::create(back_end, &request).map(|_| ())
}

/// Opens a token in this process by the back end that its record names.
pub fn open_local(back_ends: &[BackEnd], place: &TokenPlace) -> Result<Arc<dyn Token>> {
    absolute(place)?;
    open_store(back_ends, Store::open(&place.dir)?, place)
}

/// Opens the token of a store that is at that place.
///
/// # Errors
/// [`Error::BadConfig`] or [`Error::BadRecord`] for a bad setting; [`Error::Unsupported`] for a
/// back end that is not among `back_ends`.
pub fn open_store(
    back_ends: &[BackEnd],
    store: Store,
    place: &TokenPlace,
) -> Result<Arc<dyn Token>> {
    let back_end = known(back_ends, &store.token().back_end)?;
    let checked = back_end.check_settings(&place.settings);
    checked.map_err(|bad| place.blame(bad))?;
    Ok(Arc::new(LocalToken::open(
        back_end,
        store,
        &place.settings,
    )?))
}

fn known<'b>(back_ends: &'b [BackEnd], name: &str) -> Result<&'b BackEnd> {
    let unknown = || Error::unsupported(format!("back end {name:?}, in devkeyd"));
    let found = back_ends.iter().find(|known| known.name == name);
    found.ok_or_else(unknown)
}

fn absolute(place: &TokenPlace) -> Result<()> {
    match place.dir.is_absolute() {
        true => Ok(()),
        false => Err(Error::input(
            "a token's directory is named by an absolute path",
        )),
    }
}

/// What was said on one connection.
struct Session<'a> {
    greeted: bool,
    /// The tokens that were opened; a token's number is its index.
    tokens: Vec<(TokenPlace, Arc<dyn Token>)>,
    open: &'a Opener<'a>,
    create: &'a Creator<'a>,
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

    fn perform(&mut self, request: Request<'_>) -> Response {
        match request {
            Request::Hello { .. } => Ok(welcome()),
            Request::Open { place } => self.open(place.into_owned()).map(Reply::Opened),
            Request::Sign {
                token,
                key,
                scheme,
                input,
            } => {
                let (token, key) = self.key(token, &key)?;
                token.sign(&key, scheme, input).map(Reply::Signature)
            }
            Request::Agree { token, key, peer } => {
                let (token, key) = self.key(token, &key)?;
                token.agree(&key, &peer).map(Reply::Secret)
            }
            Request::Decrypt {
                token,
                key,
                scheme,
                ciphertext,
            } => {
                let (token, key) = self.key(token, &key)?;
                token.decrypt(&key, scheme, ciphertext).map(Reply::Secret)
            }
            Request::Generate { token, request } => {
                Ok(Reply::Stored(self.token(token)?.generate(&request)?.id))
            }
            Request::AddCertificate { token, request } => Ok(Reply::Stored(
                self.token(token)?.add_certificate(&request)?.id,
            )),
            Request::Rename {
                token,
                object,
                names,
            } => {
                self.token(token)?.rename(&object, &names)?;
                Ok(Reply::Done)
            }
            Request::Delete { token, object } => {
                self.token(token)?.delete(&object)?;
                Ok(Reply::Done)
            }
            request => self.perform_with_pin(request),
        }
    }

    fn perform_with_pin(&self, request: Request<'_>) -> Response {
        match request {
            Request::Login {
                token,
                role,
                pin,
                last_try,
            } => self.token(token)?.login(role, pin.get(), last_try)?,
            Request::Logout { token } => self.token(token)?.logout()?,
            Request::SetPin {
                token,
                role,
                old,
                new,
            } => self.token(token)?.set_pin(role, old.get(), new.get())?,
            Request::InitPin {
                token,
                new,
                to_be_changed,
            } => self.token(token)?.init_pin(new.get(), to_be_changed)?,
            Request::Reset { token, so, label } => self.token(token)?.reset(so.get(), label)?,
            Request::Tries { token, role } => {
                return self.token(token)?.tries(role).map(Reply::Tries);
            }
            Request::Create { new, so } => (self.create)(&new, so.get())?,
            _ => return Err(Error::Internal("no request of a PIN".to_owned())),
        }
        Ok(Reply::Done)
    }

    fn open(&mut self, place: TokenPlace) -> Result<u32> {
        let known = self.tokens.iter().position(|(known, _)| *known == place);
        let number = match known {
            Some(number) => number,
            None if self.tokens.len() == MAX_TOKENS => {
                return Err(Error::Full(format!("{MAX_TOKENS} tokens are open")));
            }
            None => {
                let token = (self.open)(&place)?;
                self.tokens.push((place, token));
                self.tokens.len() - 1
            }
        };
        u32::try_from(number).map_err(|e| Error::Internal(e.to_string()))
    }

    fn token(&self, number: u32) -> Result<&dyn Token> {
        let index = usize::try_from(number).ok();
        let token = index.and_then(|index| self.tokens.get(index));
        let unknown = || Error::NotFound(format!("token number {number}"));
        Ok(&*token.ok_or_else(unknown)?.1)
    }

    /// A key as the store has it now: the client has only said which one.
    fn key(&self, token: u32, id: &ObjectId) -> Result<(&dyn Token, Arc<KeyRecord>)> {
        let token = self.token(token)?;
        let key = token.store().list()?.key(id).cloned();
        let missing = || Error::NotFound(format!("key {id}"));
        Ok((token, key.ok_or_else(missing)?))
    }
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
