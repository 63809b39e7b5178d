//! tpm2-tools in the place of the CA, of the device, and of both in part.

use der::Decode;
use devkey::identity::tpm::check_ak;
use devkey::key::PublicKey;

use super::*;

/// The first bytes of a file of tpm2_makecredential: magic and version.
const HEAD: [u8; 8] = [0xba, 0xdc, 0xc0, 0xde, 0, 0, 0, 1];

/// tpm2-tools on a device's TPM: leaves nothing there.
pub(super) struct Tools<'a>(pub(super) &'a Swtpm);

impl Tools<'_> {
    pub(super) fn run(&self, program: &str, arguments: &[&str]) {
        assert!(self.works(program, arguments), "{program} {arguments:?}");
    }

    /// Whether it succeeds.
    pub(super) fn works(&self, program: &str, arguments: &[&str]) -> bool {
        let output = self.0.try_tool(program, arguments);
        self.0.flush_what_is_left("-t");
        self.0.flush_what_is_left("-l");
        output.status.success()
    }

    pub(super) fn read(&self, name: &str) -> Vec<u8> {
        std::fs::read(self.0.file(name)).unwrap()
    }

    pub(super) fn write(&self, name: &str, bytes: &[u8]) {
        std::fs::write(self.0.file(name), bytes).unwrap();
    }

    /// The TPMT_PUBLIC of a file with a TPM2B_PUBLIC.
    pub(super) fn public(&self, name: &str) -> Vec<u8> {
        self.read(name)[2..].to_vec()
    }

    /// An AK of theirs under the RSA EK: name.ctx, name.pub, name.name.
    pub(super) fn ak(&self, name: &str, algorithm: &str, scheme: &str) -> Vec<u8> {
        let [context, public, short] = ["ctx", "pub", "name"].map(|end| format!("{name}.{end}"));
        let make = [
            "-C",
            "0x81010001",
            "-c",
            &context,
            "-u",
            &public,
            "-n",
            &short,
        ];
        let kind = ["-G", algorithm, "-g", "sha256", "-s", scheme];
        self.run("tpm2_createak", &[make.as_slice(), &kind].concat());
        self.public(&public)
    }

    /// A child of the owner's primary: name.ctx and its TPMT_PUBLIC.
    pub(super) fn child(&self, name: &str, algorithm: &str, attributes: &str) -> Vec<u8> {
        let [context, public, private] = ["ctx", "pub", "priv"].map(|end| format!("{name}.{end}"));
        if !self.0.file("parent.ctx").exists() {
            let parent = ["-C", "o", "-G", "ecc", "-c", "parent.ctx"];
            self.run("tpm2_createprimary", &parent);
        }
        let made = [
            "-C",
            "parent.ctx",
            "-u",
            &public,
            "-r",
            &private,
            "-c",
            &context,
        ];
        let kind = ["-G", algorithm, "-a", attributes];
        self.run("tpm2_create", &[made.as_slice(), &kind].concat());
        self.public(&public)
    }

    /// tpm2_certify of `key` by `ak`, their contexts. The tool's qualifying data are fixed.
    pub(super) fn certify(&self, key: &str, ak: &str, key_public: Vec<u8>) -> Certified {
        let both = ["-c", key, "-C", ak, "-g", "sha256"];
        let out = ["-o", "attest", "-s", "signature", "-f", "tss"];
        let scheme: &[&str] = match ak {
            "rsapss.ctx" => &["--scheme=rsapss"],
            _ => &[],
        };
        self.run("tpm2_certify", &[&both, &out, scheme].concat());
        Certified {
            attest: self.read("attest"),
            signature: self.read("signature"),
            key_public,
        }
    }
}

/// Of tpm2_certify 5.4.
pub(super) const TOOLS_DATA: [u8; 4] = [0x00, 0xff, 0x55, 0xaa];
/// Attributes of a key as devkey makes them.
pub(super) const DEVICE_KEY: &str = "fixedtpm|fixedparent|sensitivedataorigin|userwithauth|sign";

/// Bytes after their number, as a TPM2B.
fn sized(bytes: &[u8]) -> Vec<u8> {
    [&u16::try_from(bytes.len()).unwrap().to_be_bytes(), bytes].concat()
}

fn hex(bytes: &[u8]) -> String {
    base16ct::lower::encode_string(bytes)
}

/// A TPM whose EKs are of all three kinds.
fn device() -> Device {
    let maker = Maker::new();
    let device = Device::of(&maker);
    round::with_p256(&maker, &device.swtpm);
    device
}

/// Seen to fail with the encrypted secret of `from_file` cut by a byte.
#[test]
fn their_credentials_open_with_our_answer() {
    let device = device();
    let tools = Tools(&device.swtpm);
    let identity = device.identity();
    let (_, name) = object(&identity.ak_public).unwrap();
    assert_eq!(identity.endorsement.len(), 3);
    for ek in &identity.endorsement {
        tools.write("ek.pub", &sized(&ek.public));
        tools.write("secret", b"of tpm2-tools");
        let make = ["-T", "none", "-u", "ek.pub", "-s", "secret"];
        let name = hex(&name);
        let to = ["-n", &name, "-o", "credential"];
        tools.run("tpm2_makecredential", &[make.as_slice(), &to].concat());
        let credential = from_file(&tools.read("credential"));
        let opened = device.activate(ek, &credential).unwrap();
        assert_eq!(opened.expose(), b"of tpm2-tools");
    }
    device.swtpm.assert_empty();
}

fn from_file(bytes: &[u8]) -> Credential {
    let rest = bytes.strip_prefix(&HEAD).unwrap();
    let (id_object, rest) = unsized_part(rest);
    let (encrypted_secret, rest) = unsized_part(rest);
    assert!(rest.is_empty());
    Credential {
        id_object,
        encrypted_secret,
    }
}

fn unsized_part(bytes: &[u8]) -> (Vec<u8>, &[u8]) {
    let (len, rest) = bytes.split_first_chunk().unwrap();
    let (part, rest) = rest.split_at(u16::from_be_bytes(*len).into());
    (part.to_vec(), rest)
}

/// Seen to fail with another label for each of the two keys in `protect`, with the Name left out of
/// its HMAC, with the parties of `kdfe` swapped, and with the zero byte of `IDENTITY` left out.
#[test]
fn our_credentials_open_with_their_answer() {
    let device = device();
    let tools = Tools(&device.swtpm);
    let ak = tools.ak("ak", "ecc", "ecdsa");
    let name = check_ak(&ak).unwrap();
    assert_eq!(name, tools.read("ak.name"));
    tools.run("tpm2_createek", &["-c", "ek256.ctx", "-G", "ecc"]);
    let identity = device.identity();
    for (kind, context) in [
        (KeyKind::Rsa2048, "0x81010001"),
        (KeyKind::EcP384, "0x81010016"),
        (KeyKind::EcP256, "ek256.ctx"),
    ] {
        let ek = ek(&identity, kind);
        let credential = make_credential(&ek.public, &name, b"of devkey's CA").unwrap();
        let object = sized(&credential.id_object);
        let secret = sized(&credential.encrypted_secret);
        tools.write("credential", &[HEAD.to_vec(), object, secret].concat());
        assert_eq!(opened(&tools, context), b"of devkey's CA", "{kind}");
    }
    device.swtpm.assert_empty();
}

/// By tpm2_activatecredential: in the policy's session where the empty auth does not do.
fn opened(tools: &Tools<'_>, ek: &str) -> Vec<u8> {
    let swtpm = tools.0;
    swtpm.tool(
        "tpm2_startauthsession",
        &["--policy-session", "-S", "session"],
    );
    swtpm.tool("tpm2_policysecret", &["-S", "session", "-c", "e"]);
    let ours = ["-c", "ak.ctx", "-C", ek, "-i", "credential", "-o", "opened"];
    let policy: &[&str] = match ek {
        "0x81010016" => &[],
        _ => &["-P", "session:session"],
    };
    tools.run("tpm2_activatecredential", &[&ours, policy].concat());
    tools.read("opened")
}

/// Their AKs of three schemes, and their keys of two kinds, pass our checks.
#[test]
fn what_their_keys_certify_is_verified() {
    let device = Device::of(&Maker::new());
    let tools = Tools(&device.swtpm);
    for (algorithm, scheme) in [("ecc", "ecdsa"), ("rsa", "rsassa"), ("rsa", "rsapss")] {
        let ak = tools.ak(scheme, algorithm, scheme);
        check_ak(&ak).unwrap();
        for kind in ["ecc256", "rsa2048"] {
            let public = tools.child(kind, kind, DEVICE_KEY);
            let expected = key_of(&public);
            let (key, ak_context) = (format!("{kind}.ctx"), format!("{scheme}.ctx"));
            let certified = tools.certify(&key, &ak_context, public);
            verify_certify(&certified, &ak, &expected, &TOOLS_DATA).unwrap();
        }
    }
}

/// Their tool certifies by their AK a key of devkey's.
#[test]
fn their_attestation_key_certifies_our_key() {
    let device = Device::of(&Maker::new());
    let tools = Tools(&device.swtpm);
    let ak = tools.ak("ak", "ecc", "ecdsa");
    let (new, key) = device.key(KeyKind::EcP256, KeyAuth::None);
    let ours = key.certify(NONCE).unwrap();
    let [public, private] = halves(&new.blob.bytes);
    tools.write("key.pub", &public);
    tools.write("key.priv", &private);
    let load = [
        "-C",
        "o",
        "-G",
        "ecc",
        "-c",
        "owner.ctx",
        "-a",
        round::STORAGE,
    ];
    tools.run("tpm2_createprimary", &load);
    let load = ["-C", "owner.ctx", "-u", "key.pub", "-r", "key.priv"];
    tools.run("tpm2_load", &[load.as_slice(), &["-c", "key.ctx"]].concat());
    let certified = tools.certify("key.ctx", "ak.ctx", ours.key_public);
    verify_certify(&certified, &ak, &new.public, &TOOLS_DATA).unwrap();
}

/// TPM2B_PUBLIC and TPM2B_PRIVATE of a TSS2 PRIVATE KEY: its last two fields.
fn halves(blob: &[u8]) -> [Vec<u8>; 2] {
    use der::asn1::AnyRef;
    use der::{Reader, SliceReader};
    let mut fields = Vec::new();
    let mut reader = SliceReader::new(blob).unwrap();
    let read = reader.sequence(|inner| -> der::Result<()> {
        while !inner.is_finished() {
            fields.push(AnyRef::decode(inner)?.value().to_vec());
        }
        Ok(())
    });
    read.unwrap();
    let private = fields.pop().unwrap();
    [fields.pop().unwrap(), private]
}

/// openssl in the place of our check of the signature.
#[test]
fn openssl_verifies_what_our_attestation_key_signed() {
    let device = Device::of(&Maker::new());
    let tools = Tools(&device.swtpm);
    let (_, key) = device.key(KeyKind::EcP256, KeyAuth::None);
    let certified = key.certify(NONCE).unwrap();
    let ak = key_of(&device.identity().ak_public);
    tools.write("ak.der", &ak.to_spki());
    tools.write("message", &certified.attest);
    // TPMT_SIGNATURE of ECDSA: algorithm, hash, then the two numbers.
    let (r, rest) = unsized_part(&certified.signature[4..]);
    let (s, _) = unsized_part(rest);
    tools.write("signature", &der_signature(&r, &s));
    let verify = ["dgst", "-sha256", "-verify", "ak.der", "-keyform", "DER"];
    let what = ["-signature", "signature", "message"];
    tools.run("openssl", &[verify.as_slice(), &what].concat());
}

fn der_signature(r: &[u8], s: &[u8]) -> Vec<u8> {
    use der::Encode;
    use der::asn1::UintRef;
    let [r, s] = [r, s].map(|number| UintRef::new(number).unwrap().to_der().unwrap());
    let body = [r, s].concat();
    [vec![0x30, u8::try_from(body.len()).unwrap()], body].concat()
}

pub(super) fn key_of(public: &[u8]) -> PublicKey {
    object(public).unwrap().0
}
