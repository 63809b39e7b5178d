//! A TPM that was revoked is certified no more, whichever key it makes and whatever it shows.

use std::fs;

use devkey::identity::ca::{Entry, Granted, State};
use devkey::identity::flow::{TpmAnswer, activation};
use devkey::identity::x509::{Reason, Serial};
use devkey::provider::Identity;
use devkey::secret::Secret;

use super::maker::Maker;
use super::tpm_rounds::{Device, ask, believing, now, roots};
use super::*;

const STOLEN: Reason = Reason::KeyCompromise;

fn certified(authority: &Authority, device: &Device, shows: Identity) -> Result<Granted> {
    let challenge = ask(authority, &device.showing(shows))?.challenge;
    let answer = device.answer(&challenge);
    authority.ca.issue(&authority.key, &answer, now())
}

fn entry(authority: &Authority, of: &Serial) -> Entry {
    authority.ca.entry(of, now()).unwrap()
}

/// What a TPM shows of itself, its endorsement keys numbered `which` alone.
fn only(device: &Device, which: usize) -> Identity {
    let mut identity = device.identity();
    identity.endorsement = vec![identity.endorsement.remove(which)];
    identity
}

/// Seen to fail without `check_not_barred` in challenge.rs, and in issue.rs; where `device` of device.rs gives
/// the keys of the entry alone: then the thief shows another; and where `judge` of evidence.rs keeps the first
/// endorsement key alone.
#[test]
fn a_stolen_tpm_gets_nothing_more_whatever_it_shows() {
    let maker = Maker::new();
    let (pump, other) = (Device::of(&maker), Device::of(&maker));
    let authority = believing(roots(&maker));
    let first = certified(&authority, &pump, pump.identity()).unwrap();
    let known = entry(&authority, &first.serial).device;
    assert_eq!(known.len(), 2);
    // Renewed with another key; and by the thief, before anybody knows of him, with one endorsement key.
    let renewed = pump.with_new_key();
    let renewed = certified(&authority, &renewed, pump.identity()).unwrap();
    assert_eq!(entry(&authority, &renewed.serial).device, known);
    let thief = pump.with_new_key();
    let thiefs = certified(&authority, &thief, only(&pump, 1)).unwrap();
    let others = certified(&authority, &other, other.identity()).unwrap();
    let in_time = pump.with_new_key();
    let asked = ask(&authority, &in_time.showing(only(&pump, 1))).unwrap();
    let revoked = authority.ca.revoke_device(&thiefs.serial, STOLEN, now());
    let mut revoked = revoked.unwrap();
    let mut all = [&first, &renewed, &thiefs].map(|one| one.serial.clone());
    revoked.sort();
    all.sort();
    assert_eq!(revoked, all);
    assert_eq!(entry(&authority, &others.serial).state, State::Good);
    let late = in_time.answer(&asked.challenge);
    let why = "its TPM was revoked as that of CN=pump 7";
    refused(authority.ca.issue(&authority.key, &late, now()), why);
    for shows in [pump.identity(), only(&pump, 0), only(&pump, 1)] {
        let new = pump.with_new_key();
        refused(ask(&authority, &new.showing(shows)), why);
    }
    certified(&authority, &other.with_new_key(), other.identity()).unwrap();
    // Once more changes nothing.
    let again = authority.ca.revoke_device(&first.serial, STOLEN, now());
    assert!(again.unwrap().is_empty());
}

/// Who shows another's endorsement key beside his own could have that one barred with himself. Seen to fail
/// where `judge` of evidence.rs keeps the first endorsement key alone.
#[test]
fn another_tpms_endorsement_key_is_not_claimed() {
    let maker = Maker::new();
    let (liar, victim) = (Device::of(&maker), Device::of(&maker));
    let authority = believing(roots(&maker));
    let mut shows = liar.identity();
    shows.endorsement.extend(only(&victim, 0).endorsement);
    let challenge = ask(&authority, &liar.showing(shows)).unwrap().challenge;
    assert_eq!(challenge.credentials().len(), 3);
    let opened = challenge.credentials().map(|(ek, one)| liar.open(ek, one));
    let opened: Vec<Result<Vec<u8>>> = opened.collect();
    assert!(opened[2].is_err());
    let own = opened.into_iter().flatten().collect::<Vec<_>>();
    for guess in [vec![], vec![0; 32]] {
        let secrets = Secret::new([own.concat(), guess].concat());
        let tpm = TpmAnswer {
            activation: activation(&secrets, &challenge),
            certified: liar.certify(&challenge),
        };
        let answer = Answer::make(&liar, &challenge, Some(tpm)).unwrap();
        let issued = authority.ca.issue(&authority.key, &answer, now());
        refused(issued, "did not open the credentials");
    }
}

/// Books of before: without `device` in a serial's file, and without the directory `barred`. Seen to fail
/// without `make_dir` in `lock` of books.rs.
#[test]
fn books_that_know_no_tpms_are_read() {
    let maker = Maker::new();
    let device = Device::of(&maker);
    let authority = believing(roots(&maker));
    let old = certified(&authority, &device, device.identity()).unwrap();
    let dir = authority.dir().join("ca");
    let file = dir.join(format!("issued/{}.toml", old.serial));
    let text = fs::read_to_string(&file).unwrap();
    let (known, older): (Vec<&str>, Vec<&str>) =
        text.lines().partition(|line| line.starts_with("device = "));
    assert_eq!(known.len(), 1);
    fs::write(&file, older.join("\n")).unwrap();
    fs::remove_dir(dir.join("barred")).unwrap();
    let ca = Ca::open(&dir).unwrap();
    assert!(ca.entry(&old.serial, now()).unwrap().device.is_empty());
    ask(&authority, &device.showing(device.identity())).unwrap();
    let unknown = ca.revoke_device(&old.serial, STOLEN, now());
    refused(unknown, "no TPM is known for serial");
    // The next certificate names it.
    let new = certified(&authority, &device, device.identity()).unwrap();
    // And by the key also what was issued before. Seen to fail without the comparison of keys in `share`.
    let mut revoked = ca.revoke_device(&new.serial, STOLEN, now()).unwrap();
    revoked.sort_unstable_by_key(|serial| *serial == old.serial);
    assert_eq!(revoked, [new.serial, old.serial]);
    refused(
        ask(
            &authority,
            &device.with_new_key().showing(device.identity()),
        ),
        "its TPM was revoked",
    );
}
