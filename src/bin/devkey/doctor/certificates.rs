//! Certificates: those that end soon, have ended, or certify no key of their token.

use std::collections::BTreeMap;
use std::path::PathBuf;

use super::finding::{Area, Finding};
use super::scope::Scope;
use crate::cert::{Item, date, ends_within, items, now, words};

const AREA: Area = Area::Certificates;
const READ: &str = "certificates.read";
const VALID: &str = "certificates.valid";
const KEY: &str = "certificates.key";

pub(super) fn look(scope: &Scope, say: &mut dyn FnMut(Finding)) {
    if let Some(finding) = scope.no_config(AREA, READ) {
        return say(finding);
    }
    let mut any = false;
    for token in scope.opened() {
        let name = token.found.name.clone();
        match items(&token.found, &*token.token, None) {
            Ok((all, broken)) => {
                any |= !all.is_empty() || !broken.is_empty();
                let broken = broken
                    .into_iter()
                    .map(|one| Finding::error(AREA, READ, one));
                broken.for_each(|finding| say(finding.of(&name)));
                all.iter().for_each(|item| say(valid(item, scope)));
                keys(&all, say);
            }
            Err(failure) => say(Finding::error(AREA, READ, failure).of(&name)),
        }
    }
    if !any {
        say(Finding::none(AREA, VALID, "there are none"));
    }
}

/// What names a certificate for people: its token, and its own name there.
fn subject(item: &Item) -> String {
    let key = item.key.as_ref().map(|key| format!(" of {:?}", key.label));
    format!("{}: {}{}", item.token, item.name(), key.unwrap_or_default())
}

fn valid(item: &Item, scope: &Scope) -> Finding {
    let now = now();
    let renew = match &item.key {
        Some(key) => format!("devkey cert renew --token {} {}", item.token, key.label),
        None => "have the CA's certificate renewed, then devkey cert install".to_owned(),
    };
    let finding = match item.end() {
        None => Finding::ok(AREA, VALID, "for ever"),
        _ if item.start() > now => {
            let found = format!("not valid before {}", date(item.start()));
            Finding::failed(AREA, VALID, found).fix("wait, or set the clock: date")
        }
        Some(end) if end <= now => {
            let found = format!("ended {} ago, on {}", words(now - end), date(end));
            Finding::failed(AREA, VALID, found).fix(renew)
        }
        Some(end) if ends_within(item, scope.expires_within) => {
            let found = format!("ends in {}, on {}", words(end - now), date(end));
            Finding::warning(AREA, VALID, found).fix(renew)
        }
        Some(end) => Finding::ok(AREA, VALID, format!("for {}", words(end - now))),
    };
    finding.of(subject(item))
}

/// A file holds the certificate of a key, and those above it.
fn keys(all: &[Item], say: &mut dyn FnMut(Finding)) {
    let mut files = BTreeMap::<&PathBuf, Vec<&Item>>::new();
    for item in all {
        files.entry(&item.file).or_default().push(item);
    }
    let mut strays = files
        .iter()
        .filter(|(_, items)| items.iter().all(|one| one.key.is_none()));
    let mut none = true;
    strays.by_ref().for_each(|(file, items)| {
        none = false;
        let found = format!("{} certifies no key of the token", file.display());
        let token = items.first().map_or("", |one| one.token.as_str());
        let fix =
            "delete it (devkey cert delete), or install it where its key is: devkey cert install";
        say(Finding::warning(AREA, KEY, found).of(token).fix(fix));
    });
    if let (true, Some(first)) = (none, all.first()) {
        say(Finding::ok(AREA, KEY, "each is of a key of the token").of(&first.token));
    }
}
