//! What a check found.

use std::fmt::Display;
use std::time::Duration;

use clap::ValueEnum;
use devkey::Error;
use serde::Serialize;

use crate::failure::Failure;

/// What the checks are about, in the order in which they are shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Area {
    /// devkey.toml and the stores
    Config,
    /// Tokens: their files, records and PINs
    Tokens,
    /// The TPM
    #[cfg(feature = "tpm")]
    Tpm,
    /// PUF devices
    Puf,
    /// The PKCS#11 module, p11-kit, OpenSSH and its agent
    Module,
    /// OpenSSL's engine and provider
    Openssl,
    /// Certificates of X.509 and OpenSSH
    Certificates,
    /// The key service
    Service,
}

/// How it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum State {
    NotApplicable,
    Ok,
    Warning,
    Failed,
}

/// The result of one check of one thing.
#[derive(Debug, Serialize)]
pub(super) struct Finding {
    /// `area.check`, as docs/doctor.md has it.
    pub(super) id: &'static str,
    pub(super) area: Area,
    /// What was looked at: a token, a device, a file.
    pub(super) subject: Option<String>,
    pub(super) state: State,
    /// In one line.
    pub(super) found: String,
    /// What to type or to do.
    pub(super) fix: Option<String>,
}

impl Area {
    /// All of them.
    pub(super) const ALL: &'static [Area] = &[
        Area::Config,
        Area::Tokens,
        #[cfg(feature = "tpm")]
        Area::Tpm,
        Area::Puf,
        Area::Module,
        Area::Openssl,
        Area::Certificates,
        Area::Service,
    ];

    /// As a heading.
    pub(super) fn title(self) -> &'static str {
        match self {
            Area::Config => "Configuration",
            Area::Tokens => "Tokens",
            #[cfg(feature = "tpm")]
            Area::Tpm => "TPM",
            Area::Puf => "PUF",
            Area::Module => "PKCS#11 module and OpenSSH",
            Area::Openssl => "OpenSSL",
            Area::Certificates => "Certificates",
            Area::Service => "Key service",
        }
    }

    /// The check that it was looked at in time.
    fn deadline(self) -> &'static str {
        match self {
            Area::Config => "config.deadline",
            Area::Tokens => "tokens.deadline",
            #[cfg(feature = "tpm")]
            Area::Tpm => "tpm.deadline",
            Area::Puf => "puf.deadline",
            Area::Module => "module.deadline",
            Area::Openssl => "openssl.deadline",
            Area::Certificates => "certificates.deadline",
            Area::Service => "service.deadline",
        }
    }
}

impl State {
    /// As a word in a report; what is wrong stands out.
    pub(super) fn word(self) -> &'static str {
        match self {
            State::Ok => "ok",
            State::Warning => "WARNING",
            State::Failed => "FAILED",
            State::NotApplicable => "-",
        }
    }
}

impl Finding {
    fn new(area: Area, id: &'static str, state: State, found: impl Display) -> Self {
        Finding {
            id,
            area,
            subject: None,
            state,
            found: found.to_string(),
            fix: None,
        }
    }

    pub(super) fn ok(area: Area, id: &'static str, found: impl Display) -> Self {
        Finding::new(area, id, State::Ok, found)
    }

    pub(super) fn warning(area: Area, id: &'static str, found: impl Display) -> Self {
        Finding::new(area, id, State::Warning, found)
    }

    pub(super) fn failed(area: Area, id: &'static str, found: impl Display) -> Self {
        Finding::new(area, id, State::Failed, found)
    }

    /// Nothing to look at, or no right to: then with what would help.
    pub(super) fn none(area: Area, id: &'static str, found: impl Display) -> Self {
        Finding::new(area, id, State::NotApplicable, found)
    }

    /// What was looked at.
    pub(super) fn of(self, subject: impl Display) -> Self {
        Finding {
            subject: Some(subject.to_string()),
            ..self
        }
    }

    /// What to type or to do.
    pub(super) fn fix(self, fix: impl Into<String>) -> Self {
        Finding {
            fix: Some(fix.into()),
            ..self
        }
    }

    /// An error that the library or another command would report, with its remedy.
    pub(super) fn error(area: Area, id: &'static str, error: impl Into<Failure>) -> Self {
        let Failure { what, remedy } = error.into();
        Finding {
            fix: remedy,
            ..Finding::failed(area, id, what)
        }
    }

    /// As [`Finding::error`]; where it is only that this user may not look, it says so instead.
    pub(super) fn refused(area: Area, id: &'static str, error: &Error) -> Self {
        match is_permission(error) && !rustix::process::geteuid().is_root() {
            true => Finding::unseen(area, id, error),
            false => Finding::error(area, id, error),
        }
    }

    /// What could not be looked at for lack of rights.
    pub(super) fn unseen(area: Area, id: &'static str, what: impl Display) -> Self {
        Finding::none(area, id, format!("not looked at: {what}")).fix("sudo devkey doctor")
    }

    /// The area took too long.
    pub(super) fn late(area: Area, after: Duration) -> Self {
        let found = format!("not done within {} s: something hangs", after.as_secs());
        Finding::failed(area, area.deadline(), found)
            .fix("DEVKEY_LOG=debug devkey doctor says where it stops")
    }

    /// The area ended by a defect of devkey's.
    pub(super) fn broken(area: Area) -> Self {
        Finding::failed(
            area,
            area.deadline(),
            "a defect of devkey ended the look at this",
        )
        .fix("run it again with DEVKEY_LOG=debug and report what it says")
    }
}

/// Whether an error says that this process may not, and nothing else.
fn is_permission(error: &Error) -> bool {
    match error {
        Error::Refused { reason, .. } | Error::DeviceGone { reason, .. } => {
            reason.starts_with("no permission")
        }
        Error::Io { source, .. } => source.kind() == std::io::ErrorKind::PermissionDenied,
        _ => false,
    }
}
