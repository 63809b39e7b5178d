//! `devkey pin status`: what the device and the store say of both PINs.

use devkey::Error;
use devkey::config::FoundToken;
use devkey::store::Role;
use devkey::token::{PinState, Token};
use serde::Serialize;

use super::login::{Who, duration, title};
use crate::failure::Result;
use crate::output::{self, Answer, Outcome};

/// A token's PINs as `--json` shows them.
#[derive(Debug, Serialize)]
struct Status {
    token: String,
    pins: bool,
    user: Option<State>,
    so: Option<State>,
}

/// A PIN that is set.
#[derive(Debug, Serialize)]
struct State {
    left: u32,
    of: u32,
    locked: bool,
    to_be_changed: bool,
    by_device: bool,
    recovery_seconds: Option<u64>,
    shared: bool,
}

pub(super) fn run(found: &FoundToken, token: &dyn Token, json: bool) -> Outcome {
    let pins = token.store().token().pin;
    let mut problems = Vec::new();
    // Who does not answer for one PIN does not answer for the other.
    let mut ask = |role| match pins && problems.is_empty() {
        true => state(found, token, role).unwrap_or_else(|failure| {
            problems.push(failure);
            None
        }),
        false => None,
    };
    let status = Status {
        token: found.name.clone(),
        pins,
        user: ask(Role::User),
        so: ask(Role::So),
    };
    let answer = match json {
        true => Answer::json(&status)?,
        false => Answer::text(describe(&status, token, !problems.is_empty())),
    };
    Ok(answer.problems(problems))
}

/// The state of a role's PIN, by the device where that counts.
fn state(found: &FoundToken, token: &dyn Token, role: Role) -> Result<Option<State>> {
    let who = Who::new(token, &found.name, role);
    let explain = |e| Err(who.explain(e));
    let tries = match token.tries(role) {
        Ok(tries) => tries,
        Err(Error::PinNotSet) => return Ok(None),
        Err(e) => return explain(e),
    };
    let to_be_changed = match PinState::of(token.store(), role) {
        Ok(known) => known.is_some_and(|known| known.to_be_changed),
        Err(e) => return explain(e),
    };
    Ok(Some(State {
        left: tries.left,
        of: tries.of,
        locked: tries.left == 0,
        to_be_changed,
        by_device: tries.by_device,
        recovery_seconds: tries.recovery,
        shared: tries.shared,
    }))
}

fn describe(status: &Status, token: &dyn Token, unknown: bool) -> String {
    let mut fields = vec![("token", status.token.clone())];
    if !status.pins {
        fields.push(("PINs", "none: keys are used without login".to_owned()));
        return output::fields(&fields);
    }
    for (role, state) in [(Role::User, &status.user), (Role::So, &status.so)] {
        match state {
            Some(state) => fields.push((title(role), state.describe())),
            None if unknown => {}
            None => fields.push((title(role), "not set".to_owned())),
        }
    }
    fields.extend(counting(status));
    for (role, state) in [(Role::User, &status.user), (Role::So, &status.so)] {
        let who = Who::new(token, &status.token, role);
        match state {
            Some(state) if state.locked => fields.push(("next", who.unlocking())),
            Some(state) if state.to_be_changed => {
                let change = format!("devkey pin change --token {}", status.token);
                fields.push(("next", change));
            }
            None if role == Role::User && !unknown => {
                let set = format!("devkey pin set --token {}, by the SO", status.token);
                fields.push(("next", set));
            }
            _ => {}
        }
    }
    output::fields(&fields)
}

/// Who counts, who shares the count, and how it recovers.
fn counting(status: &Status) -> Vec<(&'static str, String)> {
    let states: Vec<&State> = [&status.user, &status.so].into_iter().flatten().collect();
    if states.is_empty() {
        return Vec::new();
    }
    if !states.iter().any(|state| state.by_device) {
        let text = "in the store, before a PIN is compared; who can write there can undo it";
        return vec![("counted", text.to_owned())];
    }
    let mut lines = vec![("counted", "by the device".to_owned())];
    if states.iter().any(|state| state.shared) {
        let text = "with everything else on this device that has a PIN: a wrong one of another \
                    program counts here too, and one of here there";
        lines.push(("shared", text.to_owned()));
    }
    if let Some(seconds) = states.iter().find_map(|state| state.recovery_seconds) {
        let text = format!("a try comes back every {}", duration(seconds));
        lines.push(("recovery", text));
    }
    lines
}

impl State {
    fn describe(&self) -> String {
        let mut text = match self.left {
            0 => format!("locked after {} wrong ones", self.of),
            left => format!("{left} of {} tries left", self.of),
        };
        if self.to_be_changed {
            text += "; its owner is to change it";
        }
        text
    }
}
