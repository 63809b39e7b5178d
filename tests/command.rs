//! The `devkey` command: transcripts of what it says, and flows with the programs that read what
//! it writes. Needs util-linux, openssl, OpenSSH, GnuTLS's p11tool and swtpm; two tests need root.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "helpers of tests, which clippy takes for no tests"
)]

#[cfg(feature = "tpm")]
#[path = "common/tpm.rs"]
mod swtpm;

use std::fs;
use std::io::Write;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use serde_json::Value;
use tempfile::TempDir;

const DEVKEY: &str = env!("CARGO_BIN_EXE_devkey");
/// A user with no rights anywhere.
const NOBODY: &str = "65534";

/// Somebody's home directory.
struct Home(TempDir);

impl Home {
    /// An empty one.
    fn new() -> Self {
        let home = tempfile::tempdir().unwrap();
        fs::set_permissions(home.path(), fs::Permissions::from_mode(0o755)).unwrap();
        Home(home)
    }

    /// One with a token "default" and a key "laptop".
    fn with_key() -> Self {
        let home = Home::new();
        home.ok(&["init"]);
        home.ok(&["key", "new", "laptop"]);
        home
    }

    fn path(&self, tail: &str) -> PathBuf {
        self.0.path().join(tail)
    }

    fn token(&self) -> PathBuf {
        self.path(".local/share/devkey/default")
    }

    /// The file of the only key.
    fn key_file(&self) -> PathBuf {
        let mut files = fs::read_dir(self.token())
            .unwrap()
            .map(|e| e.unwrap().path());
        files
            .find(|path| path.extension().is_some_and(|e| e == "key"))
            .unwrap()
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command
            .env_clear()
            .env("HOME", self.0.path())
            .env("PATH", "/usr/sbin:/usr/bin:/bin");
        command.stdin(Stdio::null());
        command
    }

    fn run(&self, args: &[&str]) -> Output {
        self.command(DEVKEY).args(args).output().unwrap()
    }

    /// As a user who owns nothing here.
    fn run_as_nobody(&self, args: &[&str]) -> Output {
        if !rustix::process::geteuid().is_root() {
            return self.run(args);
        }
        let to = [
            "--reuid",
            NOBODY,
            "--regid",
            NOBODY,
            "--clear-groups",
            DEVKEY,
        ];
        self.command("setpriv")
            .args(to)
            .args(args)
            .output()
            .unwrap()
    }

    /// In a mount namespace of its own, so that nothing stays mounted.
    fn script(&self, script: &str) -> Output {
        let script = format!("set -e; cd $HOME\n{script}");
        let shell = ["--map-root-user", "--mount", "sh", "-c", script.as_str()];
        self.command("unshare")
            .args(shell)
            .env("D", DEVKEY)
            .output()
            .unwrap()
    }

    fn ok(&self, args: &[&str]) -> String {
        let output = self.run(args);
        assert!(output.status.success(), "{args:?}: {}", said(&output));
        String::from_utf8(output.stdout).unwrap()
    }

    /// Expects exit code 1 and each of the texts on standard error.
    #[track_caller]
    fn fails(&self, args: &[&str], texts: &[&str]) -> Output {
        failed(self.run(args), texts)
    }

    fn json(&self, args: &[&str]) -> Value {
        serde_json::from_str(&self.ok(args)).unwrap()
    }
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[track_caller]
fn failed(output: Output, texts: &[&str]) -> Output {
    let said = said(&output);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.starts_with("devkey: "), "{said}");
    for text in texts {
        assert!(said.contains(text), "{text:?} is not in: {said}");
    }
    output
}

#[track_caller]
fn stdout_of(command: &mut Command) -> String {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}: {}", said(&output));
    String::from_utf8(output.stdout).unwrap()
}

fn mode(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

/// Has sudo run the calling test anew where it is not root who runs it; true where sudo did.
fn left_to_root() -> bool {
    if rustix::process::geteuid().is_root() {
        return false;
    }
    let this = std::env::current_exe().unwrap();
    let test = std::thread::current().name().unwrap().to_owned();
    let sudo = Command::new("sudo")
        .arg("--non-interactive")
        .arg(this)
        .args(["--exact", &test])
        .output();
    let passed = sudo
        .as_ref()
        .is_ok_and(|run| String::from_utf8_lossy(&run.stdout).contains("1 passed"));
    assert!(
        passed,
        "this test gives files to another user: run it as root, or after `sudo -v`: {sudo:?}"
    );
    true
}

/// Fails where any text of the command changes: `TRYCMD=dump` shows what it says now.
#[test]
fn transcripts() {
    for name in ["help", "usage", "first", "names", "pin"] {
        let home = Home::new();
        let path = home.0.path().to_str().unwrap().to_owned();
        trycmd::TestCases::new()
            .case(format!("tests/command/{name}.trycmd"))
            .env("HOME", &path)
            .env("XDG_CONFIG_HOME", format!("{path}/.config"))
            .env("XDG_DATA_HOME", format!("{path}/.local/share"))
            .env("RIGHT", "a right one")
            .env("WRONG", "a wrong one")
            .env("WRONGER", "a wronger one")
            .env("WORST", "the worst one")
            .env("SHORT", "123")
            .env("LONG", "x".repeat(33))
            .insert_var("[HOME]", path)
            .unwrap();
    }
}

/// Fails where ssh.rs writes an mpint without its leading zero, or the curve's name is left out.
#[test]
fn openssl_and_openssh_read_every_kind() {
    let home = Home::new();
    home.ok(&["init"]);
    for kind in [
        "ec-p256", "ec-p384", "rsa-2048", "rsa-3072", "rsa-4096", "ed25519",
    ] {
        let line = home.ok(&["key", "new", "--kind", kind, kind]);
        let (ssh, pem) = (home.path("key.pub"), home.path("key.pem"));
        fs::write(&ssh, &line).unwrap();
        fs::write(&pem, home.ok(&["key", "show", kind, "--format", "pem"])).unwrap();
        let checked = ["pkey", "-pubin", "-pubcheck", "-noout", "-in"];
        let mut openssl = home.command("openssl");
        if kind == "ed25519" {
            openssl.args(["pkey", "-pubin", "-noout", "-in"]).arg(&pem);
        } else {
            openssl.args(checked).arg(&pem);
        }
        stdout_of(&mut openssl);
        let listed = stdout_of(home.command("ssh-keygen").arg("-lf").arg(&ssh));
        let shown = home.json(&["key", "show", kind, "--format", "json"]);
        assert!(
            listed.contains(shown["fingerprint"].as_str().unwrap()),
            "{listed}"
        );
        assert_eq!(shown["ssh"], line.trim_end());
        if kind != "ed25519" {
            // OpenSSH 9.2 writes no Ed25519 key in this form.
            let mut convert = home.command("ssh-keygen");
            let converted = stdout_of(convert.args(["-e", "-m", "pkcs8", "-f"]).arg(&ssh));
            assert_eq!(converted, fs::read_to_string(&pem).unwrap());
        }
    }
}

/// Fails where `Format::of` in show.rs is `Format::Ssh` always, or ssh.rs has some name for ML-DSA.
#[test]
fn a_key_without_an_openssh_line_is_shown_by_its_pem() {
    let home = Home::new();
    home.ok(&["init"]);
    let pem = home.ok(&["key", "new", "--kind", "ml-dsa-44", "pq"]);
    assert!(pem.starts_with("-----BEGIN PUBLIC KEY-----\n"), "{pem}");
    assert_eq!(home.ok(&["key", "show", "pq", "--format", "pem"]), pem);
    let shown = home.json(&["key", "show", "pq", "--format", "json"]);
    assert_eq!(shown["kind"], "ml-dsa-44");
    assert_eq!(shown["pem"], pem);
    assert!(shown["ssh"].is_null() && shown["fingerprint"].is_null());
    assert!(
        home.ok(&["key", "show", "pq"])
            .contains("\nssh          -\n")
    );
    let ssh = ["key", "show", "pq", "--format", "ssh"];
    home.fails(&ssh, &["OpenSSH has no ml-dsa-44 keys", "--format pem"]);
}

/// Fails where uri.rs encodes nothing: the label's `;` and `%` then end or spoil the URI.
#[test]
fn p11tool_reads_the_uri() {
    let home = Home::new();
    home.ok(&["init", "--label", "a;b=%zz é"]);
    home.ok(&["key", "new", "x;y/%zz?"]);
    let uri = home.ok(&["key", "show", "x;y/%zz?", "--format", "uri"]);
    let list = |uri: &str| {
        let module = "/usr/lib/x86_64-linux-gnu/pkcs11/p11-kit-trust.so";
        let module = [
            module.to_owned(),
            module.replace("x86_64", std::env::consts::ARCH),
        ];
        let mut p11tool = home.command("p11tool");
        let output = p11tool
            .args(["--provider", &module[1], "--list-all", uri])
            .output();
        said(&output.unwrap())
    };
    assert_eq!(list(uri.trim_end()).trim(), "No matching objects found");
    assert!(list("pkcs11:token=%zz").contains("parsing"));
}

/// Fails where `tokens.environment.data_home.is_none()` in init.rs is left out.
#[test]
fn without_a_home_there_is_no_place() {
    let home = Home::new();
    let mut command = home.command("setpriv");
    command.env_remove("HOME");
    if rustix::process::geteuid().is_root() {
        command.args(["--reuid", NOBODY, "--regid", NOBODY, "--clear-groups"]);
    }
    let output = command.args([DEVKEY, "init"]).output().unwrap();
    failed(
        output,
        &[
            "HOME is not set",
            "try: set HOME, or name a place with --dir",
        ],
    );
    let output = home
        .command(DEVKEY)
        .env_remove("HOME")
        .args(["key", "list"])
        .output();
    assert!(output.unwrap().status.success());
}

/// Fails where `is_secure` in tokens.rs compares ids only.
#[test]
fn a_command_with_capabilities_ignores_its_environment() {
    if left_to_root() {
        return;
    }
    let home = Home::new();
    let program = home.path("devkey");
    // By another process: a child of another test could keep this one's writing open, and then it cannot be run.
    let copied = Command::new("cp").arg(DEVKEY).arg(&program).status();
    assert!(copied.unwrap().success());
    let run = || {
        let mut command = home.command("setpriv");
        command.args(["--reuid", NOBODY, "--regid", NOBODY, "--clear-groups"]);
        command.arg(&program).arg("config");
        let output = command.env("DEVKEY_CONFIG", "/nonexistent/x").output();
        output.unwrap()
    };
    failed(run(), &["/nonexistent/x"]);
    let given = Command::new("/usr/sbin/setcap")
        .arg("cap_net_raw+ep")
        .arg(&program)
        .status();
    assert!(given.unwrap().success());
    let output = run();
    assert!(output.status.success(), "{}", said(&output));
}

/// Fails where `settings` in init.rs leaves out `set`, where `LocalToken::create` checks no
/// settings, and where `name` does not take the directory's.
#[test]
fn any_back_end_is_named_and_set() {
    let home = Home::new();
    let made = home.ok(&[
        "init",
        "--back-end",
        "file",
        "--dir",
        home.path("web").to_str().unwrap(),
    ]);
    assert!(made.starts_with("made token web\n"), "{made}");
    assert!(made.contains("[token.web]"), "{made}");
    let refused = "back end file has no setting \"colour\"; it has none";
    home.fails(&["init", "--set", "colour=red"], &[refused]);
    let unknown = home.run(&["init", "--back-end", "cloud"]);
    assert_eq!(unknown.status.code(), Some(2));
    assert!(
        said(&unknown).contains("[possible values: file"),
        "{}",
        said(&unknown)
    );
}

/// Fails where `make_dir` in src/files.rs leaves the parents to the umask.
#[test]
fn a_generous_umask_does_no_harm() {
    let home = Home::new();
    let output = home
        .command("sh")
        .args(["-c", "umask 0; exec \"$0\" init", DEVKEY])
        .output();
    assert!(output.unwrap().status.success());
    home.ok(&["key", "new", "laptop"]);
}

/// Fails where `open_all` in tokens.rs stops at the first error, or `list` in key.rs leaves out
/// `broken`.
#[test]
fn a_broken_record_hides_no_other() {
    let home = Home::with_key();
    home.ok(&["init", "another"]);
    let good = home.key_file();
    let (corrupt, newer) = (home.token().join("0bad.key"), home.token().join("0new.key"));
    fs::write(&corrupt, "version = 1\nid = ").unwrap();
    let record = fs::read_to_string(&good).unwrap();
    fs::write(&newer, record.replacen("version = 1", "version = 7", 1)).unwrap();
    fs::write(home.path(".local/share/devkey/another/token"), "no record").unwrap();
    let output = home.fails(
        &["key", "list"],
        &[
            &format!("devkey: {}: ", corrupt.display()),
            &format!("devkey: {}: written by a newer devkey", newer.display()),
            "try: upgrade devkey",
            "another/token: ",
        ],
    );
    let listed = String::from_utf8(output.stdout).unwrap();
    assert!(listed.contains("default  laptop"), "{listed}");
    let output = home.run(&["token", "show", "default", "--json"]);
    let shown: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(shown["broken"].as_array().unwrap().len(), 2, "{shown}");
    home.fails(
        &["config", "check"],
        &["0bad.key", "0new.key", "another/token"],
    );
    home.fails(
        &["key", "show", "--token", "default", "x"],
        &["files that cannot be read"],
    );
    // Nothing was rewritten or removed.
    assert!(
        fs::read_to_string(&newer)
            .unwrap()
            .starts_with("version = 7")
    );
}

/// Fails where `objection` in src/files.rs passes a mode or an owner.
#[test]
fn an_unsafe_store_is_refused() {
    if left_to_root() {
        return;
    }
    let home = Home::with_key();
    mode(&home.token(), 0o777);
    home.fails(
        &["key", "list"],
        &["default: others can write it", "try: chmod go-w"],
    );
    mode(&home.token(), 0o700);
    chown(home.token(), Some(12345), None).unwrap();
    home.fails(
        &["key", "new", "x"],
        &[
            "belongs to user 12345",
            "try: run as that user, or chown 0 ",
        ],
    );
    home.fails(&["config", "check"], &["belongs to user 12345"]);
}

/// Fails where `Store::exists` takes what it may not see for nothing, or `readable` in config.rs returns Ok: an unreadable store then has no tokens at all.
#[test]
fn an_unreadable_store_is_named() {
    if left_to_root() {
        return;
    }
    let home = Home::with_key();
    let said_by = |args: &[&str]| said(&home.run_as_nobody(args));
    assert!(said_by(&["key", "list"]).contains("default: no permission"));
    assert!(said_by(&["key", "list"]).contains("try: run as its owner"));
    let store = home.path(".local/share/devkey");
    mode(&store, 0o700);
    assert!(said_by(&["key", "list"]).contains(&*store.to_string_lossy()));
    failed(
        home.run_as_nobody(&["config", "check"]),
        &["reading ", "Permission denied"],
    );
}

/// Fails where `line` in src/config/file.rs counts from another line, or `unplaced` finds nothing.
#[test]
fn the_configuration_is_blamed_by_line() {
    let home = Home::with_key();
    let file = home.path(".config/devkey/devkey.toml");
    fs::create_dir_all(file.parent().unwrap()).unwrap();
    for (text, wanted) in [
        ("\n\nstor = '/x'\n", ":3: unknown key \"stor\""),
        ("[token.default]\nenabled = 1\n", ":2: true or false"),
        (
            "[token.default]\n\ncolour = 'red'\n",
            ":3: back end file has no setting",
        ),
        ("# who?\n[token.lost]\n", ":2: there is no token lost"),
        ("store = [\n", ":1: "),
    ] {
        fs::write(&file, text).unwrap();
        let wanted = format!("{}{wanted}", file.display());
        home.fails(&["config", "check"], &[&wanted, "try: correct it"]);
    }
    fs::write(&file, "[token.default]\n").unwrap();
    let checked = home.ok(&["config", "check"]);
    assert!(checked.contains("default: ok") && checked.contains(&*file.to_string_lossy()));
}

/// Fails where init.rs leaves out what to put into devkey.toml.
#[test]
fn a_token_elsewhere_is_found_as_told() {
    let home = Home::new();
    let dir = home.path("elsewhere/board");
    let told = home.ok(&["init", "--dir", dir.to_str().unwrap(), "board"]);
    let (_, after) = told.split_once("devkey.toml:\n").unwrap();
    let (told, _) = after.split_once("\n\n").unwrap();
    assert_eq!(home.ok(&["token", "list", "--json"]).trim(), "[]");
    let file = home.path(".config/devkey/devkey.toml");
    fs::create_dir_all(file.parent().unwrap()).unwrap();
    fs::write(&file, told).unwrap();
    assert!(home.ok(&["key", "new", "laptop"]).ends_with(" laptop\n"));
    home.fails(
        &["init", "board"],
        &["exists already", "devkey token show board"],
    );
    home.fails(
        &["init", "--dir", dir.to_str().unwrap(), "x"],
        &["try: choose another name"],
    );
}

/// Fails where `write` in src/files.rs writes under the final name, or `Error::io` makes no Full.
#[test]
fn a_full_disk_loses_nothing() {
    let home = Home::new();
    let output = home.script(
        "mkdir disk; mount -t tmpfs -o size=64k tmpfs disk
        export DEVKEY_CONFIG=$PWD/disk/devkey.toml
        echo \"store = '$PWD/disk'\" > $DEVKEY_CONFIG; chmod 700 disk
        $D init > init.out; $D key new before > new.out
        dd if=/dev/zero of=disk/filler bs=4k 2> /dev/null || true
        ls -A disk/default > files.1
        if $D key new after; then exit 3; fi
        if $D init another; then exit 4; fi
        ls -A disk/default | diff files.1 -
        $D key list; rm disk/filler; $D key new after",
    );
    let (stdout, said) = (String::from_utf8_lossy(&output.stdout), said(&output));
    assert!(output.status.success(), "{stdout}{said}");
    assert_eq!(said.matches("devkey: no room left: ").count(), 2, "{said}");
    assert!(said.contains("try: make room"), "{said}");
    assert!(
        stdout.contains("before") && stdout.contains("after"),
        "{stdout}"
    );
}

/// Fails where `Store::list` takes the lock, or `Error::io` makes no ReadOnly.
#[test]
fn a_read_only_store_is_read() {
    let home = Home::with_key();
    let output = home.script(
        "mount --bind .local .local; mount -o remount,ro,bind .local
        $D key list; $D config check
        if $D key new after; then exit 3; fi
        if $D init other; then exit 4; fi",
    );
    let said = said(&output);
    assert!(output.status.success(), "{said}");
    assert_eq!(said.matches("is read-only").count(), 2, "{said}");
    assert!(said.contains("try: mount it read-write"), "{said}");
}

/// Fails where `write_text` in output.rs reports a broken pipe.
#[test]
fn a_reader_that_leaves_is_no_error() {
    let home = Home::new();
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let mut command = home.command(DEVKEY);
    let output = command
        .args(["completion", "bash"])
        .stdout(writer)
        .output()
        .unwrap();
    assert!(output.status.success());
    assert_eq!(said(&output), "");
    let full = fs::OpenOptions::new()
        .write(true)
        .open("/dev/full")
        .unwrap();
    let mut command = home.command(DEVKEY);
    let output = command
        .args(["completion", "bash"])
        .stdout(full)
        .output()
        .unwrap();
    failed(output, &["no room left: writing standard output"]);
}

/// Fails where `matches!` in `ask` takes an empty line, or where nothing is asked.
#[test]
fn deletion_is_asked_on_a_terminal() {
    let home = Home::with_key();
    let answer = |answer: &str| {
        let mut terminal = home.command("script");
        let delete = format!("{DEVKEY} key delete laptop");
        terminal
            .args(["-qec", &delete, "/dev/null"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped());
        let mut child = terminal.spawn().unwrap();
        child
            .stdin
            .take()
            .unwrap()
            .write_all(answer.as_bytes())
            .unwrap();
        let output = child.wait_with_output().unwrap();
        (
            output.status.code(),
            String::from_utf8_lossy(&output.stdout).into_owned(),
        )
    };
    let (code, shown) = answer("\n");
    assert_eq!(code, Some(1));
    assert!(
        shown.contains("Delete key \"laptop\" on token default for good? [y/N]"),
        "{shown}"
    );
    assert!(
        shown.contains("was not deleted") && home.key_file().exists(),
        "{shown}"
    );
    let (code, shown) = answer("y\n");
    assert_eq!(
        (code, home.ok(&["key", "list", "--json"]).trim()),
        (Some(0), "[]"),
        "{shown}"
    );
}

/// Fails where bash is given the script of another shell.
#[test]
fn bash_takes_its_completions() {
    let home = Home::new();
    let script = home.ok(&["completion", "bash"]);
    // Longer than one argument may be (execve(2)).
    let file = home.path("completion");
    fs::write(&file, script).unwrap();
    let check = format!("source {}; complete -p devkey", file.display());
    let completes = stdout_of(home.command("bash").args(["-c", &check]));
    assert!(completes.contains("_devkey"), "{completes}");
}

/// Fails where `refused` in agent.rs offers one remedy for all, or `reached` passes exit code 2.
#[test]
fn an_agent_that_refuses_is_explained() {
    let home = Home::new();
    let module = "/usr/lib/".to_owned() + std::env::consts::ARCH + "-linux-gnu/opensc-pkcs11.so";
    let copy = home.path("module.so");
    fs::copy(&module, &copy).unwrap();
    let socket = home.path("agent");
    let refresh = |module: &str| {
        let mut command = home.command(DEVKEY);
        command
            .env("SSH_AUTH_SOCK", &socket)
            .args(["agent", "refresh", "--module", module]);
        command.output().unwrap()
    };
    home.fails(
        &["agent", "refresh"],
        &["SSH_AUTH_SOCK is not set", "try: start one"],
    );
    failed(
        refresh(&module),
        &["Error connecting to agent", "try: start one"],
    );
    failed(
        refresh("/nowhere.so"),
        &["/nowhere.so", "try: install the devkey module"],
    );
    let mut agent = home.command("ssh-agent");
    let mut agent = agent
        .arg("-D")
        .arg("-a")
        .arg(&socket)
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    while !socket.exists() {
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    let outside = refresh(copy.to_str().unwrap());
    // No reader, so no keys: an agent then refuses the module.
    let empty = refresh(&module);
    agent.kill().unwrap();
    agent.wait().unwrap();
    failed(outside, &["agent refused operation", "ssh-agent -P "]);
    failed(
        empty,
        &["agent refused operation", "takes no module without keys"],
    );
}

/// PINs that are typed, and those that come from files, pipes and credentials.
mod pin {
    use std::fs::File;
    use std::io::Read;
    use std::os::unix::fs::OpenOptionsExt;
    use std::os::unix::process::ExitStatusExt;
    use std::process::ExitStatus;

    use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
    use rustix::termios::{LocalModes, tcgetattr};

    use super::*;

    /// A home with PINs in files, and a token of them where `made`.
    fn home(made: bool) -> Home {
        let home = Home::new();
        for (name, pin) in [
            ("user", "1234\n"),
            ("so", "SO PIN"),
            ("new", "Grüße\n"),
            ("wrong", "4321\n"),
        ] {
            fs::write(home.path(name), pin).unwrap();
            mode(&home.path(name), 0o600);
        }
        if made {
            let (user, so) = (home.file("user"), home.file("so"));
            home.ok(&[
                "init",
                "--tries",
                "3",
                "--pin-file",
                &user,
                "--so-pin-file",
                &so,
            ]);
        }
        home
    }

    impl Home {
        fn file(&self, name: &str) -> String {
            self.path(name).to_str().unwrap().to_owned()
        }

        /// Without a terminal, wherever the tests are run.
        fn alone(&self, args: &[&str]) -> Output {
            self.command("setsid")
                .args(["--wait", DEVKEY])
                .args(args)
                .output()
                .unwrap()
        }

        fn shell(&self, script: &str) -> Output {
            let mut shell = self.command("sh");
            shell.args(["-c", script]).current_dir(self.0.path());
            shell.env("D", DEVKEY).output().unwrap()
        }

        /// At a terminal of its own: waits for each question, and answers it. Gives all that the
        /// terminal showed.
        fn typing(&self, args: &[&str], answers: &[(&str, &str)]) -> (ExitStatus, String) {
            let ours = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC);
            let ours = ours.unwrap();
            grantpt(&ours).unwrap();
            unlockpt(&ours).unwrap();
            let name = ptsname(&ours, Vec::new()).unwrap().into_string().unwrap();
            let mut options = fs::OpenOptions::new();
            options.read(true).write(true);
            let theirs = options.custom_flags(libc::O_NOCTTY).open(name).unwrap();
            let before = tcgetattr(&theirs).unwrap().local_modes;
            let mut command = self.command("setsid");
            command.args(["--ctty", "--wait", DEVKEY]).args(args);
            command.stdin(theirs.try_clone().unwrap());
            command.stdout(theirs.try_clone().unwrap());
            command.stderr(theirs.try_clone().unwrap());
            let mut child = command.spawn().unwrap();
            drop(command);
            let mut ours = File::from(ours);
            let mut shown = String::new();
            let read = |shown: &mut String, ours: &mut File| {
                let mut bytes = [0; 4096];
                let length = ours.read(&mut bytes).unwrap_or(0);
                shown.push_str(&String::from_utf8_lossy(&bytes[..length]));
                length > 0
            };
            let mut seen = 0;
            for (question, answer) in answers {
                while !shown[seen..].contains(question) {
                    assert!(read(&mut shown, &mut ours), "no {question:?}: {shown}");
                }
                seen = shown.len();
                let modes = tcgetattr(&theirs).unwrap().local_modes;
                assert!(!modes.contains(LocalModes::ECHO), "{question:?} with echo");
                ours.write_all(answer.as_bytes()).unwrap();
            }
            let status = child.wait().unwrap();
            assert_eq!(tcgetattr(&theirs).unwrap().local_modes, before);
            drop(theirs);
            while read(&mut shown, &mut ours) {}
            for (_, answer) in answers {
                let typed = answer.trim_end();
                assert!(typed.is_empty() || !shown.contains(typed), "{shown}");
            }
            (status, shown)
        }
    }

    /// Seen to fail with `ECHO` left on in prompt.rs, with its `drop` taken out, and with one PIN
    /// asked for once.
    #[test]
    fn pins_are_typed_unseen() {
        let home = home(false);
        let (status, shown) = home.typing(
            &["init", "--pin"],
            &[
                ("User PIN (empty: ", "first PIN\n"),
                ("User PIN, once more: ", "first PIN\n"),
                ("SO PIN (empty: none, and ", "\n"),
            ],
        );
        assert!(status.success(), "{shown}");
        assert!(shown.contains("There is no SO PIN: "), "{shown}");
        let question = "User PIN of token default: ";
        // The terminal's own editing works: the last letter is taken back.
        let (status, shown) =
            home.typing(&["key", "new", "laptop"], &[(question, "first PINx\x7f\n")]);
        assert!(status.success() && shown.contains("ecdsa-sha2"), "{shown}");
        let answers = [
            (question, "first PIN\n"),
            ("New user PIN of token default: ", "second PIN\n"),
            ("once more: ", "another PIN\n"),
        ];
        let (status, shown) = home.typing(&["pin", "change"], &answers);
        assert_eq!(status.code(), Some(1));
        assert!(shown.contains("the two are not the same"), "{shown}");
        let (status, shown) = home.typing(&["key", "new", "x"], &[(question, "second PIN\n")]);
        assert_eq!(status.code(), Some(1));
        assert!(shown.contains("wrong user PIN, 9 tries left"), "{shown}");
    }

    /// Seen to fail without `kill_current_process_group` in prompt.rs. To catch `VEOL` left as it is:
    /// the command then waits for Enter.
    #[test]
    fn an_interrupt_leaves_the_terminal_as_it_was() {
        let home = home(true);
        let question = "User PIN of token default: ";
        for interrupt in ["12\x03", "\x03"] {
            let (status, shown) = home.typing(&["key", "new", "x"], &[(question, interrupt)]);
            // setsid(1) says of its child's signal what a shell does.
            let interrupted = status.signal() == Some(2) || status.code() == Some(128 + 2);
            assert!(interrupted, "{status}: {shown}");
        }
        let (status, shown) = home.typing(&["key", "new", "x"], &[(question, "\x04")]);
        assert_eq!(status.code(), Some(1), "{shown}");
        let status = home.ok(&["pin", "status"]);
        assert!(status.contains("user PIN  3 of 3 tries left"), "{status}");
    }

    /// Seen to fail with the mode left unlooked at in `read_file`. To catch no newline cut, and two
    /// cut in `contents`.
    #[test]
    fn a_pin_file_is_private_and_of_one_line() {
        let home = home(true);
        let user = home.file("user");
        for shared in [0o640, 0o604, 0o620] {
            mode(&home.path("user"), shared);
            home.fails(
                &["key", "new", "--pin-file", &user, "x"],
                &[
                    "others can read the PIN in it",
                    &format!("try: chmod go-rwx {user}"),
                ],
            );
        }
        mode(&home.path("user"), 0o600);
        fs::write(home.path("user"), "1234\n\n").unwrap();
        home.fails(
            &["key", "new", "--pin-file", &user, "x"],
            &["wrong user PIN, 2 tries left"],
        );
        fs::write(home.path("user"), "1234").unwrap();
        home.ok(&["key", "new", "--pin-file", &user, "x"]);
        for (contents, said) in [
            (&b""[..], "a PIN has 4 to 32 bytes"),
            (b"123\n", "a PIN has 4 to 32 bytes"),
            (&[b'x'; 33], "a PIN has 4 to 32 bytes"),
            (&[b'x'; 9999], "a PIN has 4 to 32 bytes"),
            (b"Gr\xfc\xdfe\n", "a PIN is UTF-8 text"),
            (b"12\x0034\n", "a PIN has no NUL"),
        ] {
            fs::write(home.path("user"), contents).unwrap();
            let remedy = "no try was counted";
            home.fails(&["key", "new", "--pin-file", &user, "y"], &[said, remedy]);
        }
        let status = home.ok(&["pin", "status"]);
        assert!(status.contains("user PIN  3 of 3 tries left"), "{status}");
        home.fails(
            &["key", "new", "--pin-file", "/nowhere", "y"],
            &["/nowhere: No such file"],
        );
        home.fails(
            &["key", "new", "--pin-file", "/", "y"],
            &["/ is a directory"],
        );
    }

    /// Waits without end with the number off by one in `read_fd`.
    #[test]
    fn pins_come_from_descriptors() {
        let home = home(true);
        let output = home.shell(
            "set -e; $D key new --pin-fd 0 a <user; printf 1234 | $D key new --pin-fd 0 b
            $D pin change --pin-fd 3 --new-pin-fd 4 3<user 4<new
            $D pin unlock --so-pin-fd 5 --new-pin-fd 4 5<so 4<user
            $D key new --pin-fd 3 c 3<user; $D key new --pin-fd 9 d",
        );
        let said = said(&output);
        assert_eq!(
            String::from_utf8_lossy(&output.stdout).lines().count(),
            5,
            "{said}"
        );
        assert!(said.contains("reading the PIN from descriptor 9"), "{said}");
        assert!(said.contains("try: open it for reading"), "{said}");
    }

    /// Seen to fail with another name for `CREDENTIAL`. To catch the mode of credentials looked at.
    #[test]
    fn pins_come_from_systemd() {
        let home = home(true);
        let credentials = home.path("credentials");
        fs::create_dir(&credentials).unwrap();
        fs::write(credentials.join("devkey.pin"), "1234").unwrap();
        fs::write(credentials.join("other"), "4321").unwrap();
        // An access control list shows in the place of the group's rights: systemd.exec(5).
        mode(&credentials.join("devkey.pin"), 0o440);
        let run = |args: &[&str]| {
            let mut command = home.command(DEVKEY);
            command.env("CREDENTIALS_DIRECTORY", &credentials);
            command.args(args).output().unwrap()
        };
        let made = run(&["key", "new", "a"]);
        assert!(made.status.success(), "{}", said(&made));
        let named = ["key", "new", "--pin-credential"];
        failed(
            run(&[&named[..], &["other", "b"]].concat()),
            &["wrong user PIN"],
        );
        failed(
            run(&[&named[..], &["../so", "b"]].concat()),
            &["cannot name a credential"],
        );
        // What lies there makes no token have a PIN.
        assert!(run(&["init", "free"]).status.success());
        assert_eq!(
            home.json(&["token", "show", "free", "--json"])["pin"],
            false
        );
        failed(
            home.alone(&[&named[..], &["devkey.pin", "b"]].concat()),
            &["CREDENTIALS_DIRECTORY is not set", "try: run it by systemd"],
        );
    }

    /// Each with the next step. Seen to fail with `init_pin` left out of `by_the_so`.
    #[test]
    fn who_is_locked_out_is_told_what_to_do() {
        let home = home(true);
        let [user, so, new, wrong] = ["user", "so", "new", "wrong"].map(|name| home.file(name));
        failed(
            home.alone(&["key", "new", "x"]),
            &[
                "there is no terminal to ask for the user PIN of token default on",
                "try: name a source: --pin-file FILE or --pin-fd N",
            ],
        );
        let set = ["pin", "set", "--so-pin-file", &so, "--new-pin-file", &new];
        home.fails(
            &set,
            &["exists already", "devkey pin change", "devkey pin unlock"],
        );
        for (n, text) in ["2 tries left", "1 try left", "the last try: it is locked"]
            .iter()
            .enumerate()
        {
            fs::write(&wrong, format!("wrong {n}")).unwrap();
            home.fails(&["pin", "change", "--pin-file", &wrong], &[text, "try: "]);
        }
        let unlock = "devkey pin unlock --token default";
        home.fails(
            &["key", "new", "--pin-file", &user, "x"],
            &["is locked", unlock],
        );
        assert!(home.ok(&["pin", "status"]).contains(unlock));
        let unlocking = ["pin", "unlock", "--must-change", "--so-pin-file"];
        let last = ["--new-pin-file", &new];
        home.fails(
            &[&unlocking[..], &[&wrong], &last[..]].concat(),
            &["wrong SO PIN, 2 tries left"],
        );
        home.ok(&[&unlocking[..], &[&so], &last[..]].concat());
        let made = home.run(&["key", "new", "--pin-file", &new, "x"]);
        assert!(made.status.success());
        assert!(
            said(&made).contains("devkey pin change --token default"),
            "{}",
            said(&made)
        );
        // The record of the PIN, changed or of another machine.
        let record = home.token().join("user.pin");
        let text = fs::read_to_string(&record).unwrap();
        fs::write(&record, text.replace("tries = 3", "tries = 90")).unwrap();
        home.fails(
            &["key", "new", "--pin-file", &new, "y"],
            &["was changed", "put back a copy of"],
        );
        fs::write(&record, text).unwrap();
        fs::write(home.token().join("root"), [7; 32]).unwrap();
        home.fails(
            &["key", "new", "--pin-file", &new, "y"],
            &["is not the device", "try: go back"],
        );
    }

    /// Seen to fail with `init_pin` left out of `by_the_so`. To catch `unset` refusing everything.
    #[test]
    fn the_so_sets_the_first_pin() {
        let home = home(false);
        let [user, so] = ["user", "so"].map(|name| home.file(name));
        let made = home.run(&["init", "--so-pin-file", &so]);
        assert!(
            said(&made).contains("devkey pin set --token default"),
            "{}",
            said(&made)
        );
        home.fails(
            &["key", "new", "--pin-file", &user, "x"],
            &["has no user PIN yet", "devkey pin set --token default"],
        );
        home.ok(&["pin", "set", "--so-pin-file", &so, "--new-pin-file", &user]);
        home.ok(&["key", "new", "--pin-file", &user, "x"]);
        home.ok(&[
            "pin",
            "change",
            "--so-pin-file",
            &so,
            "--new-pin-file",
            &user,
        ]);
        home.ok(&[
            "pin",
            "unlock",
            "--so-pin-file",
            &user,
            "--new-pin-file",
            &so,
        ]);
    }

    /// To catch `writer` for `unless_read_only(writer)` in src/token/login.rs, as in tests/pin.rs.
    #[test]
    fn a_read_only_store_lets_in_and_changes_nothing() {
        let home = home(true);
        let output = home.script(
            "mount --bind .local .local; mount -o remount,ro,bind .local
            if $D pin change --pin-file wrong --new-pin-file new; then exit 3; fi
            if $D pin change --pin-file user --new-pin-file new; then exit 4; fi",
        );
        let said = said(&output);
        assert!(output.status.success(), "{said}");
        assert!(
            said.contains("wrong user PIN; it was not counted"),
            "{said}"
        );
        assert!(
            said.contains("try: mount it read-write to change a PIN"),
            "{said}"
        );
    }
}

#[cfg(feature = "tpm")]
mod tpm {
    use super::swtpm::Swtpm;
    use super::*;

    /// Fails where `quiet_libtss2` is not called, or `QUIET` leaves tss-esapi's messages in.
    #[test]
    fn a_tpm_token_is_made_quietly_and_listed_without_its_tpm() {
        let home = Home::new();
        let swtpm = Swtpm::start();
        let output = home.run(&["init", "--tpm", "--tcti", &swtpm.tcti(), "board"]);
        assert!(output.status.success(), "{}", said(&output));
        assert_eq!(said(&output), "");
        let line = home.ok(&["key", "new", "box"]);
        let shown = home.json(&["token", "show", "--json"]);
        let setting = &shown["settings"][0];
        assert_eq!(setting["value"], swtpm.tcti().as_str());
        assert!(
            setting["from"].as_str().unwrap().ends_with("board/token"),
            "{setting}"
        );
        drop(swtpm);
        assert_eq!(home.ok(&["key", "show", "box", "--format", "ssh"]), line);
        home.ok(&["config", "check"]);
        let output = home.fails(&["key", "new", "other"], &["swtpm"]);
        assert_eq!(
            said(&output)
                .lines()
                .filter(|l| l.starts_with("devkey: "))
                .count(),
            1
        );
        // The configuration goes before the record, and is named.
        let config = home.path(".config/devkey/devkey.toml");
        fs::create_dir_all(config.parent().unwrap()).unwrap();
        fs::write(&config, "[token.board]\ntcti = 'device:/dev/null/tpm'\n").unwrap();
        let shown = home.ok(&["token", "show"]);
        assert!(
            shown.contains(&format!("({}:2)", config.display())),
            "{shown}"
        );
        fs::write(&config, "[token.board]\ntcti = 'tabrmd'\n").unwrap();
        home.fails(&["config", "check"], &["devkey.toml:2: ", "tabrmd"]);
    }

    /// Fails where `locked` in src/bin/devkey/pin/login.rs does not ask for the tries left, and where
    /// `touches_device` leaves out `pin`: libtss2 then speaks too.
    #[test]
    fn a_tpm_token_keeps_its_last_try_back() {
        let home = Home::new();
        let swtpm = Swtpm::start();
        for (name, pin) in [("user", "1234"), ("so", "the SO PIN"), ("wrong", "4321")] {
            fs::write(home.path(name), pin).unwrap();
            mode(&home.path(name), 0o600);
        }
        let [user, so, wrong] =
            ["user", "so", "wrong"].map(|name| home.path(name).to_str().unwrap().to_owned());
        let pins = ["--pin-file", &user, "--so-pin-file", &so, "--tries", "3"];
        let tcti = swtpm.tcti();
        home.ok(&[&["init", "--tpm", "--tcti", &tcti][..], &pins].concat());
        home.ok(&["key", "new", "--pin-file", &user, "box"]);
        let status = home.ok(&["pin", "status"]);
        assert!(status.contains("user PIN  3 of 3 tries left"), "{status}");
        assert!(status.contains("by the device"), "{status}");
        for left in ["2 tries left", "1 try left"] {
            fs::write(&wrong, left).unwrap();
            home.fails(
                &["key", "new", "--pin-file", &wrong, "x"],
                &["wrong user PIN", left],
            );
        }
        let change = [
            "pin",
            "change",
            "--pin-file",
            &user,
            "--new-pin-file",
            &wrong,
        ];
        let kept = home.fails(
            &change,
            &["1 try is left", "kept back", "try: add --last-try"],
        );
        assert_eq!(said(&kept).lines().count(), 2, "{}", said(&kept));
        home.ok(&[&change[..], &["--last-try"]].concat());
        home.ok(&["key", "new", "--pin-file", &wrong, "x"]);
        let cleared = home
            .command("tpm2_clear")
            .env(
                "TPM2TOOLS_TCTI",
                tcti.replace(',', ",path=,").replace("path=,", ""),
            )
            .args(["-c", "p"])
            .output()
            .unwrap();
        assert!(cleared.status.success(), "{}", said(&cleared));
        let gone = home.run(&["key", "new", "--pin-file", &wrong, "y"]);
        let other = [
            "is not the device that this token was made on",
            "try: go back to",
        ];
        let gone = failed(gone, &other);
        let status = home.fails(&["pin", "status"], &other);
        assert_eq!(said(&status), said(&gone), "said once");
    }

    /// Fails where `From<&Error>` in failure.rs drops the remedy.
    #[test]
    fn without_a_tpm_a_file_token_is_proposed() {
        let home = Home::new();
        let nowhere = format!("device:{}", home.path("tpmrm0").display());
        let args = ["init", "--tpm", "--tcti", &nowhere];
        home.fails(
            &args,
            &["there is no TPM here", "try: use a file token: devkey init"],
        );
        assert!(!home.token().exists());
        fs::write(home.path("tpmrm0"), "").unwrap();
        mode(&home.path("tpmrm0"), 0o000);
        mode(home.0.path(), 0o777);
        let mine = home.path("mine");
        let args = [&args[..], &["--dir", mine.to_str().unwrap()]].concat();
        let output = home.run_as_nobody(&args);
        failed(output, &["no permission", "try: add yourself to group tss"]);
    }
}
