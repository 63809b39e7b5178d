//! A maker of TPMs: swtpm_setup gives each one endorsement keys, RSA-2048 and P-384, and certificates
//! of a CA of the maker's own.

#![allow(
    dead_code,
    clippy::unwrap_used,
    clippy::panic,
    reason = "not every test needs all of it; what cannot go on has failed"
)]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use super::tpm::Swtpm;

/// The maker and his CA.
pub(crate) struct Maker {
    dir: tempfile::TempDir,
}

impl Maker {
    /// A maker without TPMs so far.
    pub(crate) fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let at = dir.path().display();
        let ca = format!(
            "statedir = {at}/ca\nsigningkey = {at}/ca/signkey.pem\n\
             issuercert = {at}/ca/issuercert.pem\ncertserial = {at}/ca/certserial\n"
        );
        let setup = format!(
            "create_certs_tool = /usr/bin/swtpm_localca\n\
             create_certs_tool_config = {at}/localca.conf\n\
             create_certs_tool_options = {at}/options\n"
        );
        fs::create_dir(dir.path().join("ca")).unwrap();
        fs::write(dir.path().join("localca.conf"), ca).unwrap();
        fs::write(dir.path().join("options"), "").unwrap();
        fs::write(dir.path().join("setup.conf"), setup).unwrap();
        Maker { dir }
    }

    /// A new TPM with certificates, started.
    pub(crate) fn tpm(&self) -> Swtpm {
        let state = tempfile::tempdir().unwrap();
        self.furnish(state.path());
        Swtpm::of(state)
    }

    /// Puts a new TPM with certificates into a directory.
    pub(crate) fn furnish(&self, state: &Path) {
        let made = Command::new("swtpm_setup")
            .args(["--tpm2", "--create-ek-cert", "--lock-nvram", "--config"])
            .arg(self.file("setup.conf"))
            .arg("--tpmstate")
            .arg(state)
            .output();
        let made = made.unwrap_or_else(|e| panic!("swtpm_setup: {e}; apt-get install swtpm-tools"));
        assert!(made.status.success(), "{made:?}");
    }

    /// The maker's CA's own certificates, the root's first, PEM.
    pub(crate) fn chain(&self) -> [PathBuf; 2] {
        ["ca/swtpm-localca-rootca-cert.pem", "ca/issuercert.pem"].map(|name| self.file(name))
    }

    /// A certificate, DER, for a key, PEM, whose extensions are these lines of openssl's.
    pub(crate) fn certify(&self, public: &Path, extensions: &str) -> Vec<u8> {
        fs::write(self.file("extensions"), extensions).unwrap();
        let key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"];
        // x509 signs no public key alone: the request is of any key, and its key is replaced.
        let request = [
            "req", "-new", "-nodes", "-keyout", "any.pem", "-out", "any.csr",
        ];
        self.openssl(&[&request[..], &key, &["-subj", "/CN=ek"]].concat());
        let [_, issuer] = self.chain();
        let (issuer, public) = (issuer.display().to_string(), public.display().to_string());
        self.openssl(&[
            "x509",
            "-req",
            "-in",
            "any.csr",
            "-force_pubkey",
            &public,
            "-CA",
            &issuer,
            "-CAkey",
            "ca/signkey.pem",
            "-extfile",
            "extensions",
            "-outform",
            "DER",
            "-out",
            "made.der",
        ]);
        fs::read(self.file("made.der")).unwrap()
    }

    /// Whether openssl finds the maker's chain above a certificate, DER.
    pub(crate) fn vouches_for(&self, certificate: &[u8]) -> bool {
        fs::write(self.file("asked.der"), certificate).unwrap();
        self.openssl(&[
            "x509",
            "-inform",
            "DER",
            "-in",
            "asked.der",
            "-out",
            "asked.pem",
        ]);
        let [root, issuer] = self.chain().map(|path| path.display().to_string());
        let arguments = [
            "verify",
            "-CAfile",
            &root,
            "-untrusted",
            &issuer,
            "-ignore_critical",
            "asked.pem",
        ];
        self.try_openssl(&arguments).status.success()
    }

    fn openssl(&self, arguments: &[&str]) {
        let output = self.try_openssl(arguments);
        assert!(output.status.success(), "openssl {arguments:?}: {output:?}");
    }

    fn try_openssl(&self, arguments: &[&str]) -> Output {
        let mut command = Command::new("openssl");
        command.args(arguments).current_dir(self.dir.path());
        command.output().unwrap()
    }

    fn file(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }
}
