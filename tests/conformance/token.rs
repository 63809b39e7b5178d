//! The specification of [`Token`] in code, for a token in this process and for one across the
//! socket of the key service.
//!
//! Each rule names the line that was changed to see it fail.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::thread;

use devkey::Error;
use devkey::key::{DecryptScheme, Hash, KeyKind, Scheme, Usage, ecdsa_input};
use devkey::provider::{Capability, Place, Sealing};
use devkey::service::{Link, RemoteToken, TokenPlace};
use devkey::store::{KeyRecord, ObjectId, Store};
use devkey::token::{
    CertificateRequest, KeyRequest, LocalToken, MAX_NAME, Names, Token, TokenRequest,
};
use rustix::thread::{
    CapabilitySet, capabilities, remove_capability_from_bounding_set, set_capabilities,
};
use tempfile::TempDir;

use crate::device::Device;
use crate::{devkeyd, peer};

pub(crate) type Fresh = fn() -> Device;
/// Opens the token of a device.
pub(crate) type Open = fn(&Device) -> Arc<dyn Token>;

pub(crate) fn local(device: &Device) -> Arc<dyn Token> {
    let (back_end, settings, dir) = device.token();
    let store = Store::open(&dir).unwrap();
    Arc::new(LocalToken::open(back_end, store, settings).unwrap())
}

pub(crate) fn remote(device: &Device) -> Arc<dyn Token> {
    let (_, settings, dir) = device.token();
    let store = Store::open(&dir).unwrap();
    let settings = settings.clone();
    let link = Link::new(devkeyd::PROGRAM.into(), devkeyd::launch);
    Arc::new(RemoteToken::new(
        store,
        TokenPlace {
            dir,
            settings,
            ..TokenPlace::default()
        },
        Arc::new(link),
    ))
}

/// As all programs of a machine reach one service.
pub(crate) fn listening(device: &Device) -> Arc<dyn Token> {
    let (_, settings, dir) = device.token();
    let place = TokenPlace {
        settings: settings.clone(),
        ..TokenPlace::default()
    };
    let link = Arc::new(Link::to(device.socket(), None));
    let store = Store::open(&dir).unwrap();
    Arc::new(RemoteToken::named(store, "token", &place, link))
}

/// Seen to fail with `length + 1` for `length` in `RemoteToken::sign`.
pub(crate) fn every_capability_works(fresh: Fresh, open: Open) {
    let device = with_token(fresh);
    let token = open(&device);
    let capabilities = token.store().token().capabilities.clone();
    assert!(!capabilities.is_empty());
    for Capability {
        kind,
        schemes,
        usage,
    } in capabilities
    {
        let key = generate(&*token, kind, if usage.sign { Usage::SIGN } else { usage });
        assert_eq!(key.public.kind(), kind);
        let listed = token.store().list().unwrap().key(&key.id).cloned();
        assert_eq!(listed.unwrap().public, key.public);
        for scheme in schemes {
            let input = input(kind, scheme);
            let signature = token.sign(&key, scheme, &input).unwrap();
            assert_eq!(signature.len(), kind.signature_len());
            key.public.verify(scheme, &input, &signature).unwrap();
        }
    }
}

/// Seen to fail with the own public key for `peer` in `RemoteToken::agree`, and in
/// `LocalToken::agree`.
pub(crate) fn two_keys_agree(fresh: Fresh, open: Open) {
    let device = with_token(fresh);
    let token = open(&device);
    for kind in kinds(&*token, |usage| usage.agree) {
        let key = generate(&*token, kind, AGREE);
        let (public, theirs) = peer::agree(&key.public);
        assert_eq!(token.agree(&key, &public).unwrap().expose(), theirs);
    }
}

/// Seen to fail with another hash for that of `scheme` in `LocalToken::decrypt`.
pub(crate) fn what_openssl_encrypts_is_decrypted(fresh: Fresh, open: Open) {
    let device = with_token(fresh);
    let token = open(&device);
    for kind in kinds(&*token, |usage| usage.decrypt).into_iter().take(1) {
        let key = generate(&*token, kind, DECRYPT);
        let scheme = DecryptScheme::RsaOaep(Hash::Sha256);
        let mut sealed = peer::encrypt(&key.public, Hash::Sha256, b"a secret");
        let plain = token.decrypt(&key, scheme, &sealed).unwrap();
        assert_eq!(plain.expose(), b"a secret");
        sealed[9] ^= 1;
        let refused = token.decrypt(&key, scheme, &sealed);
        assert!(matches!(refused, Err(Error::Crypto)), "{refused:?}");
    }
}

/// Seen to fail with `key.label = …` taken out of `LocalToken::rename`, and with `Names::default()`
/// sent by `RemoteToken::rename`.
pub(crate) fn names_are_kept(fresh: Fresh, open: Open) {
    let device = with_token(fresh);
    let token = open(&device);
    let kind = first_kind(&*token);
    let plain = generate(&*token, kind, Usage::SIGN);
    assert_eq!(
        (plain.label.as_str(), &plain.cka_id),
        ("key", &plain.public.id())
    );
    let request = KeyRequest {
        kind,
        usage: Usage::SIGN,
        names: names(Some("a label, ünd"), Some(&[0, 1, 0xff])),
    };
    let named = token.generate(&request).unwrap();
    assert_eq!(
        (named.label.as_str(), named.cka_id.as_slice()),
        ("a label, ünd", &[0, 1, 0xff][..])
    );
    token.rename(&named.id, &names(Some("new"), None)).unwrap();
    token.rename(&plain.id, &names(None, Some(b"id"))).unwrap();
    let listing = open(&device).store().list().unwrap();
    let now = |key: &KeyRecord| {
        let key = listing.key(&key.id).unwrap();
        (key.label.clone(), key.cka_id.clone())
    };
    assert_eq!(now(&named), ("new".to_owned(), vec![0, 1, 0xff]));
    assert_eq!(now(&plain), ("key".to_owned(), b"id".to_vec()));
    // Its record was written anew; it is still good, to who opens it anew too.
    sign(&*token, listing.key(&named.id).unwrap()).unwrap();
    sign(&*open(&device), listing.key(&named.id).unwrap()).unwrap();
}

/// Seen to fail with `names.check()` taken out of `generate`, `add_certificate` and `rename` of
/// `LocalToken`, each by itself.
pub(crate) fn bad_names_are_refused(fresh: Fresh, open: Open) {
    let device = with_token(fresh);
    let token = open(&device);
    let kind = first_kind(&*token);
    let key = generate(&*token, kind, Usage::SIGN);
    let der = certificate();
    let long = "x".repeat(MAX_NAME + 1);
    for bad in [
        names(Some(""), None),
        names(Some(&long), None),
        names(None, Some(&[])),
        names(None, Some(long.as_bytes())),
    ] {
        let refused = |what: Result<(), Error>| assert!(matches!(what, Err(Error::BadInput(_))));
        let (usage, names) = (Usage::SIGN, bad.clone());
        refused(token.generate(&KeyRequest { kind, usage, names }).map(drop));
        refused(token.rename(&key.id, &bad));
        let (der, names) = (der.clone(), bad);
        refused(
            token
                .add_certificate(&CertificateRequest { der, names })
                .map(drop),
        );
    }
    assert_eq!(token.store().list().unwrap().keys.len(), 1);
}

/// Seen to fail with the search for a twin taken out of `LocalToken::add_certificate`, and with
/// `certificate.label = …`.
pub(crate) fn certificates_are_kept(fresh: Fresh, open: Open) {
    let device = with_token(fresh);
    let token = open(&device);
    let request = CertificateRequest {
        der: certificate(),
        names: names(Some("web"), Some(b"7")),
    };
    let added = token.add_certificate(&request).unwrap();
    assert_eq!(added.der, request.der);
    assert_eq!(added.label.as_deref(), Some("web"));
    let again = token.add_certificate(&request);
    assert!(matches!(again, Err(Error::Exists(_))), "{again:?}");
    token.rename(&added.id, &names(Some("mail"), None)).unwrap();
    let listing = open(&device).store().list().unwrap();
    assert_eq!(listing.certificates.len(), 1);
    assert_eq!(listing.certificates[0].label.as_deref(), Some("mail"));
    assert_eq!(listing.certificates[0].cka_id.as_deref(), Some(&b"7"[..]));
    token.delete(&added.id).unwrap();
    assert!(token.store().list().unwrap().certificates.is_empty());
    let der = b"no certificate".to_vec();
    let bad = token.add_certificate(&CertificateRequest { der, ..request });
    assert!(matches!(bad, Err(Error::BadInput(_))), "{bad:?}");
}

/// A chain takes the place of all that is named, is added, and is removed as a whole.
pub(crate) fn chains_are_replaced(fresh: Fresh, open: Open) {
    let device = with_token(fresh);
    let token = open(&device);
    let key = generate(&*token, first_kind(&*token), Usage::SIGN);
    let (above, new) = (certificate(), certified(&key));
    let shown = || -> Vec<Vec<u8>> {
        let listing = open(&device).store().list().unwrap();
        listing.certificates.iter().map(|c| c.der.clone()).collect()
    };
    // Two of their own, as a PKCS#11 client would have added them.
    let old = [certified(&key), certified(&key)].map(|der| {
        let names = names(Some("web"), None);
        token.add_certificate(&CertificateRequest { der, names })
    });
    let mut old = old.map(|added| added.unwrap().id);
    let chain = [new.clone(), above.clone()];
    let id = token.replace_certificates(&old, &chain).unwrap().unwrap();
    assert_eq!(shown(), chain);
    let listing = token.store().list().unwrap();
    assert_eq!(listing.certificates[0].label.as_deref(), Some("web"));
    assert!(id == old[0], "{id} is not in the place of {}", old[0]);
    // What is refused changes nothing.
    bad(token.replace_certificates(std::slice::from_ref(&id), &[above]));
    bad(token.replace_certificates(std::slice::from_ref(&id), &[b"none".to_vec()]));
    not_found(token.replace_certificates(&old[1..], &chain));
    assert_eq!(shown(), chain);
    // One is added; then all go, each with its chain.
    let added = token.replace_certificates(&[], &[certified(&key)]).unwrap();
    assert_eq!(shown().len(), 3);
    old = [id, added.unwrap()];
    assert_eq!(token.replace_certificates(&old, &[]).unwrap(), None);
    assert_eq!(shown(), Vec::<Vec<u8>>::new());
}

/// Seen to fail with `keys.forget` taken out of `LocalToken::delete`, and with the caller's record
/// where `self.find` finds none in `LocalToken::key`.
pub(crate) fn what_is_deleted_is_gone(fresh: Fresh, open: Open) {
    let device = with_token(fresh);
    let token = open(&device);
    let key = generate(&*token, first_kind(&*token), Usage::SIGN);
    sign(&*token, &key).unwrap();
    token.delete(&key.id).unwrap();
    assert!(token.store().list().unwrap().keys.is_empty());
    not_found(sign(&*token, &key));
    not_found(token.delete(&key.id));
    not_found(sign(&*open(&device), &key));
}

/// Back ends refuse as well. Seen to fail with the `permit` of `LocalToken::decrypt` taken out, for a
/// key that knows no decryption.
pub(crate) fn a_key_is_used_for_its_uses_alone(fresh: Fresh, open: Open) {
    let device = with_token(fresh);
    let token = open(&device);
    let key = generate(&*token, first_kind(&*token), Usage::SIGN);
    not_permitted(token.agree(&key, &key.public));
    not_permitted(token.decrypt(&key, DecryptScheme::RsaOaep(Hash::Sha256), &[0; 256]));
    for kind in kinds(&*token, |usage| usage.agree).into_iter().take(1) {
        let key = generate(&*token, kind, AGREE);
        not_permitted(sign(&*token, &key));
    }
    for kind in kinds(&*token, |usage| usage.decrypt).into_iter().take(1) {
        let key = generate(&*token, kind, DECRYPT);
        not_permitted(sign(&*token, &key));
    }
}

/// An edited record is listed, for listing asks no device, and refused at its first use.
///
/// Seen to fail with `record.check(mac_key)?` taken out of `LocalToken::key`.
pub(crate) fn an_edited_record_is_refused(fresh: Fresh, open: Open) {
    let device = with_token(fresh);
    let key = generate(&*open(&device), first_kind(&*open(&device)), Usage::SIGN);
    let path = key_file(&device, &key.id);
    let text = fs::read_to_string(&path).unwrap();
    let edited = text.replacen("label = \"key\"", "label = \"kez\"", 1);
    assert_ne!(text, edited);
    // A new file, as editors write one: a service that runs looks at names.
    let new = path.with_extension("new");
    fs::write(&new, edited).unwrap();
    fs::rename(&new, &path).unwrap();
    let token = open(&device);
    let listed = token.store().list().unwrap().keys[0].clone();
    assert_eq!(listed.label, "kez");
    let signed = sign(&*token, &listed);
    match token.store().token().secret {
        Some(_) => assert!(matches!(signed, Err(Error::BadBlob)), "{signed:?}"),
        None => assert!(signed.is_ok(), "nothing seals the records of this token"),
    }
    fs::write(&path, text).unwrap();
    sign(&*open(&device), &key).unwrap();
}

/// Whoever cuts the secret out of the token's record does not switch the MACs off. Seen to fail
/// with `Sealing::Freely` in `LocalToken::mac_key` taken as `Sealing::Never`.
pub(crate) fn a_token_is_not_without_its_secret(fresh: Fresh, open: Open) {
    let device = with_token(fresh);
    generate(&*open(&device), first_kind(&*open(&device)), Usage::SIGN);
    let (back_end, settings, dir) = device.token();
    let path = dir.join("token");
    let text = fs::read_to_string(&path).unwrap();
    fs::write(&path, text.split("-----BEGIN").next().unwrap()).unwrap();
    let token = open(&device);
    let signed = sign(&*token, &token.store().list().unwrap().keys[0]);
    let place = Place {
        dir: &dir,
        settings,
        binding: token.store().token().binding.as_deref(),
    };
    match (back_end.open)(&place).unwrap().sealing() == Sealing::Freely {
        true => assert!(matches!(signed, Err(Error::BadRecord { .. })), "{signed:?}"),
        false => assert!(signed.is_ok(), "{signed:?}"),
    }
}

/// The MAC, the back end's tag and the public key that it derives anew each suffice: it was not seen
/// to fail with `record.check(mac_key)?` taken out of `LocalToken::key` and `verify_tag` out of the
/// soft back end, both at once.
pub(crate) fn a_record_of_another_token_is_refused(fresh: Fresh, open: Open) {
    let (device, other) = (with_token(fresh), with_token(fresh));
    let foreign = generate(&*open(&other), first_kind(&*open(&other)), Usage::SIGN);
    let from = key_file(&other, &foreign.id);
    fs::copy(from, key_file(&device, &foreign.id)).unwrap();
    let token = open(&device);
    let listed = token.store().list().unwrap().keys[0].clone();
    let signed = sign(&*token, &listed);
    assert!(matches!(signed, Err(Error::BadBlob)), "{signed:?}");
}

/// Seen to fail with the caller's record where `self.find` finds none in `LocalToken::key`.
pub(crate) fn what_is_not_there_is_not_found(fresh: Fresh, open: Open) {
    let (device, other) = (with_token(fresh), with_token(fresh));
    let foreign = generate(&*open(&other), first_kind(&*open(&other)), Usage::SIGN);
    let token = open(&device);
    not_found(sign(&*token, &foreign));
    not_found(token.rename(&foreign.id, &names(Some("x"), None)));
    not_found(token.delete(&foreign.id));
}

/// Seen to fail with `Error::Crypto` for a wrong length in `Hash::import`.
pub(crate) fn bad_input_is_refused(fresh: Fresh, open: Open) {
    let device = with_token(fresh);
    let token = open(&device);
    let kind = first_kind(&*token);
    let key = generate(&*token, kind, Usage::SIGN);
    let scheme = kind.schemes()[0];
    for length in [0, 1, 31, 49, 1000, 100_000] {
        let refused = token.sign(&key, scheme, &vec![0; length]);
        assert!(matches!(refused, Err(Error::BadInput(_))), "{refused:?}");
    }
    let other = match kind.is_rsa() {
        true => Scheme::Ecdsa,
        false => Scheme::RsaPss(Hash::Sha256),
    };
    assert!(token.sign(&key, other, &[0; 32]).is_err());
    sign(&*token, &key).unwrap();
}

/// The lock of `Link` sees to it; there is no line less than that lock to take out.
pub(crate) fn keys_sign_in_threads(fresh: Fresh, open: Open) {
    let device = with_token(fresh);
    let token = open(&device);
    let kind = first_kind(&*token);
    let keys = [(); 2].map(|()| generate(&*token, kind, Usage::SIGN));
    thread::scope(|scope| {
        for number in 0..8_usize {
            let (token, key) = (&token, &keys[number % 2]);
            scope.spawn(move || {
                for _ in 0..8 {
                    sign(&**token, key).unwrap();
                }
            });
        }
    });
}

/// Seen to fail with `Store::list` looking at the directory only while its listing is empty.
pub(crate) fn changes_by_another_are_seen(fresh: Fresh, open: Open) {
    let device = with_token(fresh);
    let (token, other) = (open(&device), open(&device));
    let kind = first_kind(&*token);
    assert!(other.store().list().unwrap().keys.is_empty());
    let key = generate(&*token, kind, Usage::SIGN);
    let seen = other.store().list().unwrap().key(&key.id).cloned().unwrap();
    sign(&*other, &seen).unwrap();
    token
        .rename(&key.id, &names(Some("renamed"), None))
        .unwrap();
    let seen = other.store().list().unwrap().key(&key.id).cloned().unwrap();
    assert_eq!(seen.label, "renamed");
    token.delete(&key.id).unwrap();
    assert!(other.store().list().unwrap().keys.is_empty());
}

/// Seen to fail with `dir.lock()` added to `Store::list`.
pub(crate) fn a_read_only_store_signs(fresh: Fresh, open: Open) {
    let device = with_token(fresh);
    let key = generate(&*open(&device), first_kind(&*open(&device)), Usage::SIGN);
    let (_, _, dir) = device.token();
    for entry in fs::read_dir(&dir).unwrap() {
        fs::set_permissions(entry.unwrap().path(), Permissions::from_mode(0o400)).unwrap();
    }
    fs::set_permissions(&dir, Permissions::from_mode(0o500)).unwrap();
    device.end_service();
    let refused = bound_by_modes(|| {
        let token = open(&device);
        sign(&*token, &token.store().list().unwrap().keys[0]).unwrap();
        token.delete(&key.id)
    });
    let clear = matches!(refused, Err(Error::ReadOnly(_) | Error::Refused { .. }));
    assert!(clear, "{refused:?}");
    fs::set_permissions(&dir, Permissions::from_mode(0o700)).unwrap();
}

const AGREE: Usage = Usage {
    sign: false,
    agree: true,
    decrypt: false,
};
const DECRYPT: Usage = Usage {
    sign: false,
    agree: false,
    decrypt: true,
};

/// A device on which a token was made.
pub(crate) fn with_token(fresh: Fresh) -> Device {
    let device = fresh();
    let (back_end, settings, dir) = device.token();
    let request = TokenRequest {
        dir: &dir,
        label: "test",
        settings: settings.clone(),
        pins: None,
    };
    LocalToken::create(back_end, &request).unwrap();
    device
}

fn kinds(token: &dyn Token, wanted: impl Fn(Usage) -> bool) -> Vec<KeyKind> {
    let capabilities = token.store().token().capabilities.iter();
    let able = capabilities.filter(|capability| wanted(capability.usage));
    able.map(|capability| capability.kind).collect()
}

/// A kind that every back end makes soon.
pub(crate) fn first_kind(token: &dyn Token) -> KeyKind {
    kinds(token, |usage| usage.sign)[0]
}

pub(crate) fn generate(token: &dyn Token, kind: KeyKind, usage: Usage) -> KeyRecord {
    let names = Names::default();
    token.generate(&KeyRequest { kind, usage, names }).unwrap()
}

pub(crate) fn sign(token: &dyn Token, key: &KeyRecord) -> Result<(), Error> {
    let kind = key.public.kind();
    let input = input(kind, kind.schemes()[0]);
    let signature = token.sign(key, kind.schemes()[0], &input)?;
    key.public.verify(kind.schemes()[0], &input, &signature)
}

fn input(kind: KeyKind, scheme: Scheme) -> Vec<u8> {
    match scheme {
        Scheme::Ecdsa => ecdsa_input(kind, &[0x17; 32]).unwrap(),
        Scheme::RsaPkcs1(hash) | Scheme::RsaPss(hash) => vec![0x17; hash.size()],
        Scheme::Ed25519 | Scheme::MlDsa => b"a message of no particular length".to_vec(),
    }
}

fn names(label: Option<&str>, cka_id: Option<&[u8]>) -> Names {
    Names {
        label: label.map(str::to_owned),
        cka_id: cka_id.map(<[u8]>::to_vec),
    }
}

fn key_file(device: &Device, id: &ObjectId) -> PathBuf {
    device.token().2.join(format!("{id}.key"))
}

fn not_found<T: std::fmt::Debug>(result: Result<T, Error>) {
    assert!(matches!(result, Err(Error::NotFound(_))), "{result:?}");
}

fn not_permitted<T: std::fmt::Debug>(result: Result<T, Error>) {
    assert!(matches!(result, Err(Error::NotPermitted(_))), "{result:?}");
}

/// A certificate of a key, DER, by a CA that is forgotten.
fn certified(key: &KeyRecord) -> Vec<u8> {
    let dir = TempDir::new().unwrap();
    fs::write(dir.path().join("spki"), key.public.to_spki()).unwrap();
    let script = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout key \
                  -subj /CN=ca -out ca && openssl req -new -key key -subj /CN=device -out csr && \
                  openssl pkey -pubin -inform DER -in spki -out pub && openssl x509 -req -in csr \
                  -CA ca -CAkey key -force_pubkey pub -outform DER";
    let made = Command::new("sh")
        .current_dir(&dir)
        .args(["-c", script])
        .output()
        .unwrap();
    assert!(made.status.success(), "{made:?}");
    made.stdout
}

fn bad<T: std::fmt::Debug>(result: Result<T, Error>) {
    assert!(matches!(result, Err(Error::BadInput(_))), "{result:?}");
}

/// Some certificate, DER.
fn certificate() -> Vec<u8> {
    let dir = TempDir::new().unwrap();
    let mut openssl = Command::new("openssl");
    openssl
        .current_dir(&dir)
        .args(["req", "-x509", "-newkey", "ec"]);
    openssl.args(["-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]);
    openssl.args(["-keyout", "key", "-subj", "/CN=test", "-outform", "DER"]);
    let made = openssl.output().unwrap();
    assert!(made.status.success(), "{made:?}");
    made.stdout
}

/// Runs something, and the processes that it starts, without root's right to ignore modes.
fn bound_by_modes<T: Send>(what: impl FnOnce() -> T + Send) -> T {
    let give_up = || {
        let rights = CapabilitySet::DAC_OVERRIDE | CapabilitySet::DAC_READ_SEARCH;
        for right in rights.iter() {
            // Others than root have nothing to give up.
            let _ = remove_capability_from_bounding_set(right);
        }
        let mut own = capabilities(None).unwrap();
        own.effective.remove(rights);
        own.permitted.remove(rights);
        own.inheritable.remove(rights);
        set_capabilities(None, own).unwrap();
    };
    thread::scope(|scope| {
        let thread = scope.spawn(|| {
            give_up();
            what()
        });
        thread.join().unwrap()
    })
}
