//! R7: a defect in the module ends one session with CKR_GENERAL_ERROR and nothing else.

#![cfg(test)]

mod common;

use std::fs;

use common::{Device, Run, module};

on_each_back_end!(r07_a_panic_ends_one_session_and_nothing_else);

/// Through the shipped module, which has no way to be told to panic: tests/panic.c says how it is
/// made to. Nothing is printed, and with `DEVKEY_LOG` the defect is.
///
/// Fails where `mend` returns at once (the session stays), without its `slot.reopen` (the handle
/// stays), where it calls `close_all` (the other session is gone), where `guard` does not
/// catch, and without `set_hook` in logger.rs (the panic is printed).
fn r07_a_panic_ends_one_session_and_nothing_else(device: &Device) {
    let key = device.key("ec-p256", "survivor");
    let program = device.path("panic");
    Run::new("cc")
        .words("-std=c11 -O1 -Wall -Wextra -Werror -pthread -rdynamic -I/usr/include/p11-kit-1 -o")
        .arg(&program)
        .args([
            concat!(env!("CARGO_MANIFEST_DIR"), "/tests/panic.c"),
            "-ldl",
        ])
        .ok();
    let note = device.store().join(Device::TOKEN).join("note");
    let panic = || {
        let run = device.run(&program).arg(module()).arg(&note);
        run.arg(&key.label)
    };
    assert_eq!(panic().ok().all(), "survived\n");
    fs::remove_file(&note).unwrap();
    panic()
        .env("DEVKEY_LOG", "error")
        .ok()
        .says(&["devkey: ERROR: defect: ", "survived"]);
}
