//! A user's machine: a home, a store, and what the doctor says of it.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use tempfile::TempDir;

use crate::checks::Checks;
use crate::common::Run;

/// A user with no rights anywhere.
pub(crate) const NOBODY: &str = "65534";

pub(crate) struct Machine(TempDir);

impl Machine {
    /// Without a token.
    pub(crate) fn new() -> Self {
        let dir = tempfile::Builder::new()
            .prefix("doctor-")
            .tempdir()
            .unwrap();
        mode(dir.path(), 0o755);
        let machine = Machine(dir);
        machine.configure("");
        machine
    }

    /// With a file token "default" and a key "laptop".
    pub(crate) fn with_key() -> Self {
        let machine = Machine::new();
        machine.devkey("init").ok();
        machine.devkey("key new laptop").ok();
        machine
    }

    pub(crate) fn path(&self, name: impl AsRef<Path>) -> PathBuf {
        self.0.path().join(name)
    }

    pub(crate) fn store(&self) -> PathBuf {
        self.path("store")
    }

    pub(crate) fn token(&self) -> PathBuf {
        self.store().join("default")
    }

    /// The file of the only key.
    pub(crate) fn key_file(&self) -> PathBuf {
        let files = fs::read_dir(self.token()).unwrap();
        let mut files = files.map(|entry| entry.unwrap().path());
        files
            .find(|path| path.extension().is_some_and(|ending| ending == "key"))
            .unwrap()
    }

    /// Puts more into the configuration.
    pub(crate) fn configure(&self, more: &str) {
        let text = format!("store = {:?}\n{more}", self.store());
        fs::write(self.path("devkey.toml"), text).unwrap();
    }

    pub(crate) fn run(&self, program: &str) -> Run {
        Run::new(program)
            .env("HOME", self.path("home"))
            .env("DEVKEY_CONFIG", self.path("devkey.toml"))
            .dir(self.0.path())
    }

    pub(crate) fn devkey(&self, line: &str) -> Run {
        self.run(env!("CARGO_BIN_EXE_devkey")).words(line)
    }

    /// What the doctor says of these areas.
    #[track_caller]
    pub(crate) fn doctor(&self, line: &str) -> Checks {
        Checks::of(self.devkey("doctor").words(line))
    }

    /// The same for a user of that number and these groups; by root alone.
    #[track_caller]
    pub(crate) fn doctor_as(&self, user: &str, groups: &str, line: &str) -> Checks {
        let run = self.run("setpriv").args(["--reuid", user, "--regid", user]);
        let run = match groups {
            "" => run.arg("--clear-groups"),
            groups => run.args(["--groups", groups]),
        };
        Checks::of(
            run.arg(env!("CARGO_BIN_EXE_devkey"))
                .arg("doctor")
                .words(line),
        )
    }

    /// A script of the shell, as root of a mount namespace of its own, so that nothing stays mounted.
    pub(crate) fn in_namespace(&self, script: &str) -> Run {
        let run = self
            .run("unshare")
            .words("--map-root-user --mount sh -e -c");
        run.arg(script).env("DEVKEY", env!("CARGO_BIN_EXE_devkey"))
    }
}

impl Machine {
    /// The same as the real root, for what a user's namespace may not do: nodes, other users.
    pub(crate) fn in_namespace_of_root(&self, script: &str) -> Run {
        let run = self.run("unshare").words("--mount sh -e -c").arg(script);
        run.env("DEVKEY", env!("CARGO_BIN_EXE_devkey"))
    }
}

pub(crate) fn mode(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

/// Every file below a directory, what is in it, its mode and when it was changed.
pub(crate) fn contents(dir: &Path) -> Vec<(PathBuf, Vec<u8>, u32, std::time::SystemTime)> {
    let mut all = Vec::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        let about = path.symlink_metadata().unwrap();
        if about.is_dir() {
            all.extend(contents(&path));
        }
        let bytes = if about.is_file() {
            fs::read(&path).unwrap()
        } else {
            Vec::new()
        };
        all.push((
            path,
            bytes,
            about.permissions().mode(),
            about.modified().unwrap(),
        ));
    }
    all.sort();
    all
}
