//! What a TPM response code means: what to try, and what to tell the user.
//!
//! Codes are those of TPM 2.0 Library part 2 §6.6; the layer above the low 16 bits says which part
//! of the TSS spoke (TSS 2.0 Overview, table 8).

use tss_esapi::constants::response_code::Tss2ResponseCode;

use super::tcti::Tcti;
use crate::error::Error;

/// Why an attempt failed.
#[derive(Debug)]
pub(super) enum Fault {
    /// The TSS or the TPM answered with a code; 0 where libtss2 gave something unreadable.
    Code(u32),
    /// The result was not what this key would have given.
    Wrong,
    /// The record is another's, or was changed: the TPM takes neither the blob nor the auth.
    Foreign,
    /// Nothing was heard of a command that may have cost a try: it is not sent again.
    Lost(u32),
    /// No further attempt helps.
    Final(Error),
}

/// What to do about a [`Fault`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Remedy {
    /// The TPM is busy: ask again in a moment.
    Again,
    /// The TPM's memory is full: flush what is ours, then wait for others.
    Room,
    /// The connection or a handle is gone: begin anew.
    Rebuild,
    /// A handle may have become another's, which is seldom so: begin anew, once.
    Once,
    /// The connection is gone: leave it.
    Leave,
    /// None.
    Nothing,
}

impl From<tss_esapi::Error> for Fault {
    fn from(error: tss_esapi::Error) -> Self {
        match error {
            tss_esapi::Error::Tss2Error(code) => Fault::Code(number(code)),
            tss_esapi::Error::WrapperError(_) => Fault::Code(0),
        }
    }
}

impl From<Error> for Fault {
    fn from(error: Error) -> Self {
        Fault::Final(error)
    }
}

impl Fault {
    /// What to do about it. Trying again costs no try: every key is noDA, and the command of a
    /// login that could cost one makes [`Fault::Lost`] of its doubtful ends.
    pub(super) fn remedy(&self) -> Remedy {
        match self {
            Fault::Final(_) => Remedy::Nothing,
            Fault::Wrong => Remedy::Rebuild,
            Fault::Foreign => Remedy::Once,
            Fault::Lost(_) => Remedy::Leave,
            Fault::Code(code) => match Code(*code).tpm() {
                None => Remedy::Rebuild,
                Some(0x908 | 0x90a | 0x920 | 0x922 | 0x923) => Remedy::Again,
                Some(0x902..=0x906) => Remedy::Room,
                Some(0x100 | 0x910..=0x91e) => Remedy::Rebuild,
                Some(tpm) if tpm & 0x80 != 0 => Remedy::Rebuild,
                Some(_) => Remedy::Nothing,
            },
        }
    }

    /// Whether the TPM answered with this error of format one, whichever handle, parameter or
    /// session it is about.
    pub(super) fn is(&self, wanted: u32) -> bool {
        match self {
            Fault::Code(code) => Code(*code).tpm().is_some_and(|tpm| tpm & 0xbf == wanted),
            _ => false,
        }
    }

    /// What the TPM answered; `None` where nothing was heard of it.
    pub(super) fn code(&self) -> Option<u32> {
        match self {
            Fault::Code(code) => Code(*code).tpm(),
            _ => None,
        }
    }

    /// The fault of a command that must not be sent twice where it may have been run.
    pub(super) fn once(self) -> Self {
        match self {
            Fault::Code(code) if Code(code).tpm().is_none() => Fault::Lost(code),
            other => other,
        }
    }

    /// Whether the TPM says that an auth is wrong.
    pub(super) fn is_auth(&self) -> bool {
        AUTH.iter().any(|code| self.is(*code))
    }

    /// Whether the TPM has answered at all.
    pub(super) fn heard(&self) -> bool {
        matches!(self, Fault::Wrong | Fault::Foreign) || self.code().is_some()
    }

    /// Whether the TPM itself answered, with an error that another attempt would not change.
    pub(super) fn answered(&self) -> bool {
        self.code().is_some_and(|tpm| tpm & 0x80 != 0)
    }

    /// Whether the TPM blames a parameter of the command (format one, bit 6).
    pub(super) fn blames_input(&self) -> bool {
        matches!(self, Fault::Code(code) if Code(*code).tpm().is_some_and(|tpm| tpm & 0xc0 == 0xc0))
    }

    /// Whether the answer is TPM_RC_OBJECT_MEMORY: there is no room for another object.
    pub(super) fn is_crowded(&self) -> bool {
        self.code() == Some(0x902)
    }

    /// Whether the answer is TPM_RC_SESSION_MEMORY or TPM_RC_SESSION_HANDLES: there is no room for
    /// another session.
    pub(super) fn is_out_of_sessions(&self) -> bool {
        matches!(self.code(), Some(0x903 | 0x905))
    }

    /// Whether the answer is TPM_RC_FAILURE.
    pub(super) fn is_failure(&self) -> bool {
        matches!(self, Fault::Code(code) if Code(*code).tpm() == Some(0x101))
    }

    /// The error for the caller.
    pub(super) fn into_error(self, tcti: &Tcti) -> Error {
        match self {
            Fault::Final(error) => error,
            Fault::Wrong => tcti.failed("the answer does not fit the key"),
            Fault::Foreign => Error::BadBlob,
            Fault::Code(code) | Fault::Lost(code) => Code(code).into_error(tcti),
        }
    }
}

impl Tcti {
    /// [`Error::DeviceError`] for this device.
    pub(super) fn failed(&self, reason: impl Into<String>) -> Error {
        Error::DeviceError {
            device: self.to_string(),
            reason: reason.into(),
        }
    }
}

/// TPM_RC_INTEGRITY: a blob of another TPM or parent, or a changed one.
pub(super) const INTEGRITY: u32 = 0x9f;
/// TPM_RC_HANDLE: there is no such object.
pub(super) const HANDLE: u32 = 0x8b;
/// TPM_RC_AUTH_FAIL and TPM_RC_BAD_AUTH: the auth is another one. The first has counted.
const AUTH: [u32; 2] = [0x8e, 0xa2];

/// TPM_RC_LOCKOUT: the whole TPM is locked against guessing.
pub(super) const LOCKED: u32 = 0x921;
/// TPM_RC_AUTH_UNAVAILABLE: there is no auth by which this could be authorised (now).
pub(super) const NO_AUTH: u32 = 0x12f;
/// TPM_RC_NV_DEFINED: the handle is taken.
pub(super) const NV_DEFINED: u32 = 0x14c;

struct Code(u32);

impl Code {
    /// The code as the TPM gave it; `None` where the TSS could not even ask. The kernel's resource
    /// manager answers in the TPM's name in a layer of its own.
    fn tpm(&self) -> Option<u32> {
        match self.0 >> 16 {
            0 | 0x0b | 0x0c if self.0 & 0xffff != 0 => Some(self.0 & 0xfff),
            _ => None,
        }
    }

    fn into_error(self, tcti: &Tcti) -> Error {
        let code = self.0;
        let Some(tpm) = self.tpm() else {
            return match code >> 16 {
                0x0a => tcti.gone("the connection broke and could not be made again"),
                _ => tcti.failed(format!(
                    "an answer that makes no sense (TSS error {code:#x})"
                )),
            };
        };
        match (tpm, tpm & 0xbf) {
            (0x100, _) => tcti.failed(
                "the TPM has not been started; a machine's firmware does it, for swtpm add \
                 --flags not-need-init,startup-clear",
            ),
            (0x101, _) => tcti.failed("the TPM is in failure mode; power the machine off and on"),
            (0x143, _) => Error::unsupported("this TPM lacks a command that is needed"),
            (0x902..=0x906, _) => Error::Full(format!(
                "{tcti}: other programs hold all of the TPM's memory; tpm2_flushcontext -t, -l \
                 and -s free what they left behind"
            )),
            (LOCKED, _) => tcti.failed(
                "the whole TPM is locked against guessing, by wrong passwords wherever they were \
                 given; wait, or tpm2_dictionarylockout --clear-lockout",
            ),
            (0x908 | 0x90a | 0x920 | 0x922 | 0x923, _) => {
                tcti.failed("busy for too long; try again")
            }
            (_, INTEGRITY) => Error::BadBlob,
            (_, 0x8e | 0xa2) => tcti.failed("a password is set where none is expected"),
            _ => tcti.failed(format!(
                "TPM error {tpm:#05x} (tpm2_rc_decode {tpm:#x} explains it)"
            )),
        }
    }
}

/// The number behind tss-esapi's type, which only shows it in its text ("… value: 0xdeadbeef").
fn number(code: Tss2ResponseCode) -> u32 {
    let text = match code {
        Tss2ResponseCode::Success => return 0,
        Tss2ResponseCode::FormatZero(code) => code.to_string(),
        Tss2ResponseCode::FormatOne(code) => code.to_string(),
    };
    text.rsplit_once("0x")
        .and_then(|(_, hex)| u32::from_str_radix(hex, 16).ok())
        .unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fault(code: u32) -> Fault {
        tss_esapi::Error::Tss2Error(code.into()).into()
    }

    /// Seen failing with `0xbf` in `Fault::is` changed to `0xff`.
    #[test]
    fn codes_survive_the_wrapper() {
        assert!(matches!(fault(0x1df), Fault::Code(0x1df)));
        assert!(matches!(fault(0x000a_000a), Fault::Code(0x000a_000a)));
        assert!(fault(0x1df).is(INTEGRITY));
        assert!(fault(0x18b).is(HANDLE));
        assert!(fault(0x9a2).is_auth());
        assert!(!fault(0x0a_000a).is(HANDLE));
    }

    /// Every code of every layer has a remedy and a text, and none panics.
    /// Seen failing with 0x922 taken out of `Fault::remedy`.
    #[test]
    fn every_code_has_a_remedy() {
        let tcti = Tcti::parse(super::super::tcti::DEFAULT).unwrap();
        for layer in [0, 7, 8, 9, 10, 11, 12] {
            for low in 0..0x1000 {
                let code = layer << 16 | low;
                assert!(!fault(code).into_error(&tcti).to_string().is_empty());
            }
        }
        assert_eq!(fault(0x922).remedy(), Remedy::Again);
        assert_eq!(fault(0x902).remedy(), Remedy::Room);
        for lost in [0x18b, 0x184, 0x910, 0x918, 0x1df, 0x0a_000a, 0x07_0001, 0] {
            assert_eq!(fault(lost).remedy(), Remedy::Rebuild, "{lost:#x}");
        }
        assert_eq!(fault(0x101).remedy(), Remedy::Nothing);
    }
}
