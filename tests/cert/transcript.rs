//! What `devkey cert` and `devkey renew` say: tests/command/cert.trycmd.

use std::fs;
use std::path::Path;

use crate::authority::World;

/// Fails where any text changes. `TRYCMD=overwrite` leaves what it says now in the directory that
/// `DEVKEY_KEEP` names.
#[test]
fn transcript() {
    let world = World::new();
    world.certify("web", "web", 20);
    world
        .sh("mkdir cert.in; cp web.pem root.pem cert.in; echo nonsense > cert.in/garbage")
        .ok();
    let from = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/command/cert.trycmd");
    let case = world.path("cert.trycmd");
    fs::copy(&from, &case).unwrap();
    let home = world.path("home");
    let cases = trycmd::TestCases::new();
    cases
        .case(&case)
        .env("HOME", home.to_str().unwrap())
        .env("DEVKEY_CONFIG", world.device.config().to_str().unwrap())
        .insert_var(
            "[DIR]",
            world
                .path("")
                .to_str()
                .unwrap()
                .trim_end_matches('/')
                .to_owned(),
        )
        .unwrap();
    drop(cases);
    if let Some(keep) = std::env::var_os("DEVKEY_KEEP") {
        fs::copy(&case, Path::new(&keep).join("cert.trycmd")).unwrap();
    }
}
