//! Readers while the chain is replaced; a process that is killed and a disk that fails meanwhile.

use std::collections::BTreeMap;
use std::fs;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use cryptoki::context::{CInitializeArgs, CInitializeFlags, Pkcs11};
use cryptoki::object::{Attribute, AttributeType, CertificateType, ObjectClass};
use cryptoki::session::Session;

use crate::authority::World;
use crate::common::{Device, module};

/// How often the chain is replaced under the reader.
const SWAPS: usize = 100;

/// A reader through the module finds the one chain or the other, whole, at each of its looks. Seen to
/// fail with `remove_chain` before `put_chain` in token/chain.rs: most looks then found none.
#[test]
fn a_reader_sees_the_old_chain_or_the_new() {
    let world = World::new();
    world.certify("web", "first", 10);
    world.certify("web", "second", 20);
    world.install("first.pem");
    // SAFETY: the other tests hand programs an environment of their own; none reads this one.
    unsafe { std::env::set_var("DEVKEY_CONFIG", world.device.config()) };
    let pkcs11 = Pkcs11::new(module()).unwrap();
    let locking = CInitializeArgs::new(CInitializeFlags::OS_LOCKING_OK);
    pkcs11.initialize(locking).unwrap();
    let slot = pkcs11.get_slots_with_initialized_token().unwrap()[0];
    let session = pkcs11.open_ro_session(slot).unwrap();
    let first = values(&session);
    assert_eq!(first.len(), 2);
    let done = AtomicBool::new(false);
    let mut looks = BTreeMap::new();
    thread::scope(|scope| {
        scope.spawn(|| {
            for swap in 0..SWAPS {
                world.install(["second.pem", "first.pem"][swap % 2]);
            }
            done.store(true, Ordering::Relaxed);
        });
        while !done.load(Ordering::Relaxed) {
            *looks.entry(values(&session)).or_insert(0) += 1;
        }
    });
    let sizes: Vec<_> = looks
        .iter()
        .map(|(seen, times)| (seen.len(), times))
        .collect();
    assert_eq!(
        looks.len(),
        2,
        "chains that were seen, how often: {sizes:?}"
    );
    assert!(looks.contains_key(&first));
    assert!(
        sizes
            .iter()
            .all(|(length, times)| *length == 2 && **times > 100),
        "{sizes:?}"
    );
}

/// The certificates of one search.
fn values(session: &Session) -> Vec<Vec<u8>> {
    let wanted = [
        Attribute::Class(ObjectClass::CERTIFICATE),
        Attribute::CertificateType(CertificateType::X_509),
    ];
    let found = session.find_objects(&wanted).unwrap();
    let value = |handle| {
        let values = session
            .get_attributes(handle, &[AttributeType::Value])
            .unwrap();
        match values.as_slice() {
            [Attribute::Value(value)] => value.clone(),
            other => panic!("no value: {other:?}"),
        }
    };
    found.into_iter().map(value).collect()
}

/// The calls that change files, and what happens to them.
const CALLS: &str = "write,renameat,renameat2,fsync,unlinkat,fchmod,fchown,flock,openat";
const FAULTS: [&str; 3] = ["signal=KILL", "error=ENOSPC", "error=EIO"];

/// Two certificates become one at each fault of each call: there is an old one or the new one, whole;
/// never none. What said that it had succeeded has. Seen to fail with `remove_chain` before `put_chain`
/// in token/chain.rs.
#[test]
fn a_fault_at_any_step_leaves_a_whole_chain() {
    let world = World::new();
    for name in ["first", "second", "third"] {
        world.certify("web", name, 10);
    }
    world.install("first.pem");
    world.cert("install --beside second.pem").ok();
    world.sh("cp -a store saved").ok();
    let strace = |more: &[&str]| {
        world.sh("rm -rf store; cp -a saved store").ok();
        let strace = world.device.run("strace").words("-f -o trace");
        let run = strace.args(["-e", &format!("trace={CALLS}")]).args(more);
        run.arg(env!("CARGO_BIN_EXE_devkey"))
            .words("cert install third.pem")
            .output()
    };
    assert!(strace(&[]).status.success());
    let mut hits = 0;
    for (call, times) in calls(&world) {
        for (fault, when) in FAULTS
            .iter()
            .flat_map(|f| times.iter().map(move |n| (f, n)))
        {
            let name = format!("{call}:{fault}:when={when}");
            let hit = strace(&["-e", &format!("inject={name}")]);
            hits += 1;
            let subjects = world.subjects();
            let own: Vec<_> = subjects
                .iter()
                .filter(|s| s.contains("O=Example"))
                .collect();
            let (leaves, above) = (own.len(), subjects.len() - own.len());
            assert!(leaves >= 1 && above == leaves, "{name}: {subjects:?}");
            let new = subjects[..] == ["CN=third,O=Example", "CN=between"];
            assert!(
                !hit.status.success() || new,
                "{name}: {subjects:?}, but {hit}"
            );
            world.install("third.pem");
            let left = world.files();
            assert!(
                left.keys().all(|file| !file.starts_with(".tmp")),
                "{name}: {left:?}"
            );
            assert_eq!(
                world.subjects(),
                ["CN=third,O=Example", "CN=between"],
                "{name}"
            );
        }
    }
    assert!(hits >= 15, "{hits} faults");
}

/// How often each call was made, and which of its calls touch the token.
fn calls(world: &World) -> BTreeMap<String, Vec<usize>> {
    let trace = String::from_utf8(world.read("trace")).unwrap();
    let mut count = BTreeMap::new();
    let mut calls: BTreeMap<String, Vec<usize>> = BTreeMap::new();
    for line in trace.lines() {
        // "1234  fsync(5) = 0"
        let Some((call, rest)) = line
            .split_whitespace()
            .nth(1)
            .and_then(|w| w.split_once('('))
        else {
            continue;
        };
        let number = count.entry(call.to_owned()).or_insert(0);
        *number += 1;
        // Of what is opened only what is made.
        if call != "openat" || line.contains("O_CREAT") || rest.contains(".tmp") {
            calls.entry(call.to_owned()).or_default().push(*number);
        }
    }
    calls
}

/// No room, then no right to write, then both again.
#[test]
fn a_full_disk_and_a_read_only_one_keep_the_old_chain() {
    let world = World::new();
    world.certify("web", "first", 10);
    world.certify("web", "second", 10);
    world.install("first.pem");
    let script = "
        mkdir disk; mount -t tmpfs -o size=64k,mode=700 tmpfs disk; cp -a store/machine disk/
        sed 's|/store\"|/disk\"|' devkey.toml > full.toml; export DEVKEY_CONFIG=$PWD/full.toml
        dd if=/dev/zero of=disk/filler bs=4k 2> log || true
        if $D cert install second.pem; then exit 3; fi
        $D cert list | grep -q CN=first
        mount -o remount,ro disk
        if $D cert install second.pem; then exit 4; fi
        $D cert list | grep -q CN=first
        if $D cert delete --yes web; then exit 5; fi
        mount -o remount,rw disk; rm disk/filler
        $D cert install second.pem; $D cert list | grep -q CN=second";
    let run = world
        .device
        .run("unshare")
        .words("--map-root-user --mount sh -e -c");
    let run = run.arg(script).env("D", env!("CARGO_BIN_EXE_devkey"));
    run.ok()
        .says(&["no room left", "try: make room", "is read-only"]);
    assert!(world.files().contains_key(Device::TOKEN) || fs::exists(world.path("disk")).unwrap());
}
