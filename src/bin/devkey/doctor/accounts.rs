//! Users and groups of /etc/passwd and /etc/group, and what of them this session has.

use std::fs;
use std::path::Path;

use devkey::service::Ids;

/// A group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Group {
    pub(super) name: String,
    id: u32,
    members: Vec<String>,
}

/// Whether this process is of a group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Membership {
    Yes,
    /// Its user was made a member after the session began.
    AfterLogin,
    No,
}

impl Group {
    /// The group of that name.
    pub(super) fn named(name: &str) -> Option<Self> {
        all().into_iter().find(|group| group.name == name)
    }

    /// The group of that number; of one without an account only that is known.
    pub(super) fn of_id(id: u32) -> Self {
        let nameless = || Group {
            name: id.to_string(),
            id,
            members: Vec::new(),
        };
        let known = all().into_iter().find(|group| group.id == id);
        known.unwrap_or_else(nameless)
    }

    /// Whether a user is named in it, whatever sessions he has.
    pub(super) fn has(&self, user: u32) -> bool {
        user_name(user).is_some_and(|name| self.members.contains(&name))
    }

    /// Whether this process is of it.
    pub(super) fn membership(&self, ids: &Ids) -> Membership {
        match (ids.groups.contains(&self.id), self.has(ids.user)) {
            (true, _) => Membership::Yes,
            (false, true) => Membership::AfterLogin,
            (false, false) => Membership::No,
        }
    }

    /// How this user comes into it.
    pub(super) fn joining(&self, ids: &Ids) -> String {
        let (group, user) = (&self.name, user_shown(ids.user));
        match self.membership(ids) {
            Membership::AfterLogin => {
                format!("log in again: this session began before {user} was put into group {group}")
            }
            _ => format!("sudo usermod -aG {group} {user}, then log in again"),
        }
    }
}

/// A user for people.
pub(super) fn user_shown(id: u32) -> String {
    user_name(id).unwrap_or_else(|| id.to_string())
}

fn user_name(id: u32) -> Option<String> {
    let users = lines(Path::new("/etc/passwd"));
    let found = users.iter().find(|user| number(user) == Some(id))?;
    found.first().cloned()
}

fn all() -> Vec<Group> {
    let group = |line: &Vec<String>| {
        let members = line.get(3).map_or("", String::as_str).split(',');
        let members = members.filter(|member| !member.is_empty());
        Some(Group {
            name: line.first()?.clone(),
            id: number(line)?,
            members: members.map(str::to_owned).collect(),
        })
    };
    lines(Path::new("/etc/group"))
        .iter()
        .filter_map(group)
        .collect()
}

/// The fields of each line (passwd(5), group(5)).
fn lines(path: &Path) -> Vec<Vec<String>> {
    let text = fs::read_to_string(path).unwrap_or_default();
    let fields = |line: &str| {
        line.split(':')
            .map(|field| field.trim().to_owned())
            .collect()
    };
    text.lines().map(fields).collect()
}

fn number(fields: &[String]) -> Option<u32> {
    fields.get(2)?.parse().ok()
}
