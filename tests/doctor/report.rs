//! The report itself: what stands in it, and the exit code.

use std::collections::BTreeSet;
use std::fs;

use crate::machine::Machine;

/// Grouped, with the sum last, and of what does not apply nothing. Seen to fail with `applies` always true.
#[test]
fn a_report_is_short() {
    let machine = Machine::with_key();
    let text = machine.devkey("doctor config tokens service").ok().text();
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines[0], "Configuration");
    assert!(lines.contains(&"Tokens"), "{text}");
    assert!(
        lines.contains(&"  ok      tokens.macs           default: no record was changed"),
        "{text}"
    );
    assert!(!text.contains("Key service"), "{text}");
    let sum = lines.last().unwrap();
    assert!(
        sum.starts_with("0 failed, 0 warnings, ") && sum.ends_with(" not applicable"),
        "{text}"
    );
    let all = machine.devkey("doctor service --all").ok();
    all.says(&["Key service", "  -       service.socket"]);
}

/// 0 for a warning, 1 with --strict, 1 for a failure. Seen to fail with `strict` not looked at.
#[test]
fn the_exit_code_is_for_monitoring() {
    let machine = Machine::new();
    let warned = machine.devkey("doctor tokens").ok();
    warned.says(&[
        "  WARNING tokens.open",
        "          try: devkey init",
        "0 failed, 1 warning",
    ]);
    assert_eq!(
        machine
            .devkey("doctor tokens --strict")
            .output()
            .status
            .code(),
        Some(1)
    );
    assert_eq!(
        machine
            .devkey("doctor tokens --strict --json")
            .output()
            .status
            .code(),
        Some(1)
    );
    machine.configure("nonsense");
    assert_eq!(
        machine
            .devkey("doctor tokens config")
            .output()
            .status
            .code(),
        Some(1)
    );
    machine.configure("");
    machine.devkey("init").ok();
    machine.devkey("doctor tokens --strict").ok();
    machine
        .devkey("doctor --token nobodys")
        .fails()
        .says(&["token nobodys", "not found"]);
    assert_eq!(
        machine.devkey("doctor nonsense").output().status.code(),
        Some(2)
    );
}

/// A token's label cannot drive the terminal. Seen to fail without `printable` in `line`.
#[test]
fn what_is_said_is_printable() {
    let machine = Machine::with_key();
    fs::write(machine.token().join("\u{1b}[2J.crt"), "x").unwrap();
    let text = machine.devkey("doctor tokens").fails().text();
    assert!(
        text.contains("\\u{1b}[2J.crt") && !text.contains('\u{1b}'),
        "{text}"
    );
}

/// Every check of the sources stands in docs/doctor.md, and no other. Fails with one left out there.
#[test]
fn the_page_has_every_check() {
    let root = env!("CARGO_MANIFEST_DIR");
    let page = fs::read_to_string(format!("{root}/docs/doctor.md")).unwrap();
    let rows = page
        .lines()
        .filter_map(|line| line.strip_prefix("| `")?.split_once('`'));
    let documented: BTreeSet<String> = rows.map(|(id, _)| id.to_owned()).collect();
    let mut known = BTreeSet::new();
    for entry in fs::read_dir(format!("{root}/src/bin/devkey/doctor")).unwrap() {
        let text = fs::read_to_string(entry.unwrap().path()).unwrap();
        known.extend(
            text.split('"')
                .filter(|word| is_id(word))
                .map(str::to_owned),
        );
    }
    assert_eq!(known, documented);
}

fn is_id(word: &str) -> bool {
    const AREAS: [&str; 8] = [
        "config",
        "tokens",
        "tpm",
        "puf",
        "module",
        "openssl",
        "certificates",
        "service",
    ];
    let plain = |text: &str| {
        !text.is_empty() && text.chars().all(|c| c.is_ascii_alphanumeric() || c == '-')
    };
    let parts = word.split_once('.');
    // The file's name is none.
    word != "openssl.cnf"
        && parts.is_some_and(|(area, check)| AREAS.contains(&area) && plain(check))
}
