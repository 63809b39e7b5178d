//! What is well made and says another thing than it should. Each check of the CA's meets something
//! that only it refuses, made by a real TPM where a TPM makes such a thing.
//!
//! Each test was seen to fail without the check that it names.

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair};
use devkey::identity::tpm::check_ak;

use super::peers::{DEVICE_KEY, TOOLS_DATA, Tools, key_of};
use super::*;

/// Bits of TPMA_OBJECT, part 2 §8.3.
const FIXED_TPM: u32 = 1 << 1;
const FIXED_PARENT: u32 = 1 << 4;
const SENSITIVE_DATA_ORIGIN: u32 = 1 << 5;
const RESTRICTED: u32 = 1 << 16;
const DECRYPT: u32 = 1 << 17;
const SIGN: u32 = 1 << 18;

/// A public area with these attributes flipped.
fn flipped(public: &[u8], bits: u32) -> Vec<u8> {
    let mut public = public.to_vec();
    let attributes = u32::from_be_bytes(public[4..8].try_into().unwrap());
    public[4..8].copy_from_slice(&(attributes ^ bits).to_be_bytes());
    public
}

/// A device, and a key of its own that devkey's AK has certified.
struct Round {
    device: Device,
    identity: Identity,
    new: NewKey,
    key: Box<dyn Key>,
    certified: Certified,
}

impl Round {
    fn new() -> Self {
        Round::of(&Maker::new())
    }

    fn of(maker: &Maker) -> Self {
        let device = Device::of(maker);
        let identity = device.identity();
        let (new, key) = device.key(KeyKind::EcP256, KeyAuth::None);
        let certified = key.certify(NONCE).unwrap();
        Round {
            device,
            identity,
            new,
            key,
            certified,
        }
    }

    fn tools(&self) -> Tools<'_> {
        Tools(&self.device.swtpm)
    }

    /// Verifies with something changed.
    fn verify(&self, certified: &Certified) -> Result<()> {
        let ak = &self.identity.ak_public;
        verify_certify(certified, ak, &self.new.public, NONCE)
    }
}

/// By TPM2_Certify with an AK that signs anything.
#[test]
fn an_unrestricted_attestation_key_is_refused() {
    let round = Round::new();
    let tools = round.tools();
    let free = format!("{DEVICE_KEY}|noda");
    let ak = tools.child("free", "ecc256:ecdsa-sha256", &free);
    let public = tools.child("key", "ecc256", DEVICE_KEY);
    let expected = key_of(&public);
    let certified = tools.certify("key.ctx", "free.ctx", public);
    let done = verify_certify(&certified, &ak, &expected, &TOOLS_DATA);
    refused(done, "the attestation key is not restricted");
    refused(check_ak(&ak), "the attestation key is not restricted");
}

/// By TPM2_Certify with an AK that may be duplicated to another TPM, or to none.
#[test]
fn an_attestation_key_that_may_leave_is_refused() {
    let round = Round::new();
    let tools = round.tools();
    let attributes = "sensitivedataorigin|userwithauth|restricted|sign";
    let ak = tools.child("loose", "ecc256:ecdsa-sha256:null", attributes);
    let public = tools.child("key", "ecc256", DEVICE_KEY);
    let expected = key_of(&public);
    let certified = tools.certify("key.ctx", "loose.ctx", public);
    let done = verify_certify(&certified, &ak, &expected, &TOOLS_DATA);
    refused(done, "the attestation key may leave its TPM");
}

/// What no TPM makes is said of a real AK: its Name is another then, which activation would find.
#[test]
fn an_attestation_key_is_all_that_it_must_be() {
    let ak = Round::new().identity.ak_public;
    for (bits, reason) in [
        (RESTRICTED, "not restricted"),
        (SIGN, "not for signing"),
        (DECRYPT, "for decryption, too"),
        (FIXED_TPM, "may leave its TPM"),
        (FIXED_PARENT, "may leave its TPM"),
        (SENSITIVE_DATA_ORIGIN, "not made by its TPM"),
        (1, "attributes that do not exist"),
    ] {
        let changed = flipped(&ak, bits);
        refused(check_ak(&changed), reason);
        assert_ne!(object(&ak).unwrap().1, named(&changed));
    }
}

/// An AK that signs by any scheme, an EK that signs by one, and one without a cipher for what it
/// protects: no TPM makes these of their attributes.
#[test]
fn keys_have_the_algorithms_of_their_use() {
    const NULL: [u8; 2] = [0, 0x10];
    let identity = Device::of(&Maker::new()).identity();
    // Behind type, hash, attributes and an empty policy: no cipher, then ECDSA with SHA-256.
    let mut ak = identity.ak_public.clone();
    assert_eq!(ak[8..16], [0, 0, 0, 0x10, 0, 0x18, 0, 0x0b]);
    ak.splice(12..16, NULL);
    refused(check_ak(&ak), "has no signature scheme");
    for good in &identity.endorsement {
        // Behind a policy: AES, its bits and mode, then no scheme.
        let cipher = 10 + usize::from(good.public[9]);
        let mut evidence = evidence(&identity, good);
        let ek = &mut evidence.ek_public;
        assert_eq!(ek[cipher..cipher + 2], [0, 0x06]);
        ek.splice(cipher..cipher + 6, NULL);
        refused(evidence.check(), "has no cipher");
        let mut evidence = self::evidence(&identity, good);
        let ek = &mut evidence.ek_public;
        ek.splice(cipher + 6..cipher + 8, [0, 0x18, 0, 0x0b]);
        refused(evidence.check(), "has a signature scheme");
    }
}

/// An object's Name, whatever is in it.
fn named(public: &[u8]) -> Vec<u8> {
    let digest = devkey::key::Hash::Sha256.digest(public);
    [&[0, 0x0b], digest.as_slice()].concat()
}

/// A key in no TPM, whose public area says what an AK's does: its attestation verifies, so it must
/// not pass activation. The EK's TPM does not open what is for a Name that it has not.
#[test]
fn a_software_key_as_attestation_key_is_not_activated() {
    let round = Round::new();
    let (forged_ak, forged) = in_software(&round);
    let (_, name) = object(&forged_ak).unwrap();
    check_ak(&forged_ak).unwrap();
    verify_certify(&forged, &forged_ak, &round.new.public, NONCE).unwrap();
    for ek in &round.identity.endorsement {
        let credential = make_credential(&ek.public, &name, b"secret").unwrap();
        refused(round.device.activate(ek, &credential), "does not open");
    }
    round.device.swtpm.assert_empty();
}

/// The public area of an AK in software, and the round's attestation signed by it.
fn in_software(round: &Round) -> (Vec<u8>, Certified) {
    forged(round, &round.certified.key_public)
}

/// The same of another object.
fn forged(round: &Round, key_public: &[u8]) -> (Vec<u8>, Certified) {
    let pair = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap();
    let point = pair.public_key().as_ref();
    let mut public = round.identity.ak_public.clone();
    // The two coordinates, each after its length, stand last.
    let end = public.len();
    public[end - 66..end - 34].copy_from_slice(&point[1..33]);
    public[end - 32..].copy_from_slice(&point[33..]);
    // And so do Name and Qualified Name in an attestation.
    let mut attest = round.certified.attest.clone();
    let end = attest.len();
    attest[end - 70..end - 36].copy_from_slice(&named(key_public));
    let signed = pair.sign(&SystemRandom::new(), &attest).unwrap();
    let (r, s) = signed.as_ref().split_at(32);
    let signature = [&[0, 0x18, 0, 0x0b, 0, 32], r, &[0, 32], s].concat();
    let certified = Certified {
        attest,
        signature,
        key_public: key_public.to_vec(),
    };
    (public, certified)
}

/// What no TPM certifies, so a software AK does: each attribute of the key counts.
#[test]
fn a_device_key_is_all_that_it_must_be() {
    let round = Round::new();
    let good = &round.certified.key_public;
    let verify = |public: &[u8]| {
        let (ak, certified) = forged(&round, public);
        verify_certify(&certified, &ak, &round.new.public, NONCE)
    };
    verify(good).unwrap();
    for (bits, reason) in [
        (RESTRICTED, "is restricted"),
        (SIGN, "not for signing"),
        (FIXED_TPM, "may leave its TPM"),
        (FIXED_PARENT, "may leave its TPM"),
        (SENSITIVE_DATA_ORIGIN, "not made by its TPM"),
    ] {
        refused(verify(&flipped(good, bits)), reason);
    }
}

/// An AK signs in one way. Of another hash, and of another scheme.
#[test]
fn a_signature_of_another_scheme_is_refused() {
    let round = Round::new();
    for (at, value) in [(3, 0x0c), (1, 0x14)] {
        let mut changed = round.certified.clone();
        changed.signature[at] = value;
        if value == 0x14 {
            // RSASSA has one number.
            changed.signature.truncate(4 + 2 + 32);
        }
        refused(round.verify(&changed), "is of another scheme");
    }
}

/// A software key cannot pass for one that a TPM certified, without an AK.
#[test]
fn a_signature_of_another_key_is_refused() {
    let maker = Maker::new();
    let (round, other) = (Round::of(&maker), Round::of(&maker));
    let (_, forged) = in_software(&round);
    refused(round.verify(&forged), "is not the attestation key's");
    let theirs = verify_certify(
        &round.certified,
        &other.identity.ak_public,
        &round.new.public,
        NONCE,
    );
    refused(theirs, "is not the attestation key's");
}

/// TPM2_Quote by a good AK, over the right nonce.
#[test]
fn a_quote_is_no_certificate_of_a_key() {
    let round = Round::new();
    let tools = round.tools();
    let ak = tools.ak("ak", "ecc", "ecdsa");
    let nonce = base16ct::lower::encode_string(NONCE);
    let what = ["-c", "ak.ctx", "-l", "sha256:0", "-q", &nonce, "-f", "tss"];
    let out = ["-m", "attest", "-s", "signature"];
    tools.run("tpm2_quote", &[what.as_slice(), &out].concat());
    let quote = Certified {
        attest: tools.read("attest"),
        signature: tools.read("signature"),
        key_public: round.certified.key_public.clone(),
    };
    let done = verify_certify(&quote, &ak, &round.new.public, NONCE);
    refused(done, "is of something else than a key");
}

/// A good AK signs what comes from outside, where it does not begin as an attestation does.
#[test]
fn what_no_tpm_made_is_refused_though_the_attestation_key_signed_it() {
    let round = Round::new();
    let tools = round.tools();
    let ak = tools.ak("ak", "ecc", "ecdsa");
    let mut attest = round.certified.attest.clone();
    assert!(!signs(&tools, &attest), "an AK signed a forgery");
    attest[0] ^= 1;
    assert!(signs(&tools, &attest));
    let forged = Certified {
        attest,
        signature: tools.read("signature"),
        key_public: round.certified.key_public.clone(),
    };
    let done = verify_certify(&forged, &ak, &round.new.public, NONCE);
    refused(done, "was not made by a TPM");
}

/// TPM2_Hash and TPM2_Sign by the AK.
fn signs(tools: &Tools<'_>, message: &[u8]) -> bool {
    tools.write("message", message);
    let hash = ["-C", "e", "-g", "sha256", "-t", "ticket", "-o", "digest"];
    tools.run("tpm2_hash", &[hash.as_slice(), &["message"]].concat());
    let sign = ["-c", "ak.ctx", "-g", "sha256", "-d", "-t", "ticket"];
    let out = ["-o", "signature", "-f", "tss", "digest"];
    tools.works("tpm2_sign", &[sign.as_slice(), &out].concat())
}

#[test]
fn an_answer_to_another_challenge_is_refused() {
    let round = Round::new();
    let stale = round.key.certify(b"the challenge of last week").unwrap();
    refused(round.verify(&stale), "answers another challenge");
    let shorter = round.key.certify(&NONCE[..31]).unwrap();
    refused(round.verify(&shorter), "answers another challenge");
}

/// Two keys of the same device. Of the second check, that the Name is the public area's, and that
/// the public area's key is the expected one.
#[test]
fn an_attestation_of_another_key_is_refused() {
    let round = Round::new();
    let (other, key) = round.device.key(KeyKind::EcP256, KeyAuth::None);
    let theirs = key.certify(NONCE).unwrap();
    let mixed = Certified {
        key_public: round.certified.key_public.clone(),
        ..theirs.clone()
    };
    refused(round.verify(&mixed), "the attestation is of another key");
    refused(round.verify(&theirs), "is another than the one asked about");
    let ak = &round.identity.ak_public;
    verify_certify(&theirs, ak, &other.public, NONCE).unwrap();
}

/// Keys that a good AK certifies truly, and that are not what a certificate should say of them.
#[test]
fn a_key_that_is_no_device_key_is_refused() {
    let round = Round::new();
    let tools = round.tools();
    let ak = tools.ak("ak", "ecc", "ecdsa");
    for (name, algorithm, attributes, reason) in [
        (
            "loose",
            "ecc256",
            "sensitivedataorigin|userwithauth|sign",
            "may leave its TPM",
        ),
        (
            "agrees",
            "ecc256",
            "fixedtpm|fixedparent|sensitivedataorigin|userwithauth|decrypt",
            "is not for signing",
        ),
        (
            "restricted",
            "ecc256:ecdsa-sha256:null",
            "fixedtpm|fixedparent|sensitivedataorigin|userwithauth|restricted|sign",
            "is restricted",
        ),
    ] {
        let public = tools.child(name, algorithm, attributes);
        let expected = key_of(&public);
        let certified = tools.certify(&format!("{name}.ctx"), "ak.ctx", public);
        let done = verify_certify(&certified, &ak, &expected, &TOOLS_DATA);
        refused(done, reason);
    }
}

/// A key made in software and imported into the TPM: it signs there, and was known outside.
#[test]
fn an_imported_key_is_refused() {
    let round = Round::new();
    let tools = round.tools();
    let ak = tools.ak("ak", "ecc", "ecdsa");
    tools.child("any", "ecc256", DEVICE_KEY);
    let make = ["ecparam", "-name", "prime256v1", "-genkey", "-noout"];
    tools.run(
        "openssl",
        &[make.as_slice(), &["-out", "known.pem"]].concat(),
    );
    let import = ["-C", "parent.ctx", "-G", "ecc", "-i", "known.pem"];
    let out = ["-u", "known.pub", "-r", "known.priv"];
    tools.run("tpm2_import", &[import.as_slice(), &out].concat());
    let load = ["-C", "parent.ctx", "-u", "known.pub", "-r", "known.priv"];
    tools.run(
        "tpm2_load",
        &[load.as_slice(), &["-c", "known.ctx"]].concat(),
    );
    let public = tools.public("known.pub");
    let expected = key_of(&public);
    let certified = tools.certify("known.ctx", "ak.ctx", public.clone());
    let done = verify_certify(&certified, &ak, &expected, &TOOLS_DATA);
    // It is neither fixed nor of the TPM's making; the first is said.
    refused(done, "may leave its TPM");
}

/// The EK of one TPM with the certificate of another's, of the same maker.
#[test]
fn a_certificate_of_another_endorsement_key_is_refused() {
    let maker = Maker::new();
    let (one, other) = (Device::of(&maker).identity(), Device::of(&maker).identity());
    for kind in [KeyKind::Rsa2048, KeyKind::EcP384] {
        let mut evidence = evidence(&one, ek(&one, kind));
        evidence.check().unwrap();
        evidence.ek_certificate = ek(&other, kind).certificate.clone().unwrap();
        refused(evidence.check(), "is of another endorsement key");
    }
}

/// swtpm_setup's other kind of EK signs and decrypts what one likes: a secret for an AK of thin air,
/// too. What is certified of it says so, whatever the device claims.
#[test]
fn an_endorsement_key_that_may_sign_is_refused() {
    let maker = Maker::new();
    let device = Device::of(&maker);
    let identity = device.identity();
    let ek = ek(&identity, KeyKind::EcP384);
    let tools = Tools(&device.swtpm);
    let read = ["-c", "0x81010016", "-f", "pem", "-o", "ek.pem"];
    tools.run("tpm2_readpublic", &read);
    let mut evidence = evidence(&identity, ek);
    for (usage, good) in [
        ("keyAgreement", true),
        ("keyAgreement,digitalSignature", false),
    ] {
        let extension = format!("keyUsage=critical,{usage}");
        evidence.ek_certificate = maker.certify(&device.swtpm.file("ek.pem"), &extension);
        match good {
            true => drop(evidence.check().unwrap()),
            false => refused(evidence.check(), "a key that may sign"),
        }
    }
}

#[test]
fn an_endorsement_key_is_all_that_it_must_be() {
    let identity = Device::of(&Maker::new()).identity();
    let mut evidence = evidence(&identity, &identity.endorsement[0]);
    let (good, name) = (evidence.ek_public.clone(), vec![7; 34]);
    for (bits, reason) in [
        (RESTRICTED, "not restricted"),
        (DECRYPT, "not for decryption"),
        (SIGN, "for signing, too"),
        (FIXED_TPM, "may leave its TPM"),
        (SENSITIVE_DATA_ORIGIN, "not made by its TPM"),
    ] {
        evidence.ek_public = flipped(&good, bits);
        refused(evidence.check(), reason);
        refused(make_credential(&evidence.ek_public, &name, b"s"), reason);
    }
    evidence.ek_public = identity.ak_public.clone();
    refused(evidence.check(), "not for decryption");
}

#[test]
fn evidence_has_a_size() {
    let identity = Device::of(&Maker::new()).identity();
    let good = evidence(&identity, &identity.endorsement[0]);
    let long = vec![0x30; 8 * 1024 + 1];
    let mut many = good.clone();
    many.intermediates = vec![vec![0x30]; 9];
    refused(many.check(), "8 intermediates");
    let mut wide = good.clone();
    wide.intermediates = vec![long.clone()];
    refused(wide.check(), "at most 8192 bytes");
    let mut big = good.clone();
    big.ek_certificate = long;
    refused(big.check(), "at most 8192 bytes");
}

/// A credential for another TPM's EK, and for another AK of the same TPM.
#[test]
fn a_credential_for_another_is_not_opened() {
    let maker = Maker::new();
    let (round, other) = (Round::of(&maker), Round::of(&maker));
    let (_, ours) = object(&round.identity.ak_public).unwrap();
    let (_, theirs) = object(&other.identity.ak_public).unwrap();
    for (at, ek) in round.identity.endorsement.iter().enumerate() {
        let foreign = &other.identity.endorsement[at];
        let credential = make_credential(&foreign.public, &ours, b"secret").unwrap();
        let another = round.device.activate(foreign, &credential);
        refused(another, "the challenge is for another TPM");
        refused(round.device.activate(ek, &credential), "does not open");
        let credential = make_credential(&ek.public, &theirs, b"secret").unwrap();
        refused(round.device.activate(ek, &credential), "does not open");
        round.device.swtpm.assert_empty();
    }
    let ak = EndorsementKey {
        public: round.identity.ak_public.clone(),
        ..round.identity.endorsement[0].clone()
    };
    let ek = &round.identity.endorsement[0].public;
    let credential = make_credential(ek, &ours, b"secret").unwrap();
    refused(
        round.device.activate(&ak, &credential),
        "no endorsement key",
    );
}

#[test]
fn secrets_and_names_have_a_size() {
    let identity = Device::of(&Maker::new()).identity();
    let ek = &identity.endorsement[0].public;
    let (_, name) = object(&identity.ak_public).unwrap();
    for secret in [&[][..], &[7; 33]] {
        refused(make_credential(ek, &name, secret), "1 to 32 bytes");
    }
    for name in [&name[1..], &[]] {
        refused(make_credential(ek, name, b"s"), "not the Name");
    }
}
