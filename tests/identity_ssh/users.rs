//! Users whose keys are on tokens log in by certificates, through OpenSSH 9.2's ssh and sshd.

use std::fs;
use std::os::unix::net::UnixDatagram;

use devkey::identity::level::Level;
use devkey::identity::ssh;
use devkey::identity::ssh::certificate::{Contents, Kind};
use devkey::identity::ssh::krl::Krl;
use devkey::key::{KeyKind, PublicKey};

use crate::authority::{Authority, contents, now};
use crate::common::sshd::{Agent, Sshd};
use crate::common::{Backend, Device, KINDS};
use crate::door::{Through, account, lets_in, public, trusting, turns_away};
use crate::on_each_back_end;

on_each_back_end!(a_certificate_opens_the_door);

/// Each kind of key by CAs of several kinds, by `ssh -I` and through the agent, both with
/// CertificateFile: ssh-agent 9.2 takes no certificate for a key of a module.
///
/// Seen to fail with the numbers of users' and hosts' certificates exchanged.
fn a_certificate_opens_the_door(device: &Device) {
    let keys = KINDS.map(|kind| device.key(kind, kind));
    let agent = Agent::new(device);
    agent
        .add(device)
        .arg("-s")
        .arg(crate::common::module())
        .ok();
    for kind in [
        KeyKind::EcP256,
        KeyKind::Rsa2048,
        KeyKind::Rsa3072,
        KeyKind::Ed25519,
    ] {
        let ca = Authority::new(kind);
        let sshd = Sshd::new(device, &trusting(device, &ca, ""));
        for (serial, key) in (1..).zip(&keys) {
            let mut said = mine(&public(key));
            for through in [Through::Module, Through::Agent(&agent)] {
                said.serial += serial;
                lets_in(device, &sshd, through, &ca.issue(&said, Level::Tpm));
            }
        }
    }
}

/// What sshd itself refuses, each by its own check. A host's certificate is not among it: ssh does not
/// offer one.
///
/// Seen to fail with a KRL without the section of keys, and with one whose serials no sshd can read: then
/// it refuses everybody.
#[test]
fn what_sshd_refuses() {
    let device = Device::new(Backend::File);
    let agent = Agent::new(&device);
    let (good, stolen) = (
        device.key("ec-p256", "good"),
        device.key("ec-p256", "stolen"),
    );
    agent
        .add(&device)
        .arg("-s")
        .arg(crate::common::module())
        .ok();
    let (ca, other) = (
        Authority::new(KeyKind::EcP384),
        Authority::new(KeyKind::EcP384),
    );
    let krl = Krl {
        authority: ca.public(),
        serials: &[13],
        keys: &[public(&stolen)],
        version: 1,
        date: now(),
        comment: "",
    };
    let file = device.path("revoked.krl");
    fs::write(&file, krl.encode().unwrap()).unwrap();
    let revokes = format!("RevokedKeys {}", file.display());
    // Of the certificate: ssh offers the plain keys of the module, too.
    let revoked = |key: &PublicKey| {
        let key = ssh::key::fingerprint(key).unwrap();
        format!("ECDSA-CERT {key} revoked by file")
    };
    let good = mine(&public(&good));
    let change = |change: &dyn Fn(&mut Contents)| {
        let mut said = good.clone();
        change(&mut said);
        said
    };
    for through in [Through::Module, Through::Agent(&agent)] {
        // One sshd for each, so that each finds its own reason in a new log.
        let sshd = || Sshd::new(&device, &trusting(&device, &ca, &revokes));
        let refuses = |ca: &Authority, said: &Contents, reason: &str| {
            turns_away(
                &device,
                &sshd(),
                through,
                &ca.issue(said, Level::Tpm),
                &[reason],
            );
        };
        lets_in(&device, &sshd(), through, &ca.issue(&good, Level::Tpm));
        refuses(&other, &good, "is not listed in");
        refuses(
            &ca,
            &change(&|said| said.valid_before = now() - 1),
            "Certificate invalid: expired",
        );
        refuses(
            &ca,
            &change(&|said| said.valid_after = now() + 100),
            "Certificate invalid: not yet valid",
        );
        refuses(&ca, &change(&|said| said.serial = 13), &revoked(&good.key));
        refuses(
            &ca,
            &change(&|said| said.key = public(&stolen)),
            &revoked(&public(&stolen)),
        );
        refuses(
            &ca,
            &change(&|said| said.principals = vec!["somebody-else".into()]),
            "name is not a listed principal",
        );
    }
}

/// AuthorizedPrincipalsCommand: sshd says that the command failed, and the system's log why. Nobody
/// comes in by a certificate of his own for another's account.
///
/// Seen to fail where `check_level` of check.rs, `names` or the look at the authorities always passes.
#[test]
fn what_the_principals_command_refuses() {
    let device = Device::new(Backend::File);
    let key = device.key("ec-p256", "user");
    let (ca, second) = (
        Authority::new(KeyKind::Ed25519),
        Authority::new(KeyKind::EcP256),
    );
    let level_ca = device.path("level_ca.pub");
    let line = |ca: &Authority| ssh::key::line(ca.public(), "").unwrap() + "\n";
    fs::write(&level_ca, line(&ca)).unwrap();
    let log = UnixDatagram::bind(device.path("log")).unwrap();
    log.set_nonblocking(true).unwrap();
    // sshd wants root's program in root's directory: env(1) is, and the build directory may not be.
    let command = format!(
        "AuthorizedPrincipalsCommand /usr/bin/env {} ssh principals --level puf --ca {} --syslog={} \
         --accept=%u %k\nAuthorizedPrincipalsCommandUser {}",
        env!("CARGO_BIN_EXE_devkey"),
        level_ca.display(),
        device.path("log").display(),
        account(),
    );
    let door = || {
        let directives = trusting(&device, &ca, &command);
        // sshd trusts both CAs; whose word on levels counts is the command's to say.
        fs::write(device.path("user_ca.pub"), line(&ca) + &line(&second)).unwrap();
        Sshd::new(&device, &directives)
    };
    let said = mine(&public(&key));
    for level in [Level::Puf, Level::Tpm] {
        lets_in(&device, &door(), Through::Module, &ca.issue(&said, level));
    }
    assert!(log.recv(&mut [0; 1]).is_err(), "nothing to complain about");
    let refuses = |ca: &Authority, said: &Contents, level, reason: &str| {
        let sshd = door();
        let reasons = [
            "failed, status 1",
            "does not contain an authorized principal",
        ];
        turns_away(
            &device,
            &sshd,
            Through::Module,
            &ca.issue(said, level),
            &reasons,
        );
        let mut message = [0; 1024];
        let length = log.recv(&mut message).unwrap();
        let message = String::from_utf8_lossy(&message[..length]);
        assert!(message.starts_with("<84>devkey["), "{message}");
        assert!(
            message.contains("\"device-17\", serial 4711: "),
            "{message}"
        );
        assert!(message.contains(reason), "no {reason:?} in {message}");
    };
    refuses(
        &ca,
        &said,
        Level::Software,
        "it states level software, and puf is wanted",
    );
    refuses(&second, &said, Level::Tpm, "is not trusted");
    let mut others = said.clone();
    others.principals = vec!["somebody-else".into()];
    refuses(
        &ca,
        &others,
        Level::Tpm,
        "names no principal that the account accepts",
    );
    let mut expired = said.clone();
    expired.valid_before = now() - 1;
    refuses(&ca, &expired, Level::Tpm, "it has expired");
}

/// A certificate for the account of this test.
fn mine(key: &PublicKey) -> Contents {
    contents(Kind::User, key, &account())
}
