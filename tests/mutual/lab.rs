//! A CA, and three hosts and three users that it certified: each a device of its own, one on each back end.

use std::fs;
use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use serde_json::Value;

use crate::common::sshd::Sshd;
use crate::common::{Backend, Device, Key, Run};
use crate::maker::Maker;

/// The back ends, in the order of [`Lab::hosts`] and [`Lab::users`].
const BACKENDS: [Backend; 3] = [Backend::Tpm, Backend::Puf, Backend::File];

/// How long certificates are valid, in days; the CA is twice as old.
const DAYS: u32 = 5;

/// What a peer is certified as.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    Host,
    User,
}

/// A CA of devkey: a device with a key, and the books beside it.
pub(crate) struct Authority {
    device: Device,
}

/// A device with a key "id", and what its programs need to use its certificates.
pub(crate) struct Peer {
    pub(crate) device: Device,
    pub(crate) key: Key,
    /// What it is called in its certificates, `tpm-host` say.
    pub(crate) name: String,
    /// Serials of what was issued to it.
    pub(crate) serials: Vec<String>,
}

/// A test's turn with the lab: its devices do one thing at a time.
pub(crate) struct Turn {
    lab: Arc<Lab>,
    _alone: MutexGuard<'static, ()>,
}

/// All of it.
pub(crate) struct Lab {
    pub(crate) authority: Authority,
    pub(crate) hosts: [Peer; 3],
    pub(crate) users: [Peer; 3],
}

impl Lab {
    /// The one lab of the tests that wait for each other: swtpm and its certificates take their time.
    pub(crate) fn turn() -> Turn {
        static LAB: Mutex<Weak<Lab>> = Mutex::new(Weak::new());
        static ALONE: Mutex<()> = Mutex::new(());
        let mut shared = LAB.lock().unwrap_or_else(PoisonError::into_inner);
        let lab = shared.upgrade().unwrap_or_else(|| {
            let lab = Arc::new(Lab::new());
            *shared = Arc::downgrade(&lab);
            lab
        });
        drop(shared);
        Turn {
            lab,
            _alone: ALONE.lock().unwrap_or_else(PoisonError::into_inner),
        }
    }

    fn new() -> Self {
        let maker = Maker::new();
        let peers = || {
            BACKENDS.map(|backend| {
                Peer::on(match backend {
                    Backend::Tpm => Device::with_tpm_by(|state| maker.furnish(state)),
                    other => Device::new(other),
                })
            })
        };
        let (mut hosts, mut users) = (peers(), peers());
        // The maker's own certificates are made with his first TPM.
        let authority = Authority::believing(&maker);
        for (peers, role) in [(&mut hosts, Role::Host), (&mut users, Role::User)] {
            peers
                .iter_mut()
                .for_each(|peer| authority.certify(peer, role));
        }
        Lab {
            authority,
            hosts,
            users,
        }
    }
}

impl Deref for Turn {
    type Target = Lab;

    fn deref(&self) -> &Lab {
        &self.lab
    }
}

impl Authority {
    /// A CA that believes no maker of TPMs.
    pub(crate) fn new() -> Self {
        Authority::made(&[])
    }

    /// One with a profile "tpm" besides, for TPMs of that maker.
    fn believing(maker: &Maker) -> Self {
        let authority = Authority::made(&maker.chain());
        let path = authority.device.path("ca/ca.toml");
        let text = fs::read_to_string(&path).unwrap();
        let (_, profile) = text.split_once("[profiles.device]").unwrap();
        let strict = profile.replace("level = \"software\"", "level = \"tpm\"");
        assert_ne!(profile, strict);
        fs::write(&path, format!("{text}\n[profiles.tpm]{strict}")).unwrap();
        authority
    }

    fn made(ek_roots: &[PathBuf]) -> Self {
        let device = Device::new(Backend::File);
        device.key("ec-p256", "ca");
        let authority = Authority { device };
        let days = DAYS.to_string();
        let init = authority.then(2 * DAYS).words("ca init --dir ca --key ca");
        let init = init.args(["--name", "Lab CA", "--days", &days]);
        let names = [
            "subject:CN=*",
            "dns:localhost",
            "ip:127.0.0.1",
            "principal:**",
        ];
        let init = init.args(names.iter().flat_map(|name| ["--allow", *name]));
        let roots = ek_roots
            .iter()
            .flat_map(|root| [Path::new("--ek-root"), root]);
        init.args(roots).ok();
        fs::copy(authority.device.path("ca.pub"), authority.ssh()).unwrap();
        authority
    }

    /// `devkey` on its machine, some days ago.
    fn then(&self, days: u32) -> Run {
        ago(&self.device, days)
    }

    /// `devkey ca` with a sub-command.
    pub(crate) fn ca(&self, command: &str) -> Run {
        self.device.devkey().args(["ca", command, "--dir", "ca"])
    }

    /// Its certificate.
    pub(crate) fn pem(&self) -> PathBuf {
        self.device.path("ca/ca.pem")
    }

    /// Its key, as OpenSSH's line.
    pub(crate) fn ssh(&self) -> PathBuf {
        self.device.path("ca/ssh.pub")
    }

    /// The list of revoked certificates.
    pub(crate) fn crl(&self) -> PathBuf {
        let path = self.device.path("crl.pem");
        self.ca("crl").arg("-o").arg(&path).ok();
        path
    }

    /// OpenSSH's list.
    pub(crate) fn krl(&self) -> PathBuf {
        let path = self.device.path("krl");
        self.ca("krl").arg("-o").arg(&path).ok();
        path
    }

    /// Request, challenge, answer, certificates, installation.
    pub(crate) fn certify(&self, peer: &mut Peer, role: Role) {
        self.certify_then(peer, role, 0);
    }

    /// All of that some days ago; a certificate that has expired is installed only because it is told to.
    pub(crate) fn certify_then(&self, peer: &mut Peer, role: Role, days: u32) {
        if peer.device.backend() == Backend::Puf {
            // As on the factory line, before its device asks.
            let register = self.ca("register").args(["--lot", "1"]);
            register.arg(&peer.key.ssh).ok().says(&["registered "]);
        }
        peer.name = peer.named(role);
        let said = self.exchange(peer, role, days);
        let (_, rest) = said.split_once("issued serial ").unwrap();
        let serial = rest.split(',').next().unwrap();
        peer.serials.push(serial.to_owned());
        self.install(peer, days > DAYS);
        let shown: Vec<Value> = serde_json::from_str(&peer.show("json")).unwrap();
        let level = peer.level();
        assert!(shown.iter().all(|one| one["level"] == level), "{shown:?}");
    }

    /// Request, challenge, answer; what the CA says when it issues.
    fn exchange(&self, peer: &Peer, role: Role, days: u32) -> String {
        let device = &peer.device;
        let files = ["request", "challenge", "answer", "issued"].map(|name| device.path(name));
        let [request, challenge, answer, issued] = &files;
        let asking = ago(device, days).words("request id --san dns:localhost --san ip:127.0.0.1");
        let asking = asking.args(["--subject", &format!("CN={}", peer.name), "--ssh"]);
        let asking = asking.args(role.asked()).arg("--ca").arg(self.pem());
        asking.arg("-o").arg(request).ok();
        let (profile, level) = match peer.level() {
            "tpm" => ("tpm", "level tpm"),
            _ => ("device", "level software"),
        };
        let asked = self.then(days).words("ca challenge --dir ca --profile");
        let asked = asked.args([Path::new(profile), Path::new("-o"), challenge, request]);
        let asked = asked.seconds(120).ok();
        asked.says(&[level]);
        if device.backend() == Backend::Puf {
            // The simulator is one, registered or not.
            asked.says(&["simulator"]);
        }
        let answering = ago(device, days).arg("answer").arg("-o");
        answering.args([answer, challenge]).seconds(120).ok();
        let issue = self.then(days).words("ca issue --dir ca -o");
        let said = issue.args([issued, answer]).ok();
        said.says(&[level]).all()
    }

    fn install(&self, peer: &Peer, expired: bool) {
        let install = || {
            let install = peer.device.devkey().words("cert install --ca");
            let install = install.arg(self.pem()).arg("--ssh-ca").arg(self.ssh());
            install.arg(peer.device.path("issued"))
        };
        if expired {
            install().fails().says(&["expired"]);
            install().arg("--any-time").ok();
        } else {
            install().ok();
        }
    }

    /// Revokes all that a peer was given.
    pub(crate) fn revoke(&self, peer: &Peer) {
        for serial in &peer.serials {
            self.ca("revoke").arg(serial).ok().says(&["revoked"]);
        }
    }
}

impl Peer {
    /// A device with a key that nobody has certified.
    pub(crate) fn on(device: Device) -> Self {
        let key = device.key("ec-p256", "id");
        Peer {
            device,
            key,
            name: String::new(),
            serials: Vec::new(),
        }
    }

    fn named(&self, role: Role) -> String {
        format!("{:?}-{role:?}", self.device.backend()).to_lowercase()
    }

    /// What the CA can state of it.
    fn level(&self) -> &'static str {
        match self.device.backend() {
            Backend::Tpm => "tpm",
            _ => "software",
        }
    }

    /// The certificate and its chain, where it was installed.
    pub(crate) fn chain(&self) -> PathBuf {
        let shown = self.show("pem");
        let path = self.device.path("chain.pem");
        fs::write(&path, shown).unwrap();
        path
    }

    /// OpenSSH's certificate.
    pub(crate) fn ssh(&self, role: Role) -> PathBuf {
        let wanted = match role {
            Role::Host => "id-host-cert.pub",
            Role::User => "id-cert.pub",
        };
        let shown = self.show("ssh-file");
        let found = shown
            .lines()
            .find(|line| line.ends_with(&format!("/{wanted}")));
        found
            .unwrap_or_else(|| panic!("no {wanted}: {shown}"))
            .into()
    }

    fn show(&self, format: &str) -> String {
        let show = self.device.devkey().words("cert show id --format");
        show.arg(format).ok().text()
    }
}

impl Role {
    /// What `devkey request --ssh` is told.
    fn asked(self) -> [String; 3] {
        let account = || Sshd::destination()[0].replace("@127.0.0.1", "");
        let (role, name) = match self {
            Role::Host => ("host", "127.0.0.1".to_owned()),
            Role::User => ("user", account()),
        };
        [role.to_owned(), "--principal".to_owned(), name]
    }
}

/// `devkey` on a machine whose clock is some days behind.
fn ago(device: &Device, days: u32) -> Run {
    match days {
        0 => device.devkey(),
        days => {
            device
                .run("faketime")
                .args(["-f", &format!("-{days}d"), env!("CARGO_BIN_EXE_devkey")])
        }
    }
}
