//! A token's side of the device: its place in the line before the TPM.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::errors::Fault;
use super::line::{Line, Patience};
use super::link::{Binding, Link, Tenant};
use super::tcti::Tcti;
use crate::error::Result;

/// A TPM as one token has it.
pub(super) struct Device {
    line: Arc<Line>,
    tenant: Arc<Tenant>,
    deadline: Duration,
}

impl Device {
    /// Touches nothing.
    pub(super) fn new(line: Arc<Line>, binding: Option<Binding>, deadline: Duration) -> Self {
        Device {
            line,
            tenant: Arc::new(Tenant::new(binding)),
            deadline,
        }
    }

    /// Where the TPM is.
    pub(super) fn tcti(&self) -> &Tcti {
        self.line.tcti()
    }

    /// Runs an operation within the deadline.
    ///
    /// # Errors
    /// Those of [`Line::ask`].
    pub(super) fn run<T: Send + 'static>(
        &self,
        op: impl FnMut(&mut Link) -> Result<T, Fault> + Send + 'static,
    ) -> Result<T> {
        self.run_within(self.deadline, op)
    }

    /// Runs an operation that may take longer than most.
    pub(super) fn run_within<T: Send + 'static>(
        &self,
        work: Duration,
        op: impl FnMut(&mut Link) -> Result<T, Fault> + Send + 'static,
    ) -> Result<T> {
        let patience = Patience {
            queue: self.deadline,
            work,
        };
        let tenant = self.tenant.clone();
        self.line.ask(patience, move |link| link.run(&tenant, op))
    }

    /// Flushes a key of this Name soon, where it is loaded.
    pub(super) fn unload(&self, name: Vec<u8>) {
        self.line.tell(move |link| link.unload(&name));
    }
}

impl fmt::Debug for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Device({})", self.tcti())
    }
}
