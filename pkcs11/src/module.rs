//! The module's state: slots and sessions, from C_Initialize to C_Finalize.
//!
//! The state belongs to one process. A forked child sees that it is not its own and has none until
//! it initialises: what it inherited is forgotten and never dropped, for dropping would release
//! what the parent still uses, and no lock is taken that a thread of the parent may have held.
//!
//! Locks, outermost first: looking, slots, sessions, one session, its slot's token and objects.
//! Those of slots and sessions are held only to clone.

use std::collections::HashMap;
use std::mem;
use std::path::Path;
use std::process;
use std::sync::{Arc, Mutex};

use arc_swap::ArcSwapOption;
use devkey::config::{Config, Environment, FoundToken, Links};
use devkey::store::Role;

use crate::logger;
use crate::object::new_handle;
use crate::raw::{self, Ulong};
use crate::rv::{Result, Rv};
use crate::session::Session;
use crate::slot::{Slot, lock};

static STATE: ArcSwapOption<Module> = ArcSwapOption::const_empty();

/// The state of a process.
pub(crate) struct Module {
    pid: u32,
    /// The token that this module alone is for.
    name: Option<String>,
    config: Config,
    links: Links,
    /// Held by the one thread that looks for tokens.
    looking: Mutex<()>,
    slots: Mutex<Vec<Arc<Slot>>>,
    sessions: Mutex<HashMap<Ulong, Open>>,
}

/// An open session, and what is asked of it without waiting for its operation.
struct Open {
    slot: Arc<Slot>,
    writable: bool,
    session: Arc<Mutex<Session>>,
}

/// C_Initialize, with arguments that were checked.
pub(crate) fn initialize() -> Result<()> {
    let secure = raw::is_secure();
    logger::install(secure);
    let before = STATE.load_full();
    if before.as_ref().is_some_and(|before| before.is_ours()) {
        return Err(Rv::ALREADY_INITIALIZED);
    }
    // A host's own handler may initialise in a child before ours has run.
    if before.is_some() {
        devkey::fork::reset();
    }
    raw::watch_forks();
    let module = Arc::new(Module::new(secure));
    module.look_for_tokens();
    let seen = STATE.compare_and_swap(&before, Some(module));
    let won = match (&*seen, &before) {
        (None, None) => true,
        (Some(seen), Some(before)) => Arc::ptr_eq(seen, before),
        _ => false,
    };
    forget(before);
    won.then_some(()).ok_or(Rv::ALREADY_INITIALIZED)
}

/// C_Finalize. In a child that never initialised it answers at once.
pub(crate) fn finalize() -> Result<()> {
    current()?;
    STATE.store(None);
    Ok(())
}

/// The state of this process.
pub(crate) fn current() -> Result<Arc<Module>> {
    let state = STATE.load();
    let ours = state.as_ref().filter(|state| state.is_ours());
    ours.cloned().ok_or(Rv::NOT_INITIALIZED)
}

/// Does something in a session.
///
/// A token that says that nobody is logged in knows better: the key service may have ended.
pub(crate) fn with<T>(session: Ulong, then: impl FnOnce(&mut Session) -> Result<T>) -> Result<T> {
    let session = current()?.session(session, |open| open.session.clone())?;
    let mut session = lock(&session);
    let ended = session.end_what_was_before();
    let done = then(&mut session);
    if done.as_ref().err() == Some(&Rv::USER_NOT_LOGGED_IN) {
        session.slot.login_is_lost(ended);
    }
    done
}

/// Closes a session in which the module panicked and opens its token anew.
pub(crate) fn mend(session: Option<Ulong>) {
    let (Ok(module), Some(session)) = (current(), session) else {
        return;
    };
    let slot = module.session(session, |open| open.slot.clone());
    if let Ok(slot) = slot {
        let _ = module.close(session);
        slot.reopen(&module.links);
    }
}

impl Module {
    /// With a broken configuration there is no token: a program that uses no key of devkey's must
    /// not fail with it, and which tokens to leave out is not known.
    fn new(secure: bool) -> Self {
        let config = Config::load(&Environment::of_process(secure)).unwrap_or_else(|e| {
            log::error!("no token is shown: {e}");
            Config::none()
        });
        let links = Links::new(&config, raw::spawn);
        Module {
            pid: process::id(),
            name: raw::own_file().as_deref().and_then(token_of),
            config,
            links,
            looking: Mutex::default(),
            slots: Mutex::default(),
            sessions: Mutex::default(),
        }
    }

    /// The ways to the key services.
    pub(crate) fn links(&self) -> &Links {
        &self.links
    }

    fn is_ours(&self) -> bool {
        self.pid == process::id()
    }

    /// Looks for tokens. Those that are known keep their slots; what cannot be opened has none.
    pub(crate) fn look_for_tokens(&self) {
        let _alone = lock(&self.looking);
        let slots = lock(&self.slots).clone();
        let mut now: Vec<Arc<Slot>> = Vec::new();
        let mut tokens = self.config.tokens();
        tokens.retain(FoundToken::is_permitted);
        for found in self.shown(tokens, |found| found) {
            if let Some(known) = slots.iter().find(|known| known.is(&found, &self.links)) {
                now.push(known.clone());
                continue;
            }
            let taken = |id| now.iter().chain(slots.iter()).any(|slot| slot.id == id);
            match Slot::open(&found, &self.links, taken) {
                Ok(slot) => now.push(Arc::new(slot)),
                Err(e) => log::warn!("token {}: {e}", found.name),
            }
        }
        for offer in self.shown(self.config.offers(), |offer| &offer.token) {
            let known = slots.iter().find(|known| known.offers(&offer)).cloned();
            let taken = |id| now.iter().chain(slots.iter()).any(|slot| slot.id == id);
            now.push(known.unwrap_or_else(|| Arc::new(Slot::blank(offer, taken))));
        }
        *lock(&self.slots) = now;
    }

    /// Those that this module is for: a module with a name shows the token of that name alone, the
    /// user's own before the system's. One without shows all that are not for such modules only.
    fn shown<T>(&self, mut all: Vec<T>, token: impl Fn(&T) -> &FoundToken) -> Vec<T> {
        let Some(name) = &self.name else {
            all.retain(|one| !token(one).alone);
            return all;
        };
        all.retain(|one| token(one).name == *name);
        if all.iter().any(|one| token(one).own) {
            all.retain(|one| token(one).own);
        }
        all.truncate(1);
        all
    }

    /// The slots' ids, always in the same order.
    pub(crate) fn slot_ids(&self) -> Vec<Ulong> {
        lock(&self.slots).iter().map(|slot| slot.id).collect()
    }

    /// The slot of an id.
    pub(crate) fn slot(&self, id: Ulong) -> Result<Arc<Slot>> {
        let slots = lock(&self.slots);
        let slot = slots.iter().find(|slot| slot.id == id);
        slot.cloned().ok_or(Rv::SLOT_ID_INVALID)
    }

    /// C_OpenSession: always works for a slot that there is, whatever became of the device. One
    /// client waits for ever otherwise, and another wants to write before it knows whether it may.
    /// But for the SO, who has no sessions that only read.
    pub(crate) fn open(&self, slot: Ulong, writable: bool) -> Result<Ulong> {
        let slot = self.slot(slot)?;
        let handle = new_handle();
        let session = Session::new(handle, slot.clone(), writable);
        slot.objects().begin_session(handle);
        let open = Open {
            slot: slot.clone(),
            writable,
            session: Arc::new(Mutex::new(session)),
        };
        lock(&self.sessions).insert(handle, open);
        // After it can be counted: the SO's login looks at the count after it took effect.
        if !writable && slot.who() == Some(Role::So) {
            let _ = self.close(handle);
            return Err(Rv::SESSION_READ_WRITE_SO_EXISTS);
        }
        Ok(handle)
    }

    /// C_CloseSession. The last one of a slot logs out.
    pub(crate) fn close(&self, session: Ulong) -> Result<()> {
        let mut sessions = lock(&self.sessions);
        let closed = sessions
            .remove(&session)
            .ok_or(Rv::SESSION_HANDLE_INVALID)?;
        let last = !sessions.values().any(|open| open.slot.id == closed.slot.id);
        drop(sessions);
        closed.slot.objects().end_session(session);
        if last {
            let _ = closed.slot.log_out();
        }
        Ok(())
    }

    /// C_CloseAllSessions.
    pub(crate) fn close_all(&self, slot: Ulong) -> Result<()> {
        self.slot(slot)?;
        let sessions = lock(&self.sessions);
        let of_slot = sessions.iter().filter(|(_, open)| open.slot.id == slot);
        let handles: Vec<Ulong> = of_slot.map(|(handle, _)| *handle).collect();
        drop(sessions);
        for handle in handles {
            // Another thread may have closed it meanwhile.
            let _ = self.close(handle);
        }
        Ok(())
    }

    /// How many sessions a slot has, and how many of them may write.
    pub(crate) fn count(&self, slot: Ulong) -> (usize, usize) {
        let sessions = lock(&self.sessions);
        let of_slot = || sessions.values().filter(|open| open.slot.id == slot);
        (
            of_slot().count(),
            of_slot().filter(|open| open.writable).count(),
        )
    }

    /// Slot and rights of a session, though its operation may be busy.
    pub(crate) fn about(&self, session: Ulong) -> Result<(Arc<Slot>, bool)> {
        self.session(session, |open| (open.slot.clone(), open.writable))
    }

    fn session<T>(&self, session: Ulong, then: impl FnOnce(&Open) -> T) -> Result<T> {
        let sessions = lock(&self.sessions);
        let open = sessions.get(&session).ok_or(Rv::SESSION_HANDLE_INVALID)?;
        Ok(then(open))
    }
}

/// The token that a module's file is named after: `devkey-pkcs11@NAME.so`. Nothing can be called by
/// an empty name, so such a module shows nothing.
fn token_of(file: &Path) -> Option<String> {
    let name = file.file_name()?.to_string_lossy();
    let (_, token) = name.rsplit_once('@')?;
    Some(token.strip_suffix(".so").unwrap_or(token).to_owned())
}

/// Leaves what a parent process made as it is, but for its connections to key services: held
/// open here, one would keep the service alive after the parent. Nothing is sent on it.
fn forget(inherited: Option<Arc<Module>>) {
    if let Some(inherited) = inherited {
        for (fd, inode) in inherited.links.all().filter_map(|link| link.socket()) {
            raw::close_inherited(fd, inode);
        }
        mem::forget(inherited);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_module_is_named_by_what_stands_behind_the_at_sign() {
        let named = |file: &str| token_of(Path::new(file));
        assert_eq!(named("/usr/lib/libdevkey_pkcs11.so"), None);
        assert_eq!(named("/a@b/libdevkey_pkcs11.so"), None);
        assert_eq!(named("/x/devkey-pkcs11@web.so").as_deref(), Some("web"));
        assert_eq!(named("devkey@a.b.so").as_deref(), Some("a.b"));
        assert_eq!(named("/x/devkey@.so").as_deref(), Some(""));
    }
}
