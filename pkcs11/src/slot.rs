//! A slot: one token, its objects and who is logged in.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use devkey::config::FoundToken;
use devkey::key::Hash;
use devkey::provider::{BackEnd, Capability};
use devkey::service::Link;
use devkey::store::{Store, TokenRecord};
use devkey::token::Token;

use crate::object::Objects;
use crate::raw::Ulong;
use crate::rv::{Result, Rv};

/// The back ends that run in the host's process. All others are reached through the key service.
const BACK_ENDS: &[BackEnd] = &[
    devkey::backends::file::BACK_END,
    devkey::backends::puf::IN_HOST,
];

/// A slot, which always has a token in it.
#[derive(Debug)]
pub(crate) struct Slot {
    /// Its id: stable as long as the token is, whatever other tokens there are.
    pub(crate) id: Ulong,
    /// Where the token is.
    pub(crate) found: FoundToken,
    token: Mutex<Arc<dyn Token>>,
    objects: Mutex<Objects>,
    logged_in: AtomicBool,
}

impl Slot {
    /// Opens a token. Its id is one that `taken` does not know.
    pub(crate) fn open(
        found: &FoundToken,
        link: &Arc<Link>,
        taken: impl Fn(Ulong) -> bool,
    ) -> devkey::Result<Self> {
        let token = found.open(BACK_ENDS, link)?;
        let mut id = slot_id(token.store().token(), found);
        while taken(id) {
            id = (id + 1) & MAX_ID;
        }
        Ok(Slot {
            id,
            found: found.clone(),
            token: Mutex::new(token),
            objects: Mutex::default(),
            logged_in: AtomicBool::new(false),
        })
    }

    /// The token.
    pub(crate) fn token(&self) -> Arc<dyn Token> {
        lock(&self.token).clone()
    }

    /// Opens the token anew, after a defect may have left it half changed. Handles and the objects
    /// of other sessions stay as they are: the next listing refreshes what is stored.
    pub(crate) fn reopen(&self, link: &Arc<Link>) {
        match self.found.open(BACK_ENDS, link) {
            Ok(token) => *lock(&self.token) = token,
            Err(e) => log::error!("{}: {e}", self.found.name),
        }
    }

    /// Whether this is the slot of what another look found: the same token in the same place.
    pub(crate) fn is(&self, found: &FoundToken) -> bool {
        self.found.dir == found.dir
            && Store::open(&found.dir)
                .is_ok_and(|there| self.record(|record| record.serial == there.token().serial))
    }

    /// Does something with the token's record.
    pub(crate) fn record<T>(&self, then: impl FnOnce(&TokenRecord) -> T) -> T {
        then(self.token().store().token())
    }

    /// What the token can do.
    pub(crate) fn capable<T>(&self, then: impl FnOnce(&[Capability]) -> T) -> T {
        self.record(|record| then(&record.capabilities))
    }

    /// The objects as they were last seen.
    pub(crate) fn objects(&self) -> MutexGuard<'_, Objects> {
        lock(&self.objects)
    }

    /// The objects as they are now, those of other processes among them.
    pub(crate) fn fresh_objects(&self) -> Result<MutexGuard<'_, Objects>> {
        let listing = self.token().store().list().map_err(Rv::of_listing)?;
        let mut objects = self.objects();
        objects.refresh(listing);
        Ok(objects)
    }

    /// Logs the user in. On a token without a PIN that means nothing, but clients count on the
    /// second attempt to be told so.
    pub(crate) fn log_in(&self) -> Result<()> {
        match self.logged_in.swap(true, Ordering::Relaxed) {
            true => Err(Rv::USER_ALREADY_LOGGED_IN),
            false => Ok(()),
        }
    }

    /// Logs the user out.
    pub(crate) fn log_out(&self) -> Result<()> {
        match self.logged_in.swap(false, Ordering::Relaxed) {
            true => Ok(()),
            false => Err(Rv::USER_NOT_LOGGED_IN),
        }
    }
}

/// Ids have 31 bits: some clients keep them in an `int`.
const MAX_ID: Ulong = 0x7fff_ffff;

/// From serial and directory: two copies of a token are two slots.
fn slot_id(record: &TokenRecord, found: &FoundToken) -> Ulong {
    let name = found.dir.file_name().unwrap_or_default();
    let text = [record.serial.as_bytes(), b"\0", name.as_encoded_bytes()].concat();
    let digest = Hash::Sha256.digest(&text);
    let id = digest
        .iter()
        .take(4)
        .fold(0, |id: Ulong, byte| id << 8 | Ulong::from(*byte));
    id & MAX_ID
}

/// Takes a lock. What a panic may have left half done is for [`crate::module::mend`].
pub(crate) fn lock<T: ?Sized>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::object::{Body, Object};
    use devkey::key::{KeyKind, PublicKey, Usage};
    use devkey::token::{KeyRequest, LocalToken, Names, TokenRequest};

    fn slot(dir: &std::path::Path) -> (Slot, Arc<Link>) {
        let request = TokenRequest {
            dir,
            label: "t",
            settings: Default::default(),
            pins: None,
        };
        LocalToken::create(&devkey::backends::file::BACK_END, &request).unwrap();
        let link = Arc::new(Link::new("/nowhere".into(), crate::raw::spawn));
        let found = FoundToken {
            name: "t".to_owned(),
            dir: dir.to_owned(),
            settings: Vec::new(),
            own: true,
        };
        (Slot::open(&found, &link, |_| false).unwrap(), link)
    }

    /// R25. Fails where `reopen` empties the objects.
    #[test]
    fn r25_handles_and_other_sessions_objects_outlive_a_panic() {
        let dir = tempfile::tempdir().unwrap();
        let (slot, link) = slot(&dir.path().join("t"));
        let request = KeyRequest {
            kind: KeyKind::EcP256,
            usage: Usage::SIGN,
            names: Names::default(),
        };
        slot.token().generate(&request).unwrap();
        slot.objects().begin_session(1);
        let peer = Object {
            label: String::new(),
            id: Vec::new(),
            body: Body::Foreign(PublicKey::from_ed25519(&[9; 32]).unwrap()),
        };
        slot.objects().add(1, peer).unwrap();
        let handles = |slot: &Slot| -> Vec<Ulong> {
            let all = slot.fresh_objects().unwrap().all();
            all.iter().map(|(handle, _)| *handle).collect()
        };
        let before = handles(&slot);
        assert_eq!(before.len(), 3);
        let token = slot.token();
        slot.reopen(&link);
        assert!(!Arc::ptr_eq(&token, &slot.token()));
        assert_eq!(handles(&slot), before);
    }

    /// Fails where `is` compares no serial, or no directory.
    #[test]
    fn a_slot_is_known_by_directory_and_serial() {
        let dir = tempfile::tempdir().unwrap();
        let place = dir.path().join("t");
        let (known, _) = slot(&place);
        assert!(known.is(&known.found));
        let (other, _) = slot(&dir.path().join("u"));
        assert!(!known.is(&other.found));
        std::fs::rename(&place, dir.path().join("v")).unwrap();
        let (another, _) = slot(&place);
        assert!(!known.is(&another.found));
        let moved = dir.path().join("v");
        assert!(!known.is(&FoundToken {
            dir: moved,
            ..known.found.clone()
        }));
    }
}
