//! An sshd that trusts a CA, and a user with a certificate for a key of a device.

use std::fs;
use std::path::PathBuf;

use devkey::identity::ssh::certificate::Certificate;
use devkey::identity::ssh::key;
use devkey::key::PublicKey;

use crate::authority::Authority;
use crate::common::sshd::{Agent, Sshd, WELCOME};
use crate::common::{Device, Key, Output, Run, module};

/// How ssh reaches the key of a certificate.
#[derive(Clone, Copy)]
pub(crate) enum Through<'a> {
    /// `ssh -I`.
    Module,
    /// `ssh-add -s`.
    Agent(&'a Agent),
}

/// Directives that trust a CA's users, and nobody else. Reasons are said at DEBUG2, from the moment
/// on when the user's name is known.
pub(crate) fn trusting(device: &Device, ca: &Authority, more: &str) -> String {
    let file = device.path("user_ca.pub");
    fs::write(&file, key::line(ca.public(), "the CA").unwrap() + "\n").unwrap();
    format!(
        "AuthorizedKeysFile none\nTrustedUserCAKeys {}\n{more}\nMatch all\nLogLevel DEBUG2",
        file.display()
    )
}

/// The public half of a device's key.
pub(crate) fn public(key: &Key) -> PublicKey {
    let line = fs::read_to_string(&key.ssh).unwrap();
    key::from_line(&line).unwrap().0
}

/// Puts a certificate where CertificateFile and HostCertificate find it.
pub(crate) fn install(device: &Device, certificate: &Certificate) -> PathBuf {
    let path = device.path("key-cert.pub");
    fs::write(&path, certificate.line("") + "\n").unwrap();
    path
}

/// The account that tests log in to: their own.
pub(crate) fn account() -> String {
    Run::new("id").arg("-un").ok().text().trim().to_owned()
}

/// One attempt to log in.
pub(crate) fn knock(
    device: &Device,
    sshd: &Sshd,
    through: Through<'_>,
    with: &Certificate,
) -> Output {
    let certificate = format!("CertificateFile={}", install(device, with).display());
    let login = sshd.login(device).args(["-o", &certificate]);
    let login = match through {
        Through::Module => login.args(["-o", "IdentityAgent=none", "-I"]).arg(module()),
        Through::Agent(agent) => {
            let socket = format!("IdentityAgent={}", agent.socket().display());
            login.args(["-o", &socket])
        }
    };
    login.args(Sshd::destination()).output()
}

/// Lets in, and sshd says by which certificate of which CA.
#[track_caller]
pub(crate) fn lets_in(device: &Device, sshd: &Sshd, through: Through<'_>, with: &Certificate) {
    let output = knock(device, sshd, through, with);
    assert!(output.status.success(), "{output}{}", sshd.log());
    output.says(&[WELCOME]);
    let said = with.contents();
    let ca = key::fingerprint(with.authority()).unwrap();
    sshd.wait_for(&format!("ID {} (serial {}) CA ", said.key_id, said.serial));
    sshd.wait_for(&ca);
}

/// Turns away, and sshd says why.
#[track_caller]
pub(crate) fn turns_away(
    device: &Device,
    sshd: &Sshd,
    through: Through<'_>,
    with: &Certificate,
    reasons: &[&str],
) {
    assert!(!reasons.iter().any(|reason| sshd.log().contains(reason)));
    let output = knock(device, sshd, through, with);
    assert!(!output.status.success(), "{output}{}", sshd.log());
    output.says(&["Permission denied (publickey)"]);
    reasons.iter().for_each(|reason| sshd.wait_for(reason));
}
