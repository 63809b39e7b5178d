//! udev's rules and its hardware database: what can be seen of them without a kernel. tests/vm/udev has the
//! rest.

#![cfg(test)]
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "what cannot go on has failed"
)]

mod common;

use std::fs;
use std::path::{Path, PathBuf};

use common::Run;
use tempfile::TempDir;

/// What a rule may be made of, of udev(7): no program is run, nobody's seat gets a device.
const KEYS: [&str; 16] = [
    "ACTION",
    "ATTRS",
    "ENV",
    "GOTO",
    "GROUP",
    "IMPORT",
    "KERNEL",
    "LABEL",
    "MODE",
    "OWNER",
    "SUBSYSTEM",
    "SUBSYSTEMS",
    "SYMLINK",
    "TAG",
    "TEST",
    "OPTIONS",
];

/// All that a device may start.
const WANTED: &str = "devkeyd-device@%k.service";

/// Owner and group exist, modes give nothing to others and no execution, and none is set for a device that no
/// line before has named.
///
/// Seen to fail with MODE="0666", GROUP="devkey-pufs", TAG+="uaccess", devkeyd.service as what is wanted, and
/// $attr{serial} in a SYMLINK.
#[test]
fn rules_grant_no_more_than_their_group_needs() {
    let users = fs::read_to_string(root().join("packaging/systemd/sysusers.conf")).unwrap();
    let made: Vec<_> = users
        .lines()
        .filter(|line| !line.starts_with('#'))
        .flat_map(|line| line.split_whitespace().skip(1).map(str::to_owned))
        .collect();
    for (file, line) in rules() {
        let wrong = |why: &str| panic!("{}: {why}: {line}", file.display());
        for (key, operator, value) in parts(&line) {
            let name = key.split('{').next().unwrap();
            match (name, operator.as_str()) {
                ("OWNER", "=") if value != "root" => wrong("owner"),
                ("GROUP", "=") if !made.contains(&value) => wrong("group"),
                ("MODE", "=") => {
                    let mode = u32::from_str_radix(&value, 8).unwrap();
                    if mode & !0o660 != 0 {
                        wrong("mode");
                    }
                }
                ("TAG", "+=") if value != "systemd" => wrong("tag"),
                ("ENV", _) if key == "ENV{SYSTEMD_WANTS}" && value != WANTED => wrong("unit"),
                // A device's own words could hold what makes another path.
                ("SYMLINK", "+=") if value.contains("$attr") || !value.starts_with("devkey/") => {
                    wrong("link");
                }
                ("OWNER" | "GROUP" | "MODE", ":=") => {
                    wrong("a rule of the administrator's would not hold")
                }
                _ if !KEYS.contains(&name) => wrong("key"),
                _ => {}
            }
        }
        assert!(!line.contains("XXXX"), "{}: {line}", file.display());
    }
}

/// Read first, it is the default that whatever comes after it overrides.
///
/// Seen to fail with another number in its name, and with a line for tpm0.
#[test]
fn the_tpm_rule_comes_before_all_others() {
    let (all, ours): (Vec<_>, Vec<_>) = rules()
        .into_iter()
        .partition(|(_, line)| !line.contains("tpm"));
    assert!(!all.is_empty() && !ours.is_empty());
    for (file, line) in ours.iter().filter(|(_, line)| line.contains("MODE")) {
        assert!(
            file.file_name().unwrap().to_str().unwrap() < "05",
            "{}",
            file.display()
        );
        assert!(line.contains("SUBSYSTEM==\"tpmrm\""), "{line}");
    }
    let theirs = fs::read_dir("/usr/lib/udev/rules.d").unwrap();
    for name in theirs.map(|entry| entry.unwrap().file_name().into_string().unwrap()) {
        assert!(name.as_str() > "01-devkey-tpm.rules", "{name} comes first");
    }
}

/// By name, by the ids of a line as the file's head shows it, and not by either where that is taken back.
///
/// Seen to fail with `*devkey PUF reader` in the key, and with another key in the rule.
#[test]
fn a_reader_is_found_in_the_hardware_database() {
    let dir = TempDir::new().unwrap();
    let [shipped, own] =
        ["usr/lib/udev/hwdb.d", "etc/udev/hwdb.d"].map(|name| dir.path().join(name));
    fs::create_dir_all(&shipped).unwrap();
    fs::create_dir_all(&own).unwrap();
    // Debian 12's udev reads it by its old path.
    std::os::unix::fs::symlink("usr/lib", dir.path().join("lib")).unwrap();
    let file = root().join("udev/60-devkey-puf.hwdb");
    fs::copy(&file, shipped.join("60-devkey-puf.hwdb")).unwrap();
    let example: Vec<_> = fs::read_to_string(&file)
        .unwrap()
        .lines()
        .filter_map(|line| {
            line.strip_prefix("#   ")
                .or(line.strip_prefix("#    "))
                .map(str::to_owned)
        })
        .skip_while(|line| line.contains('<'))
        .collect();
    assert_eq!(example.len(), 2, "{example:?}");
    let out = "devkey:usb:v1209p0002:*\n DEVKEY_PUF_READER=0\n";
    let text = format!("{}\n{}\n\n{out}", example[0], example[1]);
    fs::write(own.join("61-readers.hwdb"), text).unwrap();
    let hwdb = |verb: &str| {
        let run = Run::new("systemd-hwdb").arg("--strict");
        run.arg(format!("--root={}", dir.path().display()))
            .arg(verb)
    };
    let said = hwdb("update").ok();
    assert_eq!(said.all(), "");
    for (device, found) in [
        ("v1209pabcd:devkey PUF reader", "DEVKEY_PUF_READER=1"),
        (
            "v1209pabcd:devkey PUF reader, second edition",
            "DEVKEY_PUF_READER=1",
        ),
        ("v1209p0001:whatever", "DEVKEY_PUF_READER=1"),
        ("v1209p0002:devkey PUF reader", "DEVKEY_PUF_READER=0"),
        ("v1209pabcd:My devkey PUF reader", ""),
        ("v1209pabcd:", ""),
    ] {
        let key = format!("devkey:usb:{device}:");
        assert_eq!(hwdb("query").arg(&key).ok().text().trim(), found, "{key}");
    }
    let asked = "hwdb 'devkey:usb:v$attr{idVendor}p$attr{idProduct}:$attr{product}:'";
    assert!(
        rules().iter().any(|(_, line)| line.contains(asked)),
        "{asked}"
    );
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The lines of all rules, in udev's order.
fn rules() -> Vec<(PathBuf, String)> {
    let all = fs::read_dir(root().join("udev")).unwrap();
    let mut files: Vec<_> = all.map(|entry| entry.unwrap().path()).collect();
    files.retain(|file| file.extension().is_some_and(|end| end == "rules"));
    files.sort();
    assert_eq!(files.len(), 2, "{files:?}");
    let mut lines = Vec::new();
    for file in files {
        for line in fs::read_to_string(&file).unwrap().lines() {
            if !line.is_empty() && !line.starts_with('#') {
                lines.push((file.clone(), line.to_owned()));
            }
        }
    }
    lines
}

/// Key, operator and value of each part of a rule.
fn parts(line: &str) -> Vec<(String, String, String)> {
    let mut parts = Vec::new();
    let mut rest = line;
    while let Some((key, after)) = rest.split_once('"') {
        let (value, after) = after
            .split_once('"')
            .unwrap_or_else(|| panic!("no end: {line}"));
        let key = key.trim_start_matches([',', ' ']);
        let name = key.trim_end_matches(['=', '+', ':', '!', '-']);
        let operator = key[name.len()..].to_owned();
        parts.push((name.to_owned(), operator, value.to_owned()));
        rest = after;
    }
    assert!(rest.trim().is_empty() && !parts.is_empty(), "{line}");
    parts
}
