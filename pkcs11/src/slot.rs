//! A slot: one token, its objects and who is logged in.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use devkey::config::{FoundToken, Links, Offer};
use devkey::key::Hash;
use devkey::provider::{BackEnd, Capability};
use devkey::store::record::FORMAT;
use devkey::store::{Role, Store, TokenRecord};
use devkey::token::{Pin, PinState, Token};

use crate::object::Objects;
use crate::raw::Ulong;
use crate::rv::{Result, Rv};

/// The back ends that run in the host's process. All others are reached through the key service.
const BACK_ENDS: &[BackEnd] = &[
    devkey::backends::file::BACK_END,
    devkey::backends::puf::IN_HOST,
];

/// A slot: with a token in it, or with a place where one may be made.
#[derive(Debug)]
pub(crate) struct Slot {
    /// Its id: stable as long as the token is, whatever other tokens there are.
    pub(crate) id: Ulong,
    /// Where the token is.
    pub(crate) found: FoundToken,
    content: Mutex<Content>,
    objects: Mutex<Objects>,
    /// Who is logged in, for all sessions.
    who: Mutex<Option<Role>>,
    /// Held by the one thread that logs in or out, which may take the device a while.
    changing: Mutex<()>,
    /// How many logins of this slot have ended: what began before the last of these is over.
    ended: AtomicU64,
}

#[derive(Debug, Clone)]
enum Content {
    Token(Arc<dyn Token>),
    /// No token yet, and what there is to say of it.
    Blank(Arc<(Offer, TokenRecord)>),
}

impl Slot {
    /// Opens a token. Its id is one that `taken` does not know.
    pub(crate) fn open(
        found: &FoundToken,
        links: &Links,
        taken: impl Fn(Ulong) -> bool,
    ) -> devkey::Result<Self> {
        let token = found.open(BACK_ENDS, links)?;
        Ok(Slot::new(found, Content::Token(token), taken))
    }

    /// A slot for a token that may be made.
    pub(crate) fn blank(offer: Offer, taken: impl Fn(Ulong) -> bool) -> Self {
        let found = offer.token.clone();
        let record = nothing_yet(&offer);
        Slot::new(&found, Content::Blank(Arc::new((offer, record))), taken)
    }

    fn new(found: &FoundToken, content: Content, taken: impl Fn(Ulong) -> bool) -> Self {
        let mut id = content.record(|record| slot_id(record, found));
        while taken(id) {
            id = (id + 1) & MAX_ID;
        }
        Slot {
            id,
            found: found.clone(),
            content: Mutex::new(content),
            objects: Mutex::default(),
            who: Mutex::default(),
            changing: Mutex::default(),
            ended: AtomicU64::new(0),
        }
    }

    /// The token.
    pub(crate) fn token(&self) -> Result<Arc<dyn Token>> {
        match lock(&self.content).clone() {
            Content::Token(token) => Ok(token),
            Content::Blank(_) => Err(Rv::TOKEN_NOT_RECOGNIZED),
        }
    }

    /// Whether there is no token yet.
    pub(crate) fn is_blank(&self) -> bool {
        matches!(&*lock(&self.content), Content::Blank(_))
    }

    /// Makes the token of a blank slot, which keeps its id.
    pub(crate) fn initialise(&self, links: &Links, label: &str, so: &Pin) -> Result<()> {
        let Content::Blank(blank) = lock(&self.content).clone() else {
            return Err(Rv::SESSION_EXISTS);
        };
        let (offer, _) = &*blank;
        let token = offer.create(BACK_ENDS, links, label, so);
        *lock(&self.content) = Content::Token(token.map_err(Rv::of_creation)?);
        Ok(())
    }

    /// Opens the token anew, after a defect may have left it half changed, or another process
    /// changed it. Handles and the objects of other sessions stay as they are: the next listing
    /// refreshes what is stored. Nobody is logged in to it.
    pub(crate) fn reopen(&self, links: &Links) {
        if self.who().is_some() && self.has_pins() {
            self.end_login();
        }
        match self.found.open(BACK_ENDS, links) {
            Ok(token) => *lock(&self.content) = Content::Token(token),
            Err(e) => log::error!("{}: {e}", self.found.name),
        }
    }

    /// Whether this is the slot of what another look found: the same token in the same place, or
    /// the one that was made where there was none. A token that was renamed is opened anew.
    pub(crate) fn is(&self, found: &FoundToken, links: &Links) -> bool {
        if self.found.dir != found.dir {
            return false;
        }
        let Ok(there) = Store::kept(&found.dir, found.reach.keeper) else {
            return false;
        };
        let there = there.token();
        let (same, renamed) = self.record(|r| (r.serial == there.serial, r.label != there.label));
        if self.is_blank() || (same && renamed) {
            self.reopen(links);
        }
        same || self.record(|record| record.serial == there.serial)
    }

    /// Whether this is the slot of a place where there is no token yet.
    pub(crate) fn offers(&self, offer: &Offer) -> bool {
        self.is_blank() && self.found.dir == offer.token.dir
    }

    /// Does something with the token's record.
    pub(crate) fn record<T>(&self, then: impl FnOnce(&TokenRecord) -> T) -> T {
        let content = lock(&self.content).clone();
        content.record(then)
    }

    /// What the token can do.
    pub(crate) fn capable<T>(&self, then: impl FnOnce(&[Capability]) -> T) -> T {
        self.record(|record| then(&record.capabilities))
    }

    /// Whether its keys want a login.
    pub(crate) fn has_pins(&self) -> bool {
        self.record(|record| record.pin)
    }

    /// What the store says of a PIN now; `None` where none is set. One that cannot be read is there.
    pub(crate) fn pin(&self, role: Role) -> Option<PinState> {
        let state = PinState::of(self.token().ok()?.store(), role);
        state.unwrap_or_else(|e| {
            log::warn!("{}: {e}", self.found.name);
            Some(PinState {
                left: u32::MAX,
                of: u32::MAX,
                to_be_changed: false,
            })
        })
    }

    /// The objects as they were last seen.
    pub(crate) fn objects(&self) -> MutexGuard<'_, Objects> {
        lock(&self.objects)
    }

    /// The objects as they are now, those of other processes among them; private ones for the user.
    pub(crate) fn fresh_objects(&self) -> Result<MutexGuard<'_, Objects>> {
        if self.is_blank() {
            return Ok(self.objects());
        }
        let listing = self.token()?.store().list().map_err(Rv::of_listing)?;
        let mut objects = self.objects();
        // Under the lock of the objects: who logs out meanwhile hides them after this.
        objects.refresh(listing, self.is_users());
        Ok(objects)
    }

    /// Who is logged in.
    pub(crate) fn who(&self) -> Option<Role> {
        *lock(&self.who)
    }

    /// Whether private keys are there: for the user, and for everybody where there are no PINs.
    pub(crate) fn is_users(&self) -> bool {
        self.who() == Some(Role::User) || !self.has_pins()
    }

    /// How many logins have ended.
    pub(crate) fn ended(&self) -> u64 {
        self.ended.load(Ordering::Acquire)
    }

    /// Keeps other logins and logouts waiting.
    pub(crate) fn changing(&self) -> MutexGuard<'_, ()> {
        lock(&self.changing)
    }

    /// Notes who is logged in.
    pub(crate) fn log_in(&self, role: Role) {
        *lock(&self.who) = Some(role);
    }

    /// Logs out. Without PINs that means nothing, but clients count on being told.
    pub(crate) fn log_out(&self) -> Result<()> {
        let _alone = self.changing();
        match (self.who(), self.has_pins()) {
            (None, _) => return Err(Rv::USER_NOT_LOGGED_IN),
            (Some(_), true) => self.end_login(),
            (Some(_), false) => *lock(&self.who) = None,
        }
        Ok(())
    }

    /// The token says that nobody is logged in: the key service was started anew since. Unless the
    /// login has ended anyway, by the count of those, it ends here too.
    pub(crate) fn login_is_lost(&self, ended: u64) {
        let _alone = self.changing();
        if self.who() == Some(Role::User) && self.ended() == ended {
            self.end_login();
        }
    }

    /// Forgets who is logged in, then what only they may see, here and where the token is.
    pub(crate) fn end_login(&self) {
        *lock(&self.who) = None;
        self.ended.fetch_add(1, Ordering::AcqRel);
        self.objects().hide_private();
        // A key service that cannot be reached, or that is given up, logs out by ending.
        let told = self.token().map(|token| token.logout());
        if let Ok(Err(e)) = told {
            log::warn!("{}: {e}", self.found.name);
        }
    }
}

impl Content {
    fn record<T>(&self, then: impl FnOnce(&TokenRecord) -> T) -> T {
        match self {
            Content::Token(token) => then(token.store().token()),
            Content::Blank(blank) => then(&blank.1),
        }
    }
}

/// What there is to say of a token that is not there: its serial tells places apart.
fn nothing_yet(offer: &Offer) -> TokenRecord {
    let place = Hash::Sha256.digest(offer.token.dir.as_os_str().as_encoded_bytes());
    let serial = place.iter().take(8).map(|byte| format!("{byte:02x}"));
    TokenRecord {
        version: FORMAT,
        label: String::new(),
        serial: serial.collect(),
        model: String::new(),
        back_end: offer.back_end.clone(),
        hardware: false,
        binding: None,
        settings: Default::default(),
        pin: true,
        capabilities: Vec::new(),
        secret: None,
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

    fn slot(dir: &std::path::Path) -> (Slot, Links) {
        let request = TokenRequest {
            dir,
            label: "t",
            settings: Default::default(),
            pins: None,
        };
        LocalToken::create(&devkey::backends::file::BACK_END, &request).unwrap();
        let links = Links::private("/nowhere".into(), crate::raw::spawn);
        let found = FoundToken {
            name: "t".to_owned(),
            dir: dir.to_owned(),
            own: true,
            ..FoundToken::default()
        };
        (Slot::open(&found, &links, |_| false).unwrap(), links)
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
        slot.token().unwrap().generate(&request).unwrap();
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
        let token = slot.token().unwrap();
        slot.reopen(&link);
        assert!(!Arc::ptr_eq(&token, &slot.token().unwrap()));
        assert_eq!(handles(&slot), before);
    }

    /// Fails where `is` compares no serial, or no directory.
    #[test]
    fn a_slot_is_known_by_directory_and_serial() {
        let dir = tempfile::tempdir().unwrap();
        let place = dir.path().join("t");
        let (known, link) = slot(&place);
        assert!(known.is(&known.found, &link));
        let (other, _) = slot(&dir.path().join("u"));
        assert!(!known.is(&other.found, &link));
        std::fs::rename(&place, dir.path().join("v")).unwrap();
        let (another, _) = slot(&place);
        assert!(!known.is(&another.found, &link));
        let moved = dir.path().join("v");
        let moved = FoundToken {
            dir: moved,
            ..known.found.clone()
        };
        assert!(!known.is(&moved, &link));
    }
}
