//! The specification of [`Login`] in code, for tokens with PINs on every back end that seals secrets
//! under an auth: in this process, and across the socket of the key service.
//!
//! Each rule names a change that it is there to catch; those that tests/pin.rs names too were made and
//! seen to fail there, the others have not been tried on this suite yet.

use devkey::Error;
use devkey::key::{KeyKind, Usage};
use devkey::provider::{Place, Sealing};
use devkey::secret::Secret;
use devkey::store::Role;
use devkey::token::{KeyRequest, LocalToken, Names, Pin, PinState, Pins, Token, TokenRequest};

use crate::device::Device;
use crate::token::{Fresh, Open, first_kind, generate, sign};

const USER: &str = "1234";
const SO: &str = "the SO's own";
const NEW: &str = "Grüße";
const TRIES: u32 = 4;

/// Seen to fail with `generate`, `sign` and `rename` of `LocalToken` given a secret of their own where
/// nobody is logged in.
pub(crate) fn login_is_wanted(fresh: Fresh, open: Open) {
    let Some(device) = with_pin_token(fresh) else {
        return;
    };
    let token = open(&device);
    assert!(token.store().token().pin);
    // The SO is nobody who uses keys.
    for role in [None, Some(Role::So)] {
        if let Some(role) = role {
            token.login(role, &pin(SO), false).unwrap();
        }
        let kind = first_kind(&*token);
        login_required(try_generate(&*token, kind));
        let key = token.store().list().unwrap().keys[0].clone();
        login_required(sign(&*token, &key));
        let names = Names {
            label: Some("another".to_owned()),
            cka_id: None,
        };
        login_required(token.rename(&key.id, &names));
    }
}

/// Seen to fail with `logout` doing nothing.
pub(crate) fn login_opens_and_logout_closes(fresh: Fresh, open: Open) {
    let Some(device) = with_pin_token(fresh) else {
        return;
    };
    let token = open(&device);
    let key = token.store().list().unwrap().keys[0].clone();
    for _ in 0..2 {
        token.login(Role::User, &pin(USER), false).unwrap();
        sign(&*token, &key).unwrap();
        token.logout().unwrap();
        login_required(sign(&*token, &key));
    }
    // A login takes the place of another.
    token.login(Role::User, &pin(USER), false).unwrap();
    sign(&*token, &key).unwrap();
    token.login(Role::So, &pin(SO), false).unwrap();
    login_required(sign(&*token, &key));
    // Whom one process lets in, another does not.
    token.login(Role::User, &pin(USER), false).unwrap();
    login_required(sign(&*open(&device), &key));
    // Nor does a wrong PIN end a login.
    wrong(token.login(Role::User, &pin(NEW), false));
    sign(&*token, &key).unwrap();
}

/// Seen to fail with the other role's tries taken by `tries`, and without `count(0)` in
/// `unseal_counted`.
pub(crate) fn wrong_pins_are_counted(fresh: Fresh, open: Open) {
    let Some(device) = with_pin_token(fresh) else {
        return;
    };
    let token = open(&device);
    let left = || token.tries(Role::User).unwrap().left;
    let all = left();
    assert_eq!(token.tries(Role::User).unwrap().of, all);
    assert_eq!(
        wrong(token.login(Role::User, &pin("wrong"), false)),
        Some(all - 1)
    );
    assert_eq!(left(), all - 1);
    // The same again costs nothing, and another one does.
    wrong(token.login(Role::User, &pin("wrong"), false));
    assert_eq!(left(), all - 1);
    wrong(token.set_pin(Role::User, &pin("worse"), &pin(NEW)));
    assert_eq!(left(), all - 2);
    let known = PinState::of(token.store(), Role::User).unwrap().unwrap();
    assert_eq!((known.left, known.of), (left(), all));
    token.login(Role::User, &pin(USER), false).unwrap();
    assert_eq!(left(), all);
}

/// Seen to fail with `locked_after` answering false.
pub(crate) fn a_locked_pin_is_unlocked_by_the_so(fresh: Fresh, open: Open) {
    let Some(device) = with_pin_token(fresh) else {
        return;
    };
    let token = open(&device);
    let mut guesses = 0;
    while token.tries(Role::User).unwrap().left > 0 {
        guesses += 1;
        assert!(guesses <= TRIES, "more tries than the token was made with");
        wrong(token.login(Role::User, &pin(&format!("wrong {guesses}")), true));
    }
    for token in [&token, &open(&device)] {
        locked(token.login(Role::User, &pin(USER), true));
        locked(token.set_pin(Role::User, &pin(USER), &pin(NEW)));
    }
    login_required(token.init_pin(&pin(NEW), false));
    token.login(Role::So, &pin(SO), false).unwrap();
    token.init_pin(&pin(NEW), true).unwrap();
    wrong(token.login(Role::User, &pin(USER), false));
    token.login(Role::User, &pin(NEW), false).unwrap();
    let key = token.store().list().unwrap().keys[0].clone();
    sign(&*token, &key).unwrap();
    let state = PinState::of(token.store(), Role::User).unwrap().unwrap();
    assert!(state.to_be_changed);
}

/// Seen to fail with a fresh secret in `LocalToken::set_pin`.
pub(crate) fn a_changed_pin_opens_the_same_keys(fresh: Fresh, open: Open) {
    let Some(device) = with_pin_token(fresh) else {
        return;
    };
    let token = open(&device);
    let key = token.store().list().unwrap().keys[0].clone();
    for (role, old) in [(Role::User, USER), (Role::So, SO)] {
        token.set_pin(role, &pin(old), &pin(NEW)).unwrap();
        wrong(token.login(role, &pin(old), false));
        token.login(role, &pin(NEW), false).unwrap();
    }
    login_required(sign(&*token, &key));
    let token = open(&device);
    token.login(Role::User, &pin(NEW), false).unwrap();
    assert_eq!(token.store().list().unwrap().keys[0].public, key.public);
    sign(&*token, &key).unwrap();
}

/// Seen to fail with `Role::User` for `Role::So` in `init_pin`.
pub(crate) fn the_so_sets_the_first_pin(fresh: Fresh, open: Open) {
    let Some(device) = with_pins(fresh, false) else {
        return;
    };
    let token = open(&device);
    let unset = token.login(Role::User, &pin(USER), false);
    assert!(matches!(unset, Err(Error::PinNotSet)), "{unset:?}");
    login_required(token.init_pin(&pin(USER), false));
    token.login(Role::So, &pin(SO), false).unwrap();
    token.init_pin(&pin(USER), false).unwrap();
    token.login(Role::User, &pin(USER), false).unwrap();
    login_required(token.init_pin(&pin(NEW), false));
    let key = generate(&*token, first_kind(&*token), Usage::SIGN);
    sign(&*token, &key).unwrap();
}

/// Seen to fail without `erase` in `reset`, and without `unlock`.
pub(crate) fn a_reset_leaves_the_so_alone(fresh: Fresh, open: Open) {
    let Some(device) = with_pin_token(fresh) else {
        return;
    };
    let token = open(&device);
    wrong(token.reset(&pin(USER), "again"));
    assert_eq!(token.store().list().unwrap().keys.len(), 1);
    token.reset(&pin(SO), "again").unwrap();
    let token = open(&device);
    assert_eq!(token.store().token().label, "again");
    assert!(token.store().list().unwrap().keys.is_empty());
    let gone = token.login(Role::User, &pin(USER), false);
    assert!(matches!(gone, Err(Error::PinNotSet)), "{gone:?}");
    token.login(Role::So, &pin(SO), false).unwrap();
    token.init_pin(&pin(NEW), false).unwrap();
    token.login(Role::User, &pin(NEW), false).unwrap();
    let key = generate(&*token, first_kind(&*token), Usage::SIGN);
    sign(&*token, &key).unwrap();
}

/// Seen to fail without the first `if` of `LocalToken::pin`.
pub(crate) fn a_token_without_pins_has_no_login(fresh: Fresh, open: Open) {
    let device = crate::token::with_token(fresh);
    let token = open(&device);
    for refused in [
        token.login(Role::User, &pin(USER), false),
        token.set_pin(Role::So, &pin(SO), &pin(NEW)),
        token.reset(&pin(SO), "again"),
        token.tries(Role::User).map(drop),
    ] {
        assert!(matches!(refused, Err(Error::Unsupported(_))), "{refused:?}");
    }
    login_required(token.init_pin(&pin(NEW), false));
    token.logout().unwrap();
    generate(&*token, first_kind(&*token), Usage::SIGN);
}

/// A device with a token of two PINs and a key; `None` where the device seals nothing, and refuses.
fn with_pin_token(fresh: Fresh) -> Option<Device> {
    let device = with_pins(fresh, true)?;
    let token = crate::token::local(&device);
    token.login(Role::User, &pin(USER), false).unwrap();
    generate(&*token, first_kind(&*token), Usage::SIGN);
    Some(device)
}

fn with_pins(fresh: Fresh, user: bool) -> Option<Device> {
    let device = fresh();
    let (back_end, settings, dir) = device.token();
    let (user_pin, so) = (pin(USER), pin(SO));
    let request = TokenRequest {
        dir: &dir,
        label: "test",
        settings: settings.clone(),
        pins: Some(Pins {
            user: user.then_some(&user_pin),
            so: Some(&so),
            tries: TRIES,
        }),
    };
    let made = LocalToken::create(back_end, &request);
    if sealing(&device) == Sealing::Never {
        assert!(matches!(made, Err(Error::Unsupported(_))), "{made:?}");
        return None;
    }
    made.unwrap();
    Some(device)
}

/// By a provider beside the token's.
fn sealing(device: &Device) -> Sealing {
    let (back_end, settings, dir) = device.token();
    let place = Place {
        dir: &dir,
        settings,
        binding: None,
    };
    (back_end.open)(&place).unwrap().sealing()
}

fn try_generate(token: &dyn Token, kind: KeyKind) -> Result<(), Error> {
    let request = KeyRequest {
        kind,
        usage: Usage::SIGN,
        names: Names::default(),
    };
    token.generate(&request).map(drop)
}

fn pin(text: &str) -> Pin {
    Pin::new(Secret::new(text.as_bytes().to_vec())).unwrap()
}

#[track_caller]
fn wrong(result: Result<(), Error>) -> Option<u32> {
    match result {
        Err(Error::WrongPin { tries_left }) => tries_left,
        other => panic!("not a wrong PIN: {other:?}"),
    }
}

#[track_caller]
fn locked(result: Result<(), Error>) {
    assert!(matches!(result, Err(Error::PinLocked)), "{result:?}");
}

#[track_caller]
fn login_required(result: Result<(), Error>) {
    assert!(matches!(result, Err(Error::LoginRequired)), "{result:?}");
}
