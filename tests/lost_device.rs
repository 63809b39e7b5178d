//! docs/lost-device.md, as it stands: each command runs, on devices that it happens to.
//!
//! Needs openssl, OpenSSH, swtpm with swtpm-tools, tpm2-tools; the PUF also `/dev/fuse` and root.

#![cfg(test)]
#![cfg(all(feature = "tpm", feature = "simulate"))]

mod common;
#[path = "common/maker.rs"]
mod maker;
#[path = "common/tpm.rs"]
mod tpm;

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use common::{Backend, Device, Output, Run};
use maker::Maker;

/// The guide, by its sections.
const GUIDE: &str = include_str!("../docs/lost-device.md");

/// A CA, whose directory is "ca" in its device's, and the token of which is there too.
struct Authority(Device);

impl Authority {
    fn believing(maker: Option<&Maker>) -> Self {
        let device = Device::new(Backend::File);
        device.key("ec-p256", "ca");
        let init = device.devkey().words("ca init --dir ca --key ca --name");
        let init = init.arg("Lab CA");
        let names = ["subject:CN=pump*", "dns:*.lab.example", "principal:**"];
        let init = init.args(names.iter().flat_map(|name| ["--allow", *name]));
        let roots = maker.map(Maker::chain).into_iter().flatten();
        roots
            .fold(init, |init, root| init.arg("--ek-root").arg(root))
            .ok();
        Authority(device)
    }

    /// Runs the blocks of a section on a device, each in its own shell; what they say.
    fn follow(&self, device: &Device, section: &str) -> String {
        let blocks = blocks(section);
        assert!(!blocks.is_empty(), "{section}");
        let ran = blocks.iter().map(|block| self.shell(device, block).ok());
        ran.map(|output| output.all()).collect()
    }

    /// The blocks of a section from one on that has this in it.
    fn follow_from(&self, device: &Device, section: &str, from: &str) -> String {
        let blocks = blocks(section);
        let blocks = blocks.iter().skip_while(|block| !block.contains(from));
        let said: Vec<String> = blocks
            .map(|block| self.shell(device, block).ok().all())
            .collect();
        assert!(!said.is_empty(), "{from} in {section}");
        said.concat()
    }

    /// A shell in the device's directory, in which `devkey ca` is the CA's.
    fn shell(&self, device: &Device, script: &str) -> Run {
        let script = here(device, script);
        let bin = device.path("bin");
        if !bin.exists() {
            fs::create_dir(&bin).unwrap();
            symlink(env!("CARGO_BIN_EXE_devkey"), bin.join("devkey")).unwrap();
            fs::copy(self.0.path("ca/ca.pem"), device.path("ca.pem")).unwrap();
        }
        let ca = "devkey() { if [ \"$1\" = ca ]; then DEVKEY_CONFIG=$AT_CA command devkey \"$@\"
                  else command devkey \"$@\"; fi; }";
        device
            .run("sh")
            .args(["-e", "-c", &format!("{ca}\n{script}")])
            .env("PATH", format!("{}:/usr/sbin:/usr/bin:/bin", bin.display()))
            .env("AT_CA", self.0.config())
            .env("DEVKEY_CA", self.0.path("ca"))
            .seconds(120)
    }

    /// Certifies a device's key "id" as the guide's section on successors does.
    fn enrol(&self, device: &Device) -> String {
        let said = self.follow_from(device, "The successor", "devkey request");
        let kept = "devkey cert show id --format pem > pump7.pem
                    devkey cert show id --format ssh > pump7-cert.pub";
        self.shell(device, kept).ok();
        said
    }

    fn revoke_all(&self, device: &Device, reason: &str) {
        let block = blocks("Lost or stolen").remove(0);
        self.shell(device, &block.replace("key-compromise", reason))
            .ok();
    }

    /// Whether TLS and SSH peers with the newest lists take the certificates of [`Authority::enrol`].
    fn peers_take(&self, device: &Device) -> [bool; 2] {
        let lists = "devkey ca crl -o now.crl; devkey ca krl -o now.krl";
        self.shell(device, lists).ok();
        [
            "openssl verify -CAfile ca.pem -crl_check -CRLfile now.crl pump7.pem",
            "ssh-keygen -Q -f now.krl pump7-cert.pub",
        ]
        .map(|check| self.shell(device, check).output().status.success())
    }
}

/// The shell's blocks of a section.
fn blocks(section: &str) -> Vec<String> {
    let sections = GUIDE.split("\n## ");
    let found = sections
        .filter_map(|text| text.split_once('\n'))
        .find(|(heading, _)| *heading == section);
    let (_, text) = found.unwrap_or_else(|| panic!("no section {section:?}"));
    let blocks = text.split("\n```sh\n").skip(1);
    let block = |text: &str| text.split("\n```").next().unwrap().to_owned();
    blocks.map(block).collect()
}

/// A block with the chips and the store of the device.
fn here(device: &Device, block: &str) -> String {
    let chip = device.chip().display().to_string();
    let store = device.store().display().to_string();
    let mut block = block
        .replace("/dev/puf0", &format!("{chip} --set allow_file=yes"))
        .replace("/var/lib/devkey", &store);
    if let Some(tcti) = device.tcti() {
        block = block.replace("--tpm", &format!("--tpm --tcti {tcti}"));
    }
    block
}

/// A machine without a token.
fn empty_machine() -> Device {
    let device = Device::new(Backend::File);
    fs::remove_dir_all(device.store().join(Device::TOKEN)).unwrap();
    device
}

#[track_caller]
fn says(said: &str, wanted: &[&str]) {
    for word in wanted {
        assert!(said.contains(word), "no {word:?} in {said}");
    }
}

/// What the CA tells of a device, with its refusals.
fn challenged(authority: &Authority, device: &Device) -> Output {
    let again = "devkey ca challenge pump7.request -o again.challenge";
    authority.shell(device, again).output()
}

/// No section is left out.
#[test]
fn every_section_is_run() {
    let sections = GUIDE.split("\n## ").skip(1);
    let names: Vec<&str> = sections.map(|text| text.lines().next().unwrap()).collect();
    let run = [
        "Lost or stolen",
        "A TPM is stolen",
        "The successor",
        "Replaced, or taken out of service",
        "A TPM that was cleared",
        "A PUF that ages",
    ];
    assert_eq!(names, run);
}

/// Seen to fail without `check_not_stolen` in the CA's challenge, and where nothing is revoked.
#[test]
fn a_stolen_device_is_shut_out_and_has_a_successor() {
    let authority = Authority::believing(None);
    let stolen = Device::new(Backend::File);
    stolen.key("ec-p256", "id");
    authority.enrol(&stolen);
    assert_eq!(authority.peers_take(&stolen), [true; 2]);
    // A question that was asked before it was stolen, answered after it was revoked.
    let before = "devkey ca challenge pump7.request -o before.challenge";
    authority.shell(&stolen, before).ok();
    let said = authority.follow(&stolen, "Lost or stolen");
    says(
        &said,
        &[
            "certificate revoked",
            "refused by TLS",
            "REVOKED",
            "refused by SSH",
            "for others may have it",
            "not certified again",
        ],
    );
    let late = "devkey answer before.challenge -o late.answer; devkey ca issue late.answer";
    let late = authority.shell(&stolen, late).fails();
    late.says(&["was revoked with serial"]);
    let successor = empty_machine();
    authority.shell(&successor, "true").ok();
    authority.follow_from(&successor, "The successor", "devkey init");
    let kept = "devkey cert show id --format pem > pump7.pem
                devkey cert show id --format ssh > pump7-cert.pub";
    authority.shell(&successor, kept).ok();
    assert_eq!(authority.peers_take(&successor), [true; 2]);
    assert_eq!(authority.peers_take(&stolen), [false; 2]);
}

/// A renewal and a second key of the TPM are welcome until it is revoked, and others of its maker ever after.
/// Seen to fail where the page revokes without `--device`.
#[test]
fn a_stolen_tpm_gets_nothing_by_another_key() {
    let maker = Maker::new();
    let tpm = || Device::with_tpm_by(|state| maker.furnish(state));
    let (stolen, other) = (tpm(), tpm());
    let authority = Authority::believing(Some(&maker));
    stolen.key("ec-p256", "id");
    says(&authority.enrol(&stolen), &["level tpm"]);
    says(&authority.enrol(&stolen), &["level tpm"]);
    let listed = authority.shell(&stolen, "devkey ca list --json").ok();
    let listed: Vec<serde_json::Value> = serde_json::from_slice(&listed.stdout).unwrap();
    assert_eq!(listed[0]["device"].as_array().unwrap().len(), 2);
    assert_eq!(listed[0]["device"], listed[1]["device"]);
    let begin = &listed[0]["device"][0].as_str().unwrap()[..16];
    authority
        .shell(&stolen, "devkey ca list")
        .ok()
        .says(&["DEVICE", begin]);
    let said = authority.follow(&stolen, "A TPM is stolen");
    says(
        &said,
        &[
            "certified no more",
            "its TPM was revoked as that of CN=pump7",
            "no key of this TPM",
        ],
    );
    assert_eq!(
        said.matches("\nrevoked ").count() + usize::from(said.starts_with("revoked ")),
        2,
        "{said}"
    );
    assert_eq!(authority.peers_take(&stolen), [false; 2]);
    other.key("ec-p256", "id");
    says(&authority.enrol(&other), &["level tpm"]);
    // A file has no TPM that could be barred.
    let file = Device::new(Backend::File);
    file.key("ec-p256", "id");
    authority.enrol(&file);
    let last =
        "devkey ca revoke --device $(devkey ca list | awk '$3 == \"software\" { print $1 }')";
    let refused = authority.shell(&file, last).fails();
    refused.says(&["no TPM is known for serial", "without --device"]);
}

/// One that comes back is certified again; one whose key was deleted has none.
#[test]
fn a_replaced_device_has_no_key_any_more() {
    let authority = Authority::believing(None);
    let old = Device::new(Backend::File);
    old.key("ec-p256", "id");
    authority.enrol(&old);
    authority.revoke_all(&old, "cessation-of-operation");
    assert_eq!(authority.peers_take(&old), [false; 2]);
    let back = challenged(&authority, &old);
    assert!(back.status.success(), "{back}");
    authority.follow(&old, "Replaced, or taken out of service");
    let sign = authority.shell(&old, "devkey answer again.challenge");
    sign.fails().says(&["not found"]);
}

/// Seen to fail without `tpm2_clear`.
#[test]
fn a_cleared_tpm_is_enrolled_anew() {
    let maker = Maker::new();
    let device = Device::with_tpm_by(|state| maker.furnish(state));
    let authority = Authority::believing(Some(&maker));
    device.key("ec-p256", "id");
    says(&authority.enrol(&device), &["level tpm"]);
    let clear = authority.shell(&device, "tpm2_clear -c p");
    clear.env("TPM2TOOLS_TCTI", device.tcti().unwrap()).ok();
    let said = authority.follow(&device, "A TPM that was cleared");
    says(
        &said,
        &[
            "is not the device that this token was made on: different TPM, or it was cleared",
            "exit code 1",
            "made token machine",
        ],
    );
    authority.revoke_all(&device, "superseded");
    assert_eq!(authority.peers_take(&device), [false; 2]);
    says(&authority.enrol(&device), &["level tpm"]);
    assert_eq!(authority.peers_take(&device), [true; 2]);
}

/// A simulated PUF is no PUF to the CA; registration and its end are as with one.
///
/// Seen to fail with a chip that has not aged.
#[test]
fn an_aged_puf_has_a_successor_in_time() {
    let authority = Authority::believing(None);
    let device = Device::new(Backend::Puf);
    device.key("ec-p256", "id");
    let register = "devkey ca register --lot factory --label pump7 id.pub";
    authority.shell(&device, register).ok();
    says(&authority.enrol(&device), &["level software", "simulator"]);
    let control = |line: &str| fs::write(device.path("chip/control"), line).unwrap();
    control("age 10000");
    let said = authority.follow(&device, "A PUF that ages");
    says(
        &said,
        &[
            "more than 18 %",
            "time for a successor",
            "made token machine-2",
            "is registered no more",
        ],
    );
    let listed = authority.shell(&device, "devkey ca register --list").ok();
    listed.says(&["pump7-2"]).says_not(&["factory"]);
    // Both sign until the old one fails.
    let sign = |token: &str| {
        let request = format!("devkey request --token {token} id -o test.request");
        authority.shell(&device, &request)
    };
    sign("machine").ok();
    sign("machine-2").ok();
    control("noise 0.5");
    let failed = sign("machine").fails();
    failed.says(&["the PUF does not give the enrolled key back"]);
}

/// The messages that the guide quotes are those that devkey gives.
#[test]
fn quotes_are_kept() {
    let whole = GUIDE.replace("\n> ", " ").replace('\n', " ");
    for quote in [
        "is not the device that this token was made on: different TPM, or it was cleared",
        "the PUF does not give the enrolled key back: another chip, too much noise, or changed helper data",
    ] {
        assert!(whole.contains(quote), "{quote}");
    }
    assert!(
        Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("docs/lost-device.md")
            .exists()
    );
}
