//! The file that the module was loaded from.

use std::ffi::{CStr, OsStr};
use std::mem::MaybeUninit;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

/// The path by which the host loaded the module (dladdr(3)): links in it are not resolved. `None`
/// where the loader does not know.
pub(crate) fn own_file() -> Option<PathBuf> {
    let mut about = MaybeUninit::<libc::Dl_info>::zeroed();
    let inside: fn() -> Option<PathBuf> = own_file;
    // SAFETY: looks an address up and writes to memory of ours, which is all integers and pointers.
    let (found, about) = unsafe {
        let found = libc::dladdr(inside as *const libc::c_void, about.as_mut_ptr());
        (found, about.assume_init())
    };
    if found == 0 || about.dli_fname.is_null() {
        return None;
    }
    // SAFETY: the loader's own string, which lives as long as the module is loaded: for ever.
    let path = unsafe { CStr::from_ptr(about.dli_fname) };
    Some(PathBuf::from(OsStr::from_bytes(path.to_bytes())))
}
