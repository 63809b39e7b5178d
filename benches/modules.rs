//! The module beside its peers: `make bench`.
//!
//! Every figure is a ratio to a peer in the same run. Each measurement is a process of its own;
//! the modules take turns in each round; of a round the minimum counts, of the rounds the median.
//! Nothing here passes or fails: a figure worse than its limit is marked.

#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stdout,
    reason = "what cannot go on has failed; a table is what it is for"
)]

#[path = "../tests/common/tpm.rs"]
mod tpm;

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use cryptoki::context::{CInitializeArgs, CInitializeFlags, Pkcs11};
use cryptoki::mechanism::Mechanism;
use cryptoki::object::{Attribute, KeyType, ObjectClass};
use cryptoki::session::UserType;
use cryptoki::types::AuthPin;

use tpm::{Proxy, Swtpm};

const ROUNDS: usize = 5;
const PIN: &str = "1234";
const SOFTHSM: &str = "/usr/lib/softhsm/libsofthsm2.so";
const TPM2_PKCS11: &str = "libtpm2_pkcs11.so.1";

fn main() {
    let arguments: Vec<String> = env::args().skip(1).collect();
    match arguments.as_slice() {
        [measure, module, what, count] if measure == "measure" => {
            println!("{}", measured(module, what, count.parse().unwrap()));
        }
        _ => compare(),
    }
}

/// A module with a token and two keys of it, ready to be measured.
struct Peer {
    name: &'static str,
    module: String,
    environment: Vec<(&'static str, String)>,
}

fn compare() {
    let home = tempfile::tempdir().unwrap();
    let swtpm = Swtpm::start();
    let (file, softhsm) = (devkey_file(home.path()), softhsm(home.path()));
    println!("| figure | devkey | peer | ratio | limit |");
    println!("|---|---|---|---|---|");
    row(
        "file: C_Sign, ECDSA P-256",
        "sign",
        2000,
        [&file, &softhsm],
        1.0,
    );
    row(
        "C_Initialize and C_GetSlotList, 2 keys",
        "init",
        50,
        [&file, &softhsm],
        1.0,
    );
    row("dlopen", "load", 1, [&file, &softhsm], 0.3);
    row(
        "cold: dlopen to the first signature",
        "cold",
        1,
        [&file, &softhsm],
        0.5,
    );
    let ours = devkey_tpm(home.path(), "tpm", &swtpm.tcti());
    let theirs = tpm2_pkcs11(home.path(), &swtpm);
    row(
        "TPM: C_Sign, ECDSA P-256",
        "sign",
        200,
        [&ours, &theirs],
        0.3,
    );
    row(
        "TPM, cold: dlopen to the first signature",
        "cold",
        1,
        [&ours, &theirs],
        1.0,
    );
    count_commands(home.path(), &swtpm);
}

/// One row of the table: the medians, their ratio, and whether it is within the limit.
fn row(figure: &str, what: &str, count: u32, [ours, theirs]: [&Peer; 2], limit: f64) {
    let mut times = [Vec::new(), Vec::new()];
    for _ in 0..ROUNDS {
        for (peer, times) in [ours, theirs].iter().zip(&mut times) {
            times.push(peer.measure(what, count));
        }
    }
    let [ours, peer] = times.map(|mut times| {
        times.sort_by(f64::total_cmp);
        times[ROUNDS / 2]
    });
    let ratio = ours / peer;
    let mark = if ratio <= limit { "" } else { " **missed**" };
    let name = theirs.name;
    println!("| {figure} | {ours:.1} µs | {name}: {peer:.1} µs | {ratio:.2} | {limit}{mark} |");
}

/// TPM commands per signature in steady state, and before the first one.
fn count_commands(home: &Path, swtpm: &Swtpm) {
    let proxy = Proxy::before(swtpm);
    let ours = devkey_tpm(home, "counted", &proxy.tcti());
    let count = |what, n| {
        proxy.take();
        ours.measure(what, n);
        // What is flushed after the last signature belongs to it, too.
        std::thread::sleep(Duration::from_millis(200));
        proxy.take().len()
    };
    let listing = count("init", 1);
    let (few, many) = (count("sign", 20), count("sign", 120));
    let each = (many - few) as f64 / 100.0;
    println!("\nTPM commands: {listing} to initialise and list slots, {each:.2} per signature.");
    println!("(More than 1.00 where the TPM was let go for others meanwhile, every 100 ms.)");
}

impl Peer {
    /// Runs one measurement in a process of its own; microseconds per operation.
    fn measure(&self, what: &str, count: u32) -> f64 {
        let output = Command::new(env::current_exe().unwrap())
            .args(["measure", &self.module, what, &count.to_string()])
            .envs(self.environment.iter().map(|(name, value)| (name, value)))
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&output.stdout);
        let said = String::from_utf8_lossy(&output.stderr);
        text.trim()
            .parse()
            .unwrap_or_else(|_| panic!("{} {what}: {text}{said}", self.name))
    }

    fn run(&self, program: &str, words: &str) {
        let output = Command::new(program)
            .args(words.split(' '))
            .envs(self.environment.iter().map(|(name, value)| (name, value)))
            .output()
            .unwrap_or_else(|e| panic!("{program}: {e}; run: sh packaging/prerequisites bench"));
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{program} {words}: {said}");
    }
}

fn devkey_file(home: &Path) -> Peer {
    devkey(home, "file", "init bench")
}

fn devkey_tpm(home: &Path, name: &'static str, tcti: &str) -> Peer {
    devkey(home, name, &format!("init --tpm --tcti {tcti} bench"))
}

fn devkey(home: &Path, name: &'static str, init: &str) -> Peer {
    let built = built();
    let dir = home.join(name);
    fs::create_dir(&dir).unwrap();
    let config = dir.join("devkey.toml");
    let text = format!(
        "store = {:?}\ndevkeyd = {:?}\n",
        dir.join("store"),
        built.join("devkeyd")
    );
    fs::write(&config, text).unwrap();
    let peer = Peer {
        name: "devkey",
        module: built.join("libdevkey_pkcs11.so").display().to_string(),
        environment: vec![("DEVKEY_CONFIG", config.display().to_string())],
    };
    let command = built.join("devkey").display().to_string();
    peer.run(&command, init);
    peer.run(&command, "key new one");
    peer.run(&command, "key new two");
    peer
}

fn softhsm(home: &Path) -> Peer {
    let tokens = home.join("softhsm");
    fs::create_dir(&tokens).unwrap();
    let config = home.join("softhsm2.conf");
    fs::write(
        &config,
        format!("directories.tokendir = {}\n", tokens.display()),
    )
    .unwrap();
    let peer = Peer {
        name: "softhsm2",
        module: SOFTHSM.to_owned(),
        environment: vec![("SOFTHSM2_CONF", config.display().to_string())],
    };
    let init = format!("--init-token --free --label bench --pin {PIN} --so-pin {PIN}");
    peer.run("softhsm2-util", &init);
    for id in ["01", "02"] {
        let words = format!(
            "--module {SOFTHSM} --login --pin {PIN} --keypairgen --key-type EC:prime256v1 --id {id} --label {id}"
        );
        peer.run("pkcs11-tool", &words);
    }
    peer
}

fn tpm2_pkcs11(home: &Path, swtpm: &Swtpm) -> Peer {
    let store = home.join("tpm2-pkcs11").display().to_string();
    fs::create_dir(&store).unwrap();
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

/// Where the release build is: beside this program's own directory.
fn built() -> PathBuf {
    let own = env::current_exe().unwrap();
    own.parent().and_then(Path::parent).unwrap().to_owned()
}

/// One measurement: microseconds per operation, the minimum of `count`.
fn measured(module: &str, what: &str, count: u32) -> f64 {
    let best = match what {
        "load" => timed(|| drop(Pkcs11::new(module).map(std::mem::forget))),
        "init" => initialising(module, count),
        "cold" => timed(|| signing(module, 1).map(drop).unwrap()),
        _ => signing(module, count).unwrap().into_iter().min().unwrap(),
    };
    best.as_secs_f64() * 1e6
}

fn timed(operation: impl FnOnce()) -> Duration {
    let start = Instant::now();
    operation();
    start.elapsed()
}

fn initialising(module: &str, count: u32) -> Duration {
    // Keeps the module loaded, so that loading is not measured again.
    let _loaded = Pkcs11::new(module).unwrap();
    let round = |_| {
        let module = Pkcs11::new(module).unwrap();
        let time = timed(|| {
            module.initialize(arguments()).unwrap();
            module.get_slots_with_token().unwrap();
        });
        module.finalize().unwrap();
        time
    };
    (0..count).map(round).min().unwrap()
}

/// The times of `count` signatures with the first private EC key.
fn signing(module: &str, count: u32) -> cryptoki::error::Result<Vec<Duration>> {
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
    let sign = |n: u32| {
        let digest = [n as u8; 32];
        let start = Instant::now();
        session.sign(&Mechanism::Ecdsa, key, &digest)?;
        Ok(start.elapsed())
    };
    (0..count).map(sign).collect()
}

fn arguments() -> CInitializeArgs {
    CInitializeArgs::new(CInitializeFlags::OS_LOCKING_OK)
}
