//! The settings of a kernel token.

use std::fmt;

use crate::error::{Error, Result};
use crate::provider::Settings;

/// All of them, with their meanings.
pub(super) const KNOWN: &[(&str, &str)] = &[
    (
        "type",
        "type of the kernel's key: trusted (the default; sealed by TPM, TEE or CAAM) or encrypted",
    ),
    (
        "master",
        "for an encrypted key, the key that it is encrypted under: trusted:NAME or user:NAME",
    ),
    (
        "keyhandle",
        "for a trusted key in a TPM, the storage key that seals it, by default 0x81000001",
    ),
    (
        "key",
        "name of a key that something else loads; without it devkey makes one and keeps its blob",
    ),
];

/// The storage root key of the TCG's provisioning guidance.
const STORAGE_ROOT_KEY: u32 = 0x8100_0001;
/// Longest name, in bytes: the whole description of an encrypted key is one payload of few words.
const MAX_NAME: usize = 64;

/// What the settings say.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Options {
    pub(super) kind: Kind,
    pub(super) source: Source,
}

/// A type of key whose payload no program can read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Trusted,
    Encrypted,
}

/// Who makes and loads the key.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Source {
    /// Something else; devkey knows its name.
    Loaded(String),
    /// devkey.
    Own(Recipe),
}

/// What a key is made and loaded with.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Recipe {
    Trusted { keyhandle: u32 },
    Encrypted { master: String },
}

impl Options {
    pub(super) fn read(settings: &Settings) -> Result<Self> {
        let setting = |name| settings.get(name).map(String::as_str);
        let kind = match setting("type") {
            None | Some("trusted") => Kind::Trusted,
            Some("encrypted") => Kind::Encrypted,
            Some(other) => {
                return Err(Error::input(format!(
                    "type = {other:?}: use trusted or encrypted"
                )));
            }
        };
        let source = match (setting("key"), kind) {
            (Some(name), _) => Source::Loaded(checked(name)?),
            (None, Kind::Trusted) => Source::Own(Recipe::Trusted {
                keyhandle: setting("keyhandle").map_or(Ok(STORAGE_ROOT_KEY), keyhandle)?,
            }),
            (None, Kind::Encrypted) => Source::Own(Recipe::Encrypted {
                master: master(setting("master"))?,
            }),
        };
        let unused = match &source {
            Source::Loaded(_) => &["master", "keyhandle"][..],
            Source::Own(Recipe::Trusted { .. }) => &["master"],
            Source::Own(Recipe::Encrypted { .. }) => &["keyhandle"],
        };
        match unused.iter().find(|name| settings.contains_key(**name)) {
            Some(name) => Err(Error::input(format!(
                "{name} has no meaning for {source}; leave it out"
            ))),
            None => Ok(Options { kind, source }),
        }
    }
}

impl Recipe {
    pub(super) fn kind(&self) -> Kind {
        match self {
            Recipe::Trusted { .. } => Kind::Trusted,
            Recipe::Encrypted { .. } => Kind::Encrypted,
        }
    }
}

impl fmt::Display for Kind {
    /// As the kernel calls the type.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Kind::Trusted => "trusted",
            Kind::Encrypted => "encrypted",
        })
    }
}

impl fmt::Display for Recipe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Recipe::Trusted { keyhandle } => {
                write!(f, "the kernel's trusted key (under {keyhandle:#010x})")
            }
            Recipe::Encrypted { master } => {
                write!(f, "the kernel's encrypted key (under {master})")
            }
        }
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Source::Loaded(name) => write!(f, "key {name}, which something else loads"),
            Source::Own(recipe) => recipe.fmt(f),
        }
    }
}

fn keyhandle(text: &str) -> Result<u32> {
    let digits = text.strip_prefix("0x").unwrap_or(text);
    u32::from_str_radix(digits, 16)
        .ok()
        .filter(|_| digits.len() <= 8 && !digits.starts_with('+'))
        .ok_or_else(|| {
            Error::input(format!(
                "keyhandle = {text:?}: use the handle of a persistent storage key, as 0x81000001"
            ))
        })
}

fn master(text: Option<&str>) -> Result<String> {
    let text = text.ok_or_else(|| {
        Error::input("an encrypted key needs master = \"trusted:NAME\" or \"user:NAME\"")
    })?;
    match text.split_once(':') {
        Some(("trusted" | "user", name)) => checked(name).map(|_| text.to_owned()),
        _ => Err(Error::input(format!(
            "master = {text:?}: use trusted:NAME or user:NAME"
        ))),
    }
}

/// A name that the kernel's parsers take as one word.
fn checked(name: &str) -> Result<String> {
    let fine = |c: char| c.is_ascii_graphic();
    match (1..=MAX_NAME).contains(&name.len()) && name.chars().all(fine) {
        true => Ok(name.to_owned()),
        false => Err(Error::input(format!(
            "{name:?} cannot name a key: use up to {MAX_NAME} characters of ASCII without spaces"
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(settings: &[(&str, &str)]) -> Result<Options> {
        let owned = |(name, value): &(&str, &str)| (name.to_string(), value.to_string());
        Options::read(&settings.iter().map(owned).collect())
    }

    fn refused(settings: &[(&str, &str)]) -> String {
        match read(settings) {
            Err(Error::BadInput(reason)) => reason,
            other => panic!("not refused: {other:?}"),
        }
    }

    #[test]
    fn a_trusted_key_under_the_storage_root_key_is_meant_by_default() {
        let keyhandle = 0x8100_0001;
        let trusted = Source::Own(Recipe::Trusted { keyhandle });
        for same in [
            &[][..],
            &[("type", "trusted")],
            &[("keyhandle", "0x81000001")],
            &[("keyhandle", "81000001")],
        ] {
            assert_eq!(read(same).unwrap().source, trusted);
        }
    }

    #[test]
    fn an_encrypted_key_has_a_master() {
        let of = |master: &str| {
            let options = read(&[("type", "encrypted"), ("master", master)]);
            options.unwrap().source
        };
        for master in ["user:kmk", "trusted:kmk"] {
            let recipe = Recipe::Encrypted {
                master: master.to_owned(),
            };
            assert_eq!(of(master), Source::Own(recipe));
        }
        assert!(refused(&[("type", "encrypted")]).contains("needs master"));
    }

    /// The kernel would read further words as options of its own. Seen to fail without `all` in
    /// `checked`.
    #[test]
    fn no_name_ends_in_another_word() {
        for name in ["", "a b", "a\0", "a\nb", "ü", &"x".repeat(65)] {
            refused(&[("key", name)]);
            refused(&[("type", "encrypted"), ("master", &format!("user:{name}"))]);
        }
    }

    /// Seen to fail without the check of `unused`, and of the length and sign in `keyhandle`.
    #[test]
    fn what_means_nothing_is_refused() {
        for settings in [
            &[("type", "user")][..],
            &[("master", "user:kmk")],
            &[("type", "encrypted"), ("master", "logon:kmk")],
            &[("type", "encrypted"), ("master", "kmk")],
            &[
                ("type", "encrypted"),
                ("master", "user:x"),
                ("keyhandle", "1"),
            ],
            &[("key", "mine"), ("keyhandle", "0x81000001")],
            &[("key", "mine"), ("master", "user:x")],
            &[("keyhandle", "")],
            &[("keyhandle", "+1")],
            &[("keyhandle", "0x0000000081000001")],
            &[("keyhandle", "1 blobauth=0")],
        ] {
            refused(settings);
        }
    }
}
