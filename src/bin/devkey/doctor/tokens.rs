//! Each token: whether it opens, its records and MACs, and its PINs as the store has them. The files
//! themselves are in [`store`](super::store).

use devkey::Error;
use devkey::config::FoundToken;
use devkey::store::{Role, Store};
use devkey::token::PinState;

use super::finding::{Area, Finding, State};
use super::scope::{Opened, Scope};
use super::store;
use crate::BACK_ENDS;
use crate::init::FILE;
use crate::tokens::Tokens;

const AREA: Area = Area::Tokens;
const OPEN: &str = "tokens.open";
const MACS: &str = "tokens.macs";

pub(super) fn look(scope: &Scope, say: &mut dyn FnMut(Finding)) {
    let Ok(tokens) = &scope.tokens else {
        return scope.no_config(AREA, OPEN).into_iter().for_each(say);
    };
    let found = scope.found();
    if found.is_empty() {
        let none = Finding::warning(AREA, OPEN, "there is no token yet");
        say(none.fix("devkey init, or devkey init --tpm"));
    }
    for token in &found {
        let mut of_token = |finding: Finding| {
            let subject = finding.subject.clone();
            say(finding.of(subject.unwrap_or_else(|| token.name.clone())));
        };
        one(tokens, token, &mut of_token);
    }
    store::drafts(&tokens.config.stores, say);
}

fn one(tokens: &Tokens, found: &FoundToken, say: &mut dyn FnMut(Finding)) {
    if !found.is_permitted() {
        let none = "the key service has it, for others";
        return say(Finding::none(AREA, OPEN, none));
    }
    store::files(found, say);
    let opened = tokens.open(found).and_then(|token| {
        let listing = token.store().list()?;
        Ok(Opened {
            found: found.clone(),
            token,
            listing,
        })
    });
    match opened {
        Err(error) => say(Finding::refused(AREA, OPEN, &error)),
        Ok(opened) => {
            say(open(&opened));
            records(&opened, say);
            say(macs(&opened));
            pins(found, opened.token.store(), say);
            store::disk(found, say);
        }
    }
}

fn open(opened: &Opened) -> Finding {
    let name = opened.back_end();
    if !BACK_ENDS.iter().any(|known| known.name == name) {
        let reason = format!("no back end {name:?} in this devkey");
        return Finding::failed(AREA, OPEN, reason).fix("install a devkey that has it");
    }
    let (keys, certificates) = (opened.listing.keys.len(), opened.listing.certificates.len());
    Finding::ok(
        AREA,
        OPEN,
        format!("back end {name}, keys: {keys}, certificates: {certificates}"),
    )
}

fn records(opened: &Opened, say: &mut dyn FnMut(Finding)) {
    let broken = &opened.listing.broken;
    if broken.is_empty() {
        say(Finding::ok(AREA, "tokens.records", "all can be read"));
    }
    for error in broken {
        say(Finding::error(AREA, "tokens.records", error));
    }
}

/// The MACs of the keys' records, where the root is a file that may be read and no PIN is before it.
fn macs(opened: &Opened) -> Finding {
    if opened.back_end() != FILE || opened.listing.keys.is_empty() {
        return Finding::none(AREA, MACS, "checked by the device, when a key is used");
    }
    if opened.token.store().token().pin {
        return Finding::none(AREA, MACS, "checked when a key is used, after the PIN");
    }
    for key in &opened.listing.keys {
        match opened.token.check(key) {
            Ok(()) => {}
            Err(Error::Unsupported(_)) => {
                return Finding::none(AREA, MACS, "checked by the key service, when a key is used");
            }
            Err(error) => {
                let finding = Finding::refused(AREA, MACS, &error);
                let found = format!("key {:?}: {}", key.label, finding.found);
                return Finding { found, ..finding };
            }
        }
    }
    Finding::ok(AREA, MACS, "no record was changed")
}

/// The PINs, by the store alone: what a device counts was noted there at the last login.
fn pins(found: &FoundToken, store: &Store, say: &mut dyn FnMut(Finding)) {
    let (user, so) = ("tokens.user-pin", "tokens.so-pin");
    if !store.token().pin {
        return say(Finding::none(AREA, user, "the token has no PINs"));
    }
    let name = &found.name;
    say(match PinState::of(store, Role::User) {
        Ok(Some(state)) => pin(user, &state, &unlocking(name), name),
        Ok(None) => Finding::warning(AREA, user, "not set yet")
            .fix(format!("devkey pin set --token {name}, by the SO")),
        Err(error) => Finding::refused(AREA, user, &error),
    });
    say(match PinState::of(store, Role::So) {
        Ok(Some(state)) => {
            let nothing = "nothing unlocks an SO's PIN: keep the user's";
            let state = pin(so, &state, nothing, name);
            // Keys are used without it.
            match state.state {
                State::Failed => Finding {
                    state: State::Warning,
                    ..state
                },
                _ => state,
            }
        }
        Ok(None) => Finding::none(AREA, so, "not set: a locked user PIN stays locked"),
        Err(error) => Finding::refused(AREA, so, &error),
    });
}

fn unlocking(name: &str) -> String {
    format!("devkey pin status --token {name}; devkey pin unlock --token {name}, by the SO")
}

fn pin(id: &'static str, state: &PinState, unlocking: &str, name: &str) -> Finding {
    let (left, of) = (state.left, state.of);
    match (left, state.to_be_changed) {
        (0, _) => Finding::failed(AREA, id, format!("locked after {of} wrong ones")).fix(unlocking),
        (1, _) => Finding::warning(AREA, id, format!("1 of {of} tries left"))
            .fix("give the right one next; it gives all tries back"),
        (_, true) => Finding::warning(AREA, id, "its owner is to change it")
            .fix(format!("devkey pin change --token {name}")),
        (left, false) => Finding::ok(AREA, id, format!("{left} of {of} tries left")),
    }
}
