//! One connection to the TPM and what it has loaded there.
//!
//! Keys of PIN-less tokens, storage keys and mostly the owner are authorised by the empty password.
//! Where neither the command nor the answer is secret, it goes by a password session: an HMAC
//! session of ESYS costs 2 ms a command, and names in a command's HMAC protect nothing where the
//! password is known to be empty. Everything that has an auth proves it in a salted HMAC session
//! ([`Live::session`]), which also encrypts what is secret on its way in or out.
//!
//! So a handle is only a number here, and may have become another program's after a restart:
//! signatures are checked against the public key, and before the other operations the object's Name
//! is, where no resource manager keeps handles apart.

mod crowd;
mod endorsement;
mod nv;
mod parent;
mod sealed;
mod session;

use std::time::{Duration, Instant};

use tss_esapi::Context;
use tss_esapi::handles::{KeyHandle, ObjectHandle};
use tss_esapi::interface_types::resource_handles::Hierarchy;
use tss_esapi::interface_types::session_handles::AuthSession;
use tss_esapi::structures::{
    Auth, Digest, Public, Sensitive, SensitiveData, Signature, SignatureScheme,
};

use super::errors::{Fault, HANDLE};
use super::link::Binding;
use super::objects::{self, Parent, ours};
use super::tcti::Tcti;
use super::tss2::Wrapped;
use crate::error::Result;
use crate::secret::Secret;

pub(super) use crowd::{Orphans, Resident};
pub(super) use nv::PinCount;
pub(super) use sealed::Lockout;
pub(super) use session::Hides;

/// The Name of an object that was made, where the answer was lost.
pub(super) const UNKNOWN: Vec<u8> = Vec::new();

/// First handle of transient objects (part 2 §7.4).
const TRANSIENT_FIRST: u32 = 0x8000_0000;

/// A key that can be loaded.
#[derive(Debug)]
pub(super) struct Loadable {
    /// Its Name, by which it is recognised.
    pub(super) name: Vec<u8>,
    /// What TPM2_Load wants.
    pub(super) wrapped: Wrapped,
    /// What its use wants.
    pub(super) auth: Option<Secret>,
}

impl Loadable {
    /// What an answer to the use of this key means: where the key has an auth, a wrong one is the
    /// record's fault.
    pub(super) fn blame(&self, fault: Fault) -> Fault {
        match self.auth.is_some() && fault.is_auth() {
            true => Fault::Foreign,
            false => fault,
        }
    }
}

/// An open connection.
pub(super) struct Live {
    context: Context,
    managed: bool,
    /// Transient objects, the least recently used first.
    loaded: Vec<Loaded>,
    /// Storage keys that stay in the TPM.
    persistent: Vec<(u32, KeyHandle)>,
    /// The tokens whose storage keys were found as they should be.
    checked: Vec<Binding>,
    /// The salted HMAC session, while it is needed, and the Name of the key that it is salted to.
    session: Option<(AuthSession, Vec<u8>)>,
    /// A policy session, while it is needed.
    policy: Option<AuthSession>,
    /// When the first of `loaded` came.
    since: Instant,
    /// Whether a session is being started just now.
    starting: bool,
    /// The Name of what is being loaded just now; [`UNKNOWN`] where only the answer tells.
    loading: Option<Vec<u8>>,
    /// Names of primary keys that were made and whose Name was not known before.
    made: Vec<Vec<u8>>,
    /// The Name of the owner's primary, where a token knows it beforehand.
    owner_name: Option<Vec<u8>>,
}

struct Loaded {
    what: What,
    name: Vec<u8>,
    handle: KeyHandle,
}

#[derive(PartialEq, Eq)]
enum What {
    Key,
    OwnerPrimary,
    Passing,
}

impl Live {
    /// Connects.
    pub(super) fn open(tcti: &Tcti) -> Result<Self, Fault> {
        Ok(Live {
            context: Context::new(tcti.conf()?)?,
            managed: tcti.managed(),
            loaded: Vec::new(),
            persistent: Vec::new(),
            checked: Vec::new(),
            session: None,
            policy: None,
            since: Instant::now(),
            starting: false,
            loading: None,
            made: Vec::new(),
            owner_name: None,
        })
    }

    /// A loaded key: with one TPM2_Load, or none where it is still there.
    pub(super) fn key(&mut self, key: &Loadable) -> Result<KeyHandle, Fault> {
        let hot = |one: &Loaded| one.what == What::Key && one.name == key.name;
        let handle = match self.loaded.iter().position(hot) {
            Some(at) => {
                let found = self.loaded.remove(at);
                let handle = found.handle;
                self.loaded.push(found);
                handle
            }
            None => {
                let others = usize::from(key.wrapped.parent != Parent::Owner);
                self.make_room(others)?;
                self.load(What::Key, key)?
            }
        };
        // Always: it may have been loaded for another auth, or for none.
        let auth = key.auth.as_ref().map(auth).transpose()?;
        self.context
            .tr_set_auth(handle.into(), auth.unwrap_or_default())?;
        Ok(handle)
    }

    /// A loaded key that has just been seen to be this one.
    pub(super) fn checked_key(&mut self, key: &Loadable) -> Result<KeyHandle, Fault> {
        let handle = self.key(key)?;
        if !self.managed && self.context.read_public(handle)?.1.value() != key.name {
            return Err(Fault::Wrong);
        }
        Ok(handle)
    }

    /// TPM2_Create: the public and the encrypted private area of a new object. `session`
    /// authorises the parent; where there is an auth or a secret, it hides the question.
    pub(super) fn create(
        &mut self,
        parent: Parent,
        session: AuthSession,
        template: Public,
        auth: Auth,
        data: Option<SensitiveData>,
    ) -> Result<Wrapped, Fault> {
        let handle = self.parent(parent)?;
        let has_auth = !auth.is_empty();
        let made = self.authorised_by(session, |context| {
            context.create(handle, template, Some(auth), data, None, None)
        })?;
        Ok(Wrapped {
            parent,
            has_auth,
            public: made.out_public,
            private: made.out_private,
        })
    }

    /// TPM2_LoadExternal, in no hierarchy; to be flushed with the rest.
    pub(super) fn load_external(
        &mut self,
        private: Sensitive,
        public: Public,
    ) -> Result<KeyHandle, Fault> {
        let name = objects::name(&public)?;
        self.loading = Some(name.clone());
        let handle = self
            .context
            .load_external(private, public, Hierarchy::Null)?;
        self.keep(What::Passing, name, handle);
        Ok(handle)
    }

    /// TPM2_Sign.
    pub(super) fn sign(
        &mut self,
        key: KeyHandle,
        session: AuthSession,
        digest: Digest,
        scheme: SignatureScheme,
    ) -> Result<Signature, Fault> {
        let ticket = objects::no_ticket()?;
        self.authorised_by(session, |context| context.sign(key, digest, scheme, ticket))
    }

    /// Whether a fault says that the input was bad. Some TPMs (libtpms 0.9) answer TPM_RC_FAILURE
    /// to a ciphertext that does not decrypt; one that has really failed answers so to everything.
    pub(super) fn blames_input(&mut self, fault: &Fault, key: KeyHandle) -> bool {
        fault.blames_input() || (fault.is_failure() && self.context.read_public(key).is_ok())
    }

    /// A command that an empty password authorises, with nothing secret in it.
    pub(super) fn authorised<T>(
        &mut self,
        command: impl FnOnce(&mut Context) -> tss_esapi::Result<T>,
    ) -> Result<T, Fault> {
        self.authorised_by(AuthSession::Password, command)
    }

    /// The same, in a session.
    pub(super) fn authorised_by<T>(
        &mut self,
        session: AuthSession,
        command: impl FnOnce(&mut Context) -> tss_esapi::Result<T>,
    ) -> Result<T, Fault> {
        Ok(self.context.execute_with_session(Some(session), command)?)
    }

    /// A command that needs no authorisation.
    pub(super) fn plain<T>(
        &mut self,
        command: impl FnOnce(&mut Context) -> tss_esapi::Result<T>,
    ) -> Result<T, Fault> {
        Ok(command(&mut self.context)?)
    }

    /// Whether anything of ours is in the TPM's memory.
    pub(super) fn holds(&self) -> bool {
        !self.loaded.is_empty() || self.session.is_some() || self.policy.is_some()
    }

    /// For how long something of ours has been there.
    pub(super) fn held(&self) -> Option<Duration> {
        self.holds().then(|| self.since.elapsed())
    }

    /// Flushes all that is ours.
    pub(super) fn flush(&mut self) -> Result<(), Fault> {
        self.end_sessions()?;
        self.flush_some(|_| true)
    }

    /// Flushes the keys, before something that wants room for itself.
    pub(super) fn make_way(&mut self) -> Result<(), Fault> {
        self.make_room(0)
    }

    /// Flushes a key, where it is loaded.
    pub(super) fn unload(&mut self, name: &[u8]) -> Result<(), Fault> {
        self.flush_some(|one| one.what == What::Key && one.name == name)
    }

    /// Flushes what is only passing through.
    pub(super) fn flush_passing(&mut self) -> Result<(), Fault> {
        self.flush_some(|one| one.what == What::Passing)
    }

    /// Names of primary keys that were made. Made again, such a key has the same Name.
    pub(super) fn made(&self) -> &[Vec<u8>] {
        &self.made
    }

    /// Ends without a command to the TPM; what may still be there.
    pub(super) fn abandon(mut self) -> Orphans {
        let mut left = Orphans {
            sessions: self.forget_sessions(),
            lost_sessions: usize::from(self.starting),
            names: Vec::from_iter(self.loading.take()),
        };
        for one in std::mem::take(&mut self.loaded) {
            forget(&mut self.context, one.handle.into());
            left.names.push(one.name);
        }
        left
    }

    /// TPM2_Load.
    fn load(&mut self, what: What, key: &Loadable) -> Result<KeyHandle, Fault> {
        let parent = self.parent(key.wrapped.parent)?;
        self.loading = Some(key.name.clone());
        let (private, public) = (key.wrapped.private.clone(), key.wrapped.public.clone());
        let loaded = self.authorised(|context| context.load(parent, private, public));
        let loaded = loaded.map_err(|fault| match fault.blames_input() {
            true => Fault::Foreign,
            false => fault,
        })?;
        self.keep(what, key.name.clone(), loaded);
        if !self.managed {
            self.flush_some(|one| one.what == What::OwnerPrimary)?;
        }
        Ok(loaded)
    }

    fn keep(&mut self, what: What, name: Vec<u8>, handle: KeyHandle) {
        self.loading = None;
        self.begins();
        self.loaded.push(Loaded { what, name, handle });
    }

    /// Something of ours comes into the TPM's memory.
    fn begins(&mut self) {
        if !self.holds() {
            self.since = Instant::now();
        }
    }

    /// Flushes the least recently used keys until at most `left` are there.
    fn make_room(&mut self, left: usize) -> Result<(), Fault> {
        let keys = self
            .loaded
            .iter()
            .filter(|one| one.what == What::Key)
            .count();
        let mut excess = keys.saturating_sub(left);
        self.flush_some(|one| {
            let goes = excess > 0 && one.what == What::Key;
            excess -= usize::from(goes);
            goes
        })
    }

    fn flush_some(&mut self, mut goes: impl FnMut(&Loaded) -> bool) -> Result<(), Fault> {
        let (going, staying) = std::mem::take(&mut self.loaded)
            .into_iter()
            .partition::<Vec<_>, _>(|one| goes(one));
        self.loaded = staying;
        let mut going = going.into_iter();
        while let Some(one) = going.next() {
            let flushed = self.context.flush_context(one.handle.into());
            if let Err(fault) = flushed.map_err(Fault::from) {
                if fault.is(HANDLE) || fault.is(VALUE) {
                    forget(&mut self.context, one.handle.into());
                    continue;
                }
                self.loaded.push(one);
                self.loaded.extend(going);
                return Err(fault);
            }
        }
        Ok(())
    }
}

/// An auth for the TPM, which takes no more than 32 bytes from keys with SHA-256 names.
pub(super) fn auth(secret: &Secret) -> Result<Auth> {
    ours(Auth::try_from(secret.expose()))
}

/// TPM_RC_VALUE, which TPM2_FlushContext answers for a handle that is not there.
const VALUE: u32 = 0x84;

/// Makes ESYS forget a handle without flushing it. tss-esapi reports an error for a transient one,
/// but has forgotten it by then, which is what is wanted.
fn forget(context: &mut Context, mut handle: ObjectHandle) {
    let _ = context.tr_close(&mut handle);
}
