//! Rounds with a TPM: whoever lacks one of the three things that it shows is refused.

use std::sync::Arc;

use devkey::backends::tpm::BACK_END;
use devkey::identity::bundle::{Most, certificates};
use devkey::identity::ca::Challenged;
use devkey::identity::flow::{TpmAnswer, activation, qualifying_data};
use devkey::provider::{
    Attest, Attested, Certified, Credential, Identity, Key, KeyAuth, NewKey, Place, Provider,
    Settings,
};
use devkey::secret::Secret;

use super::maker::Maker;
use super::tpm::Swtpm;
use super::*;

/// A device with a TPM and a key in it.
pub(crate) struct Device {
    provider: Arc<dyn Provider>,
    new: NewKey,
    key: Box<dyn Key>,
    swtpm: Arc<Swtpm>,
}

impl Device {
    pub(crate) fn of(maker: &Maker) -> Self {
        let swtpm = maker.tpm();
        let settings = Settings::from([("tcti".to_owned(), swtpm.tcti())]);
        let dir = tempfile::tempdir().unwrap();
        let place = Place {
            dir: dir.path(),
            settings: &settings,
            binding: None,
        };
        let provider = (BACK_END.create)(&place).unwrap();
        let (new, key) = made(&*provider);
        Device {
            provider,
            new,
            key,
            swtpm: Arc::new(swtpm),
        }
    }

    /// The same with a new key.
    pub(crate) fn with_new_key(&self) -> Self {
        let provider = Arc::clone(&self.provider);
        let (new, key) = made(&*provider);
        Device {
            provider,
            new,
            key,
            swtpm: Arc::clone(&self.swtpm),
        }
    }

    pub(crate) fn identity(&self) -> Identity {
        match self.provider.attest(&Attest::Identity).unwrap() {
            Attested::Identity(identity) => identity,
            other => panic!("{other:?}"),
        }
    }

    fn request(&self) -> Request {
        self.showing(self.identity())
    }

    pub(crate) fn showing(&self, identity: Identity) -> Request {
        let mut spec = spec();
        spec.evidence = Some(identity);
        Request::make(self, spec).unwrap()
    }

    /// The answer to a challenge.
    pub(crate) fn answer(&self, challenge: &Challenge) -> Answer {
        let tpm = TpmAnswer {
            activation: self.activate(challenge).unwrap(),
            certified: self.certify(challenge),
        };
        Answer::make(self, challenge, Some(tpm)).unwrap()
    }

    fn activate(&self, challenge: &Challenge) -> Result<devkey::identity::flow::Digest> {
        let all = challenge.credentials().map(|(ek, one)| self.open(ek, one));
        let all: Result<Vec<Vec<u8>>> = all.collect();
        Ok(activation(&Secret::new(all?.concat()), challenge))
    }

    /// The secret of a credential.
    pub(crate) fn open(&self, ek: &[u8], credential: Credential) -> Result<Vec<u8>> {
        let ek_public = ek.to_vec();
        match self.provider.attest(&Attest::Activate {
            ek_public,
            credential,
        })? {
            Attested::Secret(secret) => Ok(secret.expose().to_vec()),
            other => panic!("{other:?}"),
        }
    }

    pub(crate) fn certify(&self, challenge: &Challenge) -> Certified {
        self.key.certify(&qualifying_data(challenge).0).unwrap()
    }
}

impl Signer for Device {
    fn public(&self) -> &PublicKey {
        &self.new.public
    }

    fn sign(&self, scheme: Scheme, input: &[u8]) -> Result<Vec<u8>> {
        self.key.sign(scheme, input)
    }
}

fn made(provider: &dyn Provider) -> (NewKey, Box<dyn Key>) {
    let new = provider
        .generate(KeyKind::EcP256, Usage::SIGN, &KeyAuth::None)
        .unwrap();
    let key = provider
        .open(&new.blob, &new.public, Usage::SIGN, &KeyAuth::None)
        .unwrap();
    (new, key)
}

pub(crate) fn roots(maker: &Maker) -> Vec<Vec<u8>> {
    let read = |path| certificates(&std::fs::read(path).unwrap(), Most::ANCHORS).unwrap();
    maker.chain().into_iter().flat_map(read).collect()
}

pub(crate) fn believing(roots: Vec<Vec<u8>>) -> Authority {
    Authority::with(&[("device", profile(Level::Tpm))], roots)
}

/// Now, for the maker's certificates begin when they are made.
pub(crate) fn now() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since.unwrap().as_secs()
}

pub(crate) fn ask(authority: &Authority, request: &Request) -> Result<Challenged> {
    authority
        .ca
        .challenge(&authority.key, request.clone(), None, now())
}

/// Each refusal seen to be missing without its check: `trusted` in `tpm_proven`, the comparison of the
/// activation, `verify_certify`, and with nothing of the TPM's taken for an answer.
#[test]
fn each_part_of_the_proof_is_wanted() {
    let maker = Maker::new();
    let (device, other) = (Device::of(&maker), Device::of(&maker));
    let authority = believing(roots(&maker));
    let request = device.request();
    let asked = ask(&authority, &request).unwrap();
    assert_eq!(asked.level, Level::Tpm);
    let (challenge, elsewhere) = (
        asked.challenge,
        ask(&authority, &request).unwrap().challenge,
    );
    let issue = |tpm: Option<TpmAnswer>| {
        let answer = Answer::make(&device, &challenge, tpm).unwrap();
        let answer = Answer::parse(&answer.encode().unwrap()).unwrap();
        authority.ca.issue(&authority.key, &answer, now())
    };
    let right = TpmAnswer {
        activation: device.activate(&challenge).unwrap(),
        certified: device.certify(&challenge),
    };
    refused(issue(None), "lacks what the TPM adds");
    // The credential is for one TPM, the activation for one challenge.
    assert!(other.activate(&challenge).is_err());
    for activation in [device.activate(&elsewhere).unwrap(), challenge.nonce()] {
        let wrong = TpmAnswer {
            activation,
            ..right.clone()
        };
        refused(issue(Some(wrong)), "did not open the credentials");
    }
    let (_, another) = made(&*device.provider);
    let another = another.certify(&qualifying_data(&challenge).0).unwrap();
    for (certified, why) in [
        (device.certify(&elsewhere), "answers another challenge"),
        (another, "is another than the one asked about"),
        (other.certify(&challenge), "is not the attestation key's"),
    ] {
        let wrong = TpmAnswer {
            certified,
            ..right.clone()
        };
        refused(issue(Some(wrong)), why);
    }
    // A maker whom nobody believes any more.
    let ek_roots = authority.dir().join("ca/ek-roots");
    let kept = authority.dir().join("kept");
    std::fs::rename(&ek_roots, &kept).unwrap();
    std::fs::create_dir(&ek_roots).unwrap();
    refused(issue(Some(right.clone())), "endorsement certificate");
    std::fs::remove_dir(&ek_roots).unwrap();
    std::fs::rename(&kept, &ek_roots).unwrap();
    let granted = issue(Some(right)).unwrap();
    assert_eq!(granted.issued.level(), Some(Level::Tpm));
    granted.issued.check(device.public(), now()).unwrap();
}

#[test]
fn a_tpm_of_another_maker_is_no_tpm() {
    let (maker, stranger) = (Maker::new(), Maker::new());
    let device = Device::of(&maker);
    // His CA is made with his first TPM.
    let _of_the_stranger = stranger.tpm();
    let request = device.request();
    refused(
        ask(&believing(roots(&stranger)), &request),
        "level tpm is wanted",
    );
    refused(ask(&believing(Vec::new()), &request), "ek-roots is empty");
    // The root without the CA below it, and the CA below it alone.
    let [root, issuer] = [0, 1].map(|at| vec![roots(&maker)[at].clone()]);
    refused(
        ask(&believing(root), &request),
        "no certificate of its issuer",
    );
    assert_eq!(ask(&believing(issuer), &request).unwrap().level, Level::Tpm);
    // Where less will do it is less.
    let content = Authority::with(&[("device", profile(Level::Software))], roots(&stranger));
    let asked = ask(&content, &request).unwrap();
    assert_eq!(asked.level, Level::Software);
    assert!(asked.challenge.credentials().len() == 0 && !asked.reasons.is_empty());
}

/// A key in software beside a genuine TPM's evidence. Seen to fail without `verify_certify`.
#[test]
fn a_key_outside_of_the_tpm_is_refused() {
    let maker = Maker::new();
    let device = Device::of(&maker);
    let authority = believing(roots(&maker));
    let soft = Soft::new();
    let mut spec = spec();
    spec.evidence = Some(device.identity());
    let request = Request::make(&soft, spec).unwrap();
    let challenge = ask(&authority, &request).unwrap().challenge;
    let tpm = TpmAnswer {
        activation: device.activate(&challenge).unwrap(),
        certified: device.certify(&challenge),
    };
    let answer = Answer::make(&soft, &challenge, Some(tpm)).unwrap();
    refused(
        authority.ca.issue(&authority.key, &answer, now()),
        "is another than the one asked about",
    );
}
