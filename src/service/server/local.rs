//! Tokens whose providers run in this process.

use std::sync::Arc;

use super::super::{NewToken, TokenPlace};
use super::{Client, Granted, Tokens};
use crate::error::{Error, Result};
use crate::provider::BackEnd;
use crate::store::Store;
use crate::token::{DEFAULT_TRIES, LocalToken, Pin, Pins, Token, TokenRequest};

/// The tokens of a private child: whatever its parent names, which has the same rights.
#[derive(Debug, Clone, Copy)]
pub struct Private<'b>(pub &'b [BackEnd]);

impl Tokens for Private<'_> {
    fn open(&self, place: &TokenPlace) -> Result<Granted> {
        Ok(Granted::whole(open_local(self.0, place)?))
    }

    fn create(&self, new: &NewToken, so: &Pin) -> Result<()> {
        create_local(self.0, new, so)
    }

    fn find(&self, name: &str, _: &Client) -> Result<Granted> {
        Err(Error::NotFound(format!("token {name}, by its name,")))
    }
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
    Ok(Arc::new(open_views(back_ends, store, place)?))
}

/// As [`open_store`], a token that can be [viewed](LocalToken::view) by many.
pub fn open_views(back_ends: &[BackEnd], store: Store, place: &TokenPlace) -> Result<LocalToken> {
    let back_end = known(back_ends, &store.token().back_end)?;
    let checked = back_end.check_settings(&place.settings);
    checked.map_err(|bad| place.blame(bad))?;
    LocalToken::open(back_end, store, &place.settings)
}

/// The back end of that name.
///
/// # Errors
/// [`Error::Unsupported`] where it is not among `back_ends`.
pub fn known<'b>(back_ends: &'b [BackEnd], name: &str) -> Result<&'b BackEnd> {
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
