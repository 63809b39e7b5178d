//! What the module, a slot, a token and a session say of themselves.

use cryptoki_sys::*;
use devkey::MANUFACTURER;
use devkey::store::TokenRecord;

use crate::raw::Ulong;

/// PINs have 4 to 32 bytes: OpenSSL's engine asks for no fewer and no more.
const PIN_LENGTHS: (Ulong, Ulong) = (4, 32);
const NO_VERSION: CK_VERSION = CK_VERSION { major: 0, minor: 0 };

/// C_GetInfo.
pub(crate) fn module() -> CK_INFO {
    CK_INFO {
        cryptokiVersion: CK_VERSION { major: 3, minor: 0 },
        manufacturerID: padded(MANUFACTURER),
        flags: 0,
        libraryDescription: padded("devkey"),
        libraryVersion: CK_VERSION {
            major: number(env!("CARGO_PKG_VERSION_MAJOR")),
            minor: number(env!("CARGO_PKG_VERSION_MINOR")),
        },
    }
}

/// C_GetSlotInfo: a slot is there because its token is.
pub(crate) fn slot(token: &TokenRecord) -> CK_SLOT_INFO {
    let hardware = if is_hardware(token) { CKF_HW_SLOT } else { 0 };
    CK_SLOT_INFO {
        slotDescription: padded(&format!("devkey {}: {}", token.back_end, token.label)),
        manufacturerID: padded(MANUFACTURER),
        flags: CKF_TOKEN_PRESENT | hardware,
        hardwareVersion: NO_VERSION,
        firmwareVersion: NO_VERSION,
    }
}

/// C_GetTokenInfo. Without CKF_LOGIN_REQUIRED: the token has no PIN. CKF_WRITE_PROTECTED is never
/// set: clients that see it do not even try, and who may write depends on who asks.
pub(crate) fn token(token: &TokenRecord, sessions: (usize, usize)) -> CK_TOKEN_INFO {
    let (all, writable) = sessions;
    CK_TOKEN_INFO {
        label: padded(&token.label),
        manufacturerID: padded(MANUFACTURER),
        model: padded(&token.model),
        serialNumber: padded(&token.serial),
        flags: CKF_TOKEN_INITIALIZED | CKF_USER_PIN_INITIALIZED | CKF_RNG,
        ulMaxSessionCount: CK_EFFECTIVELY_INFINITE,
        ulSessionCount: all as Ulong,
        ulMaxRwSessionCount: CK_EFFECTIVELY_INFINITE,
        ulRwSessionCount: writable as Ulong,
        ulMinPinLen: PIN_LENGTHS.0,
        ulMaxPinLen: PIN_LENGTHS.1,
        ulTotalPublicMemory: CK_UNAVAILABLE_INFORMATION,
        ulFreePublicMemory: CK_UNAVAILABLE_INFORMATION,
        ulTotalPrivateMemory: CK_UNAVAILABLE_INFORMATION,
        ulFreePrivateMemory: CK_UNAVAILABLE_INFORMATION,
        hardwareVersion: NO_VERSION,
        firmwareVersion: NO_VERSION,
        utcTime: padded(""),
    }
}

/// C_GetSessionInfo. Without a PIN every session has what a user has: strongSwan would log in,
/// and fail, wherever the state is a public one.
pub(crate) fn session(slot: Ulong, writable: bool) -> CK_SESSION_INFO {
    let (state, flags) = match writable {
        true => (CKS_RW_USER_FUNCTIONS, CKF_SERIAL_SESSION | CKF_RW_SESSION),
        false => (CKS_RO_USER_FUNCTIONS, CKF_SERIAL_SESSION),
    };
    CK_SESSION_INFO {
        slotID: slot,
        state,
        flags,
        ulDeviceError: 0,
    }
}

/// Whether the keys of a token are in hardware.
pub(crate) fn is_hardware(token: &TokenRecord) -> bool {
    token.hardware
}

/// Text padded with spaces and cut between characters. Without a NUL: some clients stop there,
/// others refuse.
fn padded<const N: usize>(text: &str) -> [u8; N] {
    let mut field = [b' '; N];
    let mut free = field.as_mut_slice();
    for character in text.chars().map(|c| if c.is_control() { ' ' } else { c }) {
        let Some((place, rest)) = free.split_at_mut_checked(character.len_utf8()) else {
            break;
        };
        character.encode_utf8(place);
        free = rest;
    }
    field
}

/// A small decimal number, at compile time of the package.
fn number(text: &str) -> u8 {
    text.parse().unwrap_or(u8::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// R9. Fails where control characters pass, or a character is cut in two.
    #[test]
    fn text_is_padded_and_cut_between_characters() {
        assert_eq!(padded::<6>("ab\0"), *b"ab    ");
        assert_eq!(padded::<3>("abcd"), *b"abc");
        assert_eq!(padded::<3>("ab\u{e4}"), *b"ab ");
    }
}
