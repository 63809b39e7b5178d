//! A CA of SSH on a file token, and the contents of what it signs.

use std::time::{SystemTime, UNIX_EPOCH};

use devkey::backends::file;
use devkey::identity::level::Level;
use devkey::identity::signer::TokenSigner;
use devkey::identity::ssh::certificate::{Certificate, Contents, Kind, issue};
use devkey::key::{KeyKind, PublicKey, Usage};
use devkey::store::KeyRecord;
use devkey::token::{KeyRequest, LocalToken, Names, Token, TokenRequest};
use tempfile::TempDir;

/// A token of its own with one key.
pub(crate) struct Authority {
    token: LocalToken,
    key: KeyRecord,
    _dir: TempDir,
}

impl Authority {
    pub(crate) fn new(kind: KeyKind) -> Self {
        let dir = TempDir::new().unwrap();
        let request = TokenRequest {
            dir: &dir.path().join("ca"),
            label: "ca",
            settings: Default::default(),
            pins: None,
        };
        let token = LocalToken::create(&file::BACK_END, &request).unwrap();
        let names = Names {
            label: Some("ca".to_owned()),
            cka_id: None,
        };
        let usage = Usage::SIGN;
        let key = token.generate(&KeyRequest { kind, usage, names }).unwrap();
        Authority {
            token,
            key,
            _dir: dir,
        }
    }

    pub(crate) fn public(&self) -> &PublicKey {
        &self.key.public
    }

    pub(crate) fn signer(&self) -> TokenSigner<'_> {
        TokenSigner {
            token: &self.token,
            key: &self.key,
        }
    }

    pub(crate) fn issue(&self, contents: &Contents, level: Level) -> Certificate {
        issue(&self.signer(), contents, level).unwrap()
    }
}

/// Seconds since 1970.
pub(crate) fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    since.as_secs()
}

/// A certificate's contents, valid for ten minutes.
pub(crate) fn contents(kind: Kind, key: &PublicKey, principal: &str) -> Contents {
    let permit = matches!(kind, Kind::User).then(|| ("permit-pty".into(), String::new()));
    Contents {
        kind,
        key: key.clone(),
        serial: 4711,
        key_id: "device-17".into(),
        principals: vec![principal.into()],
        valid_after: now() - 300,
        valid_before: now() + 300,
        critical_options: [].into(),
        extensions: permit.into_iter().collect(),
    }
}
