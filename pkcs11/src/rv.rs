//! Return values: the one place where errors become `CK_RV`.

use cryptoki_sys::*;
use devkey::Error;
use devkey::store::Role;

/// The result of everything in the module.
pub(crate) type Result<T, E = Rv> = std::result::Result<T, E>;

/// A `CK_RV` other than `CKR_OK`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Rv(CK_RV);

macro_rules! values {
    ($($name:ident = $code:ident;)*) => {
        impl Rv {
            $(pub(crate) const $name: Rv = Rv($code);)*
        }
    };
}

values! {
    ACTION_PROHIBITED = CKR_ACTION_PROHIBITED;
    ALREADY_INITIALIZED = CKR_CRYPTOKI_ALREADY_INITIALIZED;
    ARGUMENTS_BAD = CKR_ARGUMENTS_BAD;
    ATTRIBUTE_READ_ONLY = CKR_ATTRIBUTE_READ_ONLY;
    ATTRIBUTE_SENSITIVE = CKR_ATTRIBUTE_SENSITIVE;
    ATTRIBUTE_TYPE_INVALID = CKR_ATTRIBUTE_TYPE_INVALID;
    ATTRIBUTE_VALUE_INVALID = CKR_ATTRIBUTE_VALUE_INVALID;
    BUFFER_TOO_SMALL = CKR_BUFFER_TOO_SMALL;
    CANT_LOCK = CKR_CANT_LOCK;
    CURVE_NOT_SUPPORTED = CKR_CURVE_NOT_SUPPORTED;
    DATA_INVALID = CKR_DATA_INVALID;
    DATA_LEN_RANGE = CKR_DATA_LEN_RANGE;
    DEVICE_ERROR = CKR_DEVICE_ERROR;
    ENCRYPTED_DATA_INVALID = CKR_ENCRYPTED_DATA_INVALID;
    ENCRYPTED_DATA_LEN_RANGE = CKR_ENCRYPTED_DATA_LEN_RANGE;
    FUNCTION_FAILED = CKR_FUNCTION_FAILED;
    FUNCTION_NOT_PARALLEL = CKR_FUNCTION_NOT_PARALLEL;
    FUNCTION_NOT_SUPPORTED = CKR_FUNCTION_NOT_SUPPORTED;
    GENERAL_ERROR = CKR_GENERAL_ERROR;
    KEY_FUNCTION_NOT_PERMITTED = CKR_KEY_FUNCTION_NOT_PERMITTED;
    KEY_HANDLE_INVALID = CKR_KEY_HANDLE_INVALID;
    KEY_SIZE_RANGE = CKR_KEY_SIZE_RANGE;
    KEY_TYPE_INCONSISTENT = CKR_KEY_TYPE_INCONSISTENT;
    MECHANISM_INVALID = CKR_MECHANISM_INVALID;
    MECHANISM_PARAM_INVALID = CKR_MECHANISM_PARAM_INVALID;
    NOT_INITIALIZED = CKR_CRYPTOKI_NOT_INITIALIZED;
    OBJECT_HANDLE_INVALID = CKR_OBJECT_HANDLE_INVALID;
    OPERATION_ACTIVE = CKR_OPERATION_ACTIVE;
    OPERATION_NOT_INITIALIZED = CKR_OPERATION_NOT_INITIALIZED;
    PARAMETER_SET_NOT_SUPPORTED = CKR_PARAMETER_SET_NOT_SUPPORTED;
    PIN_INCORRECT = CKR_PIN_INCORRECT;
    PIN_INVALID = CKR_PIN_INVALID;
    PIN_LEN_RANGE = CKR_PIN_LEN_RANGE;
    RANDOM_SEED_NOT_SUPPORTED = CKR_RANDOM_SEED_NOT_SUPPORTED;
    SESSION_CLOSED = CKR_SESSION_CLOSED;
    SESSION_EXISTS = CKR_SESSION_EXISTS;
    SESSION_HANDLE_INVALID = CKR_SESSION_HANDLE_INVALID;
    SESSION_PARALLEL_NOT_SUPPORTED = CKR_SESSION_PARALLEL_NOT_SUPPORTED;
    SESSION_READ_ONLY = CKR_SESSION_READ_ONLY;
    SESSION_READ_ONLY_EXISTS = CKR_SESSION_READ_ONLY_EXISTS;
    SESSION_READ_WRITE_SO_EXISTS = CKR_SESSION_READ_WRITE_SO_EXISTS;
    SIGNATURE_INVALID = CKR_SIGNATURE_INVALID;
    SIGNATURE_LEN_RANGE = CKR_SIGNATURE_LEN_RANGE;
    SLOT_ID_INVALID = CKR_SLOT_ID_INVALID;
    STATE_UNSAVEABLE = CKR_STATE_UNSAVEABLE;
    TEMPLATE_INCOMPLETE = CKR_TEMPLATE_INCOMPLETE;
    TEMPLATE_INCONSISTENT = CKR_TEMPLATE_INCONSISTENT;
    TOKEN_NOT_RECOGNIZED = CKR_TOKEN_NOT_RECOGNIZED;
    TOKEN_WRITE_PROTECTED = CKR_TOKEN_WRITE_PROTECTED;
    USER_ALREADY_LOGGED_IN = CKR_USER_ALREADY_LOGGED_IN;
    USER_ANOTHER_ALREADY_LOGGED_IN = CKR_USER_ANOTHER_ALREADY_LOGGED_IN;
    USER_NOT_LOGGED_IN = CKR_USER_NOT_LOGGED_IN;
    USER_PIN_NOT_INITIALIZED = CKR_USER_PIN_NOT_INITIALIZED;
    USER_TYPE_INVALID = CKR_USER_TYPE_INVALID;
}

impl Rv {
    /// The value that the caller gets.
    pub(crate) fn code(result: Result<()>) -> CK_RV {
        match result {
            Ok(()) => CKR_OK,
            Err(Rv(code)) => code,
        }
    }

    /// What a failed look at a token means: where nothing is found, the token is gone, and no handle
    /// of the caller's is to blame.
    pub(crate) fn of_listing(error: Error) -> Rv {
        match Rv::from(error) {
            Rv::OBJECT_HANDLE_INVALID => Rv::DEVICE_ERROR,
            rv => rv,
        }
    }

    /// What a failed attempt to write to a token means.
    pub(crate) fn of_write(error: Error) -> Rv {
        let refused = match &error {
            Error::Refused { .. } => true,
            Error::Io { source, .. } => source.kind() == std::io::ErrorKind::PermissionDenied,
            _ => false,
        };
        match (refused, Rv::from(error)) {
            (true, _) => Rv::TOKEN_WRITE_PROTECTED,
            // What is malformed came out of a template.
            (false, Rv::ARGUMENTS_BAD) => Rv::ATTRIBUTE_VALUE_INVALID,
            (false, rv) => rv,
        }
    }

    /// What a failed attempt to change or delete an object of a token means: where there is none,
    /// the handle was of one that is gone.
    pub(crate) fn of_object(error: Error) -> Rv {
        match (is_missing(&error), Rv::of_write(error)) {
            (true, _) => Rv::OBJECT_HANDLE_INVALID,
            (false, rv) => rv,
        }
    }

    /// What a failed login means. Where the SO has no PIN, there is no SO.
    pub(crate) fn of_login(error: Error, role: Role) -> Rv {
        match (&error, role) {
            (Error::PinNotSet, Role::So) => Rv::USER_TYPE_INVALID,
            _ => Rv::from(error),
        }
    }

    /// What a failed attempt to make a token means.
    pub(crate) fn of_creation(error: Error) -> Rv {
        match Rv::of_write(error) {
            // Another process was faster: what is there now is looked at anew.
            Rv::TEMPLATE_INCONSISTENT => Rv::FUNCTION_FAILED,
            Rv::ATTRIBUTE_VALUE_INVALID => Rv::ARGUMENTS_BAD,
            rv => rv,
        }
    }

    /// What a failed operation with a key means.
    pub(crate) fn of_key(error: Error) -> Rv {
        match (is_missing(&error), Rv::from(error)) {
            (true, _) => Rv::KEY_HANDLE_INVALID,
            (false, rv) => rv,
        }
    }
}

fn is_missing(error: &Error) -> bool {
    matches!(error, Error::NotFound(_))
}

impl From<Error> for Rv {
    /// Says the whole of the error in the log, where there is one; the caller gets a number.
    fn from(error: Error) -> Self {
        log::warn!("{error}");
        Rv(match error {
            Error::WrongPin { .. } => CKR_PIN_INCORRECT,
            Error::PinLocked => CKR_PIN_LOCKED,
            Error::PinNotSet => CKR_USER_PIN_NOT_INITIALIZED,
            Error::PinLength => CKR_PIN_LEN_RANGE,
            Error::BadPin(_) => CKR_PIN_INVALID,
            Error::LoginRequired => CKR_USER_NOT_LOGGED_IN,
            // Not CKR_DEVICE_REMOVED: that ends every session, and a device may come back.
            Error::DeviceGone { .. }
            | Error::DeviceError { .. }
            | Error::OtherDevice { .. }
            | Error::NotReproduced
            | Error::Timeout { .. }
            | Error::Refused { .. }
            | Error::BadRecord { .. }
            // What no handle stands for: the token's directory.
            | Error::NotFound(_)
            | Error::NewerRecord { .. }
            | Error::Io { .. } => CKR_DEVICE_ERROR,
            Error::BadBlob | Error::Crypto | Error::BadConfig { .. } => CKR_FUNCTION_FAILED,
            Error::Unsupported(_) => CKR_FUNCTION_NOT_SUPPORTED,
            Error::Exists(_) => CKR_TEMPLATE_INCONSISTENT,
            Error::Full(_) => CKR_DEVICE_MEMORY,
            Error::BadInput(_) => CKR_ARGUMENTS_BAD,
            Error::NotPermitted(_) => CKR_KEY_FUNCTION_NOT_PERMITTED,
            Error::ReadOnly(_) => CKR_TOKEN_WRITE_PROTECTED,
            Error::Internal(_) => CKR_GENERAL_ERROR,
            _ => CKR_GENERAL_ERROR,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refused_write_is_no_broken_device() {
        let refused = || Error::Refused {
            path: "/x".into(),
            reason: "mode".into(),
        };
        assert_eq!(Rv::of_write(refused()), Rv::TOKEN_WRITE_PROTECTED);
        assert_eq!(Rv::from(refused()), Rv(CKR_DEVICE_ERROR));
        let bad = Rv::of_object(Error::input("a label"));
        assert_eq!(bad, Rv::ATTRIBUTE_VALUE_INVALID);
    }

    /// Fails where one of the three takes another's value.
    #[test]
    fn what_is_missing_depends_on_who_asked() {
        let missing = || Error::NotFound("x".to_owned());
        assert_eq!(Rv::from(missing()), Rv(CKR_DEVICE_ERROR));
        assert_eq!(Rv::of_write(missing()), Rv(CKR_DEVICE_ERROR));
        assert_eq!(Rv::of_object(missing()), Rv::OBJECT_HANDLE_INVALID);
        assert_eq!(Rv::of_key(missing()), Rv::KEY_HANDLE_INVALID);
    }
}
