//! The store as its users see it: what is refused, what is seen, what survives.
//!
//! Each test names the line of src/ that was changed to see it fail.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "what cannot go on has failed"
)]

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::Duration;

use devkey::error::Error;
use devkey::key::{KeyKind, PublicKey, Usage};
use devkey::provider::Blob;
use devkey::store::{KeyRecord, ObjectId, Store, TokenRecord};
use tempfile::TempDir;

fn record() -> TokenRecord {
    TokenRecord {
        version: 1,
        label: "test".into(),
        serial: "0123456789abcdef".into(),
        model: "Test".into(),
        back_end: "none".into(),
        hardware: false,
        binding: None,
        settings: Default::default(),
        capabilities: Vec::new(),
        pin: false,
        secret: None,
    }
}

fn key(label: &str) -> KeyRecord {
    let secret = p256::SecretKey::from_slice(&[7; 32]).unwrap();
    let public = PublicKey::from_spki(&spki(&secret)).unwrap();
    let blob = Blob {
        label: "TEST KEY".into(),
        bytes: vec![1, 2, 3],
    };
    let id = public.id();
    KeyRecord::new(
        ObjectId::random().unwrap(),
        label.into(),
        id,
        Usage::SIGN,
        public,
        blob,
    )
}

fn spki(secret: &p256::SecretKey) -> Vec<u8> {
    use p256::elliptic_curve::sec1::ToSec1Point;
    let point = secret.public_key().to_sec1_point(false);
    PublicKey::from_sec1(KeyKind::EcP256, point.as_bytes())
        .unwrap()
        .to_spki()
}

fn fresh() -> (TempDir, PathBuf, Store) {
    let home = TempDir::new().unwrap();
    let dir = home.path().join("token");
    let store = Store::create(&dir, |_| Ok(record())).unwrap();
    (home, dir, store)
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o7777
}

fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

fn labels(store: &Store) -> Vec<String> {
    let listing = store.list().unwrap();
    listing.keys.iter().map(|key| key.label.clone()).collect()
}

/// Fails with `Mode::RWXG` added in `make_dir`, or `Mode::ROTH` in `Dir::file_mode`.
#[test]
fn files_and_directories_are_the_owners_alone() {
    let (_home, dir, store) = fresh();
    store
        .writer()
        .unwrap()
        .put_key(&key("a"), None, false)
        .unwrap();
    assert_eq!(mode(&dir), 0o700);
    for entry in fs::read_dir(&dir).unwrap() {
        assert_eq!(mode(&entry.unwrap().path()), 0o600);
    }
}

/// Fails with `shared` in `Dir::file_mode` replaced by `false`.
#[test]
fn a_directory_that_a_group_may_read_gets_files_that_it_may_read() {
    let (_home, dir, store) = fresh();
    set_mode(&dir, 0o750);
    let key = key("a");
    store.writer().unwrap().put_key(&key, None, false).unwrap();
    assert_eq!(mode(&dir.join(format!("{}.key", key.id))), 0o640);
}

/// Fails with the comparison of stamps taken out of `Watched::is_still`, with that of times, and with the drop of
/// `Forget`: in memory a removal takes less than a look holds good.
#[test]
fn a_key_is_asked_for_as_it_is_now() {
    let home = TempDir::new_in("/dev/shm").unwrap();
    let tokens = home.path().join("tokens");
    let make = || {
        fs::create_dir(&tokens).unwrap();
        Store::create(&tokens.join("token"), |_| Ok(record())).unwrap()
    };
    let put = |store: &Store, label: &str| {
        let key = key(label);
        store.writer().unwrap().put_key(&key, None, false).unwrap();
        // From now on the directory is held.
        sleep(Duration::from_millis(100));
        assert!(store.key_now(&key.id).unwrap().is_some());
        key.id
    };
    let store = make();
    let there = |id: &ObjectId| store.key_now(id).unwrap().is_some();
    let [first, second] = ["a", "b"].map(|label| put(&store, label));
    assert!(there(&first) && there(&second));
    store.writer().unwrap().remove(&first).unwrap();
    assert!(!there(&first) && there(&second));
    // By another's hand.
    let third = put(&store, "third");
    fs::remove_file(store.dir().join(format!("{third}.key"))).unwrap();
    sleep(Duration::from_millis(2));
    assert!(!there(&third) && there(&second));
    // Another directory in its place: nothing changes in the one that is held.
    sleep(Duration::from_millis(100));
    assert!(there(&second));
    fs::rename(&tokens, home.path().join("before")).unwrap();
    let third = put(&make(), "c");
    sleep(Duration::from_millis(200));
    assert!(there(&third) && !there(&second));
}

/// Fails with the `0o022` test of `check_owner_and_mode` removed.
#[test]
fn what_others_can_write_is_refused_and_named() {
    let (_home, dir, store) = fresh();
    set_mode(&dir, 0o770);
    let refused = store.list().unwrap_err();
    assert!(matches!(&refused, Error::Refused { path, .. } if *path == dir));
    assert!(refused.to_string().contains("chmod go-w"), "{refused}");
    set_mode(&dir, 0o700);
    set_mode(&dir.join("token"), 0o602);
    assert!(matches!(Store::open(&dir), Err(Error::Refused { .. })));
}

/// Fails with `OFlags::NOFOLLOW` removed from `Dir::open` and `Dir::read_checked`.
#[test]
fn symbolic_links_are_refused() {
    let (home, dir, store) = fresh();
    let link = home.path().join("link");
    symlink(&dir, &link).unwrap();
    assert!(matches!(Store::open(&link), Err(Error::Refused { .. })));
    let key = key("a");
    store.writer().unwrap().put_key(&key, None, false).unwrap();
    let file = dir.join(format!("{}.key", key.id));
    fs::rename(&file, home.path().join("moved")).unwrap();
    symlink(home.path().join("moved"), &file).unwrap();
    let listing = store.list().unwrap();
    assert!(listing.keys.is_empty());
    assert!(matches!(listing.broken[..], [Error::Refused { .. }]));
}

/// Fails with the `FileType` test of `Dir::read_checked` removed (a FIFO then reads as empty).
#[test]
fn a_fifo_is_refused_and_blocks_nobody() {
    let (_home, dir, store) = fresh();
    let made = std::process::Command::new("mkfifo")
        .arg(dir.join("x.key"))
        .status();
    assert!(made.unwrap().success());
    let broken = &store.list().unwrap().broken;
    let [Error::Refused { reason, .. }] = &broken[..] else {
        panic!("{broken:?}");
    };
    assert!(reason.contains("regular file"), "{reason}");
}

/// Fails with `broken.push(e)` in `Cache::refresh` replaced by `return Err(e)`.
#[test]
fn one_bad_object_hides_no_other() {
    let (_home, dir, store) = fresh();
    store
        .writer()
        .unwrap()
        .put_key(&key("good"), None, false)
        .unwrap();
    fs::write(dir.join("0000.key"), "version = 1\nnonsense").unwrap();
    fs::write(dir.join("1111.crt"), b"\xff\xfe").unwrap();
    fs::write(dir.join("2222.pem"), "-----BEGIN CERTIFICATE-----\n").unwrap();
    for file in ["0000.key", "1111.crt", "2222.pem"] {
        set_mode(&dir.join(file), 0o600);
    }
    assert_eq!(labels(&store), ["good"]);
    assert_eq!(store.list().unwrap().broken.len(), 3);
}

/// Fails with `found > FORMAT` in `read_head` replaced by `false`.
#[test]
fn a_newer_record_is_refused_and_left_alone() {
    let (_home, dir, store) = fresh();
    let path = dir.join("0000.key");
    let text = "version = 2\nshape = \"unknown\"\n";
    fs::write(&path, text).unwrap();
    set_mode(&path, 0o600);
    let listing = store.list().unwrap();
    let [Error::NewerRecord { found: 2, .. }] = &listing.broken[..] else {
        panic!("{:?}", listing.broken);
    };
    assert_eq!(fs::read_to_string(&path).unwrap(), text);
}

/// Fails with `cache.settled != Some(dir.stamp())` in `Store::list` replaced by
/// `cache.settled.is_none()`. (Changes within one tick of the clock: a unit test of the store.)
#[test]
fn changes_by_another_are_seen_at_the_next_look() {
    let (_home, dir, mine) = fresh();
    let other = Store::open(&dir).unwrap();
    for count in 1..=50 {
        other
            .writer()
            .unwrap()
            .put_key(&key(&format!("{count}")), None, false)
            .unwrap();
        assert_eq!(mine.list().unwrap().keys.len(), count);
    }
    sleep(Duration::from_millis(120));
    assert_eq!(mine.list().unwrap().keys.len(), 50);
    let gone = mine.list().unwrap().keys[0].id.clone();
    other.writer().unwrap().remove(&gone).unwrap();
    assert_eq!(mine.list().unwrap().keys.len(), 49);
}

/// Fails with `certificates_changed` returning `false`.
#[test]
fn a_certificate_that_is_edited_in_place_is_seen() {
    let (_home, dir, store) = fresh();
    let path = dir.join("mine.pem");
    fs::write(&path, certificate("one")).unwrap();
    set_mode(&path, 0o600);
    assert_eq!(store.list().unwrap().certificates.len(), 1);
    sleep(Duration::from_millis(120));
    let first = store.list().unwrap().certificates[0].der.clone();
    fs::write(&path, certificate("two") + &certificate("three")).unwrap();
    let listing = store.list().unwrap();
    let ids: Vec<&str> = listing.certificates.iter().map(|c| c.id.as_str()).collect();
    assert_eq!(ids, ["mine.pem", "mine.pem#1"]);
    assert_ne!(listing.certificates[0].der, first);
}

/// A certificate as an administrator has it: made by openssl, with its text before the PEM.
fn certificate(name: &str) -> String {
    let script = format!(
        "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout /dev/null \
         -subj /CN={name} -days 1 2>/dev/null | openssl x509 -text"
    );
    let made = std::process::Command::new("sh")
        .args(["-c", &script])
        .output();
    let made = made.unwrap();
    assert!(made.status.success(), "install it: apt-get install openssl");
    String::from_utf8(made.stdout).unwrap()
}

/// Fails with the ending left out of `ObjectId::certificate`.
#[test]
fn a_certificate_named_like_a_key_is_another_object() {
    let (_home, dir, store) = fresh();
    let key = key("a");
    store.writer().unwrap().put_key(&key, None, false).unwrap();
    for ending in ["crt", "pem"] {
        let path = dir.join(format!("{}.{ending}", key.id));
        fs::write(&path, certificate(ending)).unwrap();
        set_mode(&path, 0o600);
    }
    let listing = store.list().unwrap();
    let [crt, pem] = &listing.certificates[..] else {
        panic!("{listing:?}");
    };
    assert_ne!(crt.id, pem.id);
    let mut renamed = devkey::store::Certificate::clone(pem);
    renamed.label = Some("renamed".into());
    let writer = store.writer().unwrap();
    writer.put_certificate(&renamed, true).unwrap();
    writer.remove(&crt.id).unwrap();
    let listing = store.list().unwrap();
    assert_eq!(listing.keys.len(), 1);
    let left = &listing.certificates[0];
    assert_eq!((&left.id, &left.label), (&pem.id, &renamed.label));
}

/// Fails without `alone` in `Writer::remove`, and without it in `Writer::put_certificate`.
#[test]
fn one_certificate_of_several_in_a_file_is_left_alone() {
    let (_home, dir, store) = fresh();
    let path = dir.join("chain.pem");
    let text = certificate("one") + &certificate("two");
    fs::write(&path, &text).unwrap();
    set_mode(&path, 0o600);
    for certificate in &store.list().unwrap().certificates {
        let writer = store.writer().unwrap();
        let changed = writer.put_certificate(certificate, true);
        assert!(matches!(changed, Err(Error::BadInput(_))), "{changed:?}");
        let removed = writer.remove(&certificate.id);
        assert!(matches!(removed, Err(Error::BadInput(_))), "{removed:?}");
    }
    assert_eq!(fs::read_to_string(&path).unwrap(), text);
}

/// Fails without `check_names` in `KeyRecord::parse`: OpenSSH then lists no key of the token.
#[test]
fn a_record_with_names_that_are_too_long_hides_no_other() {
    let (_home, dir, store) = fresh();
    let bad = key("short");
    for (label, id) in [
        ("x".repeat(256), "00".into()),
        ("x".into(), "00".repeat(256)),
    ] {
        let text = bad.encode(None).unwrap();
        let cka_id = text
            .lines()
            .find(|line| line.starts_with("cka_id"))
            .unwrap();
        let text = text
            .replace("short", &label)
            .replace(cka_id, &format!("cka_id = \"{id}\""));
        let path = dir.join(format!("{}.key", bad.id));
        fs::write(&path, text).unwrap();
        set_mode(&path, 0o600);
        let listing = store.list().unwrap();
        assert!(listing.keys.is_empty());
        assert!(matches!(listing.broken[..], [Error::BadRecord { .. }]));
    }
}

/// Fails without `clear_drafts` in `Store::create`, and with `ABANDONED` left out of it.
#[test]
fn what_a_killed_init_left_is_cleared_when_it_is_old() {
    let home = TempDir::new().unwrap();
    let [old, young] = ["old", "young"].map(|name| home.path().join(format!(".tmp-{name}")));
    for draft in [&old, &young] {
        fs::create_dir(draft).unwrap();
    }
    let past = std::time::SystemTime::now() - Duration::from_secs(7200);
    fs::File::open(&old).unwrap().set_modified(past).unwrap();
    Store::create(&home.path().join("token"), |_| Ok(record())).unwrap();
    assert!(!old.exists() && young.exists());
}

/// Fails with `!replace` in place of `replace` in `Dir::rename`.
#[test]
fn nothing_is_overwritten_unasked() {
    let (_home, dir, store) = fresh();
    let key = key("a");
    store.writer().unwrap().put_key(&key, None, false).unwrap();
    let again = store.writer().unwrap().put_key(&key, None, false);
    assert!(matches!(again, Err(Error::Exists(_))));
    store.writer().unwrap().put_key(&key, None, true).unwrap();
    assert!(matches!(
        Store::create(&dir, |_| Ok(record())),
        Err(Error::Exists(_))
    ));
}

/// Names that look like the parts of a record. Fails with `rest.find(BEGIN)` for the start of a block
/// in `find_block`.
#[test]
fn any_label_is_read_as_it_was_written() {
    let (_home, _dir, store) = fresh();
    let labels_given = [
        "-----BEGIN PUBLIC KEY-----",
        "a\n-----BEGIN X-----\nAAAA\n-----END X-----\n",
        "a\r\n-----BEGIN \r",
        "\"\"\"\n'''\n\"\\",
        "[usage]\nsign = false",
        "\0\u{1}\u{7f}\u{85}\u{2028}\u{feff}\u{1f511}",
    ];
    for label in labels_given {
        let mut key = key(label);
        match store.writer().unwrap().put_key(&key, None, false) {
            Ok(()) => {}
            // Not taken is as good; taken and lost is not.
            Err(Error::BadInput(_)) => continue,
            Err(e) => panic!("{label:?}: {e}"),
        }
        assert_eq!(labels(&store), [label]);
        key.label = "another".to_owned();
        store.writer().unwrap().put_key(&key, None, true).unwrap();
        store.writer().unwrap().remove(&key.id).unwrap();
    }
    store
        .writer()
        .unwrap()
        .put_key(&key(labels_given[0]), None, false)
        .unwrap();
    assert!(store.list().unwrap().broken.is_empty());
}

/// Fails without the length in `Dir::write`: the file would be written and never read again.
#[test]
fn what_is_too_long_to_be_read_is_not_written() {
    let (_home, dir, store) = fresh();
    let mut long = key("long");
    long.blob.bytes = vec![0; 200_000];
    let written = store.writer().unwrap().put_key(&long, None, false);
    assert!(matches!(written, Err(Error::BadInput(_))), "{written:?}");
    assert!(store.list().unwrap().broken.is_empty());
    let files = fs::read_dir(&dir).unwrap().map(|e| e.unwrap().file_name());
    let files: Vec<_> = files.filter(|name| name != "lock").collect();
    assert_eq!(files, ["token"]);
}

/// Fails without the `remove_dir_all` in `Store::create`.
#[test]
fn a_token_that_could_not_be_made_leaves_nothing() {
    let home = TempDir::new().unwrap();
    let dir = home.path().join("token");
    let failed = Store::create(&dir, |_| Err(Error::Crypto));
    assert!(matches!(failed, Err(Error::Crypto)));
    assert_eq!(fs::read_dir(home.path()).unwrap().count(), 0);
}

/// Fails with `clear_temporaries` not called by `Dir::lock`.
#[test]
fn what_a_killed_writer_left_is_cleared_by_the_next() {
    let (_home, dir, store) = fresh();
    fs::write(dir.join(".tmp-0123456789abcdef"), "half").unwrap();
    assert!(store.list().unwrap().broken.is_empty());
    store
        .writer()
        .unwrap()
        .put_key(&key("a"), None, false)
        .unwrap();
    assert!(!dir.join(".tmp-0123456789abcdef").exists());
}

/// Fails with the `head.id != id` test of `KeyRecord::parse` removed.
#[test]
fn a_renamed_record_is_refused() {
    let (_home, dir, store) = fresh();
    let key = key("a");
    store.writer().unwrap().put_key(&key, None, false).unwrap();
    fs::rename(dir.join(format!("{}.key", key.id)), dir.join("ffff.key")).unwrap();
    let listing = store.list().unwrap();
    assert!(listing.keys.is_empty());
    assert!(matches!(listing.broken[..], [Error::BadRecord { .. }]));
}

/// Fails with `starts_with('.')` removed from `ObjectId`'s `TryFrom`, or '/' allowed by it.
#[test]
fn ids_cannot_leave_the_directory() {
    for id in ["", "..", "../x", "a/b", ".hidden", "a\0b"] {
        assert!(ObjectId::try_from(id.to_owned()).is_err(), "{id:?}");
    }
}

/// Fails with the `tail.len()` of `record::split` replaced by 0: the last line may lack its newline.
#[test]
fn every_cut_of_a_record_is_refused_or_read_without_a_panic() {
    let whole = key("a");
    let text = whole.encode(None).unwrap();
    let path = Path::new("cut.key");
    for end in 0..text.len() {
        let cut = KeyRecord::parse(&text[..end], whole.id.clone(), path);
        let newline_only = end + 1 == text.len();
        assert_eq!(cut.is_ok(), newline_only, "cut at {end} of {}", text.len());
    }
    assert!(KeyRecord::parse(&text, whole.id.clone(), path).is_ok());
}
