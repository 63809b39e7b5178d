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

mod peer;
#[path = "../tests/common/tpm.rs"]
mod tpm;

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use cryptoki::context::Pkcs11;

use peer::{PIN, Peer, arguments, median, signing, timed, tpm2_pkcs11};
use tpm::{Proxy, Swtpm};

const ROUNDS: usize = 5;
const SOFTHSM: &str = "/usr/lib/softhsm/libsofthsm2.so";

fn main() {
    let arguments: Vec<String> = env::args().skip(1).collect();
    match arguments.as_slice() {
        [measure, module, what, count] if measure == "measure" => {
            println!("{}", measured(module, what, count.parse().unwrap()));
        }
        _ => compare(),
    }
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
    let [ours, peer] = times.map(median);
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
