//! `devkey request`, `answer` and `ca`: rounds between devices and a CA as files, on each back end. Needs
//! openssl, OpenSSH, swtpm with swtpm-tools, strace; the PUF also `/dev/fuse` and root.

#![cfg(all(feature = "tpm", feature = "simulate"))]
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "what cannot go on has failed"
)]

mod common;
#[path = "common/maker.rs"]
mod maker;
#[path = "common/tpm.rs"]
mod tpm;

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::thread;

use common::{Backend, Device, Output, Run};
use maker::Maker;
use serde_json::Value;
use tpm::Swtpm;

/// Policies of `Level`.
const SOFTWARE: &str = "2.25.1476890237.1.1";
const PUF: &str = "2.25.1476890237.1.2";
const TPM: [&str; 2] = ["2.23.133.11.1.1", "2.23.133.11.1.2"];

/// A token with a key "dev", of a device or of a CA.
struct Party {
    device: Device,
    token: &'static str,
    pins: bool,
    /// A TPM with certificates, where the token is on one.
    _swtpm: Option<Swtpm>,
}

impl Party {
    fn new(backend: Backend, pins: bool) -> Self {
        let device = match pins {
            false => Device::new(backend),
            true => Device::with_pins(backend),
        };
        Party::with_key(device, Device::TOKEN, pins, None)
    }

    /// One with a TPM of that maker's.
    fn of(maker: &Maker, pins: bool) -> Self {
        let (device, swtpm) = (Device::new(Backend::File), maker.tpm());
        let mut init = device
            .devkey()
            .args(["init", "--tpm", "--tcti", &swtpm.tcti()]);
        if pins {
            init = init.args(["--pin", "--pin-file"]).arg(device.path("pin"));
            init = init.arg("--so-pin-file").arg(device.path("so-pin"));
        }
        init.arg("chip").seconds(120).ok();
        Party::with_key(device, "chip", pins, Some(swtpm))
    }

    fn with_key(device: Device, token: &'static str, pins: bool, swtpm: Option<Swtpm>) -> Self {
        let party = Party {
            device,
            token,
            pins,
            _swtpm: swtpm,
        };
        party
            .pin(party.devkey("key new dev").args(["--token", token]))
            .seconds(120)
            .ok();
        party
    }

    /// The command, in words.
    fn devkey(&self, words: &str) -> Run {
        self.device.devkey().words(words).seconds(120)
    }

    /// With the PIN of a token that has one.
    fn pin(&self, run: Run) -> Run {
        match self.pins {
            true => run.arg("--pin-file").arg(self.device.path("pin")),
            false => run,
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.device.path(name)
    }

    fn request(&self, more: &[&str]) -> Run {
        let run = self.devkey("request dev -o").arg(self.path("request"));
        self.pin(run.args(["--token", self.token]).args(more))
    }

    fn answer(&self, challenge: &Path) -> Run {
        let run = self
            .devkey("answer -o")
            .arg(self.path("answer"))
            .arg(challenge);
        self.pin(run.args(["--token", self.token]))
    }
}

/// A CA in the directory "ca" of a party, by its key "dev".
struct Authority(Party);

impl Authority {
    /// One that allows what `more` says.
    fn new(party: Party, more: &[&str]) -> Self {
        let init = party
            .devkey("ca init --key dev")
            .args(["--name", "Lab CA", "--dir"]);
        let init = init.arg(party.path("ca")).args(["--token", party.token]);
        let names = ["subject:CN=*", "dns:*.lab.example", "principal:anna"];
        let names = names.iter().flat_map(|name| ["--allow", *name]);
        party.pin(init.args(names).args(more)).ok();
        Authority(party)
    }

    fn lab() -> Self {
        Authority::new(Party::new(Backend::File, false), &[])
    }

    fn ca(&self, words: &str) -> Run {
        let (command, more) = words.split_once(' ').unwrap_or((words, ""));
        let run = self
            .0
            .devkey(&format!("ca {command} --dir"))
            .arg(self.path("ca"));
        run.words(more)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path(name)
    }

    fn certificate(&self) -> String {
        self.path("ca/ca.pem").display().to_string()
    }

    fn challenge(&self, device: &Party) -> Run {
        let run = self.ca("challenge -o").arg(device.path("challenge"));
        self.0.pin(run.arg(device.path("request")))
    }

    fn issue(&self, answer: &Path) -> Run {
        let run = self.ca("issue -o").arg(answer.with_file_name("issued"));
        self.0.pin(run.arg(answer))
    }

    /// All of a round; gives what was issued.
    fn round(&self, device: &Party, more: &[&str]) -> Issued {
        self.until_answer(device, more);
        self.issue(&device.path("answer")).ok();
        Issued::read(self, device)
    }

    fn until_answer(&self, device: &Party, more: &[&str]) {
        let ca = self.certificate();
        device.request(&[more, &["--ca", &ca]].concat()).ok();
        self.challenge(device).ok();
        device.answer(&device.path("challenge")).ok();
    }

    fn list(&self) -> Vec<Value> {
        serde_json::from_slice(&self.ca("list --json").ok().stdout).unwrap()
    }
}

/// What a round gave, as files for other programs.
struct Issued {
    json: Value,
    certificate: PathBuf,
    root: PathBuf,
    ssh: PathBuf,
}

impl Issued {
    fn read(authority: &Authority, device: &Party) -> Self {
        let json: Value =
            serde_json::from_slice(&fs::read(device.path("issued")).unwrap()).unwrap();
        let (certificate, ssh) = (device.path("device.pem"), device.path("device-cert.pub"));
        fs::write(&certificate, json["body"]["certificate"].as_str().unwrap()).unwrap();
        if let Some(line) = json["body"]["ssh"].as_str() {
            fs::write(&ssh, line).unwrap();
        }
        let root = authority.path("ca/ca.pem");
        Issued {
            json,
            certificate,
            root,
            ssh,
        }
    }

    /// Whether openssl finds the policy all the way.
    fn has(&self, policy: &str) -> bool {
        let verify =
            Run::new("openssl").words("verify -policy_check -explicit_policy -x509_strict -policy");
        let verify = verify
            .arg(policy)
            .arg("-CAfile")
            .arg(&self.root)
            .arg(&self.certificate);
        verify.output().status.success()
    }

    /// Whether it states the level, and no other.
    #[track_caller]
    fn is(&self, level: &str) {
        for (policy, of) in [
            (SOFTWARE, "software"),
            (PUF, "puf"),
            (TPM[0], "tpm"),
            (TPM[1], "tpm"),
        ] {
            assert_eq!(self.has(policy), of == level, "{policy}: {}", self.json);
        }
    }
}

#[track_caller]
fn fails(run: Run, says: &[&str]) -> Output {
    let output = run.output();
    assert_eq!(output.status.code(), Some(1), "{output}");
    output.says(says);
    output.says(&["try: "]);
    output
}

fn json(path: &Path) -> Value {
    serde_json::from_slice(&fs::read(path).unwrap()).unwrap()
}

/// A round on one back end, and both certificates seen by their programs.
fn a_device_is_certified(device: &Party, level: &str, authority: &Authority) {
    let issued = authority.round(
        device,
        &[
            "--san",
            "dns:pump.lab.example",
            "--ssh",
            "user",
            "--principal",
            "anna",
        ],
    );
    issued.is(level);
    let shown = Run::new("openssl")
        .words("x509 -noout -text -in")
        .arg(&issued.certificate)
        .ok();
    for text in ["DNS:pump.lab.example", "CN = dev", "TLS Web Client"] {
        assert!(shown.text().contains(text), "{shown}");
    }
    let shown = Run::new("ssh-keygen")
        .args(["-L", "-f"])
        .arg(&issued.ssh)
        .ok();
    let hex: String = level.bytes().map(|byte| format!("{byte:02x}")).collect();
    for text in [
        "anna",
        "user certificate",
        "assurance-level@devkey.example",
        &hex,
    ] {
        assert!(shown.text().contains(text), "{shown}");
    }
    let public = Run::new("openssl")
        .words("x509 -noout -pubkey -in")
        .arg(&issued.certificate)
        .ok();
    let own = device
        .devkey("key show dev --format pem --token")
        .arg(device.token)
        .ok();
    assert_eq!(public.text(), own.text());
}

#[test]
fn a_file_token_is_certified() {
    for pins in [false, true] {
        a_device_is_certified(
            &Party::new(Backend::File, pins),
            "software",
            &Authority::lab(),
        );
    }
}

/// It is simulated, so that it is software, registered or not.
#[test]
fn a_puf_token_is_certified() {
    for pins in [false, true] {
        a_device_is_certified(
            &Party::new(Backend::Puf, pins),
            "software",
            &Authority::lab(),
        );
    }
}

#[test]
fn a_tpm_token_is_certified() {
    let maker = Maker::new();
    for pins in [false, true] {
        let device = Party::of(&maker, pins);
        let [root, issuer] = maker.chain().map(|path| path.display().to_string());
        let believing = ["--level", "tpm", "--ek-root", &root, "--ek-root", &issuer];
        let authority = Authority::new(Party::new(Backend::File, false), &believing);
        a_device_is_certified(&device, "tpm", &authority);
    }
}

/// The CA's key is any token's.
#[test]
fn a_ca_is_on_any_token() {
    let device = Party::new(Backend::File, false);
    for (backend, pins) in [
        (Backend::File, true),
        (Backend::Tpm, false),
        (Backend::Tpm, true),
        (Backend::Puf, false),
        (Backend::Puf, true),
    ] {
        let authority = Authority::new(Party::new(backend, pins), &[]);
        authority.round(&device, &[]).is("software");
        let crl = authority.0.pin(authority.ca("crl")).ok().stdout;
        let checked = Run::new("openssl")
            .words("crl -noout -CAfile")
            .arg(authority.path("ca/ca.pem"));
        checked.input(crl).ok().says(&["verify OK"]);
        if pins {
            fails(
                authority.ca("crl --pin-file").arg(authority.path("so-pin")),
                &["wrong user PIN"],
            );
        }
    }
}

/// Each step by standard input and output, as over ssh.
#[test]
fn a_round_goes_through_pipes() {
    let (authority, device) = (Authority::lab(), Party::new(Backend::File, false));
    let request = device.devkey("request dev").ok();
    request.says(&["It names no CA"]);
    let challenge = authority
        .ca("challenge -")
        .input(request.stdout)
        .ok()
        .stdout;
    fails(
        device.devkey("answer -").input(challenge.clone()),
        &["which CA is meant", "--ca FILE"],
    );
    let ca = authority.certificate();
    let shown: Value = serde_json::from_slice(&authority.ca("show --json").ok().stdout).unwrap();
    for ca in [&ca, shown["fingerprint"].as_str().unwrap()] {
        let answer = device
            .devkey("answer - --ca")
            .arg(ca)
            .input(challenge.clone())
            .ok();
        answer.says(&["answered \"Lab CA\" about CN=dev"]);
        fs::write(device.path("answer"), answer.stdout).unwrap();
    }
    let answer = fs::read(device.path("answer")).unwrap();
    let issued = authority.ca("issue -").input(answer).ok();
    issued.says(&["issued serial", "level software"]);
    let serial = authority.list()[0]["serial"].as_str().unwrap().to_owned();
    let again = authority.ca("show").arg(&serial).ok();
    assert_eq!(again.stdout, issued.stdout);
}

/// The PKCS#10 request by itself, for any CA; what it cannot say is refused.
///
/// Seen to fail without each of the four lines in `check_format`, and with `csr` for `ca`.
#[test]
fn a_csr_is_made_for_other_cas() {
    let device = Party::new(Backend::File, false);
    for (option, value, format) in [
        ("--ssh", "user --principal anna", "csr"),
        ("--ca", "ca.pem", "csr"),
        ("--no-evidence", "", "ca-csr"),
        ("--san", "dns:a.example", "ca-csr"),
    ] {
        let asked = device.devkey(&format!("request dev --format {format} {option} {value}"));
        asked.fails().says(&[option, "no place"]);
    }
    let csr = device
        .devkey("request dev --format csr --subject CN=a,O=B --san uri:spiffe://a/b")
        .ok();
    let read = Run::new("openssl")
        .words("req -verify -noout -text")
        .input(csr.stdout)
        .ok();
    read.says(&["verify OK", "O = B, CN = a", "URI:spiffe://a/b"]);
}

/// Seen to fail with files written in place, and with a mode left to the umask.
#[test]
fn files_are_replaced_whole() {
    let device = Party::new(Backend::File, false);
    let path = device.path("request");
    let request = |umask: &str| {
        let shell = format!("umask {umask}; exec \"$@\"");
        let run = device.device.run("sh").args(["-c", &shell, "sh"]);
        let run = run.arg(env!("CARGO_BIN_EXE_devkey"));
        run.words("request dev -o").arg(&path).ok();
        let mode = fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o644, "umask {umask}");
    };
    request("0777");
    let (first, mut open) = (fs::read(&path).unwrap(), fs::File::open(&path).unwrap());
    request("0000");
    // Whoever reads the old one reads all of it.
    let mut read = Vec::new();
    std::io::Read::read_to_end(&mut open, &mut read).unwrap();
    assert!(read == first && fs::read(&path).unwrap() != first);
    let before = fs::read(&path).unwrap();
    let bad = device.request(&["--principal", "a\nb", "--ssh", "user"]);
    fails_anyhow(bad, "principal");
    assert_eq!(fs::read(&path).unwrap(), before);
    fails(
        device.devkey("request dev -o /nowhere/request"),
        &["/nowhere/request"],
    );
    for out in ["-", "/dev/stdout"] {
        let run = device.devkey("request dev -o").arg(out).ok();
        assert!(
            run.text().starts_with("{\n  \"devkey\": \"request\""),
            "{run}"
        );
    }
    let (link, target) = (device.path("link"), device.path("target"));
    std::os::unix::fs::symlink(&target, &link).unwrap();
    fs::write(&target, "x".repeat(100_000)).unwrap();
    device.devkey("request dev -o").arg(&link).ok();
    assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
    assert_eq!(json(&target)["devkey"], "request");
}

/// Each file where another is wanted.
#[test]
fn the_order_is_kept() {
    let (authority, device) = (Authority::lab(), Party::new(Backend::File, false));
    authority.round(&device, &[]);
    let names = ["request", "challenge", "answer", "issued"];
    for (at, name) in names.iter().enumerate() {
        let path = device.path(name);
        let runs = [
            authority.ca("challenge").arg(&path),
            device.devkey("answer").arg(&path),
            authority.ca("issue").arg(&path),
        ];
        for (step, run) in runs.into_iter().enumerate().filter(|(step, _)| *step != at) {
            let output = run.output();
            assert_eq!(output.status.code(), Some(1), "{step}: {output}");
            output.says(&[
                &format!("the file called {name:?}"),
                &format!("{:?} is wanted", names[step]),
            ]);
        }
    }
}

#[test]
fn what_is_replayed_late_or_of_another_is_refused() {
    let (authority, device, other) = (
        Authority::new(Party::new(Backend::File, false), &["--answer-within", "6"]),
        Party::new(Backend::File, false),
        Party::new(Backend::File, false),
    );
    authority.round(&device, &[]);
    fails(
        authority.issue(&device.path("answer")),
        &["was answered before", "ca challenge"],
    );
    // Another device has not the key, and another CA knows nothing of it.
    fails(
        other.answer(&device.path("challenge")),
        &["not found", "the device that made the request"],
    );
    let elsewhere = Authority::lab();
    fails(elsewhere.challenge(&device), &["to another CA"]);
    fails(
        elsewhere.issue(&device.path("answer")),
        &["no challenge of this CA"],
    );
    let theirs = elsewhere.certificate();
    fails(
        device
            .answer(&device.path("challenge"))
            .args(["--ca", &theirs]),
        &["of another CA"],
    );
    // In time it is not.
    authority.until_answer(&device, &[]);
    thread::sleep(std::time::Duration::from_secs(8));
    fails(authority.issue(&device.path("answer")), &["expired"]);
    fails(device.answer(&device.path("challenge")), &["expired"]);
    assert_eq!(authority.list().len(), 1);
}

/// `--request` pins the request. Seen to fail without the look at it: an older request of the same device
/// was answered.
#[test]
fn an_older_request_is_not_answered() {
    let (authority, device) = (Authority::lab(), Party::new(Backend::File, false));
    let ca = authority.certificate();
    device
        .request(&["--ca", &ca, "--san", "dns:old.lab.example"])
        .ok();
    authority.challenge(&device).ok();
    device
        .request(&["--ca", &ca, "--san", "dns:new.lab.example"])
        .ok();
    let pinned = device
        .answer(&device.path("challenge"))
        .arg("--request")
        .arg(device.path("request"));
    fails(pinned, &["about another request"]);
}

/// Whoever carries the files changes them.
#[test]
fn what_is_altered_on_its_way_is_refused() {
    let (authority, device) = (Authority::lab(), Party::new(Backend::File, false));
    let ca = authority.certificate();
    let altered = |name: &str, change: fn(&mut Value)| {
        let mut file = json(&device.path(name));
        change(&mut file);
        fs::write(device.path(name), file.to_string()).unwrap();
    };
    let ssh = ["--ssh", "user", "--principal", "anna", "--ca", &ca];
    let other = device
        .devkey("request dev --format csr --subject CN=root")
        .ok()
        .text();
    fs::write(device.path("other.csr"), &other).unwrap();
    // Names of the SSH certificate, another CSR of the same key, one that was edited.
    device.request(&ssh).ok();
    altered("request", |file| {
        file["body"]["ssh"]["principals"][0] = "root".into()
    });
    fails_anyhow(authority.challenge(&device), "changed after it was made");
    device.request(&ssh).ok();
    let mut file = json(&device.path("request"));
    file["body"]["csr"] = other.into();
    fs::write(device.path("request"), file.to_string()).unwrap();
    fails_anyhow(authority.challenge(&device), "changed after it was made");
    device.request(&ssh).ok();
    edit_csr(&device.path("request"));
    fails_anyhow(authority.challenge(&device), "PKCS#10 request was changed");
    // The challenge's time, and the request inside of it.
    device.request(&ssh).ok();
    authority.challenge(&device).ok();
    altered("challenge", |file| {
        file["body"]["expires"] = 4_000_000_000_u64.into()
    });
    fails_anyhow(
        device.answer(&device.path("challenge")),
        "challenge's signature is wrong",
    );
    authority.challenge(&device).ok();
    altered("challenge", |file| {
        file["body"]["request"]["body"]["source"]["back_end"] = "tpm".into()
    });
    fails_anyhow(
        device.answer(&device.path("challenge")),
        "changed after it was made",
    );
    authority.challenge(&device).ok();
    device.answer(&device.path("challenge")).ok();
    altered("answer", |file| {
        file["body"]["nonce"] = "00".repeat(32).into()
    });
    fails_anyhow(
        authority.issue(&device.path("answer")),
        "answer's signature is wrong",
    );
    assert!(authority.list().is_empty());
}

#[track_caller]
fn fails_anyhow(run: Run, says: &str) {
    let output = run.output();
    assert_eq!(output.status.code(), Some(1), "{output}");
    output.says(&[says]);
}

/// Another name in the DER of the CSR, of the same length.
fn edit_csr(request: &Path) {
    use base64ct::{Base64, Encoding};
    let mut file = json(request);
    let pem = file["body"]["csr"].as_str().unwrap();
    let body: String = pem.lines().filter(|line| !line.starts_with('-')).collect();
    let mut der = Base64::decode_vec(&body).unwrap();
    let at = der.windows(3).position(|three| three == b"dev").unwrap();
    der[at..at + 3].copy_from_slice(b"eve");
    let text = Base64::encode_string(&der);
    let lines: Vec<&str> = text
        .as_bytes()
        .chunks(64)
        .map(|l| std::str::from_utf8(l).unwrap())
        .collect();
    let pem = format!(
        "-----BEGIN CERTIFICATE REQUEST-----\n{}\n-----END CERTIFICATE REQUEST-----\n",
        lines.join("\n")
    );
    file["body"]["csr"] = pem.into();
    fs::write(request, file.to_string()).unwrap();
}

#[test]
fn what_the_profile_does_not_allow_is_refused() {
    let (authority, device) = (Authority::lab(), Party::new(Backend::File, false));
    for (more, says) in [
        (
            &["--subject", "CN=a,O=Evil"][..],
            "subject:CN=a,O=Evil is not allowed",
        ),
        (
            &["--san", "dns:bank.example"],
            "dns:bank.example is not allowed",
        ),
        (&["--san", "ip:10.0.0.1"], "ip:10.0.0.1 is not allowed"),
        (
            &["--san", "hw:1.3.6.1.4.1.32473.1:00a7"],
            "hw:1.3.6.1.4.1.32473.1:00a7 is not allowed",
        ),
        (
            &["--ssh", "user", "--principal", "root"],
            "principal:root is not allowed",
        ),
    ] {
        device.request(more).ok();
        fails(authority.challenge(&device), &[says]);
    }
    device.request(&[]).ok();
    let wrong = authority
        .ca("challenge --profile servers")
        .arg(device.path("request"));
    fails_anyhow(wrong, "profile \"servers\" (there are: device) not found");
}

/// A level that is not there is not had: of a TPM whose maker nobody knows, of one without certificates, of
/// a file.
#[test]
fn a_level_is_not_claimed() {
    let (maker, stranger) = (Maker::new(), Maker::new());
    let device = Party::of(&maker, false);
    let _of_the_stranger = stranger.tpm();
    let [root, issuer] = stranger.chain().map(|path| path.display().to_string());
    let believing = ["--level", "tpm", "--ek-root", &root, "--ek-root", &issuer];
    let authority = Authority::new(Party::new(Backend::File, false), &believing);
    for (device, why) in [
        (device, "endorsement certificate"),
        (
            Party::new(Backend::Tpm, false),
            "no endorsement certificate",
        ),
        (
            Party::new(Backend::File, false),
            "no endorsement certificate",
        ),
    ] {
        device.request(&[]).ok();
        fails(authority.challenge(&device), &["level tpm is wanted", why]);
    }
}

/// A simulated PUF and a file are never registered as what they say that they are; and where somebody
/// vouches for the bare key, the level is not given, for the request says what it is.
#[test]
fn a_simulated_puf_is_none() {
    let authority = Authority::new(Party::new(Backend::File, false), &["--level", "puf"]);
    let (simulated, file) = (
        Party::new(Backend::Puf, false),
        Party::new(Backend::File, false),
    );
    for (device, why) in [(&simulated, "simulator or a file"), (&file, "no PUF")] {
        device.request(&[]).ok();
        fails(authority.challenge(device), &["not registered"]);
        let register = authority.ca("register --lot 1").arg(device.path("request"));
        fails_anyhow(register, why);
        for format in ["ssh", "pem"] {
            let key = device
                .devkey("key show dev --format")
                .arg(format)
                .ok()
                .stdout;
            authority
                .ca("register --lot 1 -")
                .input(key)
                .ok()
                .says(&["registered"]);
        }
        fails(authority.challenge(device), &["level puf is wanted", why]);
    }
    let listed = authority.ca("register --list --json").ok().stdout;
    let listed: Vec<Value> = serde_json::from_slice(&listed).unwrap();
    assert_eq!(listed.len(), 2);
    let key = listed[0]["key"].as_str().unwrap();
    authority.ca("register --remove").arg(key).ok();
    fails_anyhow(authority.ca("register --remove").arg(key), "not found");
    let nothing = authority.ca("register --lot 1 -").input("nothing\n");
    fails_anyhow(nothing, "line 1");
}

/// Seen by openssl and ssh-keygen.
#[test]
fn what_is_revoked_is_in_the_lists() {
    let (authority, device) = (Authority::lab(), Party::new(Backend::File, false));
    let issued = authority.round(&device, &["--ssh", "user", "--principal", "anna"]);
    let (crl, krl) = (device.path("crl"), device.path("krl"));
    let lists = || {
        authority.ca("crl -o").arg(&crl).ok();
        authority.ca("krl -o").arg(&krl).ok();
        let verify = Run::new("openssl")
            .words("verify -crl_check -CAfile")
            .arg(&issued.root);
        let tls = verify
            .arg("-CRLfile")
            .arg(&crl)
            .arg(&issued.certificate)
            .output();
        let ssh = Run::new("ssh-keygen")
            .args(["-Q", "-f"])
            .arg(&krl)
            .arg(&issued.ssh)
            .output();
        (tls.status.success(), ssh.status.success())
    };
    assert_eq!(lists(), (true, true));
    let serial = authority.list()[0]["serial"].as_str().unwrap().to_owned();
    authority
        .ca("revoke --reason key-compromise")
        .arg(&serial)
        .ok();
    assert_eq!(lists(), (false, false));
    assert_eq!(authority.list()[0]["state"], "revoked");
    fails_anyhow(authority.ca("revoke").arg(&serial), "exists already");
    fails(authority.ca("revoke 0102"), &["not found"]);
    fails(authority.ca("show 0102"), &["not found"]);
}

#[test]
fn what_is_no_ca_is_said() {
    let device = Party::new(Backend::File, false);
    fails(device.devkey("ca list"), &["which CA is meant"]);
    fails(
        device.devkey("ca list --dir nowhere"),
        &["nowhere not found", "ca init"],
    );
    let authority = Authority::lab();
    let again = authority.ca("init --key dev --name again");
    fails(again, &["exists already"]);
    fs::write(authority.path("ca/ca.toml"), "version = 1\nname = 7\n").unwrap();
    fails(authority.ca("list"), &["ca.toml:2"]);
}

/// Killed at each call that touches the disk: nothing is given twice, what is left can be read, and the same
/// answer is taken again, or was issued and is shown again.
#[test]
fn an_issuer_that_is_killed_loses_nothing() {
    const CALLS: &str = "openat,write,fsync,rename,renameat,renameat2,flock,unlinkat,fchmod";
    let (authority, device) = (Authority::lab(), Party::new(Backend::File, false));
    authority.until_answer(&device, &[]);
    let (ca, saved) = (authority.path("ca"), authority.path("saved"));
    Run::new("cp").arg("-a").args([&ca, &saved]).ok();
    let restore = || {
        fs::remove_dir_all(&ca).unwrap();
        Run::new("cp").arg("-a").args([&saved, &ca]).ok();
    };
    let strace = |more: &[&str]| {
        let strace = authority.0.device.run("strace").words("-f -o trace -e");
        let strace = strace.arg(format!("trace={CALLS}")).args(more);
        let strace = strace
            .arg(env!("CARGO_BIN_EXE_devkey"))
            .words("ca issue --dir")
            .arg(&ca);
        strace.arg(device.path("answer")).output()
    };
    assert!(strace(&[]).status.success());
    let trace = fs::read_to_string(authority.path("trace")).unwrap();
    let mut calls: BTreeMap<&str, usize> = BTreeMap::new();
    for call in trace
        .lines()
        .filter_map(|line| line.split_whitespace().nth(1))
    {
        *calls.entry(call.split('(').next().unwrap()).or_default() += 1;
    }
    let mut killed = 0;
    for (call, count) in calls
        .iter()
        .filter(|(call, _)| CALLS.split(',').any(|one| one == **call))
    {
        // Opening is what loading a program does, mostly; the books come last.
        for when in count.saturating_sub(40) + 1..=*count {
            restore();
            let fault = format!("inject={call}:signal=KILL:when={when}");
            killed += usize::from(!strace(&["-e", &fault]).status.success());
            let issued = |list: &[Value]| list.iter().filter(|one| one["state"] == "good").count();
            let before = issued(&authority.list());
            let again = authority.issue(&device.path("answer")).output();
            assert_eq!(again.status.success(), before == 0, "{fault}: {again}");
            let list = authority.list();
            assert_eq!(issued(&list), 1, "{fault}: {list:?}");
            for one in &list {
                let shown = authority
                    .ca("show")
                    .arg(one["serial"].as_str().unwrap())
                    .output();
                assert_eq!(
                    shown.status.success(),
                    one["state"] == "good",
                    "{fault}: {shown}"
                );
            }
            let left = Run::new("find").arg(&ca).words("-name .tmp-*").ok().text();
            assert!(left.is_empty() || before == 1, "{fault} left {left}");
        }
    }
    assert!(killed > 20, "{killed} of {calls:?}");
}

/// Eight processes for four answers.
#[test]
fn issuers_at_once_give_each_answer_one_serial() {
    let authority = Authority::lab();
    let devices: Vec<Party> = (0..4).map(|_| Party::new(Backend::File, false)).collect();
    for device in &devices {
        authority.until_answer(device, &[]);
    }
    let issue = |device: &Party| {
        authority
            .ca("issue")
            .arg(device.path("answer"))
            .output()
            .status
            .success()
    };
    let done: Vec<bool> = thread::scope(|scope| {
        let all = devices.iter().chain(&devices);
        let all: Vec<_> = all.map(|device| scope.spawn(|| issue(device))).collect();
        all.into_iter().map(|one| one.join().unwrap()).collect()
    });
    assert_eq!(done.iter().filter(|done| **done).count(), 4);
    let list = authority.list();
    let mut serials: Vec<_> = list.iter().map(|one| one["serial"].to_string()).collect();
    serials.sort();
    serials.dedup();
    assert_eq!((list.len(), serials.len()), (4, 4));
}
