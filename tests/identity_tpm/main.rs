//! A TPM shows to a CA that it holds a key: swtpm with certificates of a maker's, devkey's back end
//! and devkey's checks, with tpm2-tools in the place of either.
#![cfg(feature = "tpm")]
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "what cannot go on has failed"
)]

mod damage;
mod faults;
mod peers;
mod round;
mod wrong;

#[path = "../common/devkeyd.rs"]
mod devkeyd;
#[path = "../common/maker.rs"]
mod maker;
#[path = "../common/tpm.rs"]
mod tpm;

use std::fmt::Debug;
use std::sync::Arc;

use devkey::backends::tpm::BACK_END;
use devkey::identity::tpm::{Evidence, make_credential, object, verify_certify};
use devkey::key::{KeyKind, Usage};
use devkey::provider::{
    Attest, Attested, Certified, Credential, EndorsementKey, Identity, Key, KeyAuth, NewKey, Place,
    Provider, Settings,
};
use devkey::secret::Secret;
use devkey::{Error, Result};

use maker::Maker;
use tpm::Swtpm;

const NONCE: &[u8] = b"of thirty-two bytes, as CAs have";

/// A device with its TPM.
struct Device {
    swtpm: Swtpm,
    provider: Arc<dyn Provider>,
}

impl Device {
    /// One with a TPM of that maker's.
    fn of(maker: &Maker) -> Self {
        Device::on(maker.tpm(), &[])
    }

    fn on(swtpm: Swtpm, extra: &[(&str, &str)]) -> Self {
        let provider = open(&swtpm.tcti(), extra);
        Device { swtpm, provider }
    }

    fn key(&self, kind: KeyKind, auth: KeyAuth) -> (NewKey, Box<dyn Key>) {
        key(&*self.provider, kind, auth)
    }

    fn identity(&self) -> Identity {
        identity(&*self.provider).unwrap()
    }

    fn activate(&self, ek: &EndorsementKey, credential: &Credential) -> Result<Secret> {
        activate(&*self.provider, &ek.public, credential)
    }
}

fn open(tcti: &str, extra: &[(&str, &str)]) -> Arc<dyn Provider> {
    opened(tcti, extra, None, BACK_END.create)
}

/// As another process does that knows the TPM.
fn open_again(tcti: &str, binding: &str) -> Arc<dyn Provider> {
    opened(tcti, &[], Some(binding), BACK_END.open)
}

fn opened(
    tcti: &str,
    extra: &[(&str, &str)],
    binding: Option<&str>,
    open: fn(&Place<'_>) -> Result<Arc<dyn Provider>>,
) -> Arc<dyn Provider> {
    let all = [&[("tcti", tcti)], extra].concat();
    let own = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
    let settings: Settings = all.iter().map(own).collect();
    let dir = tempfile::tempdir().unwrap();
    let place = Place {
        dir: dir.path(),
        settings: &settings,
        binding,
    };
    open(&place).unwrap()
}

fn key(provider: &dyn Provider, kind: KeyKind, auth: KeyAuth) -> (NewKey, Box<dyn Key>) {
    let new = provider.generate(kind, Usage::SIGN, &auth).unwrap();
    let key = provider.open(&new.blob, &new.public, Usage::SIGN, &auth);
    (new, key.unwrap())
}

fn identity(provider: &dyn Provider) -> Result<Identity> {
    match provider.attest(&Attest::Identity)? {
        Attested::Identity(identity) => Ok(identity),
        other => panic!("{other:?}"),
    }
}

fn activate(provider: &dyn Provider, ek: &[u8], credential: &Credential) -> Result<Secret> {
    let what = Attest::Activate {
        ek_public: ek.to_vec(),
        credential: credential.clone(),
    };
    match provider.attest(&what)? {
        Attested::Secret(secret) => Ok(secret),
        other => panic!("{other:?}"),
    }
}

/// What a device hands to the CA.
fn evidence(identity: &Identity, ek: &EndorsementKey) -> Evidence {
    Evidence {
        ek_certificate: ek.certificate.clone().unwrap(),
        intermediates: ek.intermediates.clone(),
        ek_public: ek.public.clone(),
        ak_public: identity.ak_public.clone(),
    }
}

/// The EK of this kind.
fn ek(identity: &Identity, kind: KeyKind) -> &EndorsementKey {
    let is = |ek: &&EndorsementKey| object(&ek.public).unwrap().0.kind() == kind;
    identity.endorsement.iter().find(is).unwrap()
}

/// The auth of a key of a token with a PIN.
fn pin() -> KeyAuth {
    KeyAuth::Secret(Secret::new(vec![7; 32]))
}

/// Asserts that something was refused as bad input, for this reason.
fn refused<T: Debug>(done: Result<T>, reason: &str) {
    match done {
        Err(Error::BadInput(text)) => assert!(text.contains(reason), "{text:?}, not {reason:?}"),
        other => panic!("{reason:?} was not the reason: {other:?}"),
    }
}
