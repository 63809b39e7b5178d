//! The layers of ARCHITECTURE.md, read off the sources.
//!
//! Adding `use crate::store::Store;` to any file below src/backends/ makes the first test fail,
//! `use super::super::tpm` or `crate::backends::tpm` in src/backends/file.rs the second, and an
//! `unsafe` block anywhere but in pkcs11/src/raw.rs the third.

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
    ("key", &["error", "secret"]),
    ("provider", &["error", "secret", "key"]),
    ("backends", &["error", "secret", "key", "files", "provider"]),
    ("store", &["error", "secret", "key", "files", "provider"]),
    ("token", &["error", "secret", "key", "provider", "store"]),
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
];

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

/// The first path segment after each occurrence of `prefix`; all of them for `prefix{a, b}`.
fn imported(code: &str, prefix: &str) -> Vec<String> {
    let mut names = Vec::new();
    for rest in code.split(prefix).skip(1) {
        let group = rest
            .strip_prefix('{')
            .and_then(|rest| rest.split("};").next());
        for name in group.map_or(vec![rest], |group| group.split(',').collect()) {
            let name = name.trim_start();
            let end = name.find(|c: char| !c.is_alphanumeric() && c != '_');
            names.push(name[..end.unwrap_or(name.len())].to_owned());
        }
    }
    names
}

/// The module of the library that a file belongs to.
fn module_of(path: &Path) -> String {
    let relative = path.strip_prefix(root().join("src")).unwrap();
    let first = relative.components().next().unwrap();
    let first = first.as_os_str().to_str().unwrap();
    first.trim_end_matches(".rs").to_owned()
}

#[test]
fn each_layer_imports_only_lower_ones() {
    for path in sources(&root().join("src")) {
        let module = module_of(&path);
        if module == "lib" || module == "bin" {
            continue;
        }
        let known = LAYERS.iter().find(|(name, _)| *name == module);
        let (_, allowed) = known.unwrap_or_else(|| panic!("{module} has no place in LAYERS"));
        for name in imported(&code(&path), "crate::") {
            let own = name == module || name == "Result" || name == "Error";
            let fine = own || allowed.contains(&name.as_str());
            assert!(fine, "{} imports crate::{name}", path.display());
        }
    }
}

#[test]
fn no_back_end_knows_another() {
    const SHARED: &str = "soft";
    for path in sources(&root().join("src/backends")) {
        let relative = path.strip_prefix(root().join("src/backends")).unwrap();
        let own = relative.iter().next().unwrap().to_str().unwrap();
        let own = own.trim_end_matches(".rs");
        for name in imported(&code(&path), "crate::backends::") {
            assert!(
                name == own || name == SHARED,
                "{} imports {name}",
                path.display()
            );
        }
    }
}

#[test]
fn unsafe_code_stands_in_one_file() {
    for dir in ["src", "pkcs11/src"] {
        for path in sources(&root().join(dir)) {
            if path.ends_with("pkcs11/src/raw.rs") {
                continue;
            }
            let code = code(&path);
            let mut uses = code.split("unsafe").skip(1);
            let found = uses.any(|rest| rest.starts_with([' ', '\n', '{', '(']));
            assert!(!found, "{} has unsafe code", path.display());
        }
    }
}

#[test]
fn front_ends_name_back_ends_in_one_line() {
    for file in ["src/bin/devkeyd.rs", "src/bin/devkey", "pkcs11/src"] {
        let path = root().join(file);
        let files = if path.is_dir() {
            sources(&path)
        } else {
            vec![path]
        };
        let lines: Vec<String> = files
            .iter()
            .flat_map(|file| code(file).lines().map(str::to_owned).collect::<Vec<_>>())
            .filter(|line| line.contains("backends::"))
            .collect();
        assert!(lines.len() <= 2, "{file} names back ends in {lines:#?}");
    }
}
