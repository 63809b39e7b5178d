//! The area `openssl`.

use std::fs;

use crate::checks::Checks;
use crate::common::module;
use crate::machine::Machine;

/// OpenSSL's own beginning, and one with the engine.
const NONE: &str = "openssl_conf = init\n[init]\nengines = engines\n";
const ENGINE: &str = "[engines]\nfirst = engine # ours\n[engine]\nengine_id = pkcs11\n";

/// Seen to fail with `plugin` always `None`.
#[test]
fn the_engine_is_found() {
    let machine = Machine::with_key();
    let said = machine.doctor("openssl");
    said.ok("openssl.version", &["OpenSSL 3"])
        .ok("openssl.engine", &["pkcs11.so"]);
    said.ok("openssl.config", &["openssl.cnf"])
        .ok("openssl.ed25519", &[]);
}

/// What makes trouble for programs that use no device key, and that it does. Seen to fail with `loads_engine`
/// always false, and true for an id alone, and with `active("default")` for its opposite.
#[test]
fn a_configuration_that_troubles_all_programs_is_named() {
    let machine = Machine::with_key();
    let config = machine.path("openssl.cnf");
    let said = |text: &str| {
        fs::write(&config, text).unwrap();
        Checks::of(
            machine
                .devkey("doctor openssl")
                .env("OPENSSL_CONF", &config),
        )
    };
    let sign = |ok: bool| {
        let script = "openssl ecparam -name prime256v1 -genkey -noout -out ca.key
            openssl req -x509 -new -key ca.key -subj /CN=ca -out ca.pem -config /usr/lib/ssl/openssl.cnf
            openssl req -new -key ca.key -subj /CN=b -out b.csr -config /usr/lib/ssl/openssl.cnf
            OPENSSL_CONF=$PWD/openssl.cnf openssl x509 -req -in b.csr -CA ca.pem -CAkey ca.key -out b.pem";
        let output = machine.run("sh").args(["-e", "-c", script]).output();
        assert_eq!(output.status.success(), ok, "{output}");
    };
    said(NONE).ok("openssl.config", &["openssl.cnf"]);
    sign(true);
    // An id alone loads nothing.
    said(&format!("{NONE}{ENGINE}")).ok("openssl.config", &[]);
    sign(true);
    let path = format!("MODULE_PATH = {}\n", module().display());
    let engine = said(&format!("{NONE}{ENGINE}{path}"));
    engine.warning(
        "openssl.config",
        &["into every program"],
        "out of its engines",
    );
    sign(false);
    said(&format!("{NONE}{ENGINE}{path}").replace("first", "#first")).ok("openssl.config", &[]);
    let lone =
        NONE.replace("engines", "providers") + "[providers]\npkcs11 = p\n[p]\nactivate = 1\n";
    said(&lone).warning(
        "openssl.config",
        &["not the default provider"],
        "default_sect",
    );
    let both = lone.replace("pkcs11 = p\n", "pkcs11 = p\ndefault = d\n") + "[d]\nactivate = 1\n";
    said(&both).ok("openssl.config", &[]);
}

/// The engine of Debian 12 finds no key on a token with one of Ed25519 (README). Seen to fail with `EDDSA_FROM` [0, 4, 12].
#[test]
fn a_key_that_hides_the_others_is_named() {
    let machine = Machine::with_key();
    machine.devkey("init curves").ok();
    machine
        .devkey("key new --token curves --kind ed25519 curve")
        .ok();
    let said = machine.doctor("openssl");
    said.warning(
        "openssl.ed25519",
        &["curves", "finds no key"],
        "devkey init other",
    );
    assert_eq!(said.all("openssl.ed25519").len(), 1);
}
