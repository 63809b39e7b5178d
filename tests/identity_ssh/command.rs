//! `devkey ssh principals` as sshd runs it: what it prints is all that lets somebody in.

use std::fs;
use std::os::unix::net::UnixDatagram;

use base64ct::{Base64, Encoding};
use devkey::identity::level::Level;
use devkey::identity::ssh::certificate::{Certificate, Kind, MAX};
use devkey::identity::ssh::key;
use devkey::identity::ssh::principals::MAX_AUTHORITIES;
use devkey::key::KeyKind;
use tempfile::TempDir;

use crate::authority::{Authority, contents};
use crate::common::Run;

/// Seen to fail where a certificate `names` everybody.
#[test]
fn it_prints_what_account_and_certificate_share() {
    let dir = TempDir::new().unwrap();
    let ca = Authority::new(KeyKind::EcP256);
    let certificate = certificate(&ca, Level::Tpm, &["alice", "fleet", "root"]);
    let ask = |accepted: &[&str]| {
        let accept = accepted.iter().map(|name| format!("--accept={name}"));
        let ask = ask(&dir, &ca, "puf").args(accept).arg(&certificate);
        let output = ask.ok();
        assert!(output.stderr.is_empty(), "{output}");
        output.text()
    };
    assert_eq!(ask(&["alice"]), "alice\n");
    assert_eq!(ask(&["bob", "fleet"]), "fleet\n");
    assert_eq!(ask(&["alice", "fleet"]), "alice\nfleet\n");
}

/// Nothing on standard output, the reason on standard error and in the log, exit code 1. Seen to fail without
/// each of: the verification, the check of the CA, of the level.
#[test]
fn it_prints_nothing_where_it_refuses() {
    let dir = TempDir::new().unwrap();
    let (ca, other) = (
        Authority::new(KeyKind::EcP256),
        Authority::new(KeyKind::EcP256),
    );
    let log = UnixDatagram::bind(dir.path().join("log")).unwrap();
    let refuses = |level: &str, certificate: &str, reason: &str| {
        let ask = ask(&dir, &ca, level).arg("--syslog=log");
        let output = ask.args(["--accept", "alice", certificate]).output();
        assert_eq!(output.status.code(), Some(1), "{output}");
        assert!(output.stdout.is_empty(), "{output}");
        output.says(&["devkey: ", reason]);
        let mut told = [0; 1024];
        let length = log.recv(&mut told).unwrap();
        let told = String::from_utf8_lossy(&told[..length]);
        assert!(
            told.starts_with("<84>devkey[") && told.contains(reason),
            "{told}"
        );
    };
    let good = certificate(&ca, Level::Software, &["alice"]);
    let wanted = "refused: it states level software, and tpm is wanted";
    refuses("tpm", &good, wanted);
    refuses(
        "tpm",
        &certificate(&ca, Level::Puf, &["alice"]),
        "level puf, and tpm is wanted",
    );
    refuses(
        "software",
        &certificate(&other, Level::Tpm, &["alice"]),
        "is not trusted",
    );
    refuses(
        "software",
        &certificate(&ca, Level::Tpm, &["bob"]),
        "that the account accepts",
    );
    refuses("software", "", "malformed SSH data");
    refuses("software", "AAAA!", "no Base64");
    refuses("software", &good[..good.len() - 4], "malformed SSH data");
    refuses(
        "software",
        &Base64::encode_string(&key::blob(ca.public()).unwrap()),
        "no certificate",
    );
    refuses(
        "software",
        &"A".repeat(MAX + MAX / 2),
        "more than 65536 bytes",
    );
    let mut blob = Base64::decode_vec(&good).unwrap();
    *blob.last_mut().unwrap() ^= 1;
    refuses("software", &Base64::encode_string(&blob), "was changed");
}

#[test]
fn it_says_what_is_wrong_with_the_file_of_ca_keys() {
    let dir = TempDir::new().unwrap();
    let ca = Authority::new(KeyKind::EcP256);
    let certificate = certificate(&ca, Level::Tpm, &["alice"]);
    let refuses = |text: Option<&str>, reason: &str| {
        let run = ask(&dir, &ca, "software");
        let file = dir.path().join("ca.pub");
        text.map_or_else(|| fs::remove_file(&file), |text| fs::write(&file, text))
            .unwrap();
        let output = run.args(["--accept", "alice", &certificate]).fails();
        assert!(output.stdout.is_empty(), "{output}");
        output.says(&["ca.pub", reason]);
    };
    refuses(None, "No such file");
    refuses(Some("# nothing\n"), "holds no CA key");
    refuses(Some("ssh-ed25519 AAAA\n"), "line 1: ");
    refuses(Some(&"#".repeat(MAX_AUTHORITIES + 1)), "bytes of CA keys");
}

/// A log that nobody reads lets nobody in, and is said.
#[test]
fn a_missing_log_changes_nothing() {
    let dir = TempDir::new().unwrap();
    let ca = Authority::new(KeyKind::EcP256);
    let run = |level: &str| ask(&dir, &ca, level).args(["--syslog=none", "--accept=alice"]);
    let certificate = certificate(&ca, Level::Software, &["alice"]);
    let output = run("tpm").arg(&certificate).fails();
    assert!(output.stdout.is_empty(), "{output}");
    output.says(&["it states level software", "telling none"]);
    assert_eq!(run("software").arg(&certificate).ok().text(), "alice\n");
}

fn certificate(ca: &Authority, level: Level, principals: &[&str]) -> String {
    let mut said = contents(Kind::User, ca.public(), "");
    said.principals = principals.iter().map(|&name| name.to_owned()).collect();
    let certificate: Certificate = ca.issue(&said, level);
    Base64::encode_string(certificate.blob())
}

/// The command up to the level, with the CA's key in its file.
fn ask(dir: &TempDir, ca: &Authority, level: &str) -> Run {
    let line = key::line(ca.public(), "").unwrap();
    fs::write(dir.path().join("ca.pub"), line + "\n").unwrap();
    Run::new(env!("CARGO_BIN_EXE_devkey"))
        .dir(dir.path())
        .words("ssh principals --ca ca.pub --level")
        .arg(level)
}
