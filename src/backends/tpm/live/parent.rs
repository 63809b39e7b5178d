//! Storage keys: whose children the token's keys are.

use tss_esapi::handles::{KeyHandle, PersistentTpmHandle, TpmHandle};
use tss_esapi::interface_types::resource_handles::Hierarchy;
use tss_esapi::interface_types::session_handles::AuthSession;
use tss_esapi::structures::{Auth, Public};

use super::{Live, What};
use crate::backends::tpm::errors::{Fault, HANDLE};
use crate::backends::tpm::link::Binding;
use crate::backends::tpm::objects::{self, Parent};
use crate::backends::tpm::tcti::Tcti;
use crate::error::{Error, Result};
use crate::key::{KeyKind, Usage};

impl Live {
    /// Compares the TPM with a token's, at its first use of this connection.
    pub(in super::super) fn check(&mut self, binding: &Binding, tcti: &Tcti) -> Result<(), Fault> {
        if self.checked.contains(binding) {
            return Ok(());
        }
        let other = |reason: &str| {
            Fault::Final(Error::OtherDevice {
                device: tcti.to_string(),
                reason: format!("different TPM, or it was cleared ({reason})"),
            })
        };
        if binding.parent == Parent::Owner {
            self.owner_name = Some(binding.name.clone());
        }
        match self.parent_name(binding.parent) {
            Ok(name) if name == binding.name => {
                self.checked.push(binding.clone());
                Ok(())
            }
            Ok(_) => Err(other("its storage key is another one")),
            Err(fault) if fault.is(HANDLE) => Err(other("its storage key is missing")),
            Err(fault) => Err(fault),
        }
    }

    /// Whether this is the TPM of any token.
    pub(in super::super) fn is_trusted(&self) -> bool {
        !self.checked.is_empty()
    }

    /// The storage key for new tokens: the provisioned one where it is fit, else the owner's.
    pub(in super::super) fn choose_parent(&mut self) -> Result<Parent, Fault> {
        match self.try_srk() {
            Ok(true) => return Ok(Parent::SRK),
            Ok(false) => {}
            Err(fault) if fault.is(HANDLE) || fault.is_auth() => {}
            Err(fault) => return Err(fault),
        }
        match self.parent(Parent::Owner) {
            Ok(_) => Ok(Parent::Owner),
            Err(fault) if fault.is_auth() => Err(Fault::Final(Error::unsupported(
                "a TPM whose owner has a password and that has no storage key at 0x81000001; \
                     make one: tpm2_createprimary -C o -P PASSWORD -G ecc -c srk && \
                     tpm2_evictcontrol -C o -P PASSWORD -c srk 0x81000001",
            ))),
            Err(fault) => Err(fault),
        }
    }

    /// The Name of a storage key.
    pub(in super::super) fn parent_name(&mut self, parent: Parent) -> Result<Vec<u8>, Fault> {
        let handle = self.parent(parent)?;
        Ok(self.context.tr_get_name(handle.into())?.value().to_vec())
    }

    /// A loaded storage key.
    pub(in super::super) fn parent(&mut self, parent: Parent) -> Result<KeyHandle, Fault> {
        match parent {
            Parent::Persistent(number) => self.resident(number),
            Parent::Owner => {
                let found = self
                    .loaded
                    .iter()
                    .find(|one| one.what == What::OwnerPrimary);
                if let Some(found) = found {
                    return Ok(found.handle);
                }
                self.loading = self.owner_name.clone();
                let (handle, _) = self.primary(Hierarchy::Owner, objects::storage_primary()?)?;
                if let Some(new) = self.loaded.last_mut() {
                    new.what = What::OwnerPrimary;
                }
                Ok(handle)
            }
        }
    }

    /// Makes a primary key, to be flushed with the rest; its handle and Name.
    pub(in super::super) fn primary(
        &mut self,
        hierarchy: Hierarchy,
        template: Public,
    ) -> Result<(KeyHandle, Vec<u8>), Fault> {
        let made = self.authorised(|context| {
            context.create_primary(hierarchy, template, None, None, None, None)
        })?;
        let name = objects::name(&made.out_public).unwrap_or_default();
        self.keep(What::Passing, name.clone(), made.key_handle);
        Ok((made.key_handle, name))
    }

    /// Whether 0x81000001 holds a storage key that takes children without a password. Harmless to
    /// try: such a key is noDA.
    fn try_srk(&mut self) -> Result<bool, Fault> {
        let handle = self.parent(Parent::SRK)?;
        let (public, ..) = self.context.read_public(handle)?;
        if !objects::is_storage(&public) {
            return Ok(false);
        }
        let child = objects::template(KeyKind::EcP256, Usage::SIGN)?;
        let password = AuthSession::Password;
        self.create(Parent::SRK, password, child, Auth::default(), None)
            .map(|_| true)
    }

    fn resident(&mut self, number: u32) -> Result<KeyHandle, Fault> {
        if let Some((_, handle)) = self.persistent.iter().find(|(known, _)| *known == number) {
            return Ok(*handle);
        }
        let handle = TpmHandle::Persistent(PersistentTpmHandle::new(number)?);
        let handle = self.context.tr_from_tpm_public(handle)?.into();
        self.persistent.push((number, handle));
        Ok(handle)
    }
}
