//! The C program `tests/client.c`, and the check of every signature that it prints.

use std::fs;
use std::path::PathBuf;
use std::sync::OnceLock;

use aws_lc_rs::digest::{Digest, SHA256};
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED, ParsedPublicKey};

use super::device::{Device, Key};
use super::run::{Output, Run};
use super::{module, tls};

/// `tests/client.c` on the key `label` of the device.
pub(crate) fn client(device: &Device, mode: &str, label: &str) -> Run {
    device
        .run(program())
        .arg(mode)
        .arg(module())
        .args([Device::TOKEN, label])
}

/// Checks that `output` holds `count` lines `sig DIGEST SIGNATURE`, no two alike and each a valid
/// ECDSA P-256 signature of `key` over its digest.
pub(crate) fn verify_all(device: &Device, key: &Key, output: &Output, count: usize) {
    let public = public_key(device, key);
    let text = output.text();
    let mut lines: Vec<_> = text
        .lines()
        .filter_map(|line| line.strip_prefix("sig "))
        .collect();
    for line in &lines {
        let (digest, signature) = line
            .split_once(' ')
            .unwrap_or_else(|| panic!("torn line {line:?}"));
        let digest = Digest::import_less_safe(&unhex(digest), &SHA256).unwrap();
        let verified = public.verify_digest_sig(&digest, &unhex(signature));
        assert!(
            verified.is_ok(),
            "a signature does not verify: {line}\n{}",
            output.what
        );
    }
    lines.sort_unstable();
    lines.dedup();
    assert_eq!(lines.len(), count, "signatures that differ: {output}");
}

fn public_key(device: &Device, key: &Key) -> ParsedPublicKey {
    let der = tls::plain(device, "pkey")
        .args(["-pubin", "-outform", "DER", "-in"])
        .arg(&key.pem)
        .ok();
    ParsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, der.stdout).unwrap()
}

/// Compiles the program, once for a test program.
fn program() -> &'static PathBuf {
    static PROGRAM: OnceLock<PathBuf> = OnceLock::new();
    PROGRAM.get_or_init(|| {
        let source = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/client.c");
        let name = format!("client-{}", std::process::id());
        let program = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("client");
        let fresh = program.with_file_name(name);
        Run::new("cc")
            .words("-std=c11 -O1 -Wall -Wextra -Werror -pthread -I/usr/include/p11-kit-1 -o")
            .arg(&fresh)
            .args([source, "-ldl"])
            .ok();
        fs::rename(&fresh, &program).unwrap();
        program
    })
}

fn unhex(text: &str) -> Vec<u8> {
    let digits = text.as_bytes().chunks(2);
    let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap();
    digits.map(byte).collect()
}
