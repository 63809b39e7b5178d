//! devkey.toml: what is found where, and which line is blamed.
//!
//! Each test names the line of src/config* that was changed to see it fail.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "what cannot go on has failed"
)]

use std::env;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use devkey::backends::file;
use devkey::config::{Config, Environment, Links};
use devkey::error::Error;
use devkey::provider::{BackEnd, Settings};
use devkey::store::{Store, TokenRecord};
use tempfile::TempDir;

fn write(path: &Path, text: &str) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, text).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).unwrap();
}

fn token(dir: &Path) {
    let record = TokenRecord {
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
    };
    Store::create(dir, |_| Ok(record)).unwrap();
}

fn only(config: &Path) -> Environment {
    Environment {
        config: Some(config.to_owned()),
        ..Environment::default()
    }
}

fn names(config: &Config) -> Vec<String> {
    config
        .tokens()
        .into_iter()
        .map(|token| token.name)
        .collect()
}

/// The error of a configuration of this text: its line and reason.
fn blame(text: &str) -> (usize, String) {
    let home = TempDir::new().unwrap();
    let path = home.path().join("devkey.toml");
    write(&path, text);
    match Config::load(&only(&path)) {
        Err(Error::BadConfig {
            path: blamed,
            line,
            reason,
        }) => {
            assert_eq!(blamed, path);
            (line, reason)
        }
        other => panic!("{text:?} gave {other:?}"),
    }
}

/// Fails with the `None` arm of `Config::load`'s `match user` and `read_if_there` not extending
/// `stores`.
#[test]
fn without_any_configuration_the_users_store_is_used() {
    let home = TempDir::new().unwrap();
    let environment = Environment {
        config: None,
        config_home: Some(home.path().join("config")),
        data_home: Some(home.path().join("data")),
    };
    token(&home.path().join("data/devkey/b"));
    token(&home.path().join("data/devkey/a"));
    fs::create_dir(home.path().join("data/devkey/not-a-token")).unwrap();
    let config = Config::load(&environment).unwrap();
    let ours: Vec<PathBuf> = config.tokens().into_iter().map(|token| token.dir).collect();
    let dir = |name: &str| home.path().join("data/devkey").join(name);
    assert!(ours.ends_with(&[dir("a"), dir("b")]), "{ours:?}");
    assert_eq!(config.place_for("new").unwrap(), dir("new"));
}

/// Fails with `if secure` in `Environment::of_process` removed.
#[test]
fn a_privileged_process_ignores_its_environment() {
    let nothing = Environment::of_process(true);
    assert!(nothing.config.is_none() && nothing.config_home.is_none());
    assert!(nothing.data_home.is_none());
    assert!(
        Environment::of_process(false).data_home.is_some(),
        "HOME is set here"
    );
}

/// Fails without the `filter` of DEVKEY_CONFIG in `Environment::of_process`.
#[test]
fn an_empty_name_of_a_configuration_is_none() {
    const HERE: &str = "DEVKEY_TEST_CONFIG";
    if env::var_os(HERE).is_some() {
        assert_eq!(Environment::of_process(false).config, None);
        return;
    }
    let again = Command::new(env::current_exe().unwrap())
        .args(["--exact", "an_empty_name_of_a_configuration_is_none"])
        .envs([(HERE, "1"), ("DEVKEY_CONFIG", "")])
        .output();
    assert!(again.unwrap().status.success());
}

/// Fails with `found.extend` for named tokens moved behind the loop over the stores.
#[test]
fn named_tokens_come_first_and_may_be_elsewhere_or_off() {
    let home = TempDir::new().unwrap();
    let (store, elsewhere) = (home.path().join("store"), home.path().join("elsewhere"));
    for dir in [
        store.join("a"),
        store.join("z"),
        store.join("off"),
        elsewhere.clone(),
    ] {
        token(&dir);
    }
    let path = home.path().join("devkey.toml");
    let text = format!(
        "store = {store:?}\n[token.z]\ntcti = \"x\"\n[token.far]\ndirectory = {elsewhere:?}\n\
         [token.off]\nenabled = false\n[token.missing]\n"
    );
    write(&path, &text);
    let config = Config::load(&only(&path)).unwrap();
    assert_eq!(names(&config), ["z", "far", "a"]);
    assert_eq!(config.tokens()[0].settings[0].value, "x");
    assert_eq!(config.tokens()[1].dir, elsewhere);
}

/// Fails with `+ 1` removed from `Source::line`.
#[test]
fn errors_name_file_and_line() {
    assert_eq!(blame("store = \"/x\"\nstor = 1\n").0, 2);
    assert_eq!(blame("\n\nstore = \"relative\"").0, 3);
    assert_eq!(blame("store = 7").0, 1);
    assert_eq!(blame("[token.a]\nenabled = \"yes\"\n").0, 2);
    assert_eq!(blame("[token.a]\n\n\ntcti = 4\n").0, 4);
    assert_eq!(blame("[token.\"../a\"]\n").0, 1);
    assert_eq!(blame("store = \"/x\"\n[token.a]\n[token.a]\n").0, 3);
    assert_eq!(blame("store = \"/x\n").0, 1);
    assert!(
        blame("stor = 1")
            .1
            .contains("known: store, devkeyd, socket, user, token")
    );
}

/// Fails with `Dir::open` in `file::read` replaced by a plain read: the file names a program.
#[test]
fn a_configuration_that_others_can_write_is_refused() {
    let home = TempDir::new().unwrap();
    let path = home.path().join("devkey.toml");
    write(&path, "");
    Config::load(&only(&path)).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o666)).unwrap();
    assert!(matches!(
        Config::load(&only(&path)),
        Err(Error::Refused { .. })
    ));
}

/// Fails with `config.read` in `Config::load` replaced by `config.read_if_there`.
#[test]
fn a_configuration_that_was_asked_for_must_be_there() {
    let error = Config::load(&only(Path::new("/nonexistent/devkey.toml"))).unwrap_err();
    assert!(
        error.to_string().contains("/nonexistent/devkey.toml"),
        "{error}"
    );
}

/// Fails with `find(alone)` in `BackEnd::check_settings` replaced by the first setting.
#[test]
fn the_setting_that_is_wrong_is_the_one_that_is_blamed() {
    let check = |settings: &Settings| match settings.get("b").map(String::as_str) {
        None | Some("good") => Ok(()),
        Some(other) => Err(Error::input(format!("b = {other:?}"))),
    };
    let back_end = BackEnd {
        name: "none",
        settings: &[("a", ""), ("b", "")],
        check,
        ..file::BACK_END
    };
    let home = TempDir::new().unwrap();
    token(&home.path().join("t"));
    let path = home.path().join("devkey.toml");
    let blamed = |settings: &str| {
        write(
            &path,
            &format!("store = {:?}\n[token.t]\n{settings}", home.path()),
        );
        let found = Config::load(&only(&path)).unwrap().tokens().remove(0);
        let links = Links::private("/nonexistent".into(), |_, _| Ok(()));
        match found.open(&[back_end], &links) {
            Err(Error::BadConfig { line, reason, .. }) => (line, reason),
            other => panic!("{settings:?} gave {other:?}"),
        }
    };
    assert_eq!(blamed("a = 'x'\nb = 'bad'\n"), (4, "b = \"bad\"".into()));
    let (line, reason) = blamed("a = 'x'\nb = 'good'\nc = 'y'\n");
    assert_eq!(line, 5);
    assert!(
        reason.ends_with("no setting \"c\"; it has: a, b"),
        "{reason}"
    );
}
