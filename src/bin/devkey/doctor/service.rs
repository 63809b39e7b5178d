//! The key service: there, trusted, of this version, and what it lets this user do.

use std::path::Path;

use devkey::config::{FoundToken, Service};
use devkey::service::{Accounts, Ids, Link, NO_KEY, Right};

use super::accounts::{Group, Membership, user_shown};
use super::finding::{Area, Finding};
use super::program::{Asked, ask};
use super::scope::{PATIENCE, Scope};
use crate::tokens::Tokens;

const AREA: Area = Area::Service;
const SOCKET: &str = "service.socket";
const ANSWERS: &str = "service.answers";
const RIGHTS: &str = "service.rights";
const KEYS: &str = "service.keys";
const GROUP: &str = "service.group";
const UNIT: &str = "service.unit";

/// The group whose members may use the system's tokens, where nothing else is said.
const USERS: &str = "devkey";
/// There where systemd runs: sd_booted(3).
const SYSTEMD: &str = "/run/systemd/system";

pub(super) fn look(scope: &Scope, say: &mut dyn FnMut(Finding)) {
    let Ok(tokens) = &scope.tokens else {
        return scope.no_config(AREA, SOCKET).into_iter().for_each(say);
    };
    let found = scope.found();
    for (socket, keeper) in tokens.config.services() {
        let served = |token: &&FoundToken| {
            token.service != Service::Never && token.reach.socket.as_deref() == Some(socket)
        };
        let served: Vec<_> = found.iter().filter(served).collect();
        at(socket, keeper, &served, tokens, say);
    }
    if tokens.config.services().is_empty() {
        say(Finding::none(AREA, SOCKET, "the configuration names none"));
    }
    if Group::named(USERS).is_some() {
        say(group());
    }
    if Path::new(SYSTEMD).is_dir() {
        say(unit());
    }
}

fn at(
    socket: &Path,
    keeper: Option<u32>,
    served: &[&FoundToken],
    tokens: &Tokens,
    say: &mut dyn FnMut(Finding),
) {
    let shown = socket.display();
    if !socket.exists() {
        let found = format!("{shown} is not there");
        let wants = |token: &&FoundToken| token.service == Service::Always || token.reach.named;
        let wanted = served.iter().any(wants);
        // The system's own tokens cannot be used without it, but by who may read them.
        let owned = keeper.is_some() && !served.is_empty();
        return say(match wanted || owned {
            true => Finding::failed(
                AREA,
                SOCKET,
                format!("{found}, and tokens are used through it"),
            )
            .fix(start(socket)),
            false => Finding::none(AREA, SOCKET, format!("{found}: no key service listens")),
        });
    }
    say(Finding::ok(AREA, SOCKET, &shown));
    match Link::to(socket.to_owned(), keeper)
        .with_patience(PATIENCE)
        .greet()
    {
        Err(error) => return say(Finding::refused(AREA, ANSWERS, &error).of(&shown)),
        Ok(version) => say(greeted(&version).of(&shown)),
    }
    for token in served {
        say(rights(token, tokens));
        keys(token, tokens).into_iter().for_each(&mut *say);
    }
}

fn start(socket: &Path) -> String {
    format!(
        "systemctl enable --now devkeyd.socket; or devkeyd --listen {}; journalctl -u devkeyd -n 20",
        socket.display()
    )
}

fn greeted(version: &str) -> Finding {
    let own = env!("CARGO_PKG_VERSION");
    match version == own {
        true => Finding::ok(AREA, ANSWERS, format!("version {version}")),
        false => Finding::warning(
            AREA,
            ANSWERS,
            format!("it is version {version}, and this {own}"),
        )
        .fix("systemctl restart devkeyd, after an upgrade of both"),
    }
}

/// What this user may do with a token, by the configuration; and whether the service has it for him.
fn rights(found: &FoundToken, tokens: &Tokens) -> Finding {
    let (ids, accounts) = (Ids::of_process(), Accounts::read());
    let all = ids.user == 0 || found.reach.keeper == Some(ids.user);
    let may = |right| all || found.rules.allow(right, NO_KEY, &ids, &accounts);
    let some = found.rules.allow_anything(&ids, &accounts);
    let rights = match (may(Right::Use), may(Right::Manage), some) {
        (true, true, _) => "you may use and manage it",
        (true, false, _) => "you may use it",
        (false, true, _) => "you may manage it, and not use it",
        (false, false, true) => "you may use or manage some of its keys",
        (false, false, false) => "",
    };
    let finding = match rights {
        "" => {
            let found = format!("{} may do nothing with it", user_shown(ids.user));
            let fix = "name the user or a group of his in `use`, in devkey.toml; by default: ";
            Finding::none(AREA, RIGHTS, found).fix(format!("{fix}{}", joining(&ids)))
        }
        rights => match tokens.open(found).and_then(|token| token.ready()) {
            Ok(()) => Finding::ok(AREA, RIGHTS, rights),
            Err(error) => {
                let finding = Finding::error(AREA, RIGHTS, &error);
                let found = format!("{rights} by devkey.toml, but: {}", finding.found);
                let reread = "systemctl restart devkeyd: it reads devkey.toml when it starts; \
                              journalctl -u devkeyd -n 20";
                let fix = Some(finding.fix.unwrap_or_else(|| reread.to_owned()));
                Finding {
                    found,
                    fix,
                    ..finding
                }
            }
        },
    };
    finding.of(&found.name)
}

/// Rights to single keys that no key has: a name that is mistyped gives its key the rights of the token.
fn keys(found: &FoundToken, tokens: &Tokens) -> Option<Finding> {
    let listing = tokens.open(found).ok()?.store().list().ok()?;
    let is_one = |name: &&String| {
        listing.keys.iter().any(|key| {
            [&key.label, key.id.as_str()].contains(&name.as_str())
                || base16ct::lower::encode_string(&key.cka_id) == **name
        })
    };
    let mut unknown = found
        .rules
        .keys
        .keys()
        .filter(|name| !is_one(name))
        .peekable();
    unknown.peek()?;
    let names: Vec<String> = unknown.map(|name| format!("{name:?}")).collect();
    let what = format!(
        "devkey.toml gives rights to keys that are not there: {}",
        names.join(", ")
    );
    let fix = "name each as `devkey key list` does, by label or ID";
    Some(Finding::warning(AREA, KEYS, what).fix(fix).of(&found.name))
}

fn joining(ids: &Ids) -> String {
    Group::named(USERS).map_or_else(|| format!("group {USERS}"), |group| group.joining(ids))
}

/// Whether this session has the group.
fn group() -> Finding {
    let ids = Ids::of_process();
    let Some(group) = Group::named(USERS) else {
        return Finding::none(AREA, GROUP, format!("there is no group {USERS}"));
    };
    match group.membership(&ids) {
        Membership::Yes => Finding::ok(AREA, GROUP, format!("you are in group {USERS}")),
        Membership::AfterLogin => {
            let found = format!("you are in group {USERS}, but not in this session");
            Finding::warning(AREA, GROUP, found).fix(group.joining(&ids))
        }
        Membership::No => Finding::none(AREA, GROUP, format!("you are not in group {USERS}")),
    }
}

/// Whether systemd starts the service.
fn unit() -> Finding {
    let state = |what: &str, unit: &str| match ask("systemctl", &[what, unit]) {
        Asked::Said(said) => said.stdout.trim().to_owned(),
        Asked::Missing => String::new(),
        Asked::Hangs(what) => what,
    };
    let (enabled, active) = (
        state("is-enabled", "devkeyd.socket"),
        state("is-active", "devkeyd.socket"),
    );
    let failed = state("is-active", "devkeyd.service") == "failed";
    let shown = format!("devkeyd.socket is {enabled} and {active}");
    match (enabled.as_str(), active.as_str()) {
        _ if failed => Finding::failed(AREA, UNIT, "devkeyd.service has failed")
            .fix("journalctl -u devkeyd -n 20; then systemctl reset-failed devkeyd.service"),
        ("", _) | ("not-found", _) => Finding::none(AREA, UNIT, "devkeyd.socket is not installed"),
        ("enabled", "active") => Finding::ok(AREA, UNIT, shown),
        (_, "active") => Finding::warning(AREA, UNIT, format!("{shown}: gone after a restart"))
            .fix("sudo systemctl enable devkeyd.socket"),
        ("enabled", _) => Finding::failed(AREA, UNIT, shown)
            .fix("sudo systemctl start devkeyd.socket; journalctl -u devkeyd -n 20"),
        _ => Finding::none(AREA, UNIT, shown),
    }
}
