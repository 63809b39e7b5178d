//! What the TPM shows to a CA: who it is, and that it holds a key (part 1 §24, part 3 §12.5, §18.2).
//!
//! The attestation key (AK) is a primary of the endorsement hierarchy, made anew from a fixed
//! template whenever it is needed: nothing of it is stored anywhere, it stays the same for as long
//! as the endorsement keys (EKs) do, TPM2_Clear included, and no password is asked for that an EK
//! would not ask for as well. It tells no more of the TPM than the EK's certificate.
//!
//! At most three objects are loaded at a time: another key, the certified one and the AK.

mod ak;
mod ek;

use tss_esapi::interface_types::session_handles::AuthSession;
use tss_esapi::structures::{
    Attest, AttestInfo, Data, EncryptedSecret, IdObject, Public, Signature,
};
use tss_esapi::traits::Marshall;

use super::errors::{Fault, Remedy};
use super::link::Link;
use super::live::{Hides, Loadable};
use super::objects;
use super::tss2::marshalled;
use crate::error::{Error, Result};
use crate::key::{Hash, PublicKey, Scheme};
use crate::provider::{Certified, Credential, Identity, MAX_QUALIFYING};
use crate::secret::Secret;

/// The endorsement hierarchy's password, where it has one, and a session that may prove it.
struct Endorser<'a> {
    password: Option<&'a Secret>,
    session: AuthSession,
}

/// A credential as the TPM takes it.
pub(super) struct Sealed {
    ek: Public,
    object: IdObject,
    secret: EncryptedSecret,
}

impl Sealed {
    /// # Errors
    /// [`Error::BadInput`] for what no TPM would take.
    pub(super) fn new(ek_public: &[u8], credential: &Credential) -> Result<Self> {
        let bad = |_| Error::input("the challenge holds what no TPM takes for a credential");
        Ok(Sealed {
            ek: ek::parse(ek_public)?,
            object: IdObject::try_from(credential.id_object.as_slice()).map_err(bad)?,
            secret: EncryptedSecret::try_from(credential.encrypted_secret.as_slice())
                .map_err(bad)?,
        })
    }
}

/// Qualifying data as the TPM takes it.
///
/// # Errors
/// [`Error::BadInput`] for too little or too much.
pub(super) fn qualifying(data: &[u8]) -> Result<Data> {
    let bad = || Error::input(format!("qualifying data have 1 to {MAX_QUALIFYING} bytes"));
    match data.len() {
        1..=MAX_QUALIFYING => Data::try_from(data).map_err(|_| bad()),
        _ => Err(bad()),
    }
}

/// The EKs and the AK.
pub(super) fn identity(link: &mut Link, password: Option<&Secret>) -> Result<Identity, Fault> {
    tidily(link, |link| {
        let endorser = endorser(link, password, password.is_some())?;
        let live = link.live()?;
        let endorsement = ek::all(live, &endorser)?;
        let (_, public) = ak::make(live, &endorser)?;
        Ok(Identity {
            endorsement,
            ak_public: marshalled(&public)?,
        })
    })
}

/// TPM2_ActivateCredential, in a session that hides the answer: one that the EK's policy is
/// satisfied in, or where its empty auth does, the AK's.
pub(super) fn activate(
    link: &mut Link,
    password: Option<&Secret>,
    sealed: &Sealed,
) -> Result<Secret, Fault> {
    tidily(link, |link| {
        let by_policy = ek::by_policy(&sealed.ek)?;
        let endorser = endorser(link, password, password.is_some() || !by_policy)?;
        let binding = link.binding()?;
        let live = link.live()?;
        let sessions = match by_policy {
            false => [endorser.session, AuthSession::Password],
            true => {
                let (policy, session) = live.policy(Some(&binding), Hides::Answer)?;
                live.policy_endorsement(password, endorser.session, policy)?;
                live.clear()?;
                [AuthSession::Password, session]
            }
        };
        let ek = ek::find(live, &endorser, &sealed.ek)?;
        let (ak, _) = ak::make(live, &endorser)?;
        if !by_policy {
            live.hide(endorser.session, Hides::Answer)?;
        }
        let credential = (sealed.object.clone(), sealed.secret.clone());
        let opened = live.activate([ak, ek], sessions, credential);
        // An EK's auth, though empty, is one that the TPM protects against guessing.
        live.orderly();
        opened
    })
}

/// TPM2_Certify of a key by the AK.
pub(super) fn certify(
    link: &mut Link,
    password: Option<&Secret>,
    key: &Loadable,
    data: &Data,
) -> Result<Certified, Fault> {
    tidily(link, |link| {
        let wanted = password.is_some() || key.auth.is_some();
        let endorser = endorser(link, password, wanted)?;
        let session = match key.auth {
            Some(_) => endorser.session,
            None => AuthSession::Password,
        };
        let live = link.live()?;
        let handle = live.checked_key(key)?;
        let (ak, ak_public) = ak::make(live, &endorser)?;
        let signed = live.certify([handle, ak], session, data.clone());
        let (attest, signature) = signed.map_err(|fault| key.blame(fault))?;
        // A handle may have become another key's, and an answer may be anything.
        if !of_key(&attest, &key.name, data) {
            return Err(Fault::Wrong);
        }
        let attest = attest.marshall()?;
        verified(&objects::public_key(&ak_public)?, &attest, &signature).ok_or(Fault::Wrong)?;
        Ok(Certified {
            attest,
            signature: signature.marshall()?,
            key_public: marshalled(&key.wrapped.public)?,
        })
    })
}

/// The session comes first: the storage key may need a place of its own until it has begun.
fn endorser<'a>(
    link: &mut Link,
    password: Option<&'a Secret>,
    with_session: bool,
) -> Result<Endorser<'a>, Fault> {
    let session = match with_session {
        false => AuthSession::Password,
        true => {
            let binding = link.binding()?;
            let live = link.live()?;
            let session = live.session(&binding, Hides::Nothing)?;
            live.clear()?;
            session
        }
    };
    Ok(Endorser { password, session })
}

/// Leaves nothing of `work` in the TPM, whatever came of it. Where handles may have become others',
/// that is for the link to do.
fn tidily<T>(
    link: &mut Link,
    work: impl FnOnce(&mut Link) -> Result<T, Fault>,
) -> Result<T, Fault> {
    let done = work(link);
    let doubtful = |fault: &Fault| {
        let remedy = fault.remedy();
        matches!(remedy, Remedy::Rebuild | Remedy::Once | Remedy::Leave)
    };
    if !done.as_ref().is_err_and(doubtful)
        && let Ok(live) = link.live()
        && let Err(fault) = live.end_sessions().and_then(|()| live.flush_passing())
    {
        log::debug!("something of an attestation stays for now: {fault:?}");
    }
    done
}

/// Whether an attestation is of the object of this Name, and for this.
fn of_key(attest: &Attest, name: &[u8], data: &Data) -> bool {
    let same = match attest.attested() {
        AttestInfo::Certify { info } => info.name().value() == name,
        _ => false,
    };
    same && attest.extra_data() == data
}

/// Whether the AK signed this. Both of its kinds do so with SHA-256.
fn verified(ak: &PublicKey, attest: &[u8], signature: &Signature) -> Option<()> {
    let scheme = match ak.kind().is_ec() {
        true => Scheme::Ecdsa,
        false => Scheme::RsaPkcs1(Hash::Sha256),
    };
    let signature = objects::signature(ak.kind(), signature)?;
    let digest = Hash::Sha256.digest(attest);
    ak.verify(scheme, &digest, &signature).ok()
}
