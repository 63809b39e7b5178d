//! The units of systemd.

use std::fs;
use std::path::Path;

use crate::common::Run;

/// systemd finds nothing to object to, and rates the service as it was rated when it was written. Seen to
/// fail with `ProtectSytem`.
#[test]
fn systemd_accepts_the_units() {
    let dir = tempfile::tempdir().unwrap();
    let from = Path::new(env!("CARGO_MANIFEST_DIR")).join("packaging/systemd");
    let devkey = env!("CARGO_BIN_EXE_devkey");
    let units = ["devkey-renew.service", "devkey-renew.timer"];
    for unit in units {
        let text = fs::read_to_string(from.join(unit)).unwrap();
        // As installed, it is there.
        fs::write(
            dir.path().join(unit),
            text.replace("/usr/bin/devkey", devkey),
        )
        .unwrap();
    }
    let verified = Run::new("systemd-analyze")
        .args(["verify", "--man=no"])
        .args(units.map(|unit| dir.path().join(unit)))
        .ok();
    assert!(verified.stderr.is_empty(), "{verified}");
    Run::new("systemd-analyze")
        .args(["security", "--offline=true", "--threshold=30", "--no-pager"])
        .arg(dir.path().join(units[0]))
        .ok();
}
