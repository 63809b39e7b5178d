//! Keys of the kernel: made, found and loaded; their payloads stay where they are.
//!
//! A key of devkey's own is kept in the user's keyring (user-keyring(7)), where it stays until the user's last
//! process ends, and is loaded again from its sealed blob when it is needed and not there. Every
//! process of that user may use it: as they all may read the blob, too.

use std::fmt;
use std::io;

use aws_lc_rs::digest::{SHA256, digest};
use keyutils_raw::{
    KEY_SPEC_THREAD_KEYRING, KEY_SPEC_USER_KEYRING, KeyringSerial, add_key, keyctl_link,
    keyctl_read, keyctl_unlink, request_key,
};
use rustix::io::Errno;

use super::settings::{Kind, Recipe};
use crate::error::{Error, Result};

/// A key's number in the running kernel.
pub(super) type Serial = KeyringSerial;

/// Length of the key in bytes.
const KEY_LEN: usize = 32;
/// Longest sealed blob as text, in bytes: the kernel's MAX_BLOB_SIZE is 512, in hexadecimal.
const MAX_BLOB: usize = 4096;

/// Type and description of a key.
#[derive(Debug)]
pub(super) struct Name {
    kind: Kind,
    description: String,
}

impl Name {
    pub(super) fn new(kind: Kind, description: &str) -> Self {
        Name {
            kind,
            description: description.to_owned(),
        }
    }

    /// The name that a blob's key has while it is loaded, the same in every process.
    fn of_blob(kind: Kind, blob: &str) -> Self {
        let hash = digest(&SHA256, blob.as_bytes());
        let hash = base16ct::lower::encode_string(hash.as_ref().split_at(8).0);
        Name::new(kind, &format!("devkey:{hash}"))
    }

    fn add(&self, payload: &str, keyring: Serial) -> Result<Serial, Errno> {
        let kind = self.kind.to_string();
        add_key(&kind, &self.description, payload.as_bytes(), keyring).map_err(|e| errno(e.0))
    }

    /// Looks where the thread looks, and then in the user's keyring: a service of systemd is in a
    /// session of its own that does not lead there. A key that is found is possessed
    /// (keyrings(7)), and so may be used.
    fn request(&self) -> Result<Serial, Errno> {
        let kind = self.kind.to_string();
        let request = || request_key(&kind, &self.description, None, None).map_err(|e| errno(e.0));
        match request() {
            Err(Errno::NOKEY) => possess().and_then(|()| request()),
            found => found,
        }
    }

    fn failed(&self, doing: &str, cause: Errno) -> Error {
        failed(&self.to_string(), doing, cause)
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the kernel's {} key {}", self.kind, self.description)
    }
}

/// Makes a key and returns its sealed blob; the key itself is forgotten.
pub(super) fn make(recipe: &Recipe) -> Result<String> {
    // Its master key may be in the user's keyring.
    possess().map_err(|e| failed(&recipe.to_string(), "opening the user's keyring", e))?;
    let random = crate::secret::Secret::random(8)?;
    let random = base16ct::lower::encode_string(random.expose());
    let name = Name::new(recipe.kind(), &format!("devkey-new:{random}"));
    let payload = match recipe {
        Recipe::Trusted { keyhandle } => format!("new {KEY_LEN} keyhandle={keyhandle:#010x}"),
        Recipe::Encrypted { master } => format!("new default {master} {KEY_LEN}"),
    };
    let serial = name
        .add(&payload, KEY_SPEC_THREAD_KEYRING)
        .map_err(|e| not_made(recipe, e))?;
    // An encrypted key is encrypted only now, and asks only now for its master.
    let blob = read(serial).map_err(|e| not_made(recipe, e));
    // The thread would keep it for as long as it lives.
    let _ = keyctl_unlink(serial, KEY_SPEC_THREAD_KEYRING);
    blob
}

/// Finds a key that something else loaded.
pub(super) fn find(name: &Name) -> Result<Serial> {
    name.request().map_err(|e| match e {
        Errno::NOKEY => Error::DeviceGone {
            device: name.to_string(),
            reason: "not loaded; load it into the user's keyring (keyctl add … @u) before use"
                .to_owned(),
        },
        other => name.failed("looking for it", other),
    })
}

/// The key of a sealed blob, loaded if it is not.
pub(super) fn load(recipe: &Recipe, blob: &str) -> Result<Serial> {
    let name = Name::of_blob(recipe.kind(), blob);
    if let Ok(serial) = name.request() {
        return Ok(serial);
    }
    let payload = match recipe {
        Recipe::Trusted { keyhandle } => format!("load {blob} keyhandle={keyhandle:#010x}"),
        Recipe::Encrypted { .. } => format!("load {blob}"),
    };
    name.add(&payload, KEY_SPEC_USER_KEYRING).or_else(|e| {
        // Another may have loaded it meanwhile: the kernel takes this for an update then.
        name.request().map_err(|_| not_loaded(&name, recipe, e))
    })
}

/// Has this thread possess all keys of its user, for as long as it lives. Costs the user a keyring,
/// of which there are 200 (/proc/sys/kernel/keys/maxkeys), so that it is done where it must.
fn possess() -> Result<(), Errno> {
    keyctl_link(KEY_SPEC_USER_KEYRING, KEY_SPEC_THREAD_KEYRING).map_err(|e| errno(e.0))
}

fn read(serial: Serial) -> Result<String, Errno> {
    let mut text = vec![0; MAX_BLOB];
    let out = Some(text.as_mut_slice().into());
    let len = keyctl_read(serial, out).map_err(|e| errno(e.0))?;
    text.truncate(len);
    match String::from_utf8(text) {
        // The kernel returns the whole length, also of what did not fit.
        Ok(text) if len <= MAX_BLOB => Ok(text.trim_end_matches(['\0', '\n']).to_owned()),
        _ => Err(Errno::OVERFLOW),
    }
}

/// Why a key could not be made.
fn not_made(recipe: &Recipe, cause: Errno) -> Error {
    let reason = match (recipe, cause) {
        (Recipe::Trusted { keyhandle }, Errno::PERM) => format!(
            "the TPM does not seal under {keyhandle:#010x}, or this process may not use keyrings; \
             make a storage key there with: tpm2_createprimary -C o -G ecc -c /tmp/srk && \
             tpm2_evictcontrol -C o -c /tmp/srk {keyhandle:#010x}"
        ),
        (Recipe::Encrypted { master }, Errno::NOKEY) => no_master(master),
        (_, cause) => return failed(&recipe.to_string(), "making it", cause),
    };
    let device = recipe.to_string();
    Error::DeviceGone { device, reason }
}

/// Why a sealed key could not be loaded.
fn not_loaded(name: &Name, recipe: &Recipe, cause: Errno) -> Error {
    let device = name.to_string();
    match (recipe, cause) {
        // The kernel gives one errno for all that the TPM may say.
        (
            Recipe::Trusted { keyhandle },
            Errno::PERM | Errno::INVAL | Errno::BADMSG | Errno::TOOBIG,
        ) => Error::OtherDevice {
            device,
            reason: format!(
                "the sealed key does not load: it is of another TPM, the TPM's key \
                     {keyhandle:#010x} is another one now, or the token's kernel.blob was changed"
            ),
        },
        (Recipe::Encrypted { master }, Errno::INVAL | Errno::BADMSG | Errno::TOOBIG) => {
            Error::OtherDevice {
                device,
                reason: format!(
                    "the sealed key does not load: {master} is another key now, or the token's \
                 kernel.blob was changed"
                ),
            }
        }
        (Recipe::Encrypted { master }, Errno::NOKEY) => Error::DeviceGone {
            device,
            reason: no_master(master),
        },
        (_, cause) => name.failed("loading it", cause),
    }
}

fn no_master(master: &str) -> String {
    format!(
        "its master key {master} is not loaded; load it into the user's keyring (keyctl add … @u)"
    )
}

/// What keyctl(2) and add_key(2) say, with the remedy.
fn failed(device: &str, doing: &str, cause: Errno) -> Error {
    let gone = |reason: &str| Error::DeviceGone {
        device: device.to_owned(),
        reason: reason.to_owned(),
    };
    match cause {
        Errno::NODEV => Error::Unsupported(format!(
            "{device}: this kernel has no keys of that type; it wants CONFIG_TRUSTED_KEYS=y and a \
             TPM, TEE or CAAM that it found, or CONFIG_ENCRYPTED_KEYS=y for an encrypted key"
        )),
        Errno::OPNOTSUPP => Error::Unsupported(format!(
            "{device}: this kernel takes no such master key; trusted:NAME wants \
             CONFIG_TRUSTED_KEYS=y"
        )),
        Errno::NOSYS => Error::Unsupported(format!(
            "{device}: this kernel has no keyrings; it wants CONFIG_KEYS=y"
        )),
        Errno::KEYEXPIRED | Errno::KEYREVOKED | Errno::KEYREJECTED => {
            gone("expired or revoked; load it again")
        }
        Errno::ACCESS | Errno::PERM => gone(
            "no permission; use it as the user whose keyring it is in, and not where a sandbox \
             shuts keyctl(2) out",
        ),
        Errno::DQUOT => Error::Full(format!(
            "{device}: the user's quota of keys (/proc/sys/kernel/keys/)"
        )),
        other => Error::io(format!("{device}: {doing}"), io::Error::from(other)),
    }
}

fn errno(raw: i32) -> Errno {
    Errno::from_raw_os_error(raw)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn trusted() -> Recipe {
        Recipe::Trusted {
            keyhandle: 0x8100_0001,
        }
    }

    fn encrypted() -> Recipe {
        Recipe::Encrypted {
            master: "user:kmk".to_owned(),
        }
    }

    /// Every number that the kernel may answer has a text that helps; `make vm-test` sees those
    /// that it does answer.
    #[test]
    fn answers_of_the_kernel_say_what_to_do() {
        for (recipe, errno, words) in [
            (trusted(), Errno::NODEV, "CONFIG_TRUSTED_KEYS=y"),
            (encrypted(), Errno::NODEV, "CONFIG_ENCRYPTED_KEYS=y"),
            (encrypted(), Errno::OPNOTSUPP, "CONFIG_TRUSTED_KEYS=y"),
            (trusted(), Errno::NOSYS, "CONFIG_KEYS=y"),
            (trusted(), Errno::PERM, "tpm2_evictcontrol"),
            (encrypted(), Errno::PERM, "no permission"),
            (encrypted(), Errno::ACCESS, "no permission"),
            (encrypted(), Errno::NOKEY, "user:kmk is not loaded"),
            (encrypted(), Errno::KEYEXPIRED, "load it again"),
            (trusted(), Errno::DQUOT, "/proc/sys/kernel/keys/"),
            (trusted(), Errno::IO, "making it"),
        ] {
            let said = not_made(&recipe, errno).to_string();
            assert!(said.contains(words), "{errno:?}: {said}");
        }
    }

    /// Seen to fail with PERM taken out of `not_loaded`.
    #[test]
    fn a_blob_that_does_not_load_is_of_another_device() {
        let name = Name::new(Kind::Trusted, "x");
        for errno in [Errno::PERM, Errno::INVAL, Errno::BADMSG, Errno::TOOBIG] {
            let trusted = not_loaded(&name, &trusted(), errno);
            assert!(matches!(trusted, Error::OtherDevice { .. }), "{errno:?}");
        }
        for errno in [Errno::INVAL, Errno::BADMSG, Errno::TOOBIG] {
            let encrypted = not_loaded(&name, &encrypted(), errno);
            assert!(matches!(encrypted, Error::OtherDevice { .. }), "{errno:?}");
        }
        let no_master = not_loaded(&name, &encrypted(), Errno::NOKEY);
        assert!(matches!(no_master, Error::DeviceGone { .. }));
    }

    /// Processes find each other's key by it.
    #[test]
    fn a_blob_has_one_name() {
        let name = Name::of_blob(Kind::Trusted, "0123").to_string();
        // sha256sum's.
        assert_eq!(name, "the kernel's trusted key devkey:1be2e452b46d7a0d");
    }
}
