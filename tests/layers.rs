//! The layers of ARCHITECTURE.md, read off the sources: of the library, and of the module.
//!
//! Each test names changes to the sources that make it fail; each was tried.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "what cannot go on has failed"
)]

use std::fs;
use std::path::{Path, PathBuf};

/// Each module of the library and the modules that it may import.
const LAYERS: &[(&str, &[&str])] = &[
    ("error", &[]),
    ("secret", &["error"]),
    ("files", &["error", "secret"]),
    ("fork", &[]),
    ("simulate", &["error", "secret"]),
    ("fuzzy", &["error", "secret"]),
    ("key", &["error", "secret"]),
    ("provider", &["error", "secret", "key"]),
    (
        "backends",
        &["error", "secret", "fuzzy", "key", "files", "provider"],
    ),
    ("store", &["error", "secret", "key", "files", "provider"]),
    (
        "token",
        &["error", "secret", "key", "provider", "store", "fork"],
    ),
    (
        "service",
        &[
            "error", "secret", "key", "files", "provider", "store", "token",
        ],
    ),
    (
        "config",
        &[
            "error", "secret", "key", "files", "provider", "store", "token", "service",
        ],
    ),
    (
        "identity",
        &[
            "error", "secret", "key", "files", "provider", "store", "token",
        ],
    ),
    // Nothing imports it: the fuzz targets and a test do.
    (
        "untrusted",
        &[
            "error", "key", "fuzzy", "provider", "store", "service", "config", "identity",
        ],
    ),
];

/// What the module's files below all others may import: each other.
const LOWEST: [&str; 2] = ["raw", "rv"];

/// Each other file of the module and the files that it may import besides [`LOWEST`].
const MODULE_LAYERS: &[(&str, &[&str])] = &[
    ("raw", &[]),
    ("rv", &[]),
    ("logger", &[]),
    ("info", &[]),
    ("object", &[]),
    ("mech", &[]),
    ("attr", &["object"]),
    ("template", &["object", "attr", "mech"]),
    ("op", &["mech"]),
    ("slot", &["object"]),
    (
        "session",
        &["attr", "mech", "object", "op", "slot", "template"],
    ),
    ("module", &["logger", "object", "session", "slot"]),
    ("login", &["module", "slot"]),
    (
        "entry",
        &[
            "info", "login", "mech", "module", "session", "slot", "template",
        ],
    ),
];

/// The files of the module that take names from the headers.
const HEADERS: [&str; 6] = ["attr", "entry", "info", "mech", "raw", "rv"];

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// All Rust files below a directory.
fn sources(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(sources(&path));
        } else if path.extension().is_some_and(|ending| ending == "rs") {
            found.push(path);
        }
    }
    assert!(!found.is_empty(), "no sources in {}", dir.display());
    found
}

/// The code of a file: without comments and without its tests, which stand last.
fn code(path: &Path) -> String {
    let text = fs::read_to_string(path).unwrap();
    let code = text.split("#[cfg(test)]\nmod tests").next().unwrap();
    let lines = code.lines().map(|line| line.split("//").next().unwrap());
    lines.collect::<Vec<_>>().join("\n")
}

/// The modules that a file is below `src`, outermost first: backends, tpm, live.
fn place(src: &Path, path: &Path) -> Vec<String> {
    let relative = path.strip_prefix(src).unwrap().with_extension("");
    let names = relative.iter().map(|name| name.to_str().unwrap());
    names.map(str::to_owned).collect()
}

/// All that a file names of its own crate, as paths from the crate's root: `self` and `super` are
/// resolved, a glob is the module itself, and of a group each member is one.
fn imports(src: &Path, path: &Path) -> Vec<Vec<String>> {
    let (code, own) = (code(path), place(src, path));
    let mut found = Vec::new();
    for (start, base) in [
        ("crate::", vec![]),
        ("self::", own.clone()),
        ("super::", own[..own.len() - 1].to_vec()),
    ] {
        for (at, _) in code.match_indices(start) {
            let before = &code[..at];
            // The rest of super::super:: is found with its first part; $crate is crate.
            let inner = before.ends_with("super::")
                || before.ends_with(|c: char| c.is_alphanumeric() || c == '_');
            if !inner {
                expand(&code[at + start.len()..], base.clone(), &mut found);
            }
        }
    }
    found
}

/// Adds the paths that begin at `text`, below `base`; returns how much of it they take.
fn expand(text: &str, mut base: Vec<String>, found: &mut Vec<Vec<String>>) -> usize {
    let mut at = 0;
    loop {
        let rest = &text[at..];
        if rest.starts_with('{') {
            at += 1;
            while !text[at..].starts_with('}') {
                at += expand(&text[at..], base.clone(), found);
                at += text[at..].find([',', '}']).unwrap();
                at += usize::from(text[at..].starts_with(','));
                at += text[at..].len() - text[at..].trim_start().len();
            }
            return at + 1;
        }
        let blank = rest.len() - rest.trim_start().len();
        let rest = rest.trim_start();
        let end = rest.find(|c: char| !c.is_alphanumeric() && c != '_');
        let name = &rest[..end.unwrap_or(rest.len())];
        at += blank + name.len();
        match name {
            "super" => drop(base.pop()),
            "self" | "" => {}
            name => base.push(name.to_owned()),
        }
        if !text[at..].starts_with("::") {
            found.push(base);
            return at;
        }
        at += 2;
    }
}

/// Fails with `use crate::store::Store;` or `use super::super::store::Store;` in
/// src/backends/file.rs, and with `use crate::config;` in src/token.rs.
#[test]
fn each_layer_imports_only_lower_ones() {
    let src = root().join("src");
    for path in sources(&src) {
        let module = place(&src, &path)[0].clone();
        if module == "lib" || module == "bin" {
            continue;
        }
        let known = LAYERS.iter().find(|(name, _)| *name == module);
        let (_, allowed) = known.unwrap_or_else(|| panic!("{module} has no place in LAYERS"));
        for import in imports(&src, &path) {
            let Some(name) = import.first() else { continue };
            let own = *name == module || name == "Result" || name == "Error";
            let fine = own || allowed.contains(&name.as_str());
            assert!(fine, "{} imports {import:?}", path.display());
        }
    }
}

/// Fails with `use super::tpm;`, `use super::{soft, tpm};`, `use crate::backends::tpm;` or
/// `use crate::backends::*;` in src/backends/file.rs, and `use super::super::tpm;` in
/// src/backends/file/root.rs.
#[test]
fn no_back_end_knows_another() {
    const SHARED: [&str; 2] = ["soft", "wrapped"];
    let src = root().join("src");
    for path in sources(&src.join("backends")) {
        let own = place(&src, &path)[1].clone();
        for import in imports(&src, &path) {
            if import.first().is_some_and(|first| first == "backends") {
                let name = import.get(1);
                let fine = name.is_some_and(|name| *name == own || SHARED.contains(&name.as_str()));
                assert!(fine, "{} imports {import:?}", path.display());
            }
        }
    }
}

/// Fails with `use crate::session::Session;` in pkcs11/src/slot.rs, and with
/// `use crate::object::Object;` in pkcs11/src/raw/answer.rs.
#[test]
fn each_file_of_the_module_imports_only_lower_ones() {
    let src = root().join("pkcs11/src");
    for path in sources(&src) {
        let file = place(&src, &path)[0].clone();
        if file == "lib" {
            continue;
        }
        let known = MODULE_LAYERS.iter().find(|(name, _)| *name == file);
        let (_, allowed) = known.unwrap_or_else(|| panic!("{file} has no place here"));
        for import in imports(&src, &path) {
            let Some(name) = import.first() else { continue };
            let name = name.as_str();
            let fine = name == file || LOWEST.contains(&name) || allowed.contains(&name);
            assert!(fine, "{} imports {import:?}", path.display());
        }
    }
}

/// Fails with `use cryptoki_sys::CKA_ID;` in pkcs11/src/template.rs.
#[test]
fn few_files_take_names_from_the_headers() {
    let src = root().join("pkcs11/src");
    for path in sources(&src) {
        let named = code(&path).contains("cryptoki_sys");
        let file = &place(&src, &path)[0];
        let fine = !named || HEADERS.contains(&file.as_str());
        assert!(fine, "{} names cryptoki_sys", path.display());
    }
}

/// Fails with an `unsafe` block in pkcs11/src/slot.rs; the module is raw.
#[test]
fn unsafe_code_stands_in_one_module() {
    for dir in ["src", "pkcs11/src"] {
        for path in sources(&root().join(dir)) {
            let raw = dir == "pkcs11/src" && place(&root().join(dir), &path)[0] == "raw";
            if raw {
                continue;
            }
            let code = code(&path);
            let mut uses = code.split("unsafe").skip(1);
            let found = uses.any(|rest| rest.starts_with([' ', '\n', '{', '(']));
            assert!(!found, "{} has unsafe code", path.display());
        }
    }
}

/// Fails with `backends::file::BACK_END` in any function of src/bin/devkey/main.rs, with
/// `puf::BACK_END` in src/bin/devkey/puf/probe.rs, with a second `BACK_ENDS`, and without the first.
#[test]
fn front_ends_name_back_ends_in_one_constant() {
    for file in ["src/bin/devkeyd.rs", "src/bin/devkey", "pkcs11/src"] {
        let path = root().join(file);
        let files = if path.is_dir() {
            sources(&path)
        } else {
            vec![path]
        };
        let mut constants = 0;
        for path in files {
            let code = code(&path).replace("use devkey::backends;", "");
            let mut parts = code.split("const BACK_ENDS: &[BackEnd] = &[");
            let mut others = parts.next().unwrap().to_owned();
            for part in parts {
                constants += 1;
                others += part.split_once("];").unwrap().1;
            }
            others = others.replace("crate::BACK_ENDS", "");
            // What measures and tries a device is a tool of its own.
            let bin = root().join("src/bin/devkey");
            for (place, name) in [
                ("puf", "puf"),
                ("doctor/puf.rs", "puf"),
                ("doctor/tpm.rs", "tpm"),
            ] {
                if path.starts_with(bin.join(place)) {
                    let all = format!("use devkey::backends::{name}::{{self, ");
                    others = others.replace(&all, "");
                    others = others.replace(&format!("use devkey::backends::{name};"), "");
                }
            }
            for name in ["backends::", "devkey::backends", "::BACK_END", "::IN_HOST"] {
                let named = others.contains(name);
                assert!(!named, "{} names back ends elsewhere", path.display());
            }
        }
        assert_eq!(constants, 1, "constants of {file}");
    }
}
