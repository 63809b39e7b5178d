//! What the rules have in common.

use std::fmt::Debug;
use std::sync::Arc;

use devkey::Error;
use devkey::key::{DecryptScheme, Hash, KeyKind, PublicKey, Scheme, Usage, ecdsa_input};
use devkey::provider::{Blob, Capability, Key, KeyAuth, NewKey, Provider, Sealing};
use devkey::secret::Secret;

use crate::device::Device;

/// Makes a fresh device.
pub(crate) type Fresh = fn() -> Device;

/// Threads in the tests that have some.
pub(crate) const THREADS: usize = 8;
/// Changed bits tried in a blob, spread over all of it.
pub(crate) const FLIPS: usize = 600;
/// Wrong auths that lock a sealed secret, where the device counts them.
pub(crate) const TRIES: u32 = 3;

/// The uses of a key that does nothing, and of those that do one thing.
pub(crate) const NOTHING: Usage = Usage {
    sign: false,
    agree: false,
    decrypt: false,
};
pub(crate) const AGREE: Usage = Usage {
    agree: true,
    ..NOTHING
};
pub(crate) const DECRYPT: Usage = Usage {
    decrypt: true,
    ..NOTHING
};
pub(crate) const HASHES: [Hash; 3] = [Hash::Sha256, Hash::Sha384, Hash::Sha512];

/// A device on which a token has been made.
pub(crate) struct Made {
    pub(crate) provider: Arc<dyn Provider>,
    pub(crate) device: Device,
}

impl Made {
    pub(crate) fn on(device: Device) -> Self {
        let provider = device.create();
        Made { provider, device }
    }

    pub(crate) fn reopened(&self) -> Arc<dyn Provider> {
        self.device
            .open(self.provider.info().unwrap().binding.as_deref())
    }

    pub(crate) fn capabilities(&self) -> Vec<Capability> {
        self.provider.capabilities().unwrap()
    }

    /// Every capability, each with a key for all its uses.
    pub(crate) fn all(&self) -> impl Iterator<Item = (Capability, NewKey)> {
        let capabilities = self.capabilities().into_iter();
        capabilities.map(|has| (has.clone(), self.key(has.kind, has.usage)))
    }

    /// Those whose keys are made quickly, for rules that do not depend on the size.
    pub(crate) fn quick(&self) -> impl Iterator<Item = Capability> + use<> {
        let slow = [KeyKind::Rsa3072, KeyKind::Rsa4096];
        let capabilities = self.capabilities().into_iter();
        capabilities.filter(move |has| !slow.contains(&has.kind))
    }

    pub(crate) fn agreeing(&self) -> impl Iterator<Item = Capability> + use<> {
        self.capabilities()
            .into_iter()
            .filter(|has| has.usage.agree)
    }

    pub(crate) fn decrypting(&self) -> impl Iterator<Item = Capability> + use<> {
        self.capabilities()
            .into_iter()
            .filter(|has| has.usage.decrypt)
    }

    pub(crate) fn try_key(&self, kind: KeyKind, usage: Usage) -> devkey::Result<NewKey> {
        self.provider.generate(kind, usage, &KeyAuth::None)
    }

    pub(crate) fn key(&self, kind: KeyKind, usage: Usage) -> NewKey {
        self.try_key(kind, usage).unwrap()
    }

    /// A key with an auth, or `None` where the device has keys without one only. That such a
    /// device does not take a key without for one with an auth is asserted here.
    pub(crate) fn guarded(&self, has: &Capability, auth: &KeyAuth) -> Option<NewKey> {
        match self.provider.generate(has.kind, has.usage, auth) {
            Err(Error::Unsupported(_)) => {
                let free = self.key(has.kind, has.usage);
                let opened = self
                    .provider
                    .open(&free.blob, &free.public, has.usage, auth);
                assert!(matches!(opened, Err(Error::Unsupported(_))), "{opened:?}");
                None
            }
            made => Some(made.unwrap()),
        }
    }

    pub(crate) fn open(&self, new: &NewKey, usage: Usage) -> devkey::Result<Box<dyn Key>> {
        open(&*self.provider, new, usage)
    }

    /// What becomes of a blob when its key is opened and used: a back end need not ask its device
    /// before that.
    pub(crate) fn used(&self, new: &NewKey, usage: Usage) -> devkey::Result<()> {
        used(&*self.provider, new, usage)
    }

    /// The auths under which the device seals. That it does not under others is asserted here.
    pub(crate) fn seals(&self) -> Vec<KeyAuth> {
        let all = [KeyAuth::None, auth(1)];
        let wanted = match self.provider.sealing() {
            Sealing::Never => [false, false],
            Sealing::UnderAuth => [false, true],
            Sealing::Freely => [true, true],
        };
        let mut seals = Vec::new();
        for (auth, wanted) in all.into_iter().zip(wanted) {
            let sealed = self.provider.seal(&Secret::new(vec![7; 32]), &auth, TRIES);
            match wanted {
                true => seals.push(auth),
                false => assert!(matches!(sealed, Err(Error::Unsupported(_))), "{sealed:?}"),
            }
        }
        seals
    }

    /// Whether the device counts wrong auths.
    pub(crate) fn counts(&self) -> bool {
        self.provider.sealing() == Sealing::UnderAuth
    }

    /// A sealed secret.
    pub(crate) fn sealed(&self, secret: &Secret, auth: &KeyAuth) -> Blob {
        self.provider.seal(secret, auth, TRIES).unwrap()
    }

    /// A wrong auth is refused, and where the device counts, as one.
    pub(crate) fn refuses_auth(&self, sealed: &Blob, auth: &KeyAuth, left: u32) {
        let refused = self.provider.unseal(sealed, auth);
        match (self.counts(), refused) {
            (true, Err(Error::WrongPin { tries_left })) => assert_eq!(tries_left, Some(left)),
            (false, Err(Error::BadBlob)) => {}
            (_, other) => panic!("{other:?}"),
        }
    }
}

/// An auth of 32 times this byte.
pub(crate) fn auth(byte: u8) -> KeyAuth {
    KeyAuth::Secret(Secret::new(vec![byte; 32]))
}

pub(crate) fn open(
    provider: &dyn Provider,
    new: &NewKey,
    usage: Usage,
) -> devkey::Result<Box<dyn Key>> {
    provider.open(&new.blob, &new.public, usage, &KeyAuth::None)
}

/// Opens a key and does with it what its usage allows.
pub(crate) fn used(provider: &dyn Provider, new: &NewKey, usage: Usage) -> devkey::Result<()> {
    let key = open(provider, new, usage)?;
    let kind = new.public.kind();
    if usage.sign {
        let scheme = kind.schemes()[0];
        key.sign(scheme, &input(kind, scheme, b"hello"))?;
    }
    if usage.agree {
        key.agree(&new.public)?;
    }
    if usage.decrypt {
        let garbage = vec![1; kind.signature_len()];
        match key.decrypt(DecryptScheme::RsaOaep(Hash::Sha256), &garbage) {
            Err(Error::Crypto) | Ok(_) => {}
            Err(other) => return Err(other),
        }
    }
    Ok(())
}

/// What a scheme signs of a message.
pub(crate) fn input(kind: KeyKind, scheme: Scheme, message: &[u8]) -> Vec<u8> {
    match scheme {
        Scheme::Ecdsa => ecdsa_input(kind, &Hash::Sha256.digest(message)).unwrap(),
        Scheme::RsaPkcs1(hash) | Scheme::RsaPss(hash) => hash.digest(message),
        Scheme::Ed25519 | Scheme::MlDsa => message.to_vec(),
    }
}

pub(crate) fn signs(key: &dyn Key, public: &PublicKey, scheme: Scheme, thread: usize) {
    for round in 0..4 {
        let message = format!("{thread} {round}");
        let input = input(public.kind(), scheme, message.as_bytes());
        let signature = key.sign(scheme, &input).unwrap();
        public.verify(scheme, &input, &signature).unwrap();
    }
}

/// Every combination of uses but none at all.
pub(crate) fn usages() -> impl Iterator<Item = Usage> {
    (1..8u8).map(|bits| Usage {
        sign: bits & 1 != 0,
        agree: bits & 2 != 0,
        decrypt: bits & 4 != 0,
    })
}

/// The blob with one bit changed, at [`FLIPS`] places or everywhere; cut, lengthened, renamed.
pub(crate) fn changes(blob: &Blob) -> Vec<Blob> {
    let with = |bytes: Vec<u8>| Blob {
        label: blob.label.clone(),
        bytes,
    };
    let bits = blob.bytes.len() * 8;
    let flips = (0..bits).step_by((bits / FLIPS).max(1)).map(|bit| {
        let mut bytes = blob.bytes.clone();
        bytes[bit / 8] ^= 1 << (bit % 8);
        with(bytes)
    });
    let cuts =
        [0, 1, 4, 35, 36, 37, blob.bytes.len() - 1].map(|len| with(blob.bytes[..len].to_vec()));
    let longer = with([blob.bytes.as_slice(), &[0]].concat());
    let label = Blob {
        label: "PRIVATE KEY".to_owned(),
        bytes: blob.bytes.clone(),
    };
    flips.chain(cuts).chain([longer, label]).collect()
}

pub(crate) fn only_if<T: Debug>(permitted: bool, result: devkey::Result<T>) {
    match permitted {
        true => assert!(result.is_ok(), "{result:?}"),
        false => assert!(matches!(result, Err(Error::NotPermitted(_))), "{result:?}"),
    }
}

pub(crate) fn refuses_ability<T: Debug>(result: devkey::Result<T>) {
    let refused = matches!(result, Err(Error::Unsupported(_) | Error::NotPermitted(_)));
    assert!(refused, "{result:?}");
}

pub(crate) fn refuses_blob<T: Debug>(result: devkey::Result<T>) {
    let refused = matches!(result, Err(Error::BadBlob | Error::OtherDevice { .. }));
    assert!(refused, "{result:?}");
}

pub(crate) fn holds(bytes: &[u8], part: &[u8]) -> bool {
    bytes.windows(part.len()).any(|window| window == part)
}
