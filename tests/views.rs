//! Views of one token, as the key service gives them to its clients: what they share, and what is
//! each one's own. On a file token; that a TPM is shared too is in tests/tpm_shared.rs.
//!
//! Each test names what was changed to see it fail.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "what cannot go on has failed"
)]

use std::path::PathBuf;

use devkey::backends::file::BACK_END;
use devkey::key::{KeyKind, Scheme, Usage};
use devkey::secret::Secret;
use devkey::store::{KeyRecord, Role, Store};
use devkey::token::{KeyRequest, LocalToken, Login, Names, Pin, Pins, Token, TokenRequest};
use devkey::{Error, Result};
use tempfile::TempDir;

const USER: &str = "1234";
const SO: &str = "the SO's own";

/// A token with PINs and a key on it.
struct Bench(TempDir);

impl Bench {
    fn new() -> Self {
        let bench = Bench(TempDir::new().unwrap());
        let (user, so) = (pin(USER), pin(SO));
        let request = TokenRequest {
            dir: &bench.dir(),
            label: "test",
            settings: Default::default(),
            pins: Some(Pins {
                user: Some(&user),
                so: Some(&so),
                tries: 5,
            }),
        };
        let token = LocalToken::create(&BACK_END, &request).unwrap();
        token.login(Role::User, &user, false).unwrap();
        generate(&token).unwrap();
        bench
    }

    fn dir(&self) -> PathBuf {
        self.0.path().join("token")
    }

    /// As another process does.
    fn open(&self) -> LocalToken {
        let store = Store::open(&self.dir()).unwrap();
        LocalToken::open(&BACK_END, store, &Default::default()).unwrap()
    }
}

fn pin(text: &str) -> Pin {
    Pin::new(Secret::new(text.as_bytes().to_vec())).unwrap()
}

fn user(token: &LocalToken) -> Result<()> {
    token.login(Role::User, &pin(USER), false)
}

fn generate(token: &LocalToken) -> Result<KeyRecord> {
    token.generate(&KeyRequest {
        kind: KeyKind::EcP256,
        usage: Usage::SIGN,
        names: Names::default(),
    })
}

fn sign(token: &LocalToken, key: &KeyRecord) -> Result<()> {
    let signature = token.sign(key, Scheme::Ecdsa, &[7; 32])?;
    key.public.verify(Scheme::Ecdsa, &[7; 32], &signature)
}

fn the_key(token: &LocalToken) -> KeyRecord {
    KeyRecord::clone(&token.store().list().unwrap().keys[0])
}

#[track_caller]
fn login_required(result: Result<()>) {
    assert!(matches!(result, Err(Error::LoginRequired)), "{result:?}");
}

/// Seen to fail with the logins of `LocalToken::view` those of the token.
#[test]
fn a_login_is_a_views_own() {
    let bench = Bench::new();
    let one = bench.open();
    let (other, third) = (one.view(), one.view());
    let key = the_key(&one);
    user(&one).unwrap();
    sign(&one, &key).unwrap();
    // The key is open now, and opens to nobody else for that.
    for stranger in [&other, &third, &one.view()] {
        login_required(sign(stranger, &key));
        login_required(generate(stranger).map(drop));
    }
    user(&other).unwrap();
    sign(&other, &key).unwrap();
    one.logout().unwrap();
    login_required(sign(&one, &key));
    sign(&other, &key).unwrap();
    third.login(Role::So, &pin(SO), false).unwrap();
    login_required(sign(&third, &key));
    drop(one);
    sign(&other, &key).unwrap();
    // A login in place of another one, and one more than there are logouts.
    user(&other).unwrap();
    other.login(Role::So, &pin(SO), false).unwrap();
    login_required(sign(&other, &key));
    user(&third).unwrap();
    sign(&third, &key).unwrap();
}

/// Seen to fail with `wrong` kept in `Shared`.
#[test]
fn a_wrong_pin_is_a_views_own() {
    let bench = Bench::new();
    let (one, other) = (bench.open(), bench.open());
    let other = other.view();
    let wrong = |token: &LocalToken| token.login(Role::User, &pin("wrong"), false);
    for (token, left) in [(&one, 4), (&one, 4), (&other, 3), (&other.view(), 2)] {
        match wrong(token) {
            Err(Error::WrongPin { tries_left }) => assert_eq!(tries_left, Some(left)),
            unexpected => panic!("{unexpected:?}"),
        }
    }
    user(&one.view()).unwrap();
}

/// A PIN is changed and the keys stay; whose login was with the old one signs on.
#[test]
fn a_changed_pin_is_noticed() {
    let bench = Bench::new();
    let one = bench.open();
    let (other, key) = (one.view(), the_key(&one));
    user(&one).unwrap();
    for (changer, old, new) in [(&other, USER, "4321"), (&bench.open(), "4321", "2143")] {
        changer.set_pin(Role::User, &pin(old), &pin(new)).unwrap();
        sign(&one, &key).unwrap();
        let refused = one.view().login(Role::User, &pin(old), false);
        assert!(matches!(refused, Err(Error::WrongPin { .. })));
        let late = one.view();
        late.login(Role::User, &pin(new), false).unwrap();
        sign(&late, &key).unwrap();
    }
}

/// A reset through another view ends every login; one by another process, as far as nothing made
/// before it is of any use.
///
/// Seen to fail with `revoke` doing nothing, for a view's; for a process', without the comparison
/// in `OpenKeys::join`.
#[test]
fn a_reset_is_noticed() {
    for by_a_view in [true, false] {
        let bench = Bench::new();
        let one = bench.open();
        let (other, key) = (one.view(), the_key(&one));
        user(&one).unwrap();
        sign(&one, &key).unwrap();
        let resetter = if by_a_view { one.view() } else { bench.open() };
        resetter.reset(&pin(SO), "again").unwrap();
        if by_a_view {
            login_required(sign(&one, &key));
            login_required(generate(&one).map(drop));
        }
        other.login(Role::So, &pin(SO), false).unwrap();
        other.init_pin(&pin(USER), false).unwrap();
        user(&other).unwrap();
        login_required(sign(&one, &key));
        assert!(matches!(sign(&other, &key), Err(Error::NotFound(_))));
        let new = generate(&other).unwrap();
        sign(&other, &new).unwrap();
        login_required(sign(&one, &new));
        user(&one).unwrap();
        sign(&one, &new).unwrap();
    }
}

/// Seen to fail with `keys.forget` taken out of `LocalToken::delete`.
#[test]
fn a_deleted_key_is_deleted_for_all() {
    let bench = Bench::new();
    let one = bench.open();
    let (other, key) = (one.view(), the_key(&one));
    user(&one).unwrap();
    user(&other).unwrap();
    sign(&one, &key).unwrap();
    other.delete(&key.id).unwrap();
    assert!(matches!(sign(&one, &key), Err(Error::NotFound(_))));
}
