//! Link arguments of the module.

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    // Once loaded, never unloaded: a host may dlclose the module while its own exit handlers still
    // hold function pointers, and thread-local storage has destructors. All symbols are resolved
    // at loading, and the tables of pointers are then read-only.
    for argument in ["nodelete", "now", "relro"] {
        println!("cargo:rustc-link-arg-cdylib=-Wl,-z,{argument}");
    }
}
