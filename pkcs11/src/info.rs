//! What the module, a slot, a token and a session say of themselves.

use cryptoki_sys::*;
use devkey::MANUFACTURER;
use devkey::store::{Role, TokenRecord};
use devkey::token::{MAX_PIN, MIN_PIN, PinState};

use crate::raw::Ulong;

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

/// What C_GetTokenInfo says that no record does.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Now {
    /// Sessions, and those of them that may write.
    pub(crate) sessions: (usize, usize),
    /// Whether there is a token, and not only a place for one.
    pub(crate) initialised: bool,
    /// The state of the user's PIN, where it is set.
    pub(crate) user: Option<PinState>,
    /// The state of the SO's.
    pub(crate) so: Option<PinState>,
}

/// C_GetSlotInfo: a slot is there because its token is, or may be made; `name` is what the
/// configuration calls it.
pub(crate) fn slot(token: &TokenRecord, name: &str) -> CK_SLOT_INFO {
    let label = match token.label.as_str() {
        "" => name,
        label => label,
    };
    let hardware = if is_hardware(token) { CKF_HW_SLOT } else { 0 };
    CK_SLOT_INFO {
        slotDescription: padded(&format!("devkey {}: {label}", token.back_end)),
        manufacturerID: padded(MANUFACTURER),
        flags: CKF_TOKEN_PRESENT | hardware,
        hardwareVersion: NO_VERSION,
        firmwareVersion: NO_VERSION,
    }
}

/// C_GetTokenInfo. CKF_WRITE_PROTECTED is never set: clients that see it do not even try, and who
/// may write depends on who asks.
pub(crate) fn token(token: &TokenRecord, now: Now) -> CK_TOKEN_INFO {
    let (all, writable) = now.sessions;
    CK_TOKEN_INFO {
        label: padded(&token.label),
        manufacturerID: padded(MANUFACTURER),
        model: padded(&token.model),
        serialNumber: padded(&token.serial),
        flags: CKF_RNG | flags(token.pin, now),
        ulMaxSessionCount: CK_EFFECTIVELY_INFINITE,
        ulSessionCount: all as Ulong,
        ulMaxRwSessionCount: CK_EFFECTIVELY_INFINITE,
        ulRwSessionCount: writable as Ulong,
        ulMinPinLen: MIN_PIN as Ulong,
        ulMaxPinLen: MAX_PIN as Ulong,
        ulTotalPublicMemory: CK_UNAVAILABLE_INFORMATION,
        ulFreePublicMemory: CK_UNAVAILABLE_INFORMATION,
        ulTotalPrivateMemory: CK_UNAVAILABLE_INFORMATION,
        ulFreePrivateMemory: CK_UNAVAILABLE_INFORMATION,
        hardwareVersion: NO_VERSION,
        firmwareVersion: NO_VERSION,
        utcTime: padded(""),
    }
}

/// The flags that PINs make. A token without them has no CKF_LOGIN_REQUIRED, and its user's PIN
/// counts as set: some clients use no other token.
fn flags(login: bool, now: Now) -> CK_FLAGS {
    let present = if now.initialised {
        CKF_TOKEN_INITIALIZED
    } else {
        0
    };
    if !login {
        return present | CKF_USER_PIN_INITIALIZED;
    }
    let user = now.user.map_or(0, |pin| {
        CKF_USER_PIN_INITIALIZED
            | tried(
                pin,
                [
                    CKF_USER_PIN_COUNT_LOW,
                    CKF_USER_PIN_FINAL_TRY,
                    CKF_USER_PIN_LOCKED,
                ],
            )
            | if pin.to_be_changed {
                CKF_USER_PIN_TO_BE_CHANGED
            } else {
                0
            }
    });
    let so = now.so.map_or(0, |pin| {
        tried(
            pin,
            [
                CKF_SO_PIN_COUNT_LOW,
                CKF_SO_PIN_FINAL_TRY,
                CKF_SO_PIN_LOCKED,
            ],
        ) | if pin.to_be_changed {
            CKF_SO_PIN_TO_BE_CHANGED
        } else {
            0
        }
    });
    present | CKF_LOGIN_REQUIRED | user | so
}

/// Of three flags those that the tries left call for: since a right PIN there was a wrong one, one
/// more locks it, it is locked.
fn tried(pin: PinState, [low, last, locked]: [CK_FLAGS; 3]) -> CK_FLAGS {
    match pin.left {
        0 => low | locked,
        1 => low | last,
        left if left < pin.of => low,
        _ => 0,
    }
}

/// C_GetSessionInfo. Without PINs every session has what a user has: strongSwan would log in, and
/// fail, wherever the state is a public one.
pub(crate) fn session(
    slot: Ulong,
    writable: bool,
    login: bool,
    who: Option<Role>,
) -> CK_SESSION_INFO {
    let state = match (who.filter(|_| login), writable) {
        (None, true) if login => CKS_RW_PUBLIC_SESSION,
        (None, false) if login => CKS_RO_PUBLIC_SESSION,
        (Some(Role::So), _) => CKS_RW_SO_FUNCTIONS,
        (_, true) => CKS_RW_USER_FUNCTIONS,
        (_, false) => CKS_RO_USER_FUNCTIONS,
    };
    let flags = match writable {
        true => CKF_SERIAL_SESSION | CKF_RW_SESSION,
        false => CKF_SERIAL_SESSION,
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
