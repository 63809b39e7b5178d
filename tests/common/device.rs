//! A device: a home of its own, a token, and its TPM or PUF where it has one.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

#[cfg(feature = "simulate")]
use devkey::simulate::{Chip, Conditions, Make, Node};
use tempfile::TempDir;

use super::run::{Run, Server, free_ports};
#[cfg(feature = "simulate")]
use super::seed::seed;

/// What keeps the keys of a token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Backend {
    /// A file.
    File,
    /// A TPM 2.0: swtpm.
    Tpm,
    /// A PUF: a simulated chip.
    #[cfg(feature = "simulate")]
    Puf,
}

/// A machine with one token, named [`Device::TOKEN`].
pub(crate) struct Device {
    // Declared first: the TPM ends before its state goes.
    swtpm: Option<(Server, String)>,
    /// Likewise.
    #[cfg(feature = "simulate")]
    node: Option<Node>,
    dir: TempDir,
    backend: Backend,
    /// Whether the token has PINs.
    pins: bool,
}

/// A key of a device, and what its users need.
#[derive(Debug, Clone)]
pub(crate) struct Key {
    /// CKA_LABEL.
    pub(crate) label: String,
    /// Its kind, as `devkey key new` names it.
    pub(crate) kind: String,
    /// RFC 7512 URI.
    pub(crate) uri: String,
    /// Public key as SubjectPublicKeyInfo in PEM.
    pub(crate) pem: PathBuf,
    /// Public key as a line of OpenSSH.
    pub(crate) ssh: PathBuf,
}

/// A device whose chip answers nobody.
pub(crate) struct Silence<'a>(&'a Device);

impl Drop for Silence<'_> {
    fn drop(&mut self) {
        self.0.control("fault none");
    }
}

impl Device {
    /// The token's name and label.
    pub(crate) const TOKEN: &str = "machine";

    /// The user's PIN of a token that has one.
    pub(crate) const PIN: &str = "243601";
    /// The SO's.
    pub(crate) const SO_PIN: &str = "so-907133";

    /// A device with an empty token.
    pub(crate) fn new(backend: Backend) -> Self {
        Self::made(backend, false, |_| ())
    }

    /// One whose TPM comes from a maker: `furnish` is given the directory of its state.
    pub(crate) fn with_tpm_by(furnish: impl FnOnce(&Path)) -> Self {
        Self::made(Backend::Tpm, false, furnish)
    }

    /// A device with an empty token that has PINs.
    pub(crate) fn with_pins(backend: Backend) -> Self {
        Self::made(backend, true, |_| ())
    }

    fn made(backend: Backend, pins: bool, furnish: impl FnOnce(&Path)) -> Self {
        let dir = tempfile::Builder::new()
            .prefix("devkey-")
            .tempdir()
            .unwrap();
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
        for name in ["home", "store", "run", "tpm", "chip"] {
            fs::create_dir(dir.path().join(name)).unwrap();
        }
        let mut device = Device {
            swtpm: None,
            #[cfg(feature = "simulate")]
            node: None,
            dir,
            backend,
            pins,
        };
        let devkeyd = Path::new(env!("CARGO_BIN_EXE_devkeyd"));
        fs::write(device.config(), device.toml(devkeyd)).unwrap();
        for (name, pin) in [("pin", Self::PIN), ("so-pin", Self::SO_PIN)] {
            device.secret(name, pin);
        }
        let mut init = device.devkey().arg("init");
        if backend == Backend::Tpm {
            furnish(&device.path("tpm"));
            let (swtpm, tcti) = device.start_tpm();
            init = init.args(["--tpm", "--tcti", &tcti]);
            device.swtpm = Some((swtpm, tcti));
        }
        #[cfg(feature = "simulate")]
        if backend == Backend::Puf {
            device.node = Some(device.mount_chip());
            init = init.arg("--puf").arg(device.chip());
            init = init.args(["--set", "allow_file=yes"]);
        }
        if pins {
            init = init.args(["--pin", "--pin-file"]).arg(device.path("pin"));
            init = init.arg("--so-pin-file").arg(device.path("so-pin"));
        }
        init.arg(Self::TOKEN).ok();
        device
    }

    /// Writes a file that nobody else can read.
    pub(crate) fn secret(&self, name: &str, text: &str) -> PathBuf {
        let path = self.path(name);
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        path
    }

    /// The tries used of the user's PIN of a token, as the store has them.
    pub(crate) fn tries_used(&self, token: &str) -> u32 {
        let store = devkey::store::Store::open(&self.store().join(token)).unwrap();
        store.tries_used(devkey::store::Role::User).unwrap()
    }

    /// What keeps the keys.
    pub(crate) fn backend(&self) -> Backend {
        self.backend
    }

    /// A path in the device's own directory.
    pub(crate) fn path(&self, name: impl AsRef<Path>) -> PathBuf {
        self.dir.path().join(name)
    }

    /// The directory of the tokens.
    pub(crate) fn store(&self) -> PathBuf {
        self.path("store")
    }

    /// The configuration file.
    pub(crate) fn config(&self) -> PathBuf {
        self.path("devkey.toml")
    }

    /// A program run by the device's user.
    pub(crate) fn run(&self, program: impl AsRef<OsStr>) -> Run {
        Run::new(program)
            .env("HOME", self.path("home"))
            .env("XDG_RUNTIME_DIR", self.path("run"))
            .env("DEVKEY_CONFIG", self.config())
            .dir(self.dir.path())
    }

    /// How the TPM is reached.
    pub(crate) fn tcti(&self) -> Option<&str> {
        self.swtpm.as_ref().map(|(_, tcti)| tcti.as_str())
    }

    /// Where the PUF is, if there is one.
    pub(crate) fn chip(&self) -> PathBuf {
        self.path("chip/puf0")
    }

    /// Changes what the chip does.
    pub(crate) fn control(&self, line: &str) {
        fs::write(self.path("chip/control"), line).unwrap();
    }

    /// Has the chip answer nobody until what this gives is dropped. To be dropped before whoever reads it:
    /// a process in a read that FUSE does not answer cannot be killed.
    pub(crate) fn silence(&self) -> Silence<'_> {
        self.control("fault silent");
        Silence(self)
    }

    /// The settings of another token beside the first, as lines of the configuration.
    pub(crate) fn another(&self) -> String {
        match self.backend {
            Backend::File => String::new(),
            Backend::Tpm => format!("back_end = 'tpm'\ntcti = '{}'\n", self.tcti().unwrap()),
            #[cfg(feature = "simulate")]
            Backend::Puf => format!(
                "back_end = 'puf'\ndevice = {:?}\nallow_file = 'yes'\noffset = '1024'\n",
                self.chip()
            ),
        }
    }

    /// Puts more into the configuration.
    pub(crate) fn configure(&self, more: &str) {
        let devkeyd = Path::new(env!("CARGO_BIN_EXE_devkeyd"));
        fs::write(self.config(), self.toml(devkeyd) + more).unwrap();
    }

    /// The command.
    pub(crate) fn devkey(&self) -> Run {
        self.run(env!("CARGO_BIN_EXE_devkey"))
    }

    /// `pkcs11-tool` on the module and the token.
    pub(crate) fn pkcs11_tool(&self) -> Run {
        self.run("pkcs11-tool")
            .arg("--module")
            .arg(module())
            .args(["--token-label", Self::TOKEN])
    }

    /// Makes a key.
    pub(crate) fn key(&self, kind: &str, label: &str) -> Key {
        self.devkey()
            .args(["key", "new", "--token", Self::TOKEN, "--kind", kind, label])
            .args(self.pins.then_some("--pin-file"))
            .args(self.pins.then(|| self.path("pin")))
            .seconds(120)
            .ok();
        let show = |format: &str| {
            let shown = self
                .devkey()
                .args([
                    "key",
                    "show",
                    "--token",
                    Self::TOKEN,
                    label,
                    "--format",
                    format,
                ])
                .ok();
            shown.text()
        };
        let key = Key {
            label: label.to_owned(),
            kind: kind.to_owned(),
            uri: show("uri").trim().to_owned() + &self.login(),
            pem: self.path(format!("{label}.pub.pem")),
            ssh: self.path(format!("{label}.pub")),
        };
        fs::write(&key.pem, show("pem")).unwrap();
        fs::write(&key.ssh, show("ssh")).unwrap();
        key
    }

    /// Lets a group read the token and the configuration, as an administrator would, and everybody
    /// run the key service: the clone may be in a home that is closed to others.
    pub(crate) fn share_with(&self, group: &str) {
        let devkeyd = self.path("devkeyd");
        if !devkeyd.exists() {
            fs::copy(env!("CARGO_BIN_EXE_devkeyd"), &devkeyd).unwrap();
            fs::write(self.config(), self.toml(&devkeyd)).unwrap();
        }
        let mut paths = vec![self.store(), self.config()];
        paths.extend(self.chip().exists().then(|| self.chip()));
        Run::new("chgrp").args(["-R", group]).args(&paths).ok();
        Run::new("chmod").args(["-R", "g+rX"]).args(&paths).ok();
    }

    /// How a URI hands over the PIN (RFC 7512 §2.4).
    fn login(&self) -> String {
        match self.pins {
            true => format!("?pin-value={}", Self::PIN),
            false => String::new(),
        }
    }

    fn toml(&self, devkeyd: &Path) -> String {
        let store = self.store();
        format!(
            "store = {:?}\ndevkeyd = {devkeyd:?}\n",
            store.to_str().unwrap()
        )
    }

    /// A chip like no other of the test's, with room for two tokens.
    #[cfg(feature = "simulate")]
    fn mount_chip(&self) -> Node {
        let seed = seed();
        let chip = Chip::new(&Make {
            seed,
            bytes: 2048,
            ones: 0.5,
            structure: 0.0,
        });
        Node::mount(chip, Conditions::default(), seed, &self.path("chip"))
            .unwrap_or_else(|e| panic!("{e}: /dev/fuse and the right to mount are wanted"))
    }

    /// Starts the TPM; gives its TCTI.
    fn start_tpm(&self) -> (Server, String) {
        let port = free_ports(2);
        let swtpm = self
            .run("swtpm")
            .words("socket --tpm2 --flags not-need-init,startup-clear")
            .args(["--tpmstate", &format!("dir={}", self.path("tpm").display())])
            .args([
                "--server",
                &format!("type=tcp,bindaddr=127.0.0.1,port={port}"),
            ])
            .args([
                "--ctrl",
                &format!("type=tcp,bindaddr=127.0.0.1,port={}", port + 1),
            ])
            .serve_on(port, &self.path("swtpm.log"));
        (swtpm, format!("swtpm:host=127.0.0.1,port={port}"))
    }
}

impl Key {
    /// Whether it is RSA.
    pub(crate) fn is_rsa(&self) -> bool {
        self.kind.starts_with("rsa")
    }

    /// The public key as OpenSSH prints it, without the comment.
    pub(crate) fn ssh_line(&self) -> String {
        let line = fs::read_to_string(&self.ssh).unwrap();
        let words: Vec<_> = line.split_whitespace().take(2).collect();
        words.join(" ")
    }
}

/// The module's real path, which is what ssh-agent compares with its list.
///
/// # Panics
/// Where it was not built, or by a build that let libtss2 into it.
pub(crate) fn module() -> &'static Path {
    static MODULE: OnceLock<PathBuf> = OnceLock::new();
    MODULE.get_or_init(|| {
        let build = "build it by itself, with: cargo build -p devkey-pkcs11";
        let debug = Path::new(env!("CARGO_BIN_EXE_devkey")).parent().unwrap();
        let path = debug.join("libdevkey_pkcs11.so");
        let path = path
            .canonicalize()
            .unwrap_or_else(|e| panic!("{}: {e}; {build}", path.display()));
        let needed = Run::new("readelf").arg("--dynamic").arg(&path).ok().text();
        assert!(
            !needed.contains("libtss2"),
            "{} is linked with libtss2; {build}",
            path.display()
        );
        path
    })
}
