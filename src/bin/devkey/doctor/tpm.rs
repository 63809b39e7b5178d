//! The TPM: of each token, or the machine's where no token has one.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use devkey::Error;
use devkey::backends::tpm::{self, Health, Left, Lockout, Storage, TpmPlace, Weakness};
use devkey::key::KeyKind;
use devkey::provider::Settings;
use devkey::service::Ids;
use rustix::fs::{Access, access};

use super::accounts::{Group, Membership};
use super::finding::{Area, Finding};
use super::scope::{Opened, PATIENCE, Scope};
use crate::init::TPM;

const AREA: Area = Area::Tpm;
const DEVICE: &str = "tpm.device";
const ACCESS: &str = "tpm.access";
const ANSWERS: &str = "tpm.answers";
const LOCKOUT: &str = "tpm.lockout";
const MEMORY: &str = "tpm.memory";
const STORAGE: &str = "tpm.storage-key";

/// The TPM itself, without the kernel's resource manager.
const BARE: &str = "/dev/tpm0";
/// Says 1 or 2, from Linux 5.6 on.
const VERSION: &str = "/sys/class/tpm/tpm0/tpm_version_major";

/// The tokens on a TPM.
struct OnOne {
    settings: Settings,
    tokens: Vec<Opened>,
}

pub(super) fn look(scope: &Scope, say: &mut dyn FnMut(Finding)) {
    let mut all = BTreeMap::<TpmPlace, OnOne>::new();
    for token in scope
        .opened()
        .into_iter()
        .filter(|one| one.back_end() == TPM)
    {
        let settings = token.settings();
        let Ok(place) = tpm::place(&settings) else {
            // Said of the token.
            continue;
        };
        let none = || OnOne {
            settings,
            tokens: Vec::new(),
        };
        all.entry(place).or_insert_with(none).tokens.push(token);
    }
    if all.is_empty() {
        return without_tokens(say);
    }
    for (place, on_it) in &all {
        of_place(place, on_it, say);
    }
}

/// The machine's, which a token could be made on.
fn without_tokens(say: &mut dyn FnMut(Finding)) {
    let settings = Settings::new();
    let there = |path: &Path| path.symlink_metadata().is_ok();
    match tpm::place(&settings) {
        Ok(place) if place.node.as_deref().is_some_and(there) || there(Path::new(BARE)) => {
            let tokens = Vec::new();
            of_place(&place, &OnOne { settings, tokens }, say);
        }
        _ => say(Finding::none(
            AREA,
            DEVICE,
            "no TPM here, and no token wants one",
        )),
    }
}

fn of_place(place: &TpmPlace, on_it: &OnOne, say: &mut dyn FnMut(Finding)) {
    let mut say = |finding: Finding| {
        let subject = finding.subject.clone();
        say(finding.of(subject.unwrap_or_else(|| place.name.clone())));
    };
    if let Some(node) = &place.node {
        match device(node).map(|()| permitted(node, on_it)) {
            Err(finding) | Ok(Err(finding)) => return say(finding),
            Ok(Ok(finding)) => {
                say(Finding::ok(AREA, DEVICE, "there"));
                say(finding);
            }
        }
    }
    match tpm::examine(&on_it.settings, PATIENCE) {
        Err(error) => say(Finding::error(AREA, ANSWERS, error)),
        Ok(health) => {
            healthy(&health, place, on_it, &mut say);
            on_it.tokens.iter().for_each(|token| say(recognised(token)));
        }
    }
}

/// Whether the node is there.
fn device(node: &Path) -> Result<(), Finding> {
    if node.symlink_metadata().is_ok() {
        return Ok(());
    }
    let shown = node.display();
    if !Path::new(BARE).exists() {
        let found = format!("{shown} is not there: no TPM, or it is switched off in the firmware");
        let fix = "switch it on in the firmware's set-up (TPM, PTT or fTPM)";
        return Err(Finding::failed(AREA, DEVICE, found).fix(fix));
    }
    let old = fs::read_to_string(VERSION).is_ok_and(|version| version.trim() == "1");
    Err(match old {
        true => Finding::failed(AREA, DEVICE, "a TPM 1.2, and devkey wants 2.0")
            .fix("use a file token: devkey init"),
        false => Finding::failed(
            AREA,
            DEVICE,
            format!("{BARE} and no {shown}: the kernel has no resource manager"),
        )
        .fix(format!(
            "boot Linux 4.12 or later; until then, for one program at a time, \
             devkey init --tpm --tcti device:{BARE}"
        )),
    })
}

/// Whether this user may open it, himself or by way of the key service.
fn permitted(node: &Path, on_it: &OnOne) -> Result<Finding, Finding> {
    if access(node, Access::READ_OK | Access::WRITE_OK).is_ok() {
        return Ok(Finding::ok(AREA, ACCESS, "you may open it"));
    }
    let group = Group::of_id(node.metadata().map_or(0, |about| about.gid()));
    let served = |token: &Opened| token.is_served();
    if !on_it.tokens.is_empty() && on_it.tokens.iter().all(served) {
        let found = "the key service opens it, and you need not";
        return Err(Finding::unseen(AREA, ACCESS, found));
    }
    let ids = Ids::of_process();
    let found = format!("no permission; it is of group {}", group.name);
    let fix = match (group.name.as_str(), group.membership(&ids)) {
        ("root", Membership::No) => {
            "give it a group by a udev rule: apt install tpm-udev, then restart".to_owned()
        }
        _ => group.joining(&ids),
    };
    Err(Finding::failed(AREA, ACCESS, found).fix(fix))
}

fn healthy(health: &Health, place: &TpmPlace, on_it: &OnOne, say: &mut dyn FnMut(Finding)) {
    let [a, b, c, d] = health.firmware;
    let version = format!("{a}.{b}.{c}.{d}");
    let (maker, model) = (&health.maker, &health.model);
    say(Finding::ok(
        AREA,
        ANSWERS,
        format!("{maker} {model}, firmware {version}"),
    ));
    firmware(health, on_it, say);
    say(lockout(&health.lockout));
    say(match place.managed {
        true => Finding::none(
            AREA,
            MEMORY,
            "the kernel gives each program a memory of its own",
        ),
        false => memory(&health.left),
    });
    say(storage(health.storage));
    say(match health.p256 {
        true => Finding::ok(AREA, "tpm.algorithms", "it makes EC P-256 keys"),
        false => Finding::failed(AREA, "tpm.algorithms", "it makes no EC P-256 keys")
            .fix("use RSA keys: devkey key new --kind rsa-2048"),
    });
}

fn firmware(health: &Health, on_it: &OnOne, say: &mut dyn FnMut(Finding)) {
    const ID: &str = "tpm.firmware";
    if health.advisories.is_empty() {
        say(Finding::ok(
            AREA,
            ID,
            "not among those that are known to be weak",
        ));
    }
    let keys = on_it.tokens.iter().flat_map(|token| &token.listing.keys);
    let rsa = keys.map(|key| key.public.kind()).any(KeyKind::is_rsa);
    for advisory in &health.advisories {
        let (name, source) = (advisory.name, advisory.source);
        let update = format!("have its firmware updated, by the machine's maker ({source})");
        say(match advisory.weakness {
            Weakness::Rsa if rsa => {
                let found = format!(
                    "{name}: RSA keys that it made can be computed from their public halves"
                );
                Finding::failed(AREA, ID, found).fix(format!(
                    "{update}; then make EC keys, and revoke the RSA ones"
                ))
            }
            Weakness::Rsa => {
                let found = format!(
                    "{name}: RSA keys that it would make can be computed from their public halves"
                );
                Finding::warning(AREA, ID, found).fix(format!("make EC keys alone; {update}"))
            }
            Weakness::Timing => {
                let found = format!(
                    "{name}: the time of its ECDSA signatures gives the key away, over a network too"
                );
                Finding::failed(AREA, ID, found)
                    .fix(format!("{update}; then make new keys, and revoke these"))
            }
            Weakness::Physical => {
                let found = format!("{name}: who has the chip in his hands can learn an EC key");
                Finding::warning(AREA, ID, found).fix(update)
            }
            Weakness::Denial => {
                let found = format!("{name}: who may send it commands can stop it");
                Finding::warning(AREA, ID, found).fix(update)
            }
        });
    }
}

fn lockout(lockout: &Lockout) -> Finding {
    let Lockout {
        failed,
        limit,
        interval,
        ..
    } = *lockout;
    let clear = "tpm2_dictionarylockout --clear-lockout";
    match (lockout.locked, failed) {
        (true, _) => {
            let found =
                format!("locked: {failed} wrong passwords of {limit}, wherever they were given");
            Finding::failed(AREA, LOCKOUT, found).fix(match interval {
                0 => clear.to_owned(),
                seconds => format!("wait: one is forgotten every {seconds} s; or {clear}"),
            })
        }
        (false, 0) => Finding::ok(AREA, LOCKOUT, format!("no wrong password of {limit}")),
        (false, _) => {
            let found =
                format!("{failed} wrong passwords of {limit} count; a power cut can count as one");
            Finding::warning(AREA, LOCKOUT, found).fix(match interval {
                0 => clear.to_owned(),
                seconds => format!("nothing: one is forgotten every {seconds} s; or {clear}"),
            })
        }
    }
}

fn memory(left: &Left) -> Finding {
    let Left { objects, sessions } = *left;
    if objects == 0 && sessions == 0 {
        return Finding::ok(AREA, MEMORY, "nothing was left in it");
    }
    let found = format!(
        "programs left objects: {objects}, sessions: {sessions} in it; there is room for few"
    );
    let flush = "tpm2_flushcontext -t; tpm2_flushcontext -l, when no program uses it";
    Finding::warning(AREA, MEMORY, found).fix(flush)
}

fn storage(storage: Storage) -> Finding {
    match storage {
        Storage::Fit => Finding::ok(AREA, STORAGE, "one that takes keys is at 0x81000001"),
        Storage::None => {
            let found =
                "none at 0x81000001: the owner's is made anew for each use, which takes its time";
            Finding::ok(AREA, STORAGE, found)
        }
        Storage::Unfit => {
            let found =
                "what is at 0x81000001 is no storage key that devkey can use; it takes the owner's";
            Finding::warning(AREA, STORAGE, found)
                .fix("nothing, unless its owner has a password: then see docs/doctor.md")
        }
    }
}

/// Whether the TPM is the one that a token was made on.
fn recognised(token: &Opened) -> Finding {
    const ID: &str = "tpm.token";
    let Some(binding) = token.token.store().token().binding.clone() else {
        return Finding::none(AREA, ID, "the token does not say which TPM it was made on");
    };
    let finding = match tpm::recognise(&token.settings(), &binding, PATIENCE) {
        Ok(()) => Finding::ok(AREA, ID, "made on this TPM"),
        Err(error @ Error::OtherDevice { .. }) => Finding::failed(AREA, ID, error).fix(
            "go back to that TPM; if it was cleared the keys are gone: devkey init --tpm NAME",
        ),
        Err(error) => Finding::error(AREA, ID, error),
    };
    finding.of(&token.found.name)
}
