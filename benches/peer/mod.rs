//! Modules that are measured, each in a process of its own.

#![allow(dead_code, reason = "not every bench needs all of it")]

use std::env;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use cryptoki::context::{CInitializeArgs, CInitializeFlags, Pkcs11};
use cryptoki::mechanism::Mechanism;
use cryptoki::object::{Attribute, KeyType, ObjectClass, ObjectHandle};
use cryptoki::session::{Session, UserType};
use cryptoki::types::AuthPin;

use crate::tpm::Swtpm;

/// The PIN of the peers' tokens.
pub(crate) const PIN: &str = "1234";
pub(crate) const TPM2_PKCS11: &str = "libtpm2_pkcs11.so.1";

/// A module with a token and a key of it, ready to be measured.
pub(crate) struct Peer {
    pub(crate) name: &'static str,
    pub(crate) module: String,
    pub(crate) environment: Vec<(&'static str, String)>,
}

impl Peer {
    /// Runs one measurement in a process of its own; microseconds per operation.
    pub(crate) fn measure(&self, what: &str, count: u32) -> f64 {
        let output = self.process(what, count).output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout);
        let said = String::from_utf8_lossy(&output.stderr);
        text.trim()
            .parse()
            .unwrap_or_else(|_| panic!("{} {what}: {text}{said}", self.name))
    }

    /// This program, which is to measure `what` of the module.
    pub(crate) fn process(&self, what: &str, count: u32) -> Command {
        let mut command = Command::new(env::current_exe().unwrap());
        command
            .args(["measure", &self.module, what, &count.to_string()])
            .envs(self.environment.iter().map(|(name, value)| (name, value)));
        command
    }

    pub(crate) fn run(&self, program: &str, words: &str) {
        let output = Command::new(program)
            .args(words.split(' '))
            .envs(self.environment.iter().map(|(name, value)| (name, value)))
            .output()
            .unwrap_or_else(|e| panic!("{program}: {e}; run: sh packaging/prerequisites bench"));
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{program} {words}: {said}");
    }
}

/// tpm2-pkcs11 with a key in the TPM.
pub(crate) fn tpm2_pkcs11(home: &Path, swtpm: &Swtpm) -> Peer {
    let store = home.join("tpm2-pkcs11").display().to_string();
    std::fs::create_dir(&store).unwrap();
    let peer = Peer {
        name: "tpm2-pkcs11",
        module: TPM2_PKCS11.to_owned(),
        environment: vec![
            ("TPM2_PKCS11_STORE", store.clone()),
            ("TPM2_PKCS11_TCTI", swtpm.tcti()),
            ("TSS2_LOG", "all+none".to_owned()),
            ("TPM2_PKCS11_LOG_LEVEL", "0".to_owned()),
        ],
    };
    let token = format!("--module {TPM2_PKCS11} --token-label bench");
    for words in [
        format!("--module {TPM2_PKCS11} --init-token --slot-index 0 --label bench --so-pin {PIN}"),
        format!("{token} --init-pin --login --login-type so --so-pin {PIN} --pin {PIN}"),
        format!("{token} --login --pin {PIN} --keypairgen --key-type EC:prime256v1 --id 01"),
    ] {
        peer.run("pkcs11-tool", &words);
        // It leaves objects behind, and the simulator has room for three.
        swtpm.tool("tpm2_flushcontext", &["--transient-object"]);
    }
    peer
}

pub(crate) fn timed(operation: impl FnOnce()) -> Duration {
    let start = Instant::now();
    operation();
    start.elapsed()
}

/// The times of `count` signatures with the first private EC key.
pub(crate) fn signing(module: &str, count: u32) -> cryptoki::error::Result<Vec<Duration>> {
    let (session, key) = opened(module)?;
    (0..count).map(|n| sign(&session, key, n)).collect()
}

/// A session, logged in where that is wanted, and the first private EC key.
pub(crate) fn opened(module: &str) -> cryptoki::error::Result<(Session, ObjectHandle)> {
    let module = Pkcs11::new(module)?;
    module.initialize(arguments())?;
    let slot = module.get_slots_with_initialized_token()?[0];
    let session = module.open_ro_session(slot)?;
    if module.get_token_info(slot)?.login_required() {
        session.login(UserType::User, Some(&AuthPin::new(PIN.into())))?;
    }
    let template = [
        Attribute::Class(ObjectClass::PRIVATE_KEY),
        Attribute::KeyType(KeyType::EC),
    ];
    let key = session.find_objects(&template)?[0];
    Ok((session, key))
}

/// How long one signature takes.
pub(crate) fn sign(
    session: &Session,
    key: ObjectHandle,
    n: u32,
) -> cryptoki::error::Result<Duration> {
    let digest = [n as u8; 32];
    let start = Instant::now();
    session.sign(&Mechanism::Ecdsa, key, &digest)?;
    Ok(start.elapsed())
}

pub(crate) fn arguments() -> CInitializeArgs {
    CInitializeArgs::new(CInitializeFlags::OS_LOCKING_OK)
}

/// The median; of an even number, the upper one of the two in the middle.
pub(crate) fn median(mut figures: Vec<f64>) -> f64 {
    figures.sort_by(f64::total_cmp);
    figures[figures.len() / 2]
}
