//! The TPM 2.0 back end, over tss-esapi and libtss2.
//!
//! Keys are made in the TPM and leave it only encrypted under one of its storage keys, as TSS2
//! PRIVATE KEY, which other programs read too. Loaded keys stay loaded for a moment, so that one
//! who signs in a row pays one TPM command per signature.
//!
//! Runs inside devkeyd or the command, never in a host application: libtss2 brings libcrypto.
//! It also writes its own log to stderr unless `TSS2_LOG=all+none` was in the environment when the
//! process started.

mod advisories;
mod attest;
mod counter;
mod device;
mod endorsement;
mod errors;
mod health;
mod line;
mod link;
mod live;
mod objects;
mod options;
mod pin;
mod policy;
mod probe;
mod seal;
mod tcti;
mod tss2;

use std::sync::Arc;
use std::time::Duration;

use once_cell::sync::OnceCell;
use tss_esapi::interface_types::session_handles::AuthSession;
use tss_esapi::structures::{Auth, Data, Digest, HashScheme, PublicKeyRsa, RsaDecryptionScheme};

use crate::error::{Error, Result};
use crate::key::{DecryptScheme, KeyKind, PublicKey, Scheme, Usage};
use crate::provider::{
    Attest, Attested, BackEnd, Blob, Capability, Certified, Key, KeyAuth, NewKey, Place, Provider,
    ProviderInfo, Sealing, Tries,
};
use crate::secret::Secret;

pub use advisories::{Advisory, Weakness};
pub use health::{Health, Left, Lockout, Place as TpmPlace, Storage, examine, place, recognise};

use device::Device;
use errors::Fault;
use line::Line;
use link::Binding;
use live::{Hides, Loadable};
use objects::{ours, padded};
use options::Options;
use pin::Pin;
use seal::Sealed;
use tcti::Tcti;
use tss2::Wrapped;

/// The TPM 2.0 back end, as front ends register it.
pub const BACK_END: BackEnd = BackEnd {
    name: "tpm",
    summary: "a TPM 2.0: keys that no software can read",
    hardware: true,
    settings: &[
        (
            "tcti",
            "where the TPM is: device:/dev/tpmrm0 (the default) or swtpm:host=ADDRESS,port=PORT",
        ),
        (
            "timeout",
            "seconds after which a TPM that does not answer is given up: 1 to 600, by default 30",
        ),
        (
            "pin_guard",
            "what counts wrong PINs: nv, the token's own counter in the TPM (the default), or da, \
             one counter for all that the TPM guards",
        ),
        (
            "owner_auth_file",
            "absolute path of a file with the password of the TPM's owner, where he has one: for \
             making and deleting the token's own counter",
        ),
        (
            "endorsement_auth_file",
            "absolute path of a file with the password of the TPM's endorsement hierarchy, where it \
             has one: for showing to a CA that keys are in this TPM",
        ),
    ],
    check: |settings| Options::read(settings).map(drop),
    service: |_| false,
    create: |place| create(place, Line::new),
    open: |place| open(place, Line::new),
};

/// Making an RSA key takes a discrete TPM a minute at times.
const GENERATE_AT_LEAST: Duration = Duration::from_secs(180);
/// Length of a key's auth in bytes.
const KEY_AUTH_LEN: usize = 32;

/// The back end for a process that keeps tokens open for many clients: all that are on one TPM
/// share a connection, and what is loaded there.
pub const SHARED: BackEnd = BackEnd {
    create: |place| create(place, Line::shared),
    open: |place| open(place, Line::shared),
    ..BACK_END
};

/// Ends all connections of [`SHARED`] and leaves nothing in the TPMs: for a process that is about
/// to end, whatever its other threads are doing. Waits 2 s at most. Who waits for an answer gets
/// [`Error::DeviceGone`], and so does who asks later.
pub fn close() {
    Line::close_shared();
}

type Lines = fn(Tcti) -> Arc<Line>;

fn create(place: &Place<'_>, line: Lines) -> Result<Arc<dyn Provider>> {
    let provider = Tpm::new(place, line)?;
    provider.device.run(|link| link.binding())?;
    Ok(Arc::new(provider))
}

fn open(place: &Place<'_>, line: Lines) -> Result<Arc<dyn Provider>> {
    Ok(Arc::new(Tpm::new(place, line)?))
}

#[derive(Debug)]
struct Tpm {
    device: Arc<Device>,
    info: OnceCell<ProviderInfo>,
    options: Arc<Options>,
}

impl Tpm {
    fn new(place: &Place<'_>, line: Lines) -> Result<Self> {
        let options = Options::read(place.settings)?;
        let binding = place.binding.map(str::parse::<Binding>).transpose()?;
        let line = line(options.tcti.clone());
        Ok(Tpm {
            device: Arc::new(Device::new(line, binding, options.timeout)),
            info: OnceCell::new(),
            options: Arc::new(options),
        })
    }
}

impl Provider for Tpm {
    fn info(&self) -> Result<ProviderInfo> {
        self.info
            .get_or_try_init(|| self.device.run(probe::info))
            .cloned()
    }

    fn capabilities(&self) -> Result<Vec<Capability>> {
        self.device.run(probe::capabilities)
    }

    fn generate(&self, kind: KeyKind, usage: Usage, auth: &KeyAuth) -> Result<NewKey> {
        kind.check_usage(usage)?;
        let auth = key_auth(auth)?;
        let within = self.options.timeout.max(GENERATE_AT_LEAST);
        let wrapped = self.device.run_within(within, move |link| {
            let binding = link.binding()?;
            let live = link.live()?;
            if !probe::has(live, kind)? {
                return Err(Error::unsupported(format!("{kind} keys in this TPM")).into());
            }
            let (parent, template) = (binding.parent, objects::template(kind, usage)?);
            match &auth {
                None => live.create(
                    parent,
                    AuthSession::Password,
                    template,
                    Auth::default(),
                    None,
                ),
                Some(secret) => live.secured(&binding, Hides::Question, |live, session| {
                    live.create(parent, session, template, live::auth(secret)?, None)
                }),
            }
        })?;
        let public = objects::public_key(&wrapped.public)
            .ok()
            .filter(|public| objects::is_key(&wrapped.public, public, usage))
            .ok_or_else(|| {
                self.device
                    .tcti()
                    .failed("it made another key than asked for")
            })?;
        Ok(NewKey {
            blob: wrapped.to_blob()?,
            public,
        })
    }

    fn open(
        &self,
        blob: &Blob,
        public: &PublicKey,
        usage: Usage,
        auth: &KeyAuth,
    ) -> Result<Box<dyn Key>> {
        let auth = key_auth(auth)?;
        let wrapped = Wrapped::from_blob(blob)?;
        // A wrong auth counts where noDA is not set: such a key is not ours.
        let takes = wrapped.has_auth && wrapped.public.object_attributes().no_da();
        if !objects::is_key(&wrapped.public, public, usage) || (auth.is_some() && !takes) {
            return Err(Error::BadBlob);
        }
        Ok(Box::new(TpmKey {
            device: Arc::clone(&self.device),
            key: Arc::new(Loadable {
                name: objects::name(&wrapped.public)?,
                wrapped,
                auth,
            }),
            public: public.clone(),
            usage,
            options: Arc::clone(&self.options),
        }))
    }

    fn sealing(&self) -> Sealing {
        Sealing::UnderAuth
    }

    fn seal(&self, secret: &Secret, auth: &KeyAuth, tries: u32) -> Result<Blob> {
        let KeyAuth::Secret(stretched) = auth else {
            return Err(Error::unsupported("sealing without a PIN in a TPM"));
        };
        if tries == 0 {
            return Err(Error::input("a PIN without a try would be locked for ever"));
        }
        let request = pin::Request {
            secret: copy(secret),
            pin: Pin::new(stretched)?,
            tries,
            guard: self.options.guard,
            owner: self.options.owner()?,
        };
        let sealed = self.device.run(move |link| pin::seal(link, &request))?;
        sealed.to_blob()
    }

    fn unseal(&self, blob: &Blob, auth: &KeyAuth) -> Result<Secret> {
        let sealed = Sealed::from_blob(blob)?;
        let KeyAuth::Secret(stretched) = auth else {
            return Err(Error::BadBlob);
        };
        let pin = Pin::new(stretched)?;
        self.device
            .run(move |link| pin::unseal(link, &sealed, &pin))
    }

    fn tries(&self, blob: &Blob) -> Result<Option<Tries>> {
        let sealed = Sealed::from_blob(blob)?;
        self.device.run(move |link| pin::tries(link, &sealed))
    }

    fn attest(&self, what: &Attest) -> Result<Attested> {
        let password = self.options.endorsement()?;
        // Endorsement keys that do not stay in the TPM are made anew.
        let within = self.options.timeout.max(GENERATE_AT_LEAST);
        match what {
            Attest::Identity => {
                let show = move |link: &mut _| attest::identity(link, password.as_ref());
                let identity = self.device.run_within(within, show)?;
                Ok(Attested::Identity(identity))
            }
            Attest::Activate {
                ek_public,
                credential,
            } => {
                let sealed = attest::Sealed::new(ek_public, credential)?;
                let open = move |link: &mut _| attest::activate(link, password.as_ref(), &sealed);
                self.device.run_within(within, open).map(Attested::Secret)
            }
        }
    }

    /// Keys are not kept in the TPM; the counter of a sealed secret is.
    fn forget(&self, blob: &Blob) -> Result<()> {
        if blob.label == tss2::LABEL {
            return Ok(());
        }
        let sealed = Sealed::from_blob(blob)?;
        let owner = self.options.owner()?;
        self.device
            .run(move |link| pin::forget(link, &sealed, owner.as_ref()))
    }
}

/// A key of the TPM, loaded at its first use and again whenever it has been flushed since.
#[derive(Debug)]
struct TpmKey {
    device: Arc<Device>,
    key: Arc<Loadable>,
    public: PublicKey,
    usage: Usage,
    options: Arc<Options>,
}

impl Key for TpmKey {
    fn sign(&self, scheme: Scheme, input: &[u8]) -> Result<Vec<u8>> {
        Error::permit(self.usage.sign, "sign")?;
        let kind = self.public.kind();
        let (tpm_scheme, len) = objects::scheme(kind, scheme)?;
        if input.len() != len {
            return Err(Error::input(format!("a digest of {len} bytes is wanted")));
        }
        let (key, public, input) = (self.key.clone(), self.public.clone(), input.to_vec());
        self.device.run(move |link| {
            let session = match &key.auth {
                None => AuthSession::Password,
                // Stays with the key, for the next signature.
                Some(_) => {
                    let binding = link.binding()?;
                    link.live()?.session(&binding, Hides::Nothing)?
                }
            };
            let live = link.live()?;
            let handle = live.key(&key)?;
            let digest = ours(Digest::try_from(input.as_slice()))?;
            let signed = live.sign(handle, session, digest, tpm_scheme);
            let signed = signed.map_err(|fault| key.blame(fault))?;
            let signature = objects::signature(kind, &signed).ok_or(Fault::Wrong)?;
            // A handle may have become another key's, and an answer may be anything.
            let good = public.verify(scheme, &input, &signature);
            good.map_err(|_| Fault::Wrong).map(|()| signature)
        })
    }

    fn agree(&self, peer: &PublicKey) -> Result<Secret> {
        Error::permit(self.usage.agree, "agree on keys")?;
        let kind = self.public.kind();
        if peer.kind() != kind {
            return Err(Error::input(format!(
                "the peer's key must be of {kind}, too"
            )));
        }
        let (key, point) = (self.key.clone(), objects::point(peer)?);
        self.device.run(move |link| {
            let binding = link.binding()?;
            let point = point.clone();
            let hides = Hides::Answer;
            let shared = link.live()?.secured(&binding, hides, |live, session| {
                let handle = live.checked_key(&key)?;
                live.authorised_by(session, |context| context.ecdh_z_gen(handle, point))
                    .map_err(|fault| key.blame(fault))
            })?;
            let x = padded(shared.x().value(), kind.bits() / 8).map_err(|_| Fault::Wrong)?;
            Ok(Secret::new(x))
        })
    }

    fn decrypt(&self, scheme: DecryptScheme, ciphertext: &[u8]) -> Result<Secret> {
        Error::permit(self.usage.decrypt, "decrypt")?;
        let DecryptScheme::RsaOaep(hash) = scheme;
        if ciphertext.len() != self.public.kind().signature_len() {
            return Err(Error::Crypto);
        }
        let scheme = RsaDecryptionScheme::Oaep(HashScheme::new(objects::hashing(hash)));
        let (key, ciphertext) = (self.key.clone(), ciphertext.to_vec());
        self.device.run(move |link| {
            let binding = link.binding()?;
            let sealed = ours(PublicKeyRsa::try_from(ciphertext.as_slice()))?;
            let hides = Hides::Answer;
            link.live()?.secured(&binding, hides, |live, session| {
                let handle = live.checked_key(&key)?;
                let opened = live.authorised_by(session, |context| {
                    context.rsa_decrypt(handle, sealed, scheme, Data::default())
                });
                match opened {
                    Ok(plain) => Ok(Secret::new(plain.value().to_vec())),
                    Err(fault) if live.blames_input(&fault, handle) => Err(Error::Crypto.into()),
                    Err(fault) => Err(key.blame(fault)),
                }
            })
        })
    }

    fn certify(&self, qualifying_data: &[u8]) -> Result<Certified> {
        let password = self.options.endorsement()?;
        let (key, data) = (self.key.clone(), attest::qualifying(qualifying_data)?);
        self.device
            .run(move |link| attest::certify(link, password.as_ref(), &key, &data))
    }
}

/// A key with an auth does not stay in the TPM with it when nobody may use it any more.
impl Drop for TpmKey {
    fn drop(&mut self) {
        if self.key.auth.is_some() {
            self.device.unload(self.key.name.clone());
        }
    }
}

/// The auth of a key, where it has one.
fn key_auth(auth: &KeyAuth) -> Result<Option<Secret>> {
    match auth {
        KeyAuth::None => Ok(None),
        KeyAuth::Secret(secret) if secret.len() == KEY_AUTH_LEN => Ok(Some(copy(secret))),
        KeyAuth::Secret(_) => Err(Error::input(format!(
            "an auth of {KEY_AUTH_LEN} bytes is wanted"
        ))),
    }
}

/// For the worker's thread.
fn copy(secret: &Secret) -> Secret {
    Secret::new(secret.expose().to_vec())
}
