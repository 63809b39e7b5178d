//! From a C function to a closure that may fail or panic.

use std::marker::PhantomData;
use std::mem;
use std::panic::{AssertUnwindSafe, catch_unwind};

use cryptoki_sys::{CK_NOTIFY, CK_RV, CKR_GENERAL_ERROR};

use super::{Call, Ptr, Ulong};
use crate::rv::{Result, Rv};

/// Turns a parameter of a `C_` function into what the module works with.
pub(crate) trait Argument {
    /// What it becomes.
    type Wrapped<'c>;
    /// Wraps it for the time of one call.
    fn wrap(self, call: &Call) -> Self::Wrapped<'_>;
}

impl<T> Argument for *mut T {
    type Wrapped<'c> = Ptr<'c, T>;
    fn wrap(self, _: &Call) -> Ptr<'_, T> {
        Ptr {
            at: self,
            call: PhantomData,
        }
    }
}

macro_rules! as_they_are {
    ($($type:ty),*) => {
        $(impl Argument for $type {
            type Wrapped<'c> = Self;
            fn wrap(self, _: &Call) -> Self {
                self
            }
        })*
    };
}

as_they_are!(u8, Ulong, CK_NOTIFY);

/// Runs one call. No panic leaves it: `mend` repairs what one may have left half done.
pub(crate) fn guard(
    session: Option<Ulong>,
    mend: fn(Option<Ulong>),
    body: impl FnOnce(&Call) -> Result<()>,
) -> CK_RV {
    match catch_unwind(AssertUnwindSafe(|| body(&Call(())))) {
        Ok(result) => Rv::code(result),
        Err(payload) => {
            // Whoever panics with a value of his own may panic again when it is dropped.
            mem::forget(payload);
            if let Err(payload) = catch_unwind(|| mend(session)) {
                mem::forget(payload);
            }
            CKR_GENERAL_ERROR
        }
    }
}

/// Defines the `C_` functions and the function lists. A function that is missing or has other
/// parameters than the header's does not compile.
///
/// `exported` functions are the shared object's symbols; after a panic in one of a `session`, that
/// session is closed.
macro_rules! entries {
    (mend = $mend:path;
     2.40: $($kind:ident $name:ident($($arg:ident: $type:ty),*) = $body:expr;)*
     3.0: $($kind3:ident $name3:ident($($arg3:ident: $type3:ty),*) = $body3:expr;)*
     3.2: $($kind32:ident $name32:ident($($arg32:ident: $type32:ty),*) = $body32:expr;)*) => {
        $($crate::raw::entry!($mend; $kind $name($($arg: $type),*) = $body);)*
        $($crate::raw::entry!($mend; $kind3 $name3($($arg3: $type3),*) = $body3);)*
        $($crate::raw::entry!($mend; $kind32 $name32($($arg32: $type32),*) = $body32);)*

        pub(crate) static LIST_2_40: CK_FUNCTION_LIST = CK_FUNCTION_LIST {
            version: CK_VERSION { major: 2, minor: 40 },
            $($name: Some($name),)*
        };

        pub(crate) static LIST_3_0: CK_FUNCTION_LIST_3_0 = CK_FUNCTION_LIST_3_0 {
            version: CK_VERSION { major: 3, minor: 0 },
            $($name: Some($name),)*
            $($name3: Some($name3),)*
        };

        pub(crate) static LIST_3_2: CK_FUNCTION_LIST_3_2 = CK_FUNCTION_LIST_3_2 {
            version: CK_VERSION { major: 3, minor: 2 },
            $($name: Some($name),)*
            $($name3: Some($name3),)*
            $($name32: Some($name32),)*
        };
    };
}

pub(crate) use entries;

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicU64, Ordering};

    static MENDED: AtomicU64 = AtomicU64::new(0);

    fn mend(session: Option<Ulong>) {
        MENDED.store(session.unwrap_or(1), Ordering::Relaxed);
        panic!("once more");
    }

    struct Nasty;
    impl Drop for Nasty {
        fn drop(&mut self) {
            panic!("in drop");
        }
    }

    /// R7. Fails without either `catch_unwind`, or where the payload is dropped.
    #[test]
    fn r07_no_panic_leaves_the_module() {
        assert_eq!(
            guard(None, mend, |_| Err(Rv::CANT_LOCK)),
            cryptoki_sys::CKR_CANT_LOCK
        );
        assert_eq!(MENDED.load(Ordering::Relaxed), 0);
        let rv = guard(Some(7), mend, |_| std::panic::panic_any(Nasty));
        assert_eq!(rv, CKR_GENERAL_ERROR);
        assert_eq!(MENDED.load(Ordering::Relaxed), 7);
    }
}
