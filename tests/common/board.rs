//! The module on a token of a TPM, with devkeyd between them.
#![allow(dead_code, reason = "each test takes what it needs")]

use std::process::Command;

use super::module::{self, Module};
use super::tpm::{Proxy, Swtpm};

/// A TPM, a token on it with the keys "p256" and "rsa", and the module.
pub(crate) struct Board {
    // Declared first: the key service ends before the TPM does.
    pub(crate) module: Module,
    pub(crate) proxy: Proxy,
    pub(crate) swtpm: Swtpm,
}

impl Board {
    /// A module that is not initialised; it and the token reach the TPM through the proxy.
    pub(crate) fn loaded() -> Self {
        // First, for it waits until this test is alone.
        let module = Module::without_tokens();
        configure(&module, "");
        let swtpm = Swtpm::start();
        let proxy = Proxy::before(&swtpm);
        let board = Board {
            module,
            proxy,
            swtpm,
        };
        board.devkey(&["init", "--tpm", "--tcti", &board.proxy.tcti(), "board"]);
        board.devkey(&["key", "new", "p256"]);
        board.devkey(&["key", "new", "--kind", "rsa-2048", "rsa"]);
        board
    }

    /// The same, initialised.
    pub(crate) fn new() -> Self {
        let board = Board::loaded();
        board.module.initialize();
        board
    }

    fn devkey(&self, args: &[&str]) {
        let output = Command::new(env!("CARGO_BIN_EXE_devkey"))
            .args(args)
            .env("DEVKEY_CONFIG", self.module.dir.path().join("devkey.toml"))
            .output()
            .unwrap();
        assert!(output.status.success(), "{args:?}: {output:?}");
    }
}

/// Names the store of the test and the devkeyd of this build, and whatever else.
pub(crate) fn configure(module: &Module, more: &str) {
    let text = format!(
        "store = {:?}\ndevkeyd = {:?}\n{more}\n",
        module.dir.path(),
        env!("CARGO_BIN_EXE_devkeyd")
    );
    module::write(&module.dir.path().join("devkey.toml"), &text);
}
