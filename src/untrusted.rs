//! Everything that is read from elsewhere, as functions of bytes that must come back, whatever the
//! bytes are, without a panic. For `fuzz/` and tests/untrusted.rs; no interface of the library.

use std::path::Path;

use crate::error::{Error, Result};
use crate::fuzzy::Helper;
use crate::identity::bundle::{self, Most};
use crate::identity::ssh::{agent, certificate, key as ssh_key};
use crate::identity::{ca, flow, tpm, x509};
use crate::key::PublicKey;
use crate::provider::Certified;
use crate::{config, service, store};

/// Reads bytes; says what was read wrongly.
pub type Reader = fn(&[u8]) -> Result<()>;

/// What is read, by the names of the fuzz targets.
pub const READERS: &[(&str, Reader)] = &[
    ("request", request),
    ("response", response),
    ("stream", stream),
    ("config", config),
    ("record", record),
    ("key", key),
    ("ssh", ssh),
    ("x509", x509),
    ("tpm", tpm),
    ("flow", flow),
];

/// What a client asks of the key service, without the length before it.
pub fn request(bytes: &[u8]) -> Result<()> {
    service::untrusted::request(bytes)
}

/// What the key service answers, without the length before it.
pub fn response(bytes: &[u8]) -> Result<()> {
    service::untrusted::response(bytes)
}

/// Messages in the pieces that a socket gives, of the size that the first byte says.
pub fn stream(bytes: &[u8]) -> Result<()> {
    service::untrusted::stream(bytes)
}

/// A configuration. What is wrong with it stands on one of its lines.
pub fn config(bytes: &[u8]) -> Result<()> {
    let Ok(text) = std::str::from_utf8(bytes) else {
        return Ok(());
    };
    match config::parse(text) {
        Err(Error::BadConfig { line, reason, .. }) => {
            let lines = text.bytes().filter(|byte| *byte == b'\n').count() + 1;
            check((1..=lines).contains(&line) && !reason.is_empty(), "a line")
        }
        _ => Ok(()),
    }
}

/// Each of the files of a token.
pub fn record(bytes: &[u8]) -> Result<()> {
    match std::str::from_utf8(bytes) {
        Ok(text) => store::untrusted(text, Path::new("fuzz")),
        Err(_) => Ok(()),
    }
}

/// Public keys, certificates as a store has them, helper data of a PUF.
pub fn key(bytes: &[u8]) -> Result<()> {
    if let Ok(public) = PublicKey::from_spki(bytes) {
        let same = PublicKey::from_spki(&public.to_spki()).is_ok_and(|again| again == public);
        check(same, "a public key")?;
    }
    let _ = PublicKey::from_certificate(bytes);
    let _ = Helper::parse(bytes);
    Ok(())
}

/// Public keys and certificates of OpenSSH, what it asks an agent, and what an agent answers.
pub fn ssh(bytes: &[u8]) -> Result<()> {
    if let Ok(public) = ssh_key::from_blob(bytes) {
        let same = ssh_key::blob(&public).is_ok_and(|blob| blob == bytes);
        check(same, "an SSH key")?;
    }
    let _ = certificate::Certificate::from_blob(bytes);
    let _ = agent::Request::read(&mut &*bytes);
    let _ = agent::Request::parse(bytes);
    let _ = agent::Response::parse(bytes);
    if let Ok(line) = std::str::from_utf8(bytes) {
        let _ = ssh_key::from_line(line);
        let _ = certificate::Certificate::from_line(line);
    }
    Ok(())
}

/// Requests for certificates, certificates, revocation lists.
pub fn x509(bytes: &[u8]) -> Result<()> {
    let _ = x509::Request::parse(bytes);
    let _ = x509::describe(bytes);
    let _ = x509::expiry(bytes);
    let _ = x509::is_revoked(bytes, bytes, bytes, 0);
    let (one, rest) = bytes.split_at(bytes.len() / 2);
    let chain = [rest.to_vec()];
    let _ = x509::chain::verify(one, &chain, &[bytes.to_vec()], 0, x509::chain::Purpose::Any);
    Ok(())
}

/// What a TPM says of itself: up to four fields, each after its length as a byte pair.
pub fn tpm(bytes: &[u8]) -> Result<()> {
    let mut rest = bytes;
    let [public, name, attest, signature] = [(); 4].map(|()| field(&mut rest));
    let _ = tpm::check_ak(public);
    let _ = tpm::make_credential(public, name, b"secret");
    let Ok((expected, _)) = tpm::object(public) else {
        return Ok(());
    };
    let certified = Certified {
        attest: attest.to_vec(),
        signature: signature.to_vec(),
        key_public: public.to_vec(),
    };
    let _ = tpm::verify_certify(&certified, public, &expected, name);
    Ok(())
}

/// The files that cross between device and CA, a CA's own, and certificates to be installed.
pub fn flow(bytes: &[u8]) -> Result<()> {
    let _ = flow::Request::parse(bytes);
    let _ = flow::Challenge::parse(bytes);
    let _ = flow::Answer::parse(bytes);
    let _ = flow::Issued::parse(bytes);
    let _ = bundle::certificates(bytes, Most::CHAIN);
    if let Ok(text) = std::str::from_utf8(bytes) {
        let _ = ca::Config::parse(text, Path::new("fuzz"));
    }
    Ok(())
}

fn field<'a>(rest: &mut &'a [u8]) -> &'a [u8] {
    let Some((length, after)) = rest.split_first_chunk() else {
        return &[];
    };
    let length = usize::from(u16::from_le_bytes(*length)).min(after.len());
    let (field, after) = after.split_at(length);
    *rest = after;
    field
}

fn check(right: bool, what: &str) -> Result<()> {
    match right {
        true => Ok(()),
        false => Err(Error::Internal(format!("{what} was read wrongly"))),
    }
}
