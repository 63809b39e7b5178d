//! Who may do what with a token of the key service.

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::path::Path;

use rustix::process::{getegid, geteuid, getgroups};
use serde::{Deserialize, Serialize};

/// What a client may be allowed to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Right {
    /// Sign, decrypt, agree on keys, and log in as the user.
    Use,
    /// Make and delete keys, change attributes, certificates and PINs.
    Manage,
}

/// The names of no key: what a right to the token as a whole is asked with.
pub const NO_KEY: &[&str] = &[];

/// A user or a group of the system.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Who {
    /// A user, by name or number.
    User(String),
    /// A group, by name or number: `%NAME` in the configuration, as in sudoers(5).
    Group(String),
}

/// Who has each right; `None` where nothing is said.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Grants {
    /// Who may use.
    pub use_by: Option<Vec<Who>>,
    /// Who may manage.
    pub manage_by: Option<Vec<Who>>,
}

/// The rights to a token and to single keys of it.
///
/// Root and the user that the service runs as have every right. Neither right includes the other.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Rules {
    /// To the token, and to its keys where nothing is said of them.
    pub token: Grants,
    /// To keys, by label, `CKA_ID` in hexadecimal, or id in the store.
    pub keys: BTreeMap<String, Grants>,
}

/// A process by what rights are given to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Ids {
    /// Effective user.
    pub user: u32,
    /// Effective and supplementary groups.
    pub groups: Vec<u32>,
}

/// Numbers of users and groups by their names.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Accounts {
    users: BTreeMap<String, u32>,
    groups: BTreeMap<String, u32>,
}

/// As the configuration names it.
impl fmt::Display for Who {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Who::User(name) => f.write_str(name),
            Who::Group(name) => write!(f, "%{name}"),
        }
    }
}

impl Who {
    /// As the configuration names it.
    pub fn parse(text: &str) -> Option<Self> {
        let (name, is_group) = match text.strip_prefix('%') {
            Some(group) => (group, true),
            None => (text, false),
        };
        let allowed = |c: char| c.is_ascii_alphanumeric() || "-_.@$\\".contains(c);
        if name.is_empty() || !name.chars().all(allowed) {
            return None;
        }
        Some(match is_group {
            true => Who::Group(name.to_owned()),
            false => Who::User(name.to_owned()),
        })
    }

    /// Whether it is that process, or one of its groups. A name that nobody has is nobody.
    fn is(&self, ids: &Ids, accounts: &Accounts) -> bool {
        match self {
            Who::User(name) => accounts.user(name) == Some(ids.user),
            Who::Group(name) => {
                let group = number(&accounts.groups, name);
                group.is_some_and(|group| ids.groups.contains(&group))
            }
        }
    }
}

impl Ids {
    /// Those of this process.
    pub fn of_process() -> Self {
        let groups = getgroups().unwrap_or_default();
        let groups = groups.into_iter().chain([getegid()]);
        Ids {
            user: geteuid().as_raw(),
            groups: groups.map(|group| group.as_raw()).collect(),
        }
    }
}

impl Grants {
    fn heed(&mut self, later: &Grants) {
        self.use_by = later.use_by.clone().or(self.use_by.take());
        self.manage_by = later.manage_by.clone().or(self.manage_by.take());
    }

    fn of(&self, right: Right) -> Option<&[Who]> {
        match right {
            Right::Use => self.use_by.as_deref(),
            Right::Manage => self.manage_by.as_deref(),
        }
    }
}

impl Rules {
    /// What is said later goes before what was said first.
    pub fn heed(&mut self, later: &Rules) {
        self.token.heed(&later.token);
        for (key, grants) in &later.keys {
            self.keys.entry(key.clone()).or_default().heed(grants);
        }
    }

    /// Whether a right is given, to a key where names of one are given.
    pub fn allow(
        &self,
        right: Right,
        key: &[impl AsRef<str>],
        ids: &Ids,
        accounts: &Accounts,
    ) -> bool {
        let own = key
            .iter()
            .find_map(|name| self.keys.get(name.as_ref())?.of(right));
        let list = own.or(self.token.of(right)).unwrap_or_default();
        list.iter().any(|who| who.is(ids, accounts))
    }

    /// Whether any right is given, to the token or to one of its keys.
    pub fn allow_anything(&self, ids: &Ids, accounts: &Accounts) -> bool {
        let all = self.keys.values().chain([&self.token]);
        let mut lists = all.flat_map(|grants| [&grants.use_by, &grants.manage_by]);
        lists.any(|list| list.iter().flatten().any(|who| who.is(ids, accounts)))
    }

    /// Whether anybody at all is named.
    pub fn name_somebody(&self) -> bool {
        let mut all = self.keys.values().chain([&self.token]);
        let some = |list: &Option<Vec<Who>>| list.as_ref().is_some_and(|list| !list.is_empty());
        all.any(|grants| some(&grants.use_by) || some(&grants.manage_by))
    }
}

impl Accounts {
    /// Reads `/etc/passwd` and `/etc/group`, and nothing else: the module runs in programs that a
    /// directory service must not be loaded into. Whom these files do not name has a number.
    pub fn read() -> Self {
        Accounts {
            users: names(Path::new("/etc/passwd")),
            groups: names(Path::new("/etc/group")),
        }
    }

    /// The number of a user, who may be named by it.
    pub fn user(&self, name: &str) -> Option<u32> {
        number(&self.users, name)
    }
}

fn number(names: &BTreeMap<String, u32>, name: &str) -> Option<u32> {
    names.get(name).copied().or_else(|| name.parse().ok())
}

/// The first and the third field of each line (passwd(5), group(5)).
fn names(path: &Path) -> BTreeMap<String, u32> {
    let text = fs::read_to_string(path).unwrap_or_default();
    let entry = |line: &str| {
        let mut fields = line.split(':');
        let (name, id) = (fields.next()?, fields.nth(1)?);
        Some((name.to_owned(), id.parse().ok()?))
    };
    text.lines().filter_map(entry).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn accounts() -> Accounts {
        let of = |pairs: &[(&str, u32)]| pairs.iter().map(|(n, id)| (n.to_string(), *id)).collect();
        Accounts {
            users: of(&[("root", 0), ("web", 33), ("ops", 1000)]),
            groups: of(&[("devkey", 70), ("admin", 80)]),
        }
    }

    fn list(names: &[&str]) -> Option<Vec<Who>> {
        Some(names.iter().map(|name| Who::parse(name).unwrap()).collect())
    }

    fn ids(user: u32, groups: &[u32]) -> Ids {
        Ids {
            user,
            groups: groups.to_vec(),
        }
    }

    fn rules() -> Rules {
        let www = Grants {
            use_by: list(&["web", "1001"]),
            manage_by: None,
        };
        Rules {
            token: Grants {
                use_by: list(&["%devkey"]),
                manage_by: list(&["ops", "%81"]),
            },
            keys: [("www".to_owned(), www)].into(),
        }
    }

    /// Seen to fail with `own.or` the other way round, `&&` for the first `.any`, and the groups
    /// compared with the user's number.
    #[test]
    fn a_right_is_who_is_named_and_nobody_else() {
        let (rules, accounts) = (rules(), accounts());
        let may = |right, key: Option<&str>, user, groups: &[u32]| {
            let names: Vec<&str> = key.into_iter().chain(["0a"]).collect();
            rules.allow(right, &names, &ids(user, groups), &accounts)
        };
        assert!(may(Right::Use, None, 5, &[9, 70]));
        assert!(may(Right::Use, Some("ssh"), 5, &[70]));
        assert!(!may(Right::Use, Some("www"), 5, &[70]));
        assert!(may(Right::Use, Some("www"), 33, &[]));
        assert!(may(Right::Use, Some("www"), 1001, &[]));
        assert!(!may(Right::Use, None, 33, &[33]));
        assert!(!may(Right::Use, None, 70, &[]));
        assert!(!may(Right::Use, None, 1000, &[]));
        assert!(may(Right::Manage, Some("www"), 1000, &[]));
        assert!(may(Right::Manage, None, 5, &[81]));
        assert!(!may(Right::Manage, None, 5, &[70]));
    }

    /// Seen to fail with the keys left out of the chain.
    #[test]
    fn who_may_use_one_key_sees_the_token() {
        let (rules, accounts) = (rules(), accounts());
        assert!(rules.allow_anything(&ids(33, &[]), &accounts));
        assert!(!rules.allow_anything(&ids(34, &[33]), &accounts));
        assert!(rules.name_somebody() && !Rules::default().name_somebody());
    }

    #[test]
    fn names_that_nobody_has_are_nobody_and_nonsense_is_refused() {
        let unknown = Who::parse("%nobody-has-it").unwrap();
        assert!(!unknown.is(&ids(0, &[0]), &accounts()));
        for nonsense in ["", "%", "a b", "a:b", "%%x", "a\n"] {
            assert_eq!(Who::parse(nonsense), None, "{nonsense:?}");
        }
        assert_eq!(Accounts::read().user("root"), Some(0));
    }
}
