//! A CA's books.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::thread;

use devkey::identity::ca::State;
use devkey::identity::x509::{Reason, is_revoked};

use super::*;

/// Answers for so many devices.
fn answers(authority: &Authority, count: usize) -> Vec<Answer> {
    let answer = |_| {
        let device = Soft::new();
        let challenge = authority.challenge(&request(&device));
        Answer::make(&device, &challenge, None).unwrap()
    };
    (0..count).map(answer).collect()
}

/// Four at each answer at once. Seen to fail without the lock in `issue`: answers got several serials.
#[test]
fn issuers_at_once_give_each_answer_one_serial() {
    let authority = Authority::new();
    let answers = answers(&authority, 12);
    let dir = authority.dir().join("ca");
    let issued: Vec<usize> = thread::scope(|scope| {
        let worker = || {
            let ca = Ca::open(&dir).unwrap();
            let each = |answer: &&Answer| ca.issue(&authority.key, answer, NOW).is_ok();
            answers.iter().filter(each).count()
        };
        let workers: Vec<_> = (0..4).map(|_| scope.spawn(worker)).collect();
        workers
            .into_iter()
            .map(|worker| worker.join().unwrap())
            .collect()
    });
    assert_eq!(issued.iter().sum::<usize>(), answers.len(), "{issued:?}");
    let mut serials: Vec<_> = authority
        .ca
        .list(NOW)
        .unwrap()
        .into_iter()
        .map(|e| e.serial)
        .collect();
    assert_eq!(serials.len(), answers.len());
    serials.dedup();
    assert_eq!(serials.len(), answers.len());
}

#[test]
fn what_is_revoked_is_listed() {
    let authority = Authority::new();
    let granted: Vec<_> = answers(&authority, 2)
        .iter()
        .map(|answer| authority.ca.issue(&authority.key, answer, NOW).unwrap())
        .collect();
    let ca = &authority.ca;
    ca.revoke(&granted[0].serial, Reason::KeyCompromise, NOW + 1)
        .unwrap();
    let again = ca.revoke(&granted[0].serial, Reason::Unspecified, NOW + 2);
    assert!(matches!(again, Err(Error::Exists(_))));
    let unknown = ca.revoke(&"0102".parse().unwrap(), Reason::Unspecified, NOW);
    assert!(matches!(unknown, Err(Error::NotFound(_))));
    let crl = ca.crl(&authority.key, 86400, NOW + 3).unwrap();
    for (one, revoked) in granted.iter().zip([true, false]) {
        let certificate = one.issued.certificate().unwrap();
        let listed = is_revoked(&crl, certificate, &ca.chain()[0], NOW + 4).unwrap();
        assert_eq!(listed, revoked);
    }
    let states = |now| -> Vec<State> { ca.list(now).unwrap().iter().map(|e| e.state).collect() };
    assert!(states(NOW + 5).contains(&State::Good) && states(NOW + 5).contains(&State::Revoked));
    assert!(states(NOW + 31 * 86400).contains(&State::Expired));
    // Numbers go up, also where the clock goes back.
    assert_ne!(ca.crl(&authority.key, 86400, NOW + 3).unwrap(), crl);
    ca.crl(&authority.key, 86400, NOW - 1000).unwrap();
}

/// Seen to fail with the directory made open to others.
#[test]
fn the_books_are_the_owners() {
    let authority = Authority::new();
    let dir = authority.dir().join("ca");
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&dir), 0o700);
    assert_eq!(mode(&dir.join("ca.toml")), 0o600);
    fs::set_permissions(&dir, fs::Permissions::from_mode(0o770)).unwrap();
    assert!(matches!(Ca::open(&dir), Err(Error::Refused { .. })));
}

#[test]
fn the_configuration_is_checked() {
    let authority = Authority::new();
    let dir = authority.dir().join("ca");
    let path = dir.join("ca.toml");
    let good = fs::read_to_string(&path).unwrap();
    for (from, to, says) in [
        ("days = 30", "days = 0", "days"),
        ("days = 30", "years = 1", "years"),
        ("name = ", "nom = ", "nom"),
        ("subject:CN=*", "subjekt:CN=*", "pattern"),
        ("clientAuth", "flying", "purpose"),
        ("version = 1", "version = 2", "newer"),
        ("level = \"software\"", "level = \"best\"", "best"),
        ("x509 = true\nssh = [\"user\"]", "x509 = false", "neither"),
    ] {
        let bad = good.replacen(from, to, 1);
        assert_ne!(bad, good, "{from}");
        fs::write(&path, bad).unwrap();
        let said = Ca::open(&dir).unwrap_err().to_string();
        assert!(said.contains(says) && said.contains("ca.toml"), "{said}");
    }
}

/// A CA that was not finished leaves nothing, and no other is written over.
#[test]
fn a_ca_is_made_whole_or_not_at_all() {
    let authority = Authority::new();
    let dir = authority.dir().join("ca");
    let mut new = NewCa {
        config: authority.ca.config().clone(),
        own: Own::Root {
            subject: "CN=Lab CA".parse().unwrap(),
            not_before: NOW,
            not_after: NOW + 86400,
        },
        ek_roots: vec![vec![7]],
    };
    assert!(matches!(
        Ca::create(&dir, &authority.key, &new),
        Err(Error::Exists(_))
    ));
    new.config.profiles.clear();
    let other = authority.dir().join("other");
    assert!(Ca::create(&other, &authority.key, &new).is_err());
    assert_eq!(fs::read_dir(authority.dir()).unwrap().count(), 1);
}
