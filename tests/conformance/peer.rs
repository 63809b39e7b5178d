//! The independent peer: the `openssl` command, and for ML-DSA RustCrypto's `ml-dsa`.

use std::path::Path;
use std::process::{Command, Stdio};

use der::Encode;
use der::asn1::UintRef;
use devkey::key::{Hash, KeyKind, PublicKey, Scheme};
use ml_dsa::pkcs8::DecodePublicKey;
use ml_dsa::signature::Verifier;
use ml_dsa::{MlDsa44, MlDsa65, MlDsa87, Signature, VerifyingKey};
use tempfile::TempDir;

/// Whether the peer finds the signature valid.
pub(crate) fn verifies(public: &PublicKey, scheme: Scheme, input: &[u8], signature: &[u8]) -> bool {
    match scheme {
        Scheme::MlDsa => ml_dsa_verifies(public, input, signature),
        _ => openssl_verifies(public, scheme, input, signature),
    }
}

fn ml_dsa_verifies(public: &PublicKey, message: &[u8], signature: &[u8]) -> bool {
    macro_rules! verifies {
        ($parameters:ty) => {{
            let key = VerifyingKey::<$parameters>::from_public_key_der(&public.to_spki()).unwrap();
            let signature = Signature::<$parameters>::try_from(signature);
            signature.is_ok_and(|signature| key.verify(message, &signature).is_ok())
        }};
    }
    match public.kind() {
        KeyKind::MlDsa44 => verifies!(MlDsa44),
        KeyKind::MlDsa65 => verifies!(MlDsa65),
        KeyKind::MlDsa87 => verifies!(MlDsa87),
        kind => panic!("{kind} is no ML-DSA"),
    }
}

fn openssl_verifies(public: &PublicKey, scheme: Scheme, input: &[u8], signature: &[u8]) -> bool {
    let dir = TempDir::new().unwrap();
    let signature = match scheme {
        Scheme::Ecdsa => der_signature(signature),
        _ => signature.to_vec(),
    };
    let mut command = openssl(
        dir.path(),
        &["pkeyutl", "-verify", "-pubin", "-keyform", "DER"],
    );
    command
        .args(["-inkey", &file(&dir, "public", &public.to_spki())])
        .args(["-in", &file(&dir, "input", input)])
        .args(["-sigfile", &file(&dir, "signature", &signature)]);
    match scheme {
        Scheme::Ecdsa => &mut command,
        Scheme::Ed25519 => command.arg("-rawin"),
        Scheme::MlDsa => panic!("openssl 3.0 has no ML-DSA"),
        Scheme::RsaPkcs1(hash) => options(&mut command, &[&digest(hash)]),
        Scheme::RsaPss(hash) => options(
            &mut command,
            &[
                "rsa_padding_mode:pss",
                "rsa_pss_saltlen:digest",
                &digest(hash),
            ],
        ),
    };
    command.output().unwrap().status.success()
}

/// RSA-OAEP.
pub(crate) fn encrypt(public: &PublicKey, hash: Hash, plaintext: &[u8]) -> Vec<u8> {
    let dir = TempDir::new().unwrap();
    let mut command = openssl(
        dir.path(),
        &["pkeyutl", "-encrypt", "-pubin", "-keyform", "DER"],
    );
    command
        .args(["-inkey", &file(&dir, "public", &public.to_spki())])
        .args(["-in", &file(&dir, "input", plaintext)]);
    let (oaep, mgf1) = (name(hash), name(hash));
    options(
        &mut command,
        &[
            "rsa_padding_mode:oaep",
            &format!("rsa_oaep_md:{oaep}"),
            &format!("rsa_mgf1_md:{mgf1}"),
        ],
    );
    run(command)
}

/// Makes a key of the same curve as `public` and agrees with it: its public key and the secret.
pub(crate) fn agree(public: &PublicKey) -> (PublicKey, Vec<u8>) {
    let dir = TempDir::new().unwrap();
    let curve = match public.kind() {
        KeyKind::EcP256 => "ec_paramgen_curve:P-256",
        KeyKind::EcP384 => "ec_paramgen_curve:P-384",
        kind => panic!("{kind} does not agree"),
    };
    let mut make = openssl(dir.path(), &["genpkey", "-algorithm", "EC"]);
    options(&mut make, &[curve, "ec_param_enc:named_curve"]);
    make.args(["-outform", "DER"]);
    let own = file(&dir, "own", &run(make));
    let mut show = openssl(dir.path(), &["pkey", "-pubout", "-inform", "DER"]);
    show.args(["-outform", "DER", "-in", &own]);
    let mut derive = openssl(dir.path(), &["pkeyutl", "-derive", "-keyform", "DER"]);
    derive
        .args(["-inkey", &own, "-peerform", "DER"])
        .args(["-peerkey", &file(&dir, "peer", &public.to_spki())]);
    (PublicKey::from_spki(&run(show)).unwrap(), run(derive))
}

/// Ecdsa-Sig-Value, RFC 3279 §2.2.3.
fn der_signature(fixed: &[u8]) -> Vec<u8> {
    let (r, s) = fixed.split_at(fixed.len() / 2);
    let numbers = [UintRef::new(r).unwrap(), UintRef::new(s).unwrap()];
    numbers.to_vec().to_der().unwrap()
}

fn name(hash: Hash) -> &'static str {
    match hash {
        Hash::Sha256 => "sha256",
        Hash::Sha384 => "sha384",
        Hash::Sha512 => "sha512",
    }
}

fn digest(hash: Hash) -> String {
    format!("digest:{}", name(hash))
}

fn openssl(dir: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new("openssl");
    command.args(arguments).current_dir(dir);
    command.stdin(Stdio::null());
    command
}

fn options<'c>(command: &'c mut Command, options: &[&str]) -> &'c mut Command {
    for option in options {
        command.args(["-pkeyopt", option]);
    }
    command
}

fn file(dir: &TempDir, name: &str, bytes: &[u8]) -> String {
    let path = dir.path().join(name);
    std::fs::write(&path, bytes).unwrap();
    path.to_str().unwrap().to_owned()
}

fn run(mut command: Command) -> Vec<u8> {
    let output = command.output().unwrap();
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {complaint}");
    output.stdout
}
