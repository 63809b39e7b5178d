//! CAs of openssl and ssh-keygen, and a device with a key that they certify.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

use serde_json::Value;

use crate::common::{Backend, Device, Key, Output, Run};

/// A device with the keys "web" and "other", and in its directory:
///
/// | file | |
/// |---|---|
/// | `root.pem`, `between.pem`, with `.key` | a root and the CA below it |
/// | `sign FILE DAYS` | signs the request in FILE, PKCS#10: the certificate, then `between.pem` |
/// | `enrol` | what `devkey renew` runs: it signs for 40 days |
/// | `sshca`, `sshca.pub` | OpenSSH's |
pub(crate) struct World {
    pub(crate) device: Device,
    pub(crate) web: Key,
}

const CAS: &str = r#"set -e
new() { openssl req -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -noenc -keyout $1.key "$@"; }
ca() { printf 'basicConstraints=critical,CA:TRUE\nkeyUsage=critical,keyCertSign,cRLSign\n'; }
for root in root stranger; do
    openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -noenc -keyout $root.key \
        -out $root.pem -days 100 -subj /CN=$root -addext keyUsage=critical,keyCertSign
done
ca > ca.ext
openssl req -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -noenc -keyout between.key \
    -out between.csr -subj /CN=between
openssl x509 -req -in between.csr -days 90 -CA root.pem -CAkey root.key -extfile ca.ext -out between.pem
ssh-keygen -q -t ed25519 -N '' -f sshca
"#;

const SIGN: &str = r#"set -e
openssl x509 -req -in "$1" -days "$2" -CA between.pem -CAkey between.key -copy_extensions copy
cat between.pem
"#;

const ENROL: &str = r#"set -e
if [ "${DEVKEY_CERTIFICATE-}" ]; then sh ./sign "$DEVKEY_CSR" 40; fi
if [ "${DEVKEY_SSH_CERTIFICATE-}" ]; then
    old=$(ssh-keygen -Lf "$DEVKEY_SSH_CERTIFICATE")
    case $old in *' host '*) host=-h names=host.example ;; *) host= names=me ;; esac
    ssh-keygen -q -s sshca -I renewed $host -n $names -V +40d "$DEVKEY_PUBLIC"
    cat "${DEVKEY_PUBLIC%.pub}-cert.pub"
fi
"#;

impl World {
    pub(crate) fn new() -> Self {
        Self::on(Device::new(Backend::File))
    }

    pub(crate) fn on(device: Device) -> Self {
        let web = device.key("ec-p256", "web");
        device.key("ec-p256", "other");
        for (name, script) in [("sign", SIGN), ("enrol", ENROL)] {
            fs::write(device.path(name), script).unwrap();
        }
        device.run("sh").args(["-c", CAS]).ok();
        World { device, web }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.device.path(name)
    }

    pub(crate) fn read(&self, name: &str) -> Vec<u8> {
        fs::read(self.path(name)).unwrap()
    }

    /// A shell in the device's directory.
    pub(crate) fn sh(&self, script: &str) -> Run {
        self.device.run("sh").args(["-e", "-c", script])
    }

    /// A certificate of a key, and the CA's below the root, in `NAME.pem`.
    pub(crate) fn certify(&self, label: &str, name: &str, days: u32) -> PathBuf {
        let csr = format!(
            "openssl req -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -noenc -keyout tmp.key \
             -out tmp.csr -subj /O=Example/CN={name} -addext subjectAltName=DNS:localhost,IP:127.0.0.1
             openssl x509 -req -in tmp.csr -days {days} -CA between.pem -CAkey between.key \
             -force_pubkey {label}.pub.pem -copy_extensions copy > {name}.pem
             cat between.pem >> {name}.pem"
        );
        self.sh(&csr).ok();
        self.path(&format!("{name}.pem"))
    }

    /// OpenSSH's certificate of the key "web", in `NAME-cert.pub`; `more` are arguments of ssh-keygen.
    pub(crate) fn certify_ssh(&self, name: &str, more: &str) -> PathBuf {
        let script = format!(
            "cp web.pub {name}.pub; ssh-keygen -q -s sshca -I {name} {more} {name}.pub; \
             echo {name}-cert.pub"
        );
        self.sh(&script).ok();
        self.path(&format!("{name}-cert.pub"))
    }

    pub(crate) fn install(&self, file: &str) -> Output {
        let run = self.device.devkey().args(["cert", "install"]);
        run.arg(self.path(file)).ok()
    }

    pub(crate) fn cert(&self, line: &str) -> Run {
        self.device.devkey().arg("cert").words(line)
    }

    /// What `devkey cert list --json` says.
    pub(crate) fn list(&self) -> Vec<Value> {
        let listed = self.cert("list --json").ok();
        serde_json::from_slice(&listed.stdout).unwrap()
    }

    /// The X.509 certificates that are listed, as text, in their order.
    pub(crate) fn subjects(&self) -> Vec<String> {
        let text = |one: &Value| one["subject"].as_str().unwrap().to_owned();
        self.list().iter().map(text).collect()
    }

    /// Every file of the token and what is in it.
    pub(crate) fn files(&self) -> BTreeMap<String, Vec<u8>> {
        let dir = self.device.store().join(Device::TOKEN);
        let entries = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap());
        entries
            .map(|entry| {
                let name = entry.file_name().into_string().unwrap();
                (name, fs::read(entry.path()).unwrap())
            })
            .collect()
    }
}
