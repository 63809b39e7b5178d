//! A certification authority in files, and OpenSSL with the engine in its two ways.

use std::fs;
use std::path::{Path, PathBuf};

use super::device::{Device, Key};
use super::module;
use super::run::Run;

/// How OpenSSL is brought to use the engine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Engine {
    /// `-engine pkcs11`, which makes it the default for everything in the process.
    Flag,
    /// A section of openssl.cnf, with the engine's name in the key's URI.
    Config,
    /// A section of openssl.cnf that makes it the default for everything.
    ConfigDefault,
}

impl Engine {
    /// All ways.
    pub(crate) const ALL: [Engine; 3] = [Engine::Flag, Engine::Config, Engine::ConfigDefault];

    /// `openssl` with a sub-command.
    pub(crate) fn openssl(self, device: &Device, command: &str) -> Run {
        let run = self.env(device, device.run("openssl").arg(command));
        match self {
            Engine::Flag => run.args(["-engine", "pkcs11"]),
            Engine::Config | Engine::ConfigDefault => run,
        }
    }

    /// What makes any program that uses OpenSSL find engine and module.
    pub(crate) fn env(self, device: &Device, run: Run) -> Run {
        run.env("OPENSSL_CONF", self.config(device))
            .env("PKCS11_MODULE_PATH", module())
    }

    /// The arguments that name a private key: `flag` is `-key` or `-sign`, `form` its `-keyform`.
    pub(crate) fn key(self, flag: &str, form: &str, key: &Key) -> Vec<String> {
        let words = match self {
            Engine::Flag => vec![flag, key.uri.as_str(), form, "engine"],
            Engine::Config | Engine::ConfigDefault => {
                return vec![
                    flag.into(),
                    format!("org.openssl.engine:pkcs11:{}", key.uri),
                ];
            }
        };
        words.into_iter().map(str::to_owned).collect()
    }

    fn config(self, device: &Device) -> PathBuf {
        let path = device.path(format!("{self:?}.cnf"));
        let engine = match self {
            Engine::Flag => String::new(),
            Engine::Config => section("init = 1"),
            Engine::ConfigDefault => section("init = 1\ndefault_algorithms = ALL"),
        };
        fs::write(
            &path,
            format!("{engine}[req]\ndistinguished_name = dn\n[dn]\n"),
        )
        .unwrap();
        path
    }
}

/// A certification authority, and the names of what it issued.
pub(crate) struct Ca {
    /// Its certificate.
    pub(crate) cert: PathBuf,
    /// Its key.
    pub(crate) key: PathBuf,
}

impl Ca {
    /// An authority with a key in a file.
    pub(crate) fn new(device: &Device) -> Self {
        let ca = Ca {
            cert: device.path("ca.pem"),
            key: device.path("ca.key"),
        };
        plain(device, "req")
            .words("-x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -noenc -days 2")
            .words("-subj /CN=ca -addext basicConstraints=critical,CA:TRUE -keyout")
            .arg(&ca.key)
            .arg("-out")
            .arg(&ca.cert)
            .ok();
        ca
    }

    /// A certificate for a key of the device, good for localhost as server and as client.
    pub(crate) fn certify(&self, device: &Device, key: &Key) -> PathBuf {
        let request = device.path(format!("{}.csr", key.label));
        Engine::Flag
            .openssl(device, "req")
            .args(["-new", "-subj", &format!("/CN={}", key.label), "-out"])
            .arg(&request)
            .args(Engine::Flag.key("-key", "-keyform", key))
            .ok();
        self.issue(device, &request, &key.label)
    }

    /// A key in a file with its certificate, for the side that is not the device's.
    pub(crate) fn plain(&self, device: &Device, name: &str) -> (PathBuf, PathBuf) {
        let [key, request] = ["key", "csr"].map(|kind| device.path(format!("{name}.{kind}")));
        plain(device, "req")
            .words("-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -noenc -keyout")
            .arg(&key)
            .args(["-subj", &format!("/CN={name}"), "-out"])
            .arg(&request)
            .ok();
        (key, self.issue(device, &request, name))
    }

    fn issue(&self, device: &Device, request: &Path, name: &str) -> PathBuf {
        let [cert, extensions] = ["pem", "ext"].map(|kind| device.path(format!("{name}.{kind}")));
        fs::write(&extensions, "subjectAltName = DNS:localhost,IP:127.0.0.1\n").unwrap();
        plain(device, "x509")
            .args(["-req", "-days", "1", "-in"])
            .arg(request)
            .arg("-CA")
            .arg(&self.cert)
            .arg("-CAkey")
            .arg(&self.key)
            .arg("-extfile")
            .arg(&extensions)
            .arg("-out")
            .arg(&cert)
            .ok();
        cert
    }
}

/// `openssl` without any engine.
pub(crate) fn plain(device: &Device, command: &str) -> Run {
    device.run("openssl").arg(command)
}

fn section(settings: &str) -> String {
    format!(
        "openssl_conf = start\n[start]\nengines = engines\n[engines]\npkcs11 = pkcs11\n\
         [pkcs11]\nengine_id = pkcs11\ndynamic_path = {}\nMODULE_PATH = {}\n{settings}\n",
        engine_path().display(),
        module().display()
    )
}

/// Where OpenSSL keeps the engine.
fn engine_path() -> PathBuf {
    let said = Run::new("openssl").args(["version", "-e"]).ok().text();
    let dir = said
        .split('"')
        .nth(1)
        .unwrap_or_else(|| panic!("no directory in {said}"));
    Path::new(dir).join("pkcs11.so")
}
