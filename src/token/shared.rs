//! What the views of a token share: its store, its provider, and the keys that are open.
//!
//! On a token with PINs the open keys belong to a secret. A view whose user gave the PIN has that
//! secret and gets them; another one gets none of them. They are closed when the last view that has
//! the secret is gone, and the secret of before a reset opens nothing.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use once_cell::sync::OnceCell;

use super::secret::TokenSecret;
use crate::provider::{Key, Provider};
use crate::store::{KeyRecord, ObjectId, Store};

/// One token, however many look at it.
pub(super) struct Shared {
    pub(super) store: Store,
    pub(super) provider: Arc<dyn Provider>,
    /// The secret of a token without PINs.
    pub(super) secret: OnceCell<Option<Arc<TokenSecret>>>,
    /// Keys in use.
    pub(super) keys: OpenKeys,
}

/// Keys in use, and for whom.
#[derive(Default)]
pub(super) struct OpenKeys(Mutex<State>);

#[derive(Default)]
struct State {
    /// Each with the blob that it was opened from.
    open: HashMap<ObjectId, (Vec<u8>, Arc<dyn Key>)>,
    /// The secret that they were opened by, where keys have an auth of it, and how many views have
    /// it.
    secret: Option<(Arc<TokenSecret>, usize)>,
}

impl OpenKeys {
    /// A view's user gave the PIN. Another secret than that of the views before makes theirs void:
    /// the token was reset since.
    pub(super) fn join(&self, secret: TokenSecret) -> Arc<TokenSecret> {
        let mut state = self.state();
        if let Some((present, views)) = &mut state.secret
            && present.equals(&secret)
        {
            *views += 1;
            return present.clone();
        }
        let secret = Arc::new(secret);
        state.secret = Some((secret.clone(), 1));
        let closed = std::mem::take(&mut state.open);
        drop(state);
        drop(closed);
        secret
    }

    /// A view that had joined is gone; with the last one the keys go.
    pub(super) fn leave(&self, secret: &Arc<TokenSecret>) {
        let mut state = self.state();
        let Some((present, views)) = &mut state.secret else {
            return;
        };
        if !Arc::ptr_eq(present, secret) {
            return;
        }
        *views = views.saturating_sub(1);
        if *views == 0 {
            let closed = std::mem::take(&mut *state);
            drop(state);
            drop(closed);
        }
    }

    /// Closes all keys, and no view has a login any more.
    pub(super) fn revoke(&self) {
        let state = std::mem::take(&mut *self.state());
        drop(state);
    }

    /// Whether a view's login still stands.
    pub(super) fn honours(&self, secret: &Arc<TokenSecret>) -> bool {
        self.state().honours(secret)
    }

    /// The key of a record, where it is open for who has this secret.
    pub(super) fn get(
        &self,
        secret: Option<&Arc<TokenSecret>>,
        record: &KeyRecord,
    ) -> Option<Arc<dyn Key>> {
        let state = self.state();
        let (blob, key) = state.open.get(&record.id)?;
        (state.may(secret) && *blob == record.blob.bytes).then(|| key.clone())
    }

    /// Keeps a key for the next one who asks. What was kept of the same record meanwhile stays, and
    /// what nobody may ask for any more is not kept.
    pub(super) fn keep(
        &self,
        secret: Option<&Arc<TokenSecret>>,
        record: &KeyRecord,
        key: Arc<dyn Key>,
    ) -> Arc<dyn Key> {
        let mut state = self.state();
        if !state.may(secret) {
            return key;
        }
        if let Some((blob, there)) = state.open.get(&record.id)
            && *blob == record.blob.bytes
        {
            return there.clone();
        }
        let entry = (record.blob.bytes.clone(), key.clone());
        let closed = state.open.insert(record.id.clone(), entry);
        drop(state);
        drop(closed);
        key
    }

    /// Closes a key.
    pub(super) fn forget(&self, id: &ObjectId) {
        let closed = self.state().open.remove(id);
        drop(closed);
    }

    /// Keys are dropped when the lock is not held: they may have a device to speak to.
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn honours(&self, secret: &Arc<TokenSecret>) -> bool {
        let present = self.secret.as_ref();
        present.is_some_and(|(present, _)| Arc::ptr_eq(present, secret))
    }

    /// Whether who has this secret, or none, gets the keys that are open.
    fn may(&self, secret: Option<&Arc<TokenSecret>>) -> bool {
        match secret.filter(|secret| secret.guards_keys()) {
            Some(secret) => self.honours(secret),
            None => true,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Result;
    use crate::key::{KeyKind, PublicKey, Scheme, Usage};
    use crate::provider::Blob;
    use crate::secret::Secret;

    /// Its other owner sees when it is closed.
    #[derive(Debug)]
    struct Watched {
        _open: Arc<()>,
    }

    impl Key for Watched {
        fn sign(&self, _: Scheme, _: &[u8]) -> Result<Vec<u8>> {
            Ok(Vec::new())
        }
    }

    fn secret(byte: u8) -> TokenSecret {
        TokenSecret::new(Secret::new(vec![byte; 32]), true).unwrap()
    }

    fn record(blob: u8) -> KeyRecord {
        // The base point of P-256 (SEC 2 §2.4.2), uncompressed.
        let point = "046b17d1f2e12c4247f8bce6e563a440f277037d812deb33a0f4a13945d898c296\
                     4fe342e2fe1a7f9b8ee7eb4a7c0f9e162bce33576b315ececbb6406837bf51f5";
        let point = base16ct::lower::decode_vec(point).unwrap();
        let public = PublicKey::from_sec1(KeyKind::EcP256, &point).unwrap();
        let blob = Blob {
            label: "TEST".to_owned(),
            bytes: vec![blob],
        };
        let id = ObjectId::try_from("one".to_owned()).unwrap();
        KeyRecord::new(id, "key".to_owned(), vec![1], Usage::SIGN, public, blob)
    }

    fn key() -> (Arc<()>, Arc<dyn Key>) {
        let open = Arc::new(());
        (open.clone(), Arc::new(Watched { _open: open }))
    }

    fn is_open(watch: &Arc<()>) -> bool {
        Arc::strong_count(watch) > 1
    }

    /// Seen to fail with `views += 1` taken out of `join`, and with `*views == 0` turned into
    /// `false`.
    #[test]
    fn keys_go_with_the_last_login() {
        let keys = OpenKeys::default();
        let (one, other) = (keys.join(secret(1)), keys.join(secret(1)));
        let (watch, key) = key();
        keys.keep(Some(&one), &record(1), key);
        keys.leave(&one);
        assert!(is_open(&watch) && keys.get(Some(&other), &record(1)).is_some());
        keys.leave(&other);
        assert!(!is_open(&watch));
        assert!(keys.get(Some(&other), &record(1)).is_none());
    }

    /// Seen to fail with `true` for the result of `may`, and without the check in `keep`.
    #[test]
    fn a_secret_of_before_opens_nothing() {
        let keys = OpenKeys::default();
        let before = keys.join(secret(1));
        let (watch, old) = key();
        keys.keep(Some(&before), &record(1), old);
        let present = keys.join(secret(2));
        assert!(!is_open(&watch) && !keys.honours(&before));
        let (_, new) = key();
        keys.keep(Some(&present), &record(1), new);
        assert!(keys.get(Some(&before), &record(1)).is_none());
        // Its leaving is nothing to those who have the present one, and it keeps nothing for them.
        keys.leave(&before);
        assert!(keys.get(Some(&present), &record(1)).is_some());
        let (watch, late) = key();
        drop(keys.keep(Some(&before), &record(2), late));
        assert!(!is_open(&watch));
        keys.revoke();
        assert!(!keys.honours(&present));
    }

    /// Seen to fail with the comparison of blobs taken out of `get`, and out of `keep`.
    #[test]
    fn a_key_is_kept_for_its_record_alone_and_once() {
        let keys = OpenKeys::default();
        let (watch, one) = key();
        keys.keep(None, &record(1), one);
        assert!(keys.get(None, &record(2)).is_none());
        let (loser, other) = key();
        drop(keys.keep(None, &record(1), other));
        assert!(is_open(&watch) && !is_open(&loser));
        let (_, newer) = key();
        keys.keep(None, &record(2), newer);
        assert!(!is_open(&watch) && keys.get(None, &record(2)).is_some());
    }
}
