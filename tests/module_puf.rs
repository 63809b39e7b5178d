//! The built module, and the library, on a PUF that goes away between two signatures.
#![cfg(feature = "simulate")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "what cannot go on has failed"
)]

#[path = "common/module.rs"]
mod module;

use std::path::Path;
use std::ptr::null_mut;
use std::time::{Duration, Instant};

use cryptoki_sys::*;
use devkey::Error;
use devkey::backends::puf::BACK_END;
use devkey::key::{Hash, KeyKind, Scheme, Usage};
use devkey::provider::Settings;
use devkey::simulate::{Chip, Conditions, Fault, Make, Node};
use devkey::store::{KeyRecord, Store};
use devkey::token::{KeyRequest, LocalToken, Names, Token, TokenRequest};
use module::{Module, call};
use tempfile::TempDir;

/// How long an operation may take to find that its device is gone.
const AT_ONCE: Duration = Duration::from_secs(5);

const KINDS: [(KeyKind, &str); 2] = [(KeyKind::EcP256, "p256"), (KeyKind::Rsa2048, "rsa")];

/// A chip, and a token on it with a key of each of [`KINDS`].
struct Device {
    // Declared first: unmounted before the directory goes.
    node: Node,
    _mount: TempDir,
    keys: Vec<KeyRecord>,
}

impl Device {
    fn new(token: &Path) -> Self {
        let mount = TempDir::new().unwrap();
        let chip = Chip::new(&Make {
            seed: 11,
            bytes: 1024,
            ones: 0.5,
            structure: 0.0,
        });
        let node = Node::mount(chip, Conditions::default(), 0, mount.path())
            .expect("/dev/fuse and the right to mount are wanted: run as root");
        let device = mount.path().join("puf0").display().to_string();
        let settings: Settings = [
            ("device".to_owned(), device),
            ("allow_file".to_owned(), "yes".to_owned()),
        ]
        .into();
        let request = TokenRequest {
            dir: token,
            label: "puf",
            settings,
            pins: None,
        };
        let made = LocalToken::create(&BACK_END, &request).unwrap();
        let key = |(kind, label): (KeyKind, &str)| {
            let names = Names {
                label: Some(label.to_owned()),
                cka_id: None,
            };
            let usage = Usage::SIGN;
            made.generate(&KeyRequest { kind, usage, names }).unwrap()
        };
        Device {
            node,
            _mount: mount,
            keys: KINDS.map(key).into(),
        }
    }
}

/// Between two operations no key is in memory: without its device the next one fails, and at once.
/// Seen to fail with `keys_may_stay` of the PUF back end true.
#[test]
fn a_key_of_the_library_is_gone_with_its_device() {
    let home = TempDir::new().unwrap();
    let dir = home.path().join("token");
    let device = Device::new(&dir);
    let store = Store::open(&dir).unwrap();
    let settings = store.token().settings.clone();
    let token = LocalToken::open(&BACK_END, store, &settings).unwrap();
    let schemes = [Scheme::Ecdsa, Scheme::RsaPkcs1(Hash::Sha256)];
    for (key, scheme) in device.keys.iter().zip(schemes) {
        token.sign(key, scheme, &[7; 32]).unwrap();
        device.node.fail(Fault::Missing);
        let start = Instant::now();
        let failed = token.sign(key, scheme, &[7; 32]).unwrap_err();
        assert!(matches!(failed, Error::DeviceGone { .. }), "{failed:?}");
        assert!(start.elapsed() < AT_ONCE);
        device.node.fail(Fault::None);
        token.sign(key, scheme, &[7; 32]).unwrap();
    }
}

/// The same for a host application, which keeps its session and the key's handle.
#[test]
fn a_key_of_the_module_is_gone_with_its_device() {
    let m = Module::without_tokens();
    let device = Device::new(&m.token_dir());
    m.initialize();
    let session = m.session();
    for (label, mechanism) in [("p256", CKM_ECDSA), ("rsa", CKM_SHA256_RSA_PKCS)] {
        let key = m.one(session, CKO_PRIVATE_KEY, label);
        let sign = || match m.sign_init(session, mechanism, key) {
            CKR_OK => m.sign(session, &[7; 32]).map(drop),
            rv => Err(rv),
        };
        sign().unwrap();
        device.node.fail(Fault::Missing);
        let start = Instant::now();
        assert_eq!(sign(), Err(CKR_DEVICE_ERROR));
        assert!(start.elapsed() < AT_ONCE);
        device.node.fail(Fault::None);
        sign().unwrap();
    }
    assert_eq!(call!(m, C_Finalize, null_mut()), CKR_OK);
}
