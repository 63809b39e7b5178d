//! Two devices that know nothing of each other but their CA: host and user, on every pair of back ends.

use std::fs;

use devkey::identity::level::Level;
use devkey::identity::ssh::certificate::Kind;
use devkey::identity::ssh::key;
use devkey::key::KeyKind;

use crate::authority::{Authority, contents};
use crate::common::sshd::{Agent, Sshd};
use crate::common::{Backend, Device, module};
use crate::door::{Through, account, install, knock, lets_in, public, trusting, turns_away};

/// One test for each pair: the host's back end, then the user's.
macro_rules! pairs {
    ($($name:ident: $host:ident, $user:ident;)+) => {
        $(#[test]
        fn $name() {
            super::meet(super::Backend::$host, super::Backend::$user);
        })+
    };
}

mod without_puf {
    pairs!(
        file_and_file: File, File;
        file_and_tpm: File, Tpm;
        tpm_and_file: Tpm, File;
        tpm_and_tpm: Tpm, Tpm;
    );
}

#[cfg(feature = "simulate")]
mod with_puf {
    pairs!(
        file_and_puf: File, Puf;
        tpm_and_puf: Tpm, Puf;
        puf_and_file: Puf, File;
        puf_and_tpm: Puf, Tpm;
        puf_and_puf: Puf, Puf;
    );
}

/// Each lets the other in, and neither a peer that another CA certified: the host by its own check,
/// the user by his.
///
/// Seen to fail with the numbers of users' and hosts' certificates exchanged.
fn meet(host: Backend, user: Backend) {
    let (host, user) = (Device::new(host), Device::new(user));
    let agent = Agent::new(&host);
    let keys = [&host, &user].map(|device| device.key("ec-p256", "device"));
    agent.add(&host).arg("-s").arg(module()).ok();
    let (ca, other) = (
        Authority::new(KeyKind::EcP256),
        Authority::new(KeyKind::EcP256),
    );
    let of_host = contents(Kind::Host, &public(&keys[0]), "127.0.0.1");
    let of_user = contents(Kind::User, &public(&keys[1]), &account());
    let open = |by: &Authority| {
        let certificate = install(&host, &by.issue(&of_host, Level::Software));
        let directives = format!(
            "HostKey {}\nHostCertificate {}\nHostKeyAgent {}\n{}",
            keys[0].ssh.display(),
            certificate.display(),
            agent.socket().display(),
            trusting(&host, &ca, ""),
        );
        Sshd::with_host_key(&host, &directives, &keys[0].ssh)
    };
    let line = key::line(ca.public(), "").unwrap();
    let trusted =
        format!("@cert-authority 127.0.0.1 {line}\n@cert-authority [127.0.0.1]:* {line}\n");
    fs::write(user.path("known_hosts"), trusted).unwrap();
    let mine = ca.issue(&of_user, Level::Software);
    lets_in(&user, &open(&ca), Through::Module, &mine);
    let foreign = other.issue(&of_user, Level::Tpm);
    turns_away(
        &user,
        &open(&ca),
        Through::Module,
        &foreign,
        &["is not listed in"],
    );
    let output = knock(&user, &open(&other), Through::Module, &mine);
    assert!(!output.status.success(), "{output}");
    output.says(&["No ECDSA host key is known", "Host key verification failed"]);
}
