//! PUF devices: the nodes of this machine, and the noise of those that tokens were made on.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use devkey::backends::puf::{self, Device, Health};
use devkey::provider::Place;
use rustix::fs::{Access, access};

use super::accounts::{Group, user_shown};
use super::finding::{Area, Finding};
use super::scope::{Opened, Scope};
use crate::init::PUF;
use crate::puf::noise_limit;

const AREA: Area = Area::Puf;
const NODE: &str = "puf.node";
const NOISE: &str = "puf.noise";
const HELPER: &str = "puf.helper";
/// Readings of each device.
const TIMES: usize = 5;
/// The part of the noise limit from which on a new token should be planned.
const NEAR: f64 = 0.75;

pub(super) fn look(scope: &Scope, say: &mut dyn FnMut(Finding)) {
    let tokens = scope.opened();
    let tokens: Vec<_> = tokens.iter().filter(|one| one.back_end() == PUF).collect();
    let mut nodes = Vec::new();
    for token in &tokens {
        let mut say = |finding: Finding| say(finding.of(&token.found.name));
        match Device::of(&token.settings()) {
            Ok(device) => {
                nodes.push(device.path.clone());
                of_token(token, &device, &mut say);
            }
            Err(error) => say(Finding::error(AREA, NODE, error)),
        }
    }
    let free: Vec<_> = present()
        .into_iter()
        .filter(|node| !nodes.contains(node))
        .collect();
    if tokens.is_empty() && free.is_empty() {
        say(Finding::none(
            AREA,
            NODE,
            "no PUF here, and no token wants one",
        ));
    }
    for path in free {
        let finding = match Device::at(&path).look() {
            Ok(()) => Finding::ok(AREA, NODE, "of no token; devkey puf probe measures it"),
            Err(error) => Finding::error(AREA, NODE, error),
        };
        say(finding.of(path.display()));
    }
}

/// The nodes of the kind that docs/puf-device.md names.
fn present() -> Vec<PathBuf> {
    let entries = std::fs::read_dir("/dev").into_iter().flatten().flatten();
    let is_puf = |path: &PathBuf| {
        let name = path.file_name().and_then(|name| name.to_str());
        let number = name.and_then(|name| name.strip_prefix("puf"));
        number.is_some_and(|rest| rest.chars().all(|c| c.is_ascii_digit()))
    };
    let mut nodes: Vec<_> = entries.map(|entry| entry.path()).filter(is_puf).collect();
    nodes.sort();
    nodes
}

fn of_token(token: &Opened, device: &Device, say: &mut dyn FnMut(Finding)) {
    let shown = device.path.display().to_string();
    if let Err(error) = device.look() {
        return say(Finding::error(AREA, NODE, error));
    }
    say(Finding::ok(
        AREA,
        NODE,
        format!("{shown}: closed to others{}", owner(&device.path)),
    ));
    if device.once {
        let found = "its window is read once, at boot (hold = boot), and not by this";
        return say(Finding::none(AREA, NOISE, found));
    }
    // Root would get through to the line, and end a reading of the service's in its middle.
    if device.line && token.is_served() {
        let found = "the key service reads its line, and nobody else beside it: devkey puf verify, while that is stopped";
        return say(Finding::none(AREA, NOISE, found));
    }
    if !may_read(&device.path) {
        let found = match token.is_served() {
            true => format!("{shown}: the key service reads it, and you may not"),
            false => format!("{shown}: no permission to read it"),
        };
        return say(Finding::unseen(AREA, NOISE, found));
    }
    let settings = token.settings();
    let place = Place {
        dir: &token.found.dir,
        settings: &settings,
        binding: token.token.store().token().binding.as_deref(),
    };
    match puf::examine(&place, TIMES) {
        Ok(health) => measured(&health, &token.found.name, say),
        Err(error) => say(Finding::error(AREA, NOISE, error)),
    }
}

/// Who may read a node, for people.
fn owner(path: &Path) -> String {
    let Ok(about) = path.metadata() else {
        return String::new();
    };
    let (mode, group) = (about.mode() & 0o777, Group::of_id(about.gid()).name);
    format!(
        " (mode {mode:04o}, user {}, group {group})",
        user_shown(about.uid())
    )
}

fn may_read(path: &Path) -> bool {
    access(path, Access::READ_OK).is_ok()
}

fn measured(health: &Health, name: &str, say: &mut dyn FnMut(Finding)) {
    say(match &health.broken {
        None => Finding::ok(AREA, HELPER, "both copies of the helper data are good"),
        Some(broken) => Finding::warning(AREA, HELPER, broken)
            .fix("nothing: the next use of a key writes it anew from the other copy"),
    });
    say(noise(health, name));
}

/// The noise now, beside what the enrolment bears.
fn noise(health: &Health, name: &str) -> Finding {
    let tried = &health.tried;
    let unread = tried.unread.as_ref().map_or(0, |(times, _)| *times);
    let bad = tried.failures + unread;
    if bad > 0 {
        let found = format!(
            "{bad} of {} readings did not give the key back",
            tried.times
        );
        let fix = format!("devkey puf verify --token {name} --times 100, then devkey puf probe");
        return Finding::failed(AREA, NOISE, found).fix(fix);
    }
    let Some((profile, k)) = health.design else {
        return Finding::ok(AREA, NOISE, "it says what it said when it was enrolled");
    };
    let (mean, worst) = tried.noise;
    let once = match tried.latched {
        true => "; one reading until the machine is restarted",
        false => "",
    };
    let (design, limit) = (profile.name(), noise_limit(profile, k).unwrap_or_default());
    let found = format!(
        "noise {:.1} %, at worst {:.1} %; {design} bears {:.0} %{once}",
        mean * 100.0,
        worst * 100.0,
        limit * 100.0
    );
    let another = format!(
        "make a token on another window or chip while {name} works: devkey init --puf DEVICE --set offset=N NEW"
    );
    match worst {
        worst if worst > limit => {
            let found = format!("{found}: above that, a failure is not rare any more");
            Finding::failed(AREA, NOISE, found).fix(another)
        }
        worst if worst > limit * NEAR => {
            Finding::warning(AREA, NOISE, format!("{found}: little is left")).fix(another)
        }
        _ => Finding::ok(AREA, NOISE, found),
    }
}
