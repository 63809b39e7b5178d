//! Endorsement certificates as TPM makers issue them, here by swtpm's own CA: a root, an intermediate,
//! and a certificate for each endorsement key.

use std::fs;
use std::path::Path;

use devkey::identity::x509::chain::{Purpose, verify};
use devkey::identity::x509::describe;

use crate::lab::{Lab, now};
use crate::run::Run;

/// The NV index of a certificate, the algorithm of swtpm_setup, and the key's curve or size in OpenSSL's
/// words (TCG EK Credential Profile 2.6 §2.2.1.4 and .5).
const CERTIFICATES: [(&str, &str, &str); 2] = [
    ("0x1c00002", "rsa2048", "Public-Key: (2048 bit)"),
    ("0x1c00016", "secp384r1", "NIST CURVE: P-384"),
];

/// Makes a TPM with endorsement certificates; their files are `ek-ALGORITHM.crt`.
fn manufacture(dir: &Path) {
    fs::create_dir_all(dir.join("state")).unwrap();
    fs::create_dir_all(dir.join("ca")).unwrap();
    let at = dir.display();
    let ca = format!(
        "statedir = {at}/ca\nsigningkey = {at}/ca/signkey.pem\nissuercert = {at}/ca/issuercert.pem\n\
         certserial = {at}/ca/certserial\n"
    );
    fs::write(dir.join("localca.conf"), ca).unwrap();
    fs::write(dir.join("options"), "--tpm-manufacturer IBM\n").unwrap();
    let setup = format!(
        "create_certs_tool = /usr/bin/swtpm_localca\ncreate_certs_tool_config = {at}/localca.conf\n\
         create_certs_tool_options = {at}/options\nactive_pcr_banks = sha256\n"
    );
    fs::write(dir.join("setup.conf"), setup).unwrap();
    Run::new("swtpm_setup")
        .words("--tpm2 --create-ek-cert --lock-nvram --not-overwrite")
        .args([
            "--tpmstate",
            &format!("{at}/state"),
            "--config",
            &format!("{at}/setup.conf"),
        ])
        .args(["--write-ek-cert-files", &format!("{at}")])
        .env("XDG_CONFIG_HOME", dir)
        .ok();
}
