//! SSH between hosts and users, each with a certificate for a key on its token.

use std::fs;
use std::path::PathBuf;

use crate::common::sshd::{Agent, Sshd, WELCOME};
use crate::common::{Output, module};
use crate::lab::{Authority, Lab, Peer, Role};

/// An sshd of a host: its key through HostKeyAgent, its users by TrustedUserCAKeys.
pub(crate) struct Gate {
    sshd: Sshd,
    _agent: Agent,
}

/// The user knows nothing of the host but the CA, and the host nothing of the user.
///
/// Seen to fail without HostCertificate, and without CertificateFile.
#[test]
fn every_pair_meets_in_ssh() {
    let lab = Lab::turn();
    for host in &lab.hosts {
        let gate = Gate::open(host, &lab.authority, None);
        for user in &lab.users {
            let output = gate.knock(user, &lab.authority, None);
            assert!(output.status.success(), "{output}\n{}", gate.sshd.log());
            output.says(&[WELCOME, "Server host certificate: "]);
            gate.wait_for(&format!("ID CN={} ", user.name));
            output.says(&[&format!("ID \"CN={} ", host.name)]);
        }
    }
}

impl Gate {
    /// `krl` is what the host has as RevokedKeys.
    pub(crate) fn open(host: &Peer, authority: &Authority, krl: Option<&PathBuf>) -> Self {
        let agent = Agent::new(&host.device);
        agent.add(&host.device).arg("-s").arg(module()).ok();
        let revoked = krl.map(|krl| format!("RevokedKeys {}\n", krl.display()));
        let directives = format!(
            "HostKey {}\nHostCertificate {}\nHostKeyAgent {}\nTrustedUserCAKeys {}\n\
             AuthorizedKeysFile none\n{}Match all\nLogLevel DEBUG2",
            host.key.ssh.display(),
            host.ssh(Role::Host).display(),
            agent.socket().display(),
            authority.ssh().display(),
            revoked.unwrap_or_default(),
        );
        Gate {
            sshd: Sshd::with_host_key(&host.device, &directives, &host.key.ssh),
            _agent: agent,
        }
    }

    /// `krl` is what the user has as RevokedHostKeys.
    pub(crate) fn knock(
        &self,
        user: &Peer,
        authority: &Authority,
        krl: Option<&PathBuf>,
    ) -> Output {
        let line = fs::read_to_string(authority.ssh()).unwrap();
        let known = format!("@cert-authority 127.0.0.1,[127.0.0.1]:* {line}");
        fs::write(user.device.path("known_hosts"), known).unwrap();
        let certificate = format!("CertificateFile={}", user.ssh(Role::User).display());
        let login = self
            .sshd
            .login(&user.device)
            .args(["-v", "-o", &certificate]);
        let login = match krl {
            None => login,
            Some(krl) => login.args(["-o", &format!("RevokedHostKeys={}", krl.display())]),
        };
        let login = login.args(["-o", "IdentityAgent=none", "-I"]).arg(module());
        login.args(Sshd::destination()).output()
    }

    /// Waits until sshd has said it.
    pub(crate) fn wait_for(&self, text: &str) {
        self.sshd.wait_for(text);
    }
}
