//! OpenSSH: which keys its version takes, and whether the agent has them.

use std::collections::BTreeSet;
use std::env;

use devkey::identity::ssh::key as ssh;
use devkey::key::{KeyKind, PublicKey};

use super::finding::{Area, Finding};
use super::program::{Asked, Said, ask};
use super::scope::{Opened, Scope};

const AREA: Area = Area::Module;
const OPENSSH: &str = "module.openssh";
const AGENT: &str = "module.ssh-agent";

/// The first version that takes Ed25519 keys by PKCS#11.
const ED25519_FROM: (u32, u32) = (10, 1);
/// Exit codes of `ssh-add -L`: ssh-add(1).
const NO_KEYS: i32 = 1;

pub(super) fn look(scope: &Scope, say: &mut dyn FnMut(Finding)) {
    let tokens = scope.opened();
    let version = match ask("ssh", &["-V"]) {
        Asked::Said(said) => version(&said.stderr),
        Asked::Missing => return say(Finding::none(AREA, OPENSSH, "OpenSSH is not installed")),
        Asked::Hangs(what) => return say(Finding::failed(AREA, OPENSSH, what)),
    };
    say(openssh(version, &tokens));
    say(agent(version, &tokens));
}

/// Major and minor number of `OpenSSH_9.2p1 Debian-2, OpenSSL 3.0`.
fn version(said: &str) -> Option<(u32, u32)> {
    let (major, rest) = said.strip_prefix("OpenSSH_")?.split_once('.')?;
    let minor: String = rest.chars().take_while(char::is_ascii_digit).collect();
    Some((major.parse().ok()?, minor.parse().ok()?))
}

fn takes(version: Option<(u32, u32)>, kind: KeyKind) -> bool {
    match kind {
        KeyKind::Ed25519 => version.is_none_or(|version| version >= ED25519_FROM),
        kind => ssh::algorithm(kind).is_some(),
    }
}

fn openssh(version: Option<(u32, u32)>, tokens: &[Opened]) -> Finding {
    let shown = match version {
        Some((major, minor)) => format!("OpenSSH {major}.{minor}"),
        None => "OpenSSH of an unknown version".to_owned(),
    };
    let keys = tokens.iter().flat_map(|token| &token.listing.keys);
    let ed25519 = |kind| kind == KeyKind::Ed25519 && !takes(version, kind);
    let unusable = keys.filter(|key| ed25519(key.public.kind())).count();
    match unusable {
        0 => Finding::ok(AREA, OPENSSH, shown),
        n => {
            let found = format!("{shown} takes no Ed25519 keys from a token, and there are: {n}");
            Finding::warning(AREA, OPENSSH, found)
                .fix("use EC P-256 keys for ssh (devkey key new), or OpenSSH 10.1 or later")
        }
    }
}

/// Whether the running agent has the keys as they are now.
fn agent(version: Option<(u32, u32)>, tokens: &[Opened]) -> Finding {
    if env::var_os("SSH_AUTH_SOCK").is_none() {
        return Finding::none(AREA, AGENT, "no ssh-agent in this session");
    }
    let listed = match ask("ssh-add", &["-L"]) {
        Asked::Said(Said {
            code: Some(0 | NO_KEYS),
            stdout,
            ..
        }) => stdout,
        Asked::Said(said) => {
            let found = format!("SSH_AUTH_SOCK is set, but: {}", said.last());
            return Finding::failed(AREA, AGENT, found).fix("eval \"$(ssh-agent)\"");
        }
        Asked::Missing => return Finding::none(AREA, AGENT, "ssh-add is not installed"),
        Asked::Hangs(what) => {
            return Finding::failed(AREA, AGENT, what)
                .fix("restart the agent: eval \"$(ssh-agent)\"");
        }
    };
    let has: BTreeSet<_> = listed.lines().filter_map(blob).collect();
    // The others it has by modules of their own.
    let shown = tokens.iter().filter(|token| !token.found.alone);
    let keys = shown.flat_map(|token| &token.listing.keys);
    let signing = keys.filter(|key| key.usage.sign).map(|key| &key.public);
    let ours: Vec<_> = signing.filter(|key| takes(version, key.kind())).collect();
    let known = ours.iter().filter(|key| is_listed(key, &has)).count();
    match (ours.len(), known) {
        (0, _) => Finding::none(AREA, AGENT, "there are no keys for it"),
        (all, known) if all == known => Finding::ok(AREA, AGENT, format!("it has the keys: {all}")),
        (all, known) => Finding::warning(AREA, AGENT, format!("it has {known} of {all} keys"))
            .fix("devkey agent refresh"),
    }
}

fn is_listed(key: &PublicKey, listed: &BTreeSet<&str>) -> bool {
    let line = ssh::line(key, "").unwrap_or_default();
    blob(&line).is_some_and(|own| listed.contains(own))
}

/// The key itself of an OpenSSH line.
fn blob(line: &str) -> Option<&str> {
    line.split_whitespace().nth(1)
}
