//! The TPM 2.0 back end, over tss-esapi and libtss2.
//!
//! Keys are made in the TPM and leave it only encrypted under one of its storage keys, as TSS2
//! PRIVATE KEY, which other programs read too. Loaded keys stay loaded for a moment, so that one
//! who signs in a row pays one TPM command per signature.
//!
//! Runs inside devkeyd or the command, never in a host application: libtss2 brings libcrypto.
//! It also writes its own log to stderr unless `TSS2_LOG=all+none` was in the environment when the
//! process started.

mod device;
mod errors;
mod link;
mod live;
mod objects;
mod probe;
mod tcti;
mod tss2;

use std::sync::Arc;
use std::time::Duration;

use once_cell::sync::OnceCell;
use tss_esapi::structures::{Data, Digest, HashScheme, PublicKeyRsa, RsaDecryptionScheme};

use crate::error::{Error, Result};
use crate::key::{DecryptScheme, KeyKind, PublicKey, Scheme, Usage};
use crate::provider::{
    BackEnd, Blob, Capability, Key, KeyAuth, NewKey, Place, Provider, ProviderInfo, Settings,
};
use crate::secret::Secret;

use device::Device;
use errors::Fault;
use link::Binding;
use live::Loadable;
use objects::{ours, padded};
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
    ],
    check: |settings| Options::read(settings).map(drop),
    service: |_| false,
    create,
    open,
};

/// Making an RSA key takes a discrete TPM a minute at times.
const GENERATE_AT_LEAST: Duration = Duration::from_secs(180);

struct Options {
    tcti: Tcti,
    timeout: Duration,
}

impl Options {
    fn read(settings: &Settings) -> Result<Self> {
        let setting = |name| settings.get(name).map(String::as_str);
        let seconds = match setting("timeout") {
            None => 30,
            Some(text) => text
                .parse()
                .ok()
                .filter(|seconds| (1..=600).contains(seconds))
                .ok_or_else(|| Error::input(format!("timeout = {text:?}: use 1 to 600 seconds")))?,
        };
        Ok(Options {
            tcti: Tcti::parse(setting("tcti").unwrap_or(tcti::DEFAULT))?,
            timeout: Duration::from_secs(seconds),
        })
    }
}

fn create(place: &Place<'_>) -> Result<Arc<dyn Provider>> {
    let provider = Tpm::new(place)?;
    provider.device.run(|link| link.binding())?;
    Ok(Arc::new(provider))
}

fn open(place: &Place<'_>) -> Result<Arc<dyn Provider>> {
    Ok(Arc::new(Tpm::new(place)?))
}

#[derive(Debug)]
struct Tpm {
    device: Arc<Device>,
    info: OnceCell<ProviderInfo>,
    generate_within: Duration,
}

impl Tpm {
    fn new(place: &Place<'_>) -> Result<Self> {
        let Options { tcti, timeout } = Options::read(place.settings)?;
        let binding = place.binding.map(str::parse::<Binding>).transpose()?;
        Ok(Tpm {
            device: Arc::new(Device::new(tcti, binding, timeout)),
            info: OnceCell::new(),
            generate_within: timeout.max(GENERATE_AT_LEAST),
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
        pin_less(auth)?;
        kind.check_usage(usage)?;
        let wrapped = self.device.run_within(self.generate_within, move |link| {
            let parent = link.binding()?.parent;
            let live = link.live()?;
            if !probe::has(live, kind)? {
                return Err(Error::unsupported(format!("{kind} keys in this TPM")).into());
            }
            live.create(parent, objects::template(kind, usage)?)
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
        pin_less(auth)?;
        let wrapped = Wrapped::from_blob(blob)?;
        if !objects::is_key(&wrapped.public, public, usage) {
            return Err(Error::BadBlob);
        }
        Ok(Box::new(TpmKey {
            device: Arc::clone(&self.device),
            key: Arc::new(Loadable {
                name: objects::name(&wrapped.public)?,
                wrapped,
            }),
            public: public.clone(),
            usage,
        }))
    }
}

/// A key of the TPM, loaded at its first use and again whenever it has been flushed since.
#[derive(Debug)]
struct TpmKey {
    device: Arc<Device>,
    key: Arc<Loadable>,
    public: PublicKey,
    usage: Usage,
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
            let live = link.live()?;
            let handle = live.key(&key)?;
            let digest = ours(Digest::try_from(input.as_slice()))?;
            let signed = live.sign(handle, digest, tpm_scheme)?;
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
            let shared = link.live()?.encrypted(&binding, |live, session| {
                let handle = live.checked_key(&key)?;
                live.authorised_by(session, |context| context.ecdh_z_gen(handle, point))
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
            link.live()?.encrypted(&binding, |live, session| {
                let handle = live.checked_key(&key)?;
                let opened = live.authorised_by(session, |context| {
                    context.rsa_decrypt(handle, sealed, scheme, Data::default())
                });
                match opened {
                    Ok(plain) => Ok(Secret::new(plain.value().to_vec())),
                    Err(fault) if live.blames_input(&fault, handle) => Err(Error::Crypto.into()),
                    Err(fault) => Err(fault),
                }
            })
        })
    }
}

fn pin_less(auth: &KeyAuth) -> Result<()> {
    match auth {
        KeyAuth::None => Ok(()),
        KeyAuth::Secret(_) => Err(Error::unsupported("TPM tokens with a PIN, so far")),
    }
}
