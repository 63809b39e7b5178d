//! `devkey puf` and `devkey init --puf` on simulated chips. Needs `/dev/fuse`, root and util-linux.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "what cannot go on has failed"
)]
#![cfg(all(test, feature = "simulate"))]

mod common;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::{Duration, Instant};

use common::{Backend, Device, Output, Run};
use devkey::fuzzy::{Helper, reconstruct};
use devkey::secret::Secret;
use serde_json::Value;

/// `devkey puf` with a device, which need not be one.
fn probe(device: &Device, node: &Path) -> Run {
    let run = device.devkey().args(["puf", "probe"]).arg(node);
    run.args(["--set", "allow_file=yes", "--set", "timeout=2"])
}

/// `devkey init --puf` with the chip of the device.
fn init(device: &Device, name: &str, offset: u32) -> Run {
    let run = device.devkey().args(["init", "--puf"]).arg(device.chip());
    run.args(["--set", "allow_file=yes", "--set", "timeout=2"])
        .args(["--set", &format!("offset={offset}"), name])
}

fn helper(device: &Device, token: &str) -> Helper {
    let path = device.store().join(token).join("helper");
    Helper::parse(&fs::read(path).unwrap()).unwrap()
}

/// By the table in src/fuzzy/helper.rs.
fn syndrome(helper: &Helper) -> &[u8] {
    let length = helper.profile().response_len() - helper.k() / 8;
    &helper.encode()[64..][..length]
}

fn json(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout).unwrap()
}

#[track_caller]
fn exits(run: Run, code: i32) -> Output {
    let output = run.output();
    assert_eq!(output.status.code(), Some(code), "{output}");
    output
}

#[test]
fn a_device_is_measured_before_anything_is_made_of_it() {
    let device = Device::new(Backend::Puf);
    let good = exits(probe(&device, &device.chip()), 0);
    good.says(&["live: a fresh", "10 times", "dk-1024", "good"]);
    let measured = json(&exits(probe(&device, &device.chip()).arg("--json"), 0));
    let noise = measured["noise"].as_f64().unwrap();
    assert!((0.04..0.06).contains(&noise), "{measured}");
    assert_eq!(measured["profile"], "dk-1024");
    assert_eq!(measured["kind"], "live");
    assert_eq!(measured["fits"].as_array().unwrap().len(), 4);
    for (fault, says) in [
        ("stuck", "no token for this device"),
        ("latched", "restart the machine"),
        ("missing", "not there"),
        ("unplugged", "gone"),
        ("io", "EIO"),
    ] {
        device.control(&format!("fault {fault}"));
        let code = i32::from(fault != "latched");
        exits(probe(&device, &device.chip()), code).says(&[says]);
        device.control("fault none");
    }
    device.control("noise 0.45");
    exits(probe(&device, &device.chip()), 1).says(&["no token for this device"]);
}

/// What is wrong is said in time, though a process in a read that FUSE never answers cannot end.
#[test]
fn a_silent_device_is_given_up() {
    let device = Device::new(Backend::Puf);
    let probing;
    let _silence = device.silence();
    probing = probe(&device, &device.chip()).serve(&device.path("probe.log"));
    probing.wait_for("within 2 s");
}

/// A device that ends too soon, and a file of text.
#[test]
fn what_is_short_or_text_is_no_device() {
    let device = Device::new(Backend::Puf);
    let short = device.secret("short", &"x".repeat(100));
    exits(probe(&device, &short), 1).says(&["100 bytes"]);
    let text = device.secret("text", &"serial number 0042; ".repeat(100));
    let said = exits(probe(&device, &text), 1);
    said.says(&["no token for this device", "try: "]);
    let open = device.secret("open", &"x".repeat(2048));
    fs::set_permissions(&open, fs::Permissions::from_mode(0o644)).unwrap();
    exits(probe(&device, &open), 1).says(&["chmod o-rw"]);
}

/// Seen to fail without `puf::measure` in init.rs.
#[test]
fn a_token_is_made_after_a_measurement() {
    let device = Device::new(Backend::Puf);
    let made = exits(init(&device, "second", 1024), 0);
    made.says(&[
        "of its cells differ from reading to reading",
        "gives the key back up to ",
        "made token second",
        "back end   puf",
    ]);
    device.control("fault stuck");
    exits(init(&device, "third", 0), 1).says(&["no token for this device"]);
    assert!(!device.store().join("third").exists());
}

/// Seen to fail without the first arm of `explain` in init.rs.
#[test]
fn a_second_enrolment_is_refused_and_a_refresh_is_not() {
    let device = Device::new(Backend::Puf);
    let refused = exits(init(&device, "second", 0), 1);
    refused.says(&[
        "devkey: a token on this window of the device (",
        "/machine) exists already\n  try: devkey puf refresh OLD second",
    ]);
    assert!(!device.store().join("second").exists());
    let refresh = ["puf", "refresh", Device::TOKEN, "second"];
    exits(device.devkey().args(refresh), 0).says(&["made token second"]);
    let [old, new] = [Device::TOKEN, "second"].map(|token| helper(&device, token));
    assert_eq!(syndrome(&old), syndrome(&new));
    assert_ne!(old.enrolment_id(), new.enrolment_id());
    let window = old.profile().response_len();
    let reading = fs::read(device.chip()).unwrap()[..window].to_vec();
    let reading = Secret::new(reading);
    let [one, two] = [old, new].map(|helper| reconstruct(&helper, &reading).unwrap().root);
    assert_ne!(one.expose(), two.expose());
    let key = ["key", "new", "--token", "second", "key"];
    exits(device.devkey().args(key), 0);
    device.key("ec-p256", "still there");
    let file = exits(device.devkey().args(["init", "file"]), 0);
    file.says(&["back end   file"]);
    let refresh = ["puf", "refresh", "file", "third"];
    exits(device.devkey().args(refresh), 1).says(&["no PUF token"]);
}

/// Seen to fail with failures left out of `verdict` in verify.rs.
#[test]
fn a_token_is_verified_for_monitoring() {
    let device = Device::new(Backend::Puf);
    let verify = || device.devkey().args(["puf", "verify", "--times", "10"]);
    exits(verify(), 0).says(&["readings  10\nfailed    0\n"]);
    let sum = json(&exits(verify().arg("--json"), 0));
    assert_eq!(sum["device_readings"], 10);
    assert_eq!(sum["failures"], 0);
    // Readings that differ in 5 % from each other differ in 3.7 % from the majority of five; with
    // 8192 cells the deviation is 0.2 %.
    let noise = |of: &str| sum[of].as_f64().unwrap();
    assert!((0.03..0.045).contains(&noise("noise")), "{sum}");
    assert!(
        (noise("noise")..0.05).contains(&noise("worst_noise")),
        "{sum}"
    );
    exits(verify().args(["--max-noise", "1"]), 1).says(&["the noise reaches", "plan for"]);
    device.control("noise 0.27");
    exits(verify(), 1).says(&["more than 18 %"]);
    exits(verify().args(["--max-noise", "30"]), 0);
    device.control("noise 0.42");
    exits(verify().args(["--max-noise", "50"]), 1).says(&["did not give the key back"]);
    device.control("noise 0.05\nfault missing");
    exits(verify(), 1).says(&["not there"]);
}

/// What is promised of each profile.
#[test]
fn codes_are_as_reliable_as_is_said() {
    let device = Device::new(Backend::File);
    for (profile, noise, most) in [
        ("dk-1024", "25", 1e-9),
        ("dk-512", "20", 3e-9),
        ("dk-256", "10", 2e-11),
    ] {
        let args = [
            "puf",
            "certify",
            "bound",
            "--profile",
            profile,
            "--noise",
            noise,
        ];
        let rows = json(&exits(device.devkey().args(args).arg("--json"), 0));
        assert_eq!(rows.as_array().unwrap().len(), 1);
        let bound = rows[0]["bound"].as_f64().unwrap();
        assert!(
            bound > 0.0 && bound < most,
            "{profile} at {noise} %: {bound}"
        );
        exits(device.devkey().args(args), 0).says(&["FAILURES AT MOST", profile]);
    }
    let entropy = ["puf", "certify", "entropy", "--json"];
    let rows = json(&exits(device.devkey().args(entropy), 0));
    let row = |profile: &str, ones: f64| {
        let mut rows = rows.as_array().unwrap().iter();
        let row = rows.find(|row| row["profile"] == profile && row["ones"] == ones);
        let row = row.unwrap();
        let number = |name: &str| row[name].as_f64().unwrap().round();
        (
            number("k"),
            number("loss"),
            number("secret"),
            row["enough"] == true,
        )
    };
    assert_eq!(row("dk-512", 0.5), (384.0, 0.0, 384.0, true));
    assert_eq!(row("dk-1024", 0.55), (512.0, 137.0, 375.0, true));
    assert_eq!(row("dk-1024", 0.6), (768.0, 394.0, 374.0, true));
    // Less than the 320 bits that are to be left.
    assert_eq!(row("dk-256", 0.65), (512.0, 251.0, 261.0, false));
}

/// Ctrl-C takes the device away, also where another mount namespace has a copy of the mount.
#[test]
fn a_simulated_device_goes_whoever_looks_at_it() {
    let device = Device::new(Backend::File);
    let dir = device.path("simulated");
    let simulate = device.devkey().args(["puf", "simulate", "--seed", "7"]);
    let mut server = simulate.arg(&dir).serve(&device.path("simulate.log"));
    server.wait_for("Ctrl-C takes it away");
    assert_eq!(fs::read(dir.join("puf0")).unwrap().len(), 1024);
    let hold = Run::new("unshare").words("--mount --propagation private sh -c");
    let holder = hold
        .args(["cat \"$0\" | wc -c; exec sleep 600"])
        .arg(dir.join("puf0"))
        .serve(&device.path("holder.log"));
    holder.wait_for("1024");
    Run::new("kill")
        .args(["-INT", &server.id().to_string()])
        .ok();
    let start = Instant::now();
    while server.runs() {
        assert!(
            start.elapsed() < Duration::from_secs(10),
            "{}",
            server.log()
        );
        std::thread::sleep(Duration::from_millis(10));
    }
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
    assert!(!mounts.contains(dir.to_str().unwrap()), "{mounts}");
    assert_eq!(fs::read_dir(&dir).unwrap().count(), 0);
    drop(holder);
}
