//! Real clients that ask for PINs: ssh, ssh-agent, pkcs11-tool, p11tool, certutil; several tokens
//! behind one module, and modules that are for one token. OpenSSL, curl, nginx and GnuTLS's
//! handshakes with PINs are in tests/openssl.rs, web.rs and tools.rs.
//!
//! Seen to fail with a module whose C_GetTokenInfo sets no CKF_LOGIN_REQUIRED, and with one whose
//! C_Login answers CKR_OK without asking the token.

#![cfg(test)]

mod common;

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use common::sshd::{Agent, Sshd, WELCOME};
use common::{Device, Key, module};

with_pins_on_each_back_end!(
    ssh_asks_for_the_pin,
    agent_is_given_the_pin,
    pkcs11_tool_manages_pins,
    pkcs11_tool_makes_a_token,
    p11tool_and_certutil_log_in,
    one_token_behind_one_module,
);

/// `ssh -I` lists the keys before the login and asks for the PIN to sign; with a wrong one nobody
/// gets in, and one try is used.
fn ssh_asks_for_the_pin(device: &Device) {
    let key = device.key("ec-p256", "ssh");
    let listed = device.run("ssh-keygen").arg("-D").arg(module()).ok();
    listed.says(&[&key.ssh_line()]);
    let sshd = Sshd::new(device, &authorise(device, &key));
    let login = |pin: &str| {
        let run = sshd.login_answering(device, pin);
        let run = run.args(["-o", "IdentityAgent=none", "-I"]).arg(module());
        run.args(Sshd::destination())
    };
    login("0000-wrong").fails().says(&["Permission denied"]);
    assert_eq!(device.tries_used(Device::TOKEN), 1);
    login(Device::PIN).ok().says(&[WELCOME]);
    assert_eq!(device.tries_used(Device::TOKEN), 0);
}

/// `ssh-add -s` asks once; the agent then signs for as long as it has the module.
fn agent_is_given_the_pin(device: &Device) {
    let key = device.key("ec-p256", "agent");
    let agent = Agent::new(device);
    let add = |pin: &str| agent.add_answering(device, pin).arg("-s").arg(module());
    add("0000-wrong").fails();
    assert_eq!(device.tries_used(Device::TOKEN), 1);
    add(Device::PIN).ok();
    assert_eq!(device.tries_used(Device::TOKEN), 0);
    agent.add(device).arg("-L").ok().says(&[&key.ssh_line()]);
    agent.add(device).arg("-T").arg(&key.ssh).ok();
    let sshd = Sshd::new(device, &authorise(device, &key));
    let identity = format!("IdentityAgent={}", agent.socket().display());
    let login = sshd.login(device).args(["-o", &identity]);
    login.args(Sshd::destination()).ok().says(&[WELCOME]);
    agent.add(device).arg("-e").arg(module()).ok();
    add(Device::PIN).ok();
    agent.add(device).arg("-T").arg(&key.ssh).ok();
}

/// `--login`, `--change-pin`, `--unlock-pin`, `--init-pin`, and `--init-token` on a token that is
/// there already: it takes the SO's PIN and all keys.
fn pkcs11_tool_manages_pins(device: &Device) {
    let key = device.key("ec-p256", "tool");
    let tool = || device.pkcs11_tool();
    let flags = tool().arg("--list-slots").ok();
    flags.says(&["login required", "token initialized", "PIN initialized"]);
    let public = tool().arg("--list-objects").ok();
    public
        .says(&["Public Key Object"])
        .says_not(&["Private Key Object"]);
    let sign = |pin: &str| {
        let to = device.path("tool.sig");
        let run = tool().args([
            "--login",
            "--pin",
            pin,
            "--sign",
            "--mechanism",
            "ECDSA-SHA256",
        ]);
        let run = run.arg("--input-file").arg(device.config());
        run.arg("--output-file").arg(to)
    };
    sign(Device::PIN).ok();
    sign("0000-wrong").fails().says(&["CKR_PIN_INCORRECT"]);
    sign("1").fails().says(&["CKR_PIN_LEN_RANGE"]);
    assert_eq!(device.tries_used(Device::TOKEN), 1);
    let flags = tool().arg("--list-slots").ok();
    flags.says(&["user PIN count low"]);
    let change = |old: &str, new: &str| {
        tool().args(["--login", "--change-pin", "--pin", old, "--new-pin", new])
    };
    change(Device::PIN, "4-new-pin").ok();
    sign(Device::PIN).fails().says(&["CKR_PIN_INCORRECT"]);
    sign("4-new-pin").ok();
    let so = ["--login", "--login-type", "so", "--so-pin", Device::SO_PIN];
    tool()
        .args(so)
        .args(["--init-pin", "--new-pin", "5-by-so"])
        .ok();
    sign("5-by-so").ok();
    assert_eq!(device.tries_used(Device::TOKEN), 0);
    let slot = slot_of(&tool().arg("--list-token-slots").ok().text(), Device::TOKEN);
    let wipe = |pin: &str| {
        let run = device.run("pkcs11-tool").arg("--module").arg(module());
        run.args([
            "--init-token",
            "--label",
            "wiped",
            "--so-pin",
            pin,
            "--slot",
            &slot,
        ])
    };
    wipe("0000-wrong").fails().says(&["CKR_PIN_INCORRECT"]);
    device.devkey().args(["key", "show", &key.label]).ok();
    wipe(Device::SO_PIN).ok();
    let wiped = device.run("pkcs11-tool").arg("--module").arg(module());
    let wiped = wiped.args(["--token-label", "wiped", "--list-slots"]).ok();
    wiped
        .says(&["wiped", "login required"])
        .says_not(&["PIN initialized"]);
    device.devkey().args(["key", "show", &key.label]).fails();
}

/// From a place that the configuration offers to a key that signs, with pkcs11-tool alone.
fn pkcs11_tool_makes_a_token(device: &Device) {
    device.configure(&format!(
        "[token.made]\ninitialise = true\n{}",
        device.another()
    ));
    let tool = || device.run("pkcs11-tool").arg("--module").arg(module());
    let slots = tool().arg("--list-token-slots").ok().text();
    let slot = slot_of(&slots, "uninitialized");
    let args = ["--init-token", "--slot", &slot, "--label", "made here"];
    tool()
        .args(args)
        .args(["--so-pin", "so-1234"])
        .seconds(120)
        .ok();
    let tool = || tool().args(["--token-label", "made here"]);
    let so = ["--login", "--login-type", "so", "--so-pin", "so-1234"];
    tool()
        .args(so)
        .args(["--init-pin", "--new-pin", "1234"])
        .ok();
    let user = || tool().args(["--login", "--pin", "1234"]);
    let key = [
        "--keypairgen",
        "--key-type",
        "EC:prime256v1",
        "--label",
        "k",
        "--usage-sign",
    ];
    user().args(key).ok();
    let sign = ["--sign", "--mechanism", "ECDSA-SHA256"];
    let sign = user().args(sign).arg("--input-file").arg(device.config());
    sign.arg("--output-file").arg(device.path("made.sig")).ok();
    // The command knows it by the name that the configuration gives it.
    let listed = device
        .devkey()
        .args(["key", "list", "--token", "made"])
        .ok();
    listed.says(&["k"]);
}

/// The PIN from the environment of GnuTLS, and from NSS's file; changed by p11tool as the SO.
fn p11tool_and_certutil_log_in(device: &Device) {
    let key = device.key("ec-p256", "tls");
    let p11tool = || {
        let run = device.run("p11tool").arg("--provider").arg(module());
        run.arg("--batch")
    };
    let url = format!("pkcs11:token={}", Device::TOKEN);
    let private = ["--list-all-privkeys", &url];
    let seen = p11tool()
        .args(["--login"])
        .args(private)
        .env("GNUTLS_PIN", Device::PIN);
    seen.ok().says(&["Label: tls", "Private key"]);
    let test = format!("{url};object={};type=private", key.label);
    let test = ["--login", "--test-sign", &test];
    p11tool()
        .args(test)
        .env("GNUTLS_PIN", Device::PIN)
        .ok()
        .says(&["ok"]);
    let set = ["--set-pin", "6-by-so", "--initialize-pin", &url];
    p11tool()
        .args(set)
        .env("GNUTLS_SO_PIN", Device::SO_PIN)
        .ok();
    p11tool()
        .args(test)
        .env("GNUTLS_PIN", "6-by-so")
        .ok()
        .says(&["ok"]);
    let nss = device.path("nss");
    fs::create_dir(&nss).unwrap();
    let db = format!("sql:{}", nss.display());
    let certutil = || device.run("certutil").args(["-d", &db]);
    certutil().args(["-N", "--empty-password"]).ok();
    let modutil = device.run("modutil").args(["-dbdir", &db, "-force"]);
    modutil
        .args(["-add", "devkey", "-libfile"])
        .arg(module())
        .ok();
    let pin = device.secret("nss-pin", "6-by-so");
    let listed = certutil()
        .args(["-K", "-h", Device::TOKEN, "-f"])
        .arg(pin)
        .ok();
    listed.says(&["ec", &key.label]);
    assert_eq!(device.tries_used(Device::TOKEN), 0);
}

/// Two tokens with different PINs and one without any. Through the plain module, ssh-add gives the
/// one PIN that it is told to both. Modules that are called after a token show that one alone, and
/// one that is `alone` is not shown by any other: the counters of the others do not move.
///
/// Fails where `shown` takes all tokens, or those that are `alone`.
fn one_token_behind_one_module(device: &Device) {
    let first = device.key("ec-p256", "first");
    let second = other(device, "second", Some("other-pin"));
    let open = other(device, "open", None);
    let (one, two) = (Device::TOKEN, "second");
    let used = || [device.tries_used(one), device.tries_used(two)];
    let agent = Agent::allowing(device, "/*");
    let add = |pin: &str, module: &Path| agent.add_answering(device, pin).arg("-s").arg(module);
    // What is to be prevented.
    add(Device::PIN, module()).output();
    assert_eq!(used(), [0, 1]);
    agent.add(device).arg("-e").arg(module()).output();
    log_in(device, two, "other-pin");
    assert_eq!(used(), [0, 0]);
    // A copy: the agent resolves links.
    let copy = |name: &str| {
        let path = device.path(format!("devkey-pkcs11@{name}.so"));
        fs::copy(module(), &path).unwrap();
        path
    };
    let named = [one, two, "open"].map(copy);
    let listed = |wanted: &[&Key], missing: &[&Key]| {
        let listed = agent.add(device).arg("-L").output();
        wanted.iter().for_each(|key| {
            listed.says(&[&key.ssh_line()]);
        });
        missing.iter().for_each(|key| {
            listed.says_not(&[&key.ssh_line()]);
        });
    };
    add(Device::PIN, &named[0]).ok();
    assert_eq!(used(), [0, 0]);
    listed(&[&first], &[&second, &open]);
    add("0000-wrong", &named[1]).output();
    assert_eq!(used(), [0, 1]);
    add("other-pin", &named[1]).ok();
    add("", &named[2]).ok();
    assert_eq!(used(), [0, 0]);
    listed(&[&first, &second, &open], &[]);
    agent
        .add(device)
        .arg("-T")
        .args([&first.ssh, &second.ssh, &open.ssh])
        .ok();
    agent.add(device).arg("-D").ok();
    // By the configuration: the plain module has the token without PINs only.
    device.configure(&format!(
        "[token.{one}]\nalone = true\n[token.{two}]\nalone = true\n"
    ));
    let add = agent.add_answering(device, "0000-wrong").arg("-s");
    add.arg(module()).ok();
    assert_eq!(used(), [0, 0]);
    let listed = agent.add(device).arg("-L").ok();
    listed.says(&[&open.ssh_line()]);
    listed.says_not(&[&first.ssh_line(), &second.ssh_line()]);
    links_work_where_nobody_resolves_them(device, &named[0]);
}

/// Symbolic and hard links, for clients that load what they are told; a name that no token has
/// shows none.
fn links_work_where_nobody_resolves_them(device: &Device, copy: &Path) {
    let [soft, hard, nobody]: [PathBuf; 3] =
        ["soft@second.so", "hard@open.so", "x@nobody.so"].map(|name| device.path(name));
    symlink(copy, &soft).unwrap();
    fs::hard_link(copy, &hard).unwrap();
    symlink(copy, &nobody).unwrap();
    let tokens = |module: &Path| {
        let run = device.run("pkcs11-tool").arg("--module").arg(module);
        run.arg("--list-token-slots").output()
    };
    tokens(&soft)
        .says(&["second"])
        .says_not(&[Device::TOKEN, "open"]);
    tokens(&hard)
        .says(&["open"])
        .says_not(&[Device::TOKEN, "second"]);
    tokens(&nobody).says_not(&["token label"]);
}

/// Another token in the device's store, with a key of its own.
fn other(device: &Device, name: &str, pin: Option<&str>) -> Key {
    let file = device.secret(&format!("{name}-pin"), pin.unwrap_or_default());
    let mut init = device.devkey().arg("init");
    let mut new = device.devkey().args(["key", "new", "--token", name, name]);
    if pin.is_some() {
        init = init.args(["--pin", "--pin-file"]).arg(&file);
        new = new.arg("--pin-file").arg(&file);
    }
    init.arg(name).ok();
    new.ok();
    let show = ["key", "show", "--token", name, name, "--format", "ssh"];
    let ssh = device.path(format!("{name}.pub"));
    fs::write(&ssh, device.devkey().args(show).ok().stdout).unwrap();
    Key {
        label: name.to_owned(),
        kind: "ec-p256".to_owned(),
        uri: String::new(),
        pem: PathBuf::new(),
        ssh,
    }
}

/// The number of the slot whose lines in pkcs11-tool's list say that.
fn slot_of(list: &str, what: &str) -> String {
    let mut slots = list.split("\nSlot ").filter(|slot| slot.contains(what));
    let slot = slots
        .next()
        .unwrap_or_else(|| panic!("no {what} in {list}"));
    let (_, rest) = slot.split_once("(0x").unwrap();
    let (number, _) = rest.split_once(')').unwrap();
    format!("0x{number}")
}

fn authorise(device: &Device, key: &Key) -> String {
    let path = device.path("authorized_keys");
    fs::write(&path, format!("{}\n", key.ssh_line())).unwrap();
    format!("AuthorizedKeysFile {}", path.display())
}

/// Logs in to a token, which takes back the tries that were used.
fn log_in(device: &Device, token: &str, pin: &str) {
    let file = device.secret("login-pin", pin);
    let run = ["key", "new", "--token", token, "spare", "--pin-file"];
    device.devkey().args(run).arg(file).ok();
}
