//! OpenSSL: by what it reaches the module, and configurations of it that are known to trouble.

use std::collections::BTreeMap;
use std::env;
use std::fs;
use std::path::{Path, PathBuf};

use devkey::key::KeyKind;

use super::finding::{Area, Finding};
use super::program::{Asked, ask};
use super::scope::{Opened, Scope};

const AREA: Area = Area::Openssl;
const VERSION: &str = "openssl.version";
const ENGINE: &str = "openssl.engine";
const PROVIDER: &str = "openssl.provider";
const CONFIG: &str = "openssl.config";
const ED25519: &str = "openssl.ed25519";

/// The first libp11 that knows EdDSA. The one before stops at such a key, and finds none after it.
const EDDSA_FROM: [u32; 3] = [0, 4, 17];

/// The sections of a configuration: name and value of each line.
type Sections = BTreeMap<String, BTreeMap<String, String>>;

pub(super) fn look(scope: &Scope, say: &mut dyn FnMut(Finding)) {
    let said = match ask("openssl", &["version", "-a"]) {
        Asked::Said(said) => said.stdout,
        Asked::Missing => return say(Finding::none(AREA, VERSION, "openssl is not installed")),
        Asked::Hangs(what) => return say(Finding::failed(AREA, VERSION, what)),
    };
    say(Finding::ok(
        AREA,
        VERSION,
        said.lines().next().unwrap_or_default(),
    ));
    let engine = plugin(&said, "ENGINESDIR");
    let provider = plugin(&said, "MODULESDIR");
    say(match (&engine, &provider) {
        (Some(path), _) => Finding::ok(AREA, ENGINE, path.display()),
        (None, Some(_)) => Finding::none(AREA, ENGINE, "not there, and the provider is"),
        (None, None) => Finding::warning(AREA, ENGINE, "OpenSSL has no way to the keys of a token")
            .fix("apt install libengine-pkcs11-openssl"),
    });
    say(match &provider {
        Some(path) => Finding::ok(AREA, PROVIDER, path.display()),
        None => Finding::none(
            AREA,
            PROVIDER,
            "pkcs11-provider is not installed; Debian 12 has none",
        ),
    });
    if let Some(path) = config(&said) {
        say(judge(&path));
    }
    if engine.is_some() {
        ed25519(&scope.opened(), say);
    }
}

/// The directory that `openssl version -a` names so.
fn dir<'s>(said: &'s str, name: &str) -> Option<&'s Path> {
    let lines = said
        .lines()
        .filter_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    lines
        .map(|value| Path::new(value.trim().trim_matches('"')))
        .next()
}

/// The engine or provider in one of OpenSSL's directories.
fn plugin(said: &str, name: &str) -> Option<PathBuf> {
    let dir = dir(said, name)?;
    let paths = ["pkcs11.so", "libpkcs11.so"].map(|file| dir.join(file));
    paths.into_iter().find(|path| path.exists())
}

/// The configuration that programs read.
fn config(said: &str) -> Option<PathBuf> {
    let own = env::var_os("OPENSSL_CONF").filter(|path| !path.is_empty());
    own.map(PathBuf::from)
        .or_else(|| Some(dir(said, "OPENSSLDIR")?.join("openssl.cnf")))
}

/// Whether a configuration has the engine do what it is not asked for. Included files are not read.
fn judge(path: &Path) -> Finding {
    let shown = path.display();
    let Ok(text) = fs::read_to_string(path) else {
        return Finding::none(AREA, CONFIG, format!("{shown} cannot be read"));
    };
    let sections = sections(&text);
    if loads_engine(&sections) {
        let found = format!(
            "{shown} loads the engine into every program: OpenSSL 3 then fails on EC keys in files, in \
             `openssl x509 -req -CAkey` for one"
        );
        return Finding::warning(AREA, CONFIG, found).fix(
            "take pkcs11 out of its engines; the README has a configuration for the commands alone that use device \
             keys",
        );
    }
    if lone_provider(&sections) {
        let found =
            format!("{shown} activates pkcs11 and not the default provider, which is off then");
        return Finding::warning(AREA, CONFIG, found).fix(
            "add default = default_sect to the providers, and activate = 1 in [default_sect]",
        );
    }
    Finding::ok(AREA, CONFIG, shown)
}

/// config(5): `[ name ]` and `name = value`, a comment from `#` on.
fn sections(text: &str) -> Sections {
    let mut sections = Sections::new();
    let mut current = String::new();
    for line in text.lines() {
        let line = line.split('#').next().unwrap_or_default().trim();
        if let Some(name) = line
            .strip_prefix('[')
            .and_then(|rest| rest.strip_suffix(']'))
        {
            name.trim().clone_into(&mut current);
        } else if let Some((name, value)) = line.split_once('=') {
            let section = sections.entry(current.clone()).or_default();
            section.insert(name.trim().to_owned(), value.trim().to_owned());
        }
    }
    sections
}

/// The section that a value of another one names, from the beginning of the configuration on.
fn follow<'s>(sections: &'s Sections, names: &[&str]) -> Option<&'s BTreeMap<String, String>> {
    let mut section = sections.get("")?;
    for name in names {
        section = sections.get(section.get(*name)?)?;
    }
    Some(section)
}

/// Whether the engine is loaded: by anything that is said of it besides its id. It need be neither
/// initialised nor a default for the trouble.
fn loads_engine(sections: &Sections) -> bool {
    let engines = follow(sections, &["openssl_conf", "engines"]);
    let loaded = |(name, section): (&String, &String)| {
        let said = sections.get(section);
        let id = said.and_then(|said| said.get("engine_id")).unwrap_or(name);
        id == "pkcs11" && said.is_some_and(|said| said.keys().any(|key| key != "engine_id"))
    };
    engines.is_some_and(|engines| engines.iter().any(loaded))
}

/// Whether the pkcs11 provider is activated without OpenSSL's own.
fn lone_provider(sections: &Sections) -> bool {
    let Some(providers) = follow(sections, &["openssl_conf", "providers"]) else {
        return false;
    };
    let active = |name: &str| {
        let section = providers
            .get(name)
            .and_then(|section| sections.get(section));
        let value = section.and_then(|section| section.get("activate"));
        value.is_some_and(|value| !matches!(value.as_str(), "0" | "no" | "off" | "false"))
    };
    active("pkcs11") && !active("default")
}

/// Tokens whose keys the engine does not find, for one of them is of a kind that it does not know.
fn ed25519(tokens: &[Opened], say: &mut dyn FnMut(Finding)) {
    let unknown = |kind: KeyKind| kind == KeyKind::Ed25519 || kind.name().starts_with("ml-dsa");
    let has = |token: &&Opened| {
        token
            .listing
            .keys
            .iter()
            .any(|key| unknown(key.public.kind()))
    };
    let traps: Vec<_> = tokens.iter().filter(has).collect();
    let knows = libp11().is_some_and(|version| version >= EDDSA_FROM);
    if traps.is_empty() || knows {
        return say(Finding::ok(
            AREA,
            ED25519,
            "the engine finds the keys of every token",
        ));
    }
    for token in traps {
        let found = "the engine (libp11 before 0.4.17) finds no key on a token with an Ed25519 or ML-DSA key";
        let finding = Finding::warning(AREA, ED25519, found).of(&token.found.name);
        say(finding.fix("keep keys for OpenSSL on a token of their own: devkey init other"));
    }
}

/// The version of libp11, where dpkg knows it.
fn libp11() -> Option<[u32; 3]> {
    let Asked::Said(said) = ask(
        "dpkg-query",
        &["-W", "-f", "${Version}", "libengine-pkcs11-openssl"],
    ) else {
        return None;
    };
    let numbers = said.stdout.split(|c: char| !c.is_ascii_digit());
    let numbers: Vec<u32> = numbers
        .map_while(|number| number.parse().ok())
        .take(3)
        .collect();
    numbers.try_into().ok()
}
