//! The worker's side of the device: what to do when the TPM is busy, full, gone or another one.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use base16ct::lower as hex;
use once_cell::sync::OnceCell;

use super::errors::{Fault, Remedy};
use super::live::{Live, Orphans, Resident};
use super::objects::Parent;
use super::tcti::Tcti;
use crate::error::{Error, Result};

/// How long a busy or full TPM is waited for.
const PATIENCE: Duration = Duration::from_secs(10);
/// After a flush that lets others in, long enough for one that asks again every millisecond.
const TURN: Duration = Duration::from_millis(3);
/// How long an object must stay where it is in a full TPM without a resource manager, while its
/// room is asked for every millisecond, to be taken for one that a killed process left: ten times
/// as long as any devkey keeps its own.
const ABANDONED: Duration = Duration::from_secs(1);

/// Which TPM a token belongs to: a storage key, by place and Name (part 1 §16).
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Binding {
    /// Whose children the token's keys are.
    pub(super) parent: Parent,
    /// Its Name, which is a hash of its public area.
    pub(super) name: Vec<u8>,
}

/// A token, as the worker knows it.
#[derive(Debug, Default)]
pub(super) struct Tenant {
    binding: OnceCell<Binding>,
}

impl Tenant {
    /// `None` for the binding of a token that is being made.
    pub(super) fn new(binding: Option<Binding>) -> Self {
        Tenant {
            binding: binding.map(OnceCell::with_value).unwrap_or_default(),
        }
    }
}

/// Who fills a full TPM.
enum Crowd {
    NotSeen,
    Since(Instant, Vec<Resident>),
}

/// The device as the worker thread has it: connected or not.
pub(super) struct Link {
    tcti: Tcti,
    /// The token that is being served, or was the last one.
    tenant: Arc<Tenant>,
    live: Option<Live>,
    /// What may still lie in a TPM without a resource manager.
    orphans: Orphans,
}

impl Link {
    /// Not connected yet.
    pub(super) fn new(tcti: Tcti) -> Self {
        Link {
            tcti,
            tenant: Arc::default(),
            live: None,
            orphans: Orphans::default(),
        }
    }

    /// Where the TPM is.
    pub(super) fn tcti(&self) -> &Tcti {
        &self.tcti
    }

    /// Runs `op` of a token until it succeeds or no further attempt helps.
    pub(super) fn run<T>(
        &mut self,
        tenant: &Arc<Tenant>,
        mut op: impl FnMut(&mut Link) -> Result<T, Fault>,
    ) -> Result<T> {
        self.tenant = tenant.clone();
        let began = Instant::now();
        let mut rebuilds = 0..if self.tcti.managed() { 1 } else { 3 };
        let mut once = 0..1;
        let mut pause = Duration::from_millis(1);
        let mut crowd = Crowd::NotSeen;
        let mut suspects = None;
        loop {
            let fault = match op(self) {
                Ok(value) => return Ok(value),
                Err(fault) => fault,
            };
            log::debug!("{}: {fault:?}", self.tcti);
            let patient = began.elapsed() < PATIENCE;
            match fault.remedy() {
                Remedy::Again if patient => {
                    thread::sleep(pause);
                    pause = (pause * 2).min(Duration::from_millis(250));
                }
                Remedy::Room if patient => {
                    self.release();
                    if fault.is_crowded()
                        && began.elapsed() > self.tcti.tenure().held.unwrap_or(PATIENCE)
                    {
                        self.evict(&mut crowd);
                    }
                    if fault.is_out_of_sessions() && self.orphans.has_lost() {
                        self.reclaim(&mut suspects);
                    }
                    thread::sleep(Duration::from_millis(1));
                }
                Remedy::Rebuild if rebuilds.next().is_some() => self.abandon(&fault),
                Remedy::Once if once.next().is_some() => self.abandon(&fault),
                Remedy::Rebuild | Remedy::Once | Remedy::Leave => {
                    self.abandon(&fault);
                    return Err(fault.into_error(&self.tcti));
                }
                _ => return Err(fault.into_error(&self.tcti)),
            }
        }
    }

    /// The connection, made where there is none, to the TPM that is the token's.
    pub(super) fn live(&mut self) -> Result<&mut Live, Fault> {
        let mut live = match self.live.take() {
            Some(live) => live,
            None => self.connect()?,
        };
        let checked = match self.tenant.binding.get() {
            Some(binding) => live.check(binding, &self.tcti),
            None => Ok(()),
        };
        let Err(fault) = checked else {
            return Ok(self.live.insert(live));
        };
        let trusted = live.is_trusted();
        self.live = Some(live);
        if !trusted {
            // Nobody's TPM, as far as is known.
            match fault.remedy() {
                // Its storage key may be there, and the answer that said so lost.
                Remedy::Rebuild | Remedy::Once | Remedy::Leave => self.abandon(&fault),
                Remedy::Again | Remedy::Room | Remedy::Nothing => self.release(),
            }
            self.live = None;
        }
        Err(fault)
    }

    /// The storage key for new keys; chosen where the token has none yet.
    pub(super) fn binding(&mut self) -> Result<Binding, Fault> {
        if let Some(binding) = self.tenant.binding.get() {
            return Ok(binding.clone());
        }
        let live = self.live()?;
        let parent = live.choose_parent()?;
        let name = live.parent_name(parent)?;
        let chosen = Binding { parent, name };
        Ok(self.tenant.binding.get_or_init(|| chosen).clone())
    }

    /// Flushes a key, where it is loaded.
    pub(super) fn unload(&mut self, name: &[u8]) {
        if let Some(live) = &mut self.live
            && let Err(fault) = live.unload(name)
        {
            self.abandon(&fault);
        }
    }

    /// How long the worker may sleep before [`Link::rest`]; `None` where nothing waits for it.
    pub(super) fn patience(&self) -> Option<Duration> {
        let tenure = self.tcti.tenure();
        let holds = match &self.live {
            Some(live) => tenure.disconnect || live.holds(),
            None => false,
        };
        (holds || !self.orphans.is_empty()).then_some(tenure.idle)
    }

    /// Nothing was asked for a while: leaves nothing in the TPM.
    pub(super) fn rest(&mut self) {
        self.release();
        if !self.orphans.is_empty() {
            if let Some(live) = &self.live {
                self.orphans.recognise(live.made());
            }
            if self.tcti.probe().is_ok()
                && let Ok(mut live) = Live::open(&self.tcti)
            {
                let _ = live.sweep(&self.orphans);
            }
            self.orphans.give_up();
        }
        if self.tcti.tenure().disconnect {
            self.live = None;
        }
    }

    /// After each operation: where a busy worker has held the TPM's memory for long enough,
    /// others get their turn.
    pub(super) fn breathe(&mut self) {
        let held = self.live.as_ref().and_then(Live::held);
        let limit = self.tcti.tenure().held;
        if let (Some(held), Some(limit)) = (held, limit)
            && held > limit
        {
            self.rest();
            thread::sleep(TURN);
        }
    }

    /// Flushes what was abandoned in a TPM that has been full for longer than any devkey fills it.
    ///
    /// What goes has had the same handle and Name for all of [`ABANDONED`] and looks like a key of
    /// this token or its primary ([`Live::residents`]); persistent objects are never looked at. A
    /// devkey that was only stopped loads its key again. Another program that holds a key of the
    /// same parent and kind for so long loses it, as to `tpm2_flushcontext -t`, which would be the
    /// other remedy.
    ///
    /// Sessions stay, though a killed process may leave some: they have no Name. One that a living
    /// process has just begun at the same handle looks the same, and to take that away in the midst
    /// of a login would make its right PIN a wrong one. But see [`Link::reclaim`].
    fn evict(&mut self, crowd: &mut Crowd) {
        let Some(binding) = self.tenant.binding.get() else {
            return;
        };
        let due = match crowd {
            Crowd::NotSeen => true,
            Crowd::Since(seen, _) => seen.elapsed() > ABANDONED,
        };
        if !due {
            return;
        }
        let Ok(mut live) = Live::open(&self.tcti) else {
            return;
        };
        *crowd = match std::mem::replace(crowd, Crowd::NotSeen) {
            Crowd::NotSeen => Crowd::Since(Instant::now(), live.residents(binding)),
            Crowd::Since(_, residents) => {
                log::warn!("{}: flushing what was left behind", self.tcti);
                live.evict(binding, &residents);
                Crowd::NotSeen
            }
        };
    }

    /// Flushes sessions that this process itself began and never heard of, as the line broke in
    /// between: as many as there may be, where the TPM has no room for another one and these have
    /// been there for all of [`ABANDONED`], seen every millisecond.
    fn reclaim(&mut self, suspects: &mut Option<(Instant, Vec<u32>)>) {
        let Ok(mut live) = Live::open(&self.tcti) else {
            return;
        };
        let Ok(there) = live.sessions() else {
            return;
        };
        let (since, stayed) = suspects.get_or_insert_with(|| (Instant::now(), there.clone()));
        stayed.retain(|session| there.contains(session));
        if since.elapsed() > ABANDONED {
            let lost = self.orphans.take_lost();
            for session in stayed.iter().take(lost) {
                log::warn!("{}: flushing a session that was lost", self.tcti);
                let _ = live.flush_session(*session);
            }
        }
    }

    /// Flushes all that is ours, in good order.
    fn release(&mut self) {
        if let Some(live) = &mut self.live
            && let Err(fault) = live.flush()
        {
            self.abandon(&fault);
        }
    }

    /// Gives the connection up without touching handles of objects, which may be others' by now.
    /// Sessions have no Name by which they could be found again: they go now, where the TPM still
    /// answers.
    fn abandon(&mut self, fault: &Fault) {
        if let Some(mut live) = self.live.take() {
            if fault.heard() {
                let _ = live.end_sessions();
            }
            let left = live.abandon();
            if !self.tcti.managed() {
                self.orphans.extend(left);
            }
        }
    }

    fn connect(&mut self) -> Result<Live, Fault> {
        self.tcti.probe()?;
        let mut live = Live::open(&self.tcti)?;
        if !self.orphans.is_empty() && live.sweep(&self.orphans).is_ok() {
            self.orphans.swept();
        }
        Ok(live)
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.rest();
    }
}

impl fmt::Display for Binding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{:08x}:{}",
            self.parent.handle(),
            hex::encode_string(&self.name)
        )
    }
}

impl FromStr for Binding {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let bad = || Error::input(format!("{text:?} is not the binding of a TPM token"));
        let (handle, name) = text.split_once(':').ok_or_else(bad)?;
        let handle = hex::decode_vec(handle).map_err(|_| bad())?;
        let handle = <[u8; 4]>::try_from(handle).map_err(|_| bad())?;
        Ok(Binding {
            parent: Parent::from_handle(u32::from_be_bytes(handle)).map_err(|_| bad())?,
            name: hex::decode_vec(name).map_err(|_| bad())?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_binding_is_read_back() {
        let binding = Binding {
            parent: Parent::SRK,
            name: vec![0, 11, 0xab],
        };
        assert_eq!(binding.to_string(), "81000001:000bab");
        assert_eq!(binding.to_string().parse::<Binding>().unwrap(), binding);
        for bad in [
            "",
            "81000001",
            "81000001:0",
            "81000001:+1",
            "40000007:00",
            "x:00",
        ] {
            assert!(bad.parse::<Binding>().is_err(), "{bad:?}");
        }
    }
}
