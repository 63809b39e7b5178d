//! The secret of a token with a PIN, sealed in the TPM: who counts wrong PINs, and how.
//!
//! # With a counter of its own (`pin_guard = "nv"`)
//! The secret's policy is TPM2_PolicySecret of the token's [`Counter`] and then TPM2_PolicyAuthValue.
//! Both auths follow from the stretched PIN, and neither from the other. A wrong PIN fails at the
//! counter: it costs one try there, and TPM2_PT_LOCKOUT_COUNTER does not move. Who gets past the
//! counter all the same meets the second auth, which the whole TPM counts.
//!
//! # Without (`pin_guard = "da"`)
//! The secret has one auth, and the whole TPM counts wrong ones with everybody else's. For owners
//! who keep their password to themselves, and TPMs without NV memory to spare.
//!
//! # Power cuts
//! A wrong PIN is in the TPM's memory before it answers, and a right one sets the counter to 0
//! before the secret is given out: a power cut changes neither. But a TPM that has seen *any* use of
//! an auth that it protects, and then loses power without TPM2_Shutdown, counts one wrong auth for
//! the whole TPM at its next start (part 1 §19.8; some count every such start). So TPM2_Shutdown
//! follows each use at once: the price of a power cut is then 0, and 1 between the two commands.
//! It is of the CLEAR kind, which changes nothing for the next start but that.

use aws_lc_rs::hmac;

use super::counter::Counter;
use super::errors::{Fault, LOCKED, NO_AUTH};
use super::link::{Binding, Link};
use super::live::{Hides, Live, Loadable, Lockout, PinCount};
use super::objects;
use super::seal::Sealed;
use super::tcti::Tcti;
use crate::error::{Error, Result};
use crate::provider::Tries;
use crate::secret::Secret;

/// Length of a stretched PIN in bytes.
const AUTH_LEN: usize = 32;

/// Who counts wrong PINs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Guard {
    /// An NV index of the token's own.
    Nv,
    /// The whole TPM.
    Da,
}

/// What follows from a stretched PIN.
pub(super) struct Pin {
    counter: Secret,
    object: Secret,
}

/// What there is to be sealed, and how.
pub(super) struct Request {
    pub(super) secret: Secret,
    pub(super) pin: Pin,
    pub(super) tries: u32,
    pub(super) guard: Guard,
    /// The owner's password, where he has one.
    pub(super) owner: Option<Secret>,
}

impl Guard {
    /// The setting's values.
    pub(super) fn parse(text: &str) -> Result<Self> {
        match text {
            "nv" => Ok(Guard::Nv),
            "da" => Ok(Guard::Da),
            _ => Err(Error::input(format!("pin_guard = {text:?}: use nv or da"))),
        }
    }
}

impl Pin {
    /// Two auths of one, for two places.
    ///
    /// # Errors
    /// [`Error::BadInput`] where it has not 32 bytes.
    pub(super) fn new(stretched: &Secret) -> Result<Self> {
        if stretched.len() != AUTH_LEN {
            return Err(Error::input(format!(
                "an auth of {AUTH_LEN} bytes is wanted"
            )));
        }
        let key = hmac::Key::new(hmac::HMAC_SHA256, stretched.expose());
        let derived = |what: &[u8]| Secret::new(hmac::sign(&key, what).as_ref().to_vec());
        Ok(Pin {
            counter: derived(b"devkey tpm pin counter"),
            object: derived(b"devkey tpm sealed secret"),
        })
    }
}

/// Seals, and sees that it opens again.
pub(super) fn seal(link: &mut Link, request: &Request) -> Result<Sealed, Fault> {
    let binding = link.binding()?;
    let live = link.live()?;
    live.make_way()?;
    let counter = match request.guard {
        Guard::Nv => {
            let owner = request.owner.as_ref();
            Some(live.define(&binding, owner, &request.pin.counter, request.tries)?)
        }
        Guard::Da => counts(live.lockout()?).map(|_| None)?,
    };
    let sealed = wrap(live, &binding, counter.clone(), request).and_then(|sealed| {
        let opened = open(link, &sealed, &request.pin)?;
        match opened.expose() == request.secret.expose() {
            true => Ok(sealed),
            false => Err(Fault::Wrong),
        }
    });
    if let (Err(_), Some(counter)) = (&sealed, &counter)
        && let Ok(live) = link.live()
    {
        live.undefine_quietly(&binding, request.owner.as_ref(), counter);
    }
    end(link);
    sealed
}

/// Unseals: a wrong PIN costs one try, and nothing else does.
pub(super) fn unseal(link: &mut Link, sealed: &Sealed, pin: &Pin) -> Result<Secret, Fault> {
    let opened = open(link, sealed, pin);
    end(link);
    opened
}

/// What is left of the tries.
pub(super) fn tries(link: &mut Link, sealed: &Sealed) -> Result<Option<Tries>, Fault> {
    let tcti = link.tcti().clone();
    let live = link.live()?;
    let Some(counter) = &sealed.counter else {
        let lockout = live.lockout()?;
        return Ok((lockout.interval > 0).then(|| lockout.tries()));
    };
    let count = live.count(counter)?;
    Ok(Some(count.ok_or_else(|| gone(&tcti, counter))?.tries()))
}

/// Takes the counter away.
pub(super) fn forget(
    link: &mut Link,
    sealed: &Sealed,
    owner: Option<&Secret>,
) -> Result<(), Fault> {
    let Some(counter) = &sealed.counter else {
        return Ok(());
    };
    let binding = link.binding()?;
    let forgotten = link.live()?.undefine(&binding, owner, counter);
    end(link);
    forgotten
}

fn wrap(
    live: &mut Live,
    binding: &Binding,
    counter: Option<Counter>,
    request: &Request,
) -> Result<Sealed, Fault> {
    let policy = counter.as_ref().map(Sealed::policy);
    let wrapped = live.seal(
        binding,
        policy.as_ref(),
        &request.pin.object,
        &request.secret,
    )?;
    match objects::is_sealed(&wrapped.public, policy.as_ref()) {
        true => Ok(Sealed {
            counter,
            public: wrapped.public,
            private: wrapped.private,
        }),
        false => Err(Fault::Wrong),
    }
}

fn open(link: &mut Link, sealed: &Sealed, pin: &Pin) -> Result<Secret, Fault> {
    let binding = link.binding()?;
    let tcti = link.tcti().clone();
    let live = link.live()?;
    live.make_way()?;
    let object = Loadable {
        name: objects::name(&sealed.public)?,
        wrapped: sealed.wrapped(binding.parent),
        auth: Some(Secret::new(pin.object.expose().to_vec())),
    };
    match &sealed.counter {
        Some(counter) => counted(live, &binding, &object, counter, pin, &tcti),
        None => shared(live, &binding, &object),
    }
}

/// Asks the counter, then the object.
fn counted(
    live: &mut Live,
    binding: &Binding,
    object: &Loadable,
    counter: &Counter,
    pin: &Pin,
    tcti: &Tcti,
) -> Result<Secret, Fault> {
    let session = live.session(binding, Hides::Nothing)?;
    // Salted: its HMAC must not tell who listens whether a guess is right.
    let (policy, authorised) = live.policy(Some(binding), Hides::Answer)?;
    // Before anything can count: a blob that was changed, or of another TPM, costs nothing.
    let handle = live.load_sealed(object)?;
    match live.ask(counter, &pin.counter, session, policy) {
        Ok(Some(())) => {}
        Ok(None) => return Err(gone(tcti, counter)),
        Err(fault) if fault.is_auth() => return Err(wrong(live, counter)),
        Err(fault) if fault.code() == Some(NO_AUTH) => return Err(Error::PinLocked.into()),
        Err(fault) => return Err(fault.once()),
    }
    live.policy_auth_value(policy)?;
    let opened = live.unseal(handle, authorised);
    live.orderly();
    match opened {
        // The counter's auth was right and this one not: the two are not of one making.
        Err(fault) if fault.is_auth() => Err(Error::BadBlob.into()),
        opened => opened,
    }
}

/// Asks the object, after a look whether that is of any use.
fn shared(live: &mut Live, binding: &Binding, object: &Loadable) -> Result<Secret, Fault> {
    if live.lockout()?.is_locked() {
        return Err(Error::PinLocked.into());
    }
    let session = live.session(binding, Hides::Answer)?;
    let handle = live.load_sealed(object)?;
    let opened = live.unseal(handle, session);
    live.orderly();
    match opened {
        Ok(secret) => Ok(secret),
        Err(fault) if fault.code() == Some(LOCKED) => Err(Error::PinLocked.into()),
        Err(fault) if fault.is_auth() => {
            let tries_left = live.lockout().ok().map(|lockout| lockout.tries().left);
            Err(Error::WrongPin { tries_left }.into())
        }
        Err(fault) => Err(fault.once()),
    }
}

/// A wrong PIN, with what the counter says of it. Where that cannot be read, the PIN is no less
/// wrong.
fn wrong(live: &mut Live, counter: &Counter) -> Fault {
    let count = live.count(counter).ok().flatten();
    let tries_left = count.map(|count| count.tries().left);
    Error::WrongPin { tries_left }.into()
}

fn gone(tcti: &Tcti, counter: &Counter) -> Fault {
    let handle = counter.handle();
    Fault::Final(tcti.failed(format!(
        "NV index {handle:#010x}, which counts wrong PINs, was deleted or replaced, and nothing \
         opens without it; the SO gives a new PIN: devkey pin unlock"
    )))
}

fn counts(lockout: Lockout) -> Result<(), Fault> {
    if lockout.interval > 0 && lockout.limit > 0 {
        return Ok(());
    }
    Err(Fault::Final(Error::unsupported(
        "a PIN that this TPM guards by itself: its protection against guessing is switched off; \
         tpm2_dictionarylockout --setup-parameters switches it on",
    )))
}

/// Leaves nothing of a login in the TPM: what cannot go now goes with the rest.
fn end(link: &mut Link) {
    if let Ok(live) = link.live()
        && let Err(fault) = live.end_sessions().and_then(|()| live.flush_passing())
    {
        log::debug!("something of a login stays for now: {fault:?}");
    }
}

impl PinCount {
    fn tries(self) -> Tries {
        Tries {
            by_device: true,
            left: self.limit.saturating_sub(self.count),
            of: self.limit,
            recovery: None,
            shared: false,
        }
    }
}

impl Lockout {
    fn is_locked(self) -> bool {
        self.interval > 0 && self.failed >= self.limit
    }

    fn tries(self) -> Tries {
        Tries {
            by_device: true,
            left: self.limit.saturating_sub(self.failed),
            of: self.limit,
            recovery: Some(u64::from(self.interval)),
            shared: true,
        }
    }
}
