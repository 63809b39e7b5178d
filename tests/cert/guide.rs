//! docs/certificates.md, as it stands: each command runs, in its order.

use std::fs;
use std::path::Path;

use crate::authority::World;
use crate::common::sshd::{Sshd, WELCOME};
use crate::common::{Run, module};

/// What stands for the machine that the guide is read on.
const HERE: [(&str, &str); 2] = [
    ("host.example", "$HOST"),
    (
        "systemctl enable --now ",
        "systemctl --root=\"$ROOT\" enable ",
    ),
];

/// Seen to fail with `--format files` in a block of the guide.
#[test]
fn every_command_of_the_guide_works() {
    let (world, _sshd) = world();
    let guide = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/certificates.md");
    let guide = fs::read_to_string(guide).unwrap();
    let blocks = blocks(&guide, "sh");
    assert!(blocks.len() >= 7, "{blocks:?}");
    let config = blocks_of_config(&guide, &world);
    world.device.configure(&config);
    let mut said = String::new();
    for block in blocks {
        let run = HERE
            .iter()
            .fold(block, |text, (there, here)| text.replace(there, here));
        let output = run_here(&world, &run).ok();
        said += &output.all();
    }
    for word in [
        "valid until",
        WELCOME,
        "exit code 3",
        "devkey-renew.timer",
        ".crt",
        "pkcs11:",
    ] {
        assert!(said.contains(word), "{word:?} is not in {said}");
    }
}

/// A device with what the guide begins with, and its peer.
fn world() -> (World, Sshd) {
    let world = World::new();
    world.certify("web", "web", 10);
    let account = Sshd::destination()[0].replace("@127.0.0.1", "");
    world.certify_ssh("login", &format!("-n {account} -V +1d"));
    let units = Path::new(env!("CARGO_MANIFEST_DIR")).join("packaging/systemd");
    // Later each time.
    let later = "echo >> times; sed s/40/$(( 40 + $(wc -l < times) ))/ enrol > now; sh ./now";
    fs::write(world.path("enrol-later"), later).unwrap();
    let script = format!(
        "cp sshca.pub ssh-ca.pub; cp between.pem ca.pem; cp between.key ca.key
         mkdir -p root/etc/systemd/system root/lib/systemd/system bin
         cp {units:?}/devkey-renew.* root/lib/systemd/system/
         ln -s {:?} bin/devkey
         PATH=$PWD/bin:$PATH; devkey key new --kind ec-p384 ca
         devkey ca init --dir lab-ca --key ca --name 'Lab CA' --allow 'subject:**' --allow 'dns:**' \
            --allow ip:127.0.0.1",
        env!("CARGO_BIN_EXE_devkey")
    );
    world.sh(&script).ok();
    let trusted = format!("TrustedUserCAKeys {}", world.path("sshca.pub").display());
    let sshd = Sshd::new(&world.device, &trusted);
    (world, sshd)
}

/// A shell that finds devkey, and an ssh that finds the peer: by a configuration, as its user would.
fn run_here(world: &World, script: &str) -> Run {
    let [destination, echo, welcome] = Sshd::destination();
    world
        .sh(&format!(
            "ssh() {{ command ssh {OPTIONS} -p $(sed -n 's/^Port //p' sshd_config) \
             \"$@\" {echo} {welcome}; }}\n{script}"
        ))
        .env(
            "PATH",
            format!("{}:/usr/sbin:/usr/bin:/bin", world.path("bin").display()),
        )
        .env("HOST", destination)
        .env("MODULE", module())
        .env("ROOT", world.path("root"))
}

const OPTIONS: &str = "-F none -o IdentityAgent=none -o BatchMode=yes -o StrictHostKeyChecking=yes \
    -o UserKnownHostsFile=known_hosts";

/// The blocks of a kind.
fn blocks(text: &str, kind: &str) -> Vec<String> {
    let fence = format!("\n```{kind}\n");
    let parts = text.split(&fence).skip(1);
    let end = |part: &str| part.split("\n```").next().unwrap().to_owned();
    parts.map(end).collect()
}

/// The configuration of the guide, with the paths of the test and its programs.
fn blocks_of_config(guide: &str, world: &World) -> String {
    let config = blocks(guide, "toml").concat();
    let dir = world.path("");
    let dir = dir.to_str().unwrap().trim_end_matches('/');
    config
        .replace("/usr/local/sbin/devkey-enrol", "sh ./enrol-later")
        .replace("systemctl reload nginx", "true")
        .replace("/etc/devkey/", &format!("{dir}/"))
}
