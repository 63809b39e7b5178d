//! The configuration: read, all of it understood, and what it names there.

use super::finding::{Area, Finding};
use super::scope::Scope;
use crate::tokens::Tokens;

const AREA: Area = Area::Config;
const READ: &str = "config.read";

pub(super) fn look(scope: &Scope, say: &mut dyn FnMut(Finding)) {
    let tokens = match &scope.tokens {
        Ok(tokens) => tokens,
        Err((what, remedy)) => {
            let fix = remedy.as_deref().unwrap_or("devkey config check");
            return say(Finding::failed(AREA, READ, what).fix(fix));
        }
    };
    say(read(tokens));
    stores(tokens, say);
    let unplaced = tokens.config.unplaced();
    if unplaced.is_empty() {
        say(Finding::ok(
            AREA,
            "config.tokens",
            "every token that is named is there",
        ));
    }
    for error in unplaced {
        say(Finding::error(AREA, "config.tokens", error));
    }
}

fn read(tokens: &Tokens) -> Finding {
    let files = &tokens.config.files;
    let shown: Vec<_> = files
        .iter()
        .map(|file| file.display().to_string())
        .collect();
    Finding::ok(
        AREA,
        READ,
        match shown.is_empty() {
            true => "no devkey.toml, and none is needed".to_owned(),
            false => shown.join(", "),
        },
    )
}

/// The directories in which tokens are looked for.
fn stores(tokens: &Tokens, say: &mut dyn FnMut(Finding)) {
    let unusable = tokens.config.unusable();
    if unusable.is_empty() {
        let stores = &tokens.config.stores;
        let there = stores.iter().filter(|store| store.exists());
        let there: Vec<_> = there.map(|store| store.display().to_string()).collect();
        say(match there.is_empty() {
            true => Finding::none(AREA, "config.stores", "no store yet"),
            false => Finding::ok(AREA, "config.stores", there.join(", ")),
        });
    }
    for error in unusable {
        say(Finding::refused(AREA, "config.stores", &error));
    }
}
