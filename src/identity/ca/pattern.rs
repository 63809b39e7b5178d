//! Which names a profile allows.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// A kind of name, and a pattern for names of it: `dns:*.lab.example`, `ip:10.0.0.0/8`,
/// `uri:spiffe://lab/*`, `email:*@lab.example`, `hw:1.3.6.1.4.1.32473.1:*`, `subject:CN=*,O=Lab`,
/// `principal:backup`.
///
/// `*` stands for one character or more, but never for one that separates names of the kind (`.` in
/// DNS, `/` in URIs, `,` and `+` in subjects, `@` and `.` in the others), and never for a `*`: nobody gets a
/// wildcard that is not written out here. `**` stands for separators, too.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Pattern {
    kind: String,
    glob: String,
}

/// Kinds of names, and what separates the parts of each.
const KINDS: [(&str, &str); 7] = [
    ("dns", "."),
    ("ip", ""),
    ("uri", "/"),
    ("email", "@."),
    ("hw", ":"),
    ("subject", ",+\\"),
    ("principal", "@."),
];

impl Pattern {
    /// Whether a name of that kind is allowed.
    pub fn allows(&self, kind: &str, name: &str) -> bool {
        if kind != self.kind {
            return false;
        }
        if kind == "ip" {
            return Net::read(&self.glob).is_some_and(|net| net.has(name));
        }
        let folds = matches!(kind, "dns" | "email");
        let fold = |text: &str| match folds {
            true => text.to_ascii_lowercase(),
            false => text.to_owned(),
        };
        let separators = KINDS.iter().find(|(known, _)| *known == kind);
        let separators = separators.map_or("", |(_, separators)| *separators);
        matches(&fold(&self.glob), &fold(name), separators)
    }
}

/// Whether a text matches a glob. Each `*` is tried from the shortest on; only the last one is ever
/// lengthened, but where a separator ends it, an earlier one may be: so all are kept.
fn matches(glob: &str, text: &str, separators: &str) -> bool {
    let glob: Vec<Piece> = pieces(glob);
    let text: Vec<char> = text.chars().collect();
    // reached[i]: the pieces so far match the first i characters.
    let mut reached = vec![false; text.len() + 1];
    if let Some(first) = reached.first_mut() {
        *first = true;
    }
    for piece in glob {
        let mut next = vec![false; text.len() + 1];
        let mut running = false;
        for (at, (c, now)) in text.iter().zip(&reached).enumerate() {
            let fits = match piece {
                Piece::Exactly(wanted) => *now && *c == wanted,
                Piece::Some { all } => {
                    let may = *c != '*' && (all || !separators.contains(*c));
                    running = (running || *now) && may;
                    running
                }
            };
            if let Some(next) = next.get_mut(at + 1) {
                *next = fits;
            }
        }
        reached = next;
    }
    reached.last() == Some(&true)
}

#[derive(Clone, Copy)]
enum Piece {
    Exactly(char),
    Some { all: bool },
}

fn pieces(glob: &str) -> Vec<Piece> {
    let mut pieces = Vec::new();
    for c in glob.chars() {
        match (c, pieces.last_mut()) {
            ('*', Some(Piece::Some { all })) => *all = true,
            ('*', _) => pieces.push(Piece::Some { all: false }),
            (c, _) => pieces.push(Piece::Exactly(c)),
        }
    }
    pieces
}

/// An address, or a range of addresses (RFC 4632).
struct Net {
    address: IpAddr,
    bits: u32,
}

impl Net {
    fn read(text: &str) -> Option<Net> {
        let (address, bits) = match text.split_once('/') {
            Some((address, bits)) => (address, Some(bits)),
            None => (text, None),
        };
        let address: IpAddr = address.parse().ok()?;
        let most = if address.is_ipv4() { 32 } else { 128 };
        let bits = bits.map_or(Ok(most), str::parse).ok()?;
        (bits <= most).then_some(Net { address, bits })
    }

    fn has(&self, name: &str) -> bool {
        let first = |address: u128, width: u32| match width - self.bits {
            128 => 0,
            away => address >> away,
        };
        match (self.address, name.parse()) {
            (IpAddr::V4(net), Ok(IpAddr::V4(one))) => {
                first(u32::from(net).into(), 32) == first(u32::from(one).into(), 32)
            }
            (IpAddr::V6(net), Ok(IpAddr::V6(one))) => {
                first(net.into(), 128) == first(one.into(), 128)
            }
            _ => false,
        }
    }
}

impl FromStr for Pattern {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let kinds = KINDS.map(|(kind, _)| kind).join(", ");
        let bad = || {
            Error::input(format!(
                "{text:?} is no pattern of names: KIND:PATTERN, where KIND is one of {kinds}"
            ))
        };
        let (kind, glob) = text.split_once(':').ok_or_else(bad)?;
        let known = KINDS.iter().any(|(known, _)| *known == kind);
        match known && !glob.is_empty() && (kind != "ip" || Net::read(glob).is_some()) {
            true => Ok(Pattern {
                kind: kind.to_owned(),
                glob: glob.to_owned(),
            }),
            false => Err(bad()),
        }
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.kind, self.glob)
    }
}

as_text!(Pattern);

#[cfg(test)]
mod tests {
    use super::*;

    /// Seen to fail without the look at separators, without that at `*`, with `Some` for nothing, and
    /// with addresses compared as text.
    #[test]
    fn patterns_allow_what_they_say() {
        for (pattern, yes, no) in [
            (
                "dns:*.lab.example",
                &["a.lab.example", "A.LAB.example"][..],
                &[
                    "lab.example",
                    ".lab.example",
                    "a.b.lab.example",
                    "*.lab.example",
                    "a.lab.example.org",
                ][..],
            ),
            (
                "dns:**.lab.example",
                &["a.b.lab.example"],
                &["*.lab.example", "a.*.lab.example"],
            ),
            ("dns:a*b.x", &["axb.x", "abb.x"], &["ab.x", "a.b.x"]),
            (
                "ip:10.0.0.0/8",
                &["10.1.2.3"],
                &["11.0.0.1", "::1", "10.0.0"],
            ),
            (
                "ip:2001:db8::/32",
                &["2001:db8:1::1"],
                &["2001:db9::1", "10.0.0.1"],
            ),
            ("ip:::/0", &["::1"], &["1.2.3.4"]),
            ("ip:192.0.2.7", &["192.0.2.7"], &["192.0.2.8"]),
            (
                "uri:spiffe://lab/*",
                &["spiffe://lab/a"],
                &["spiffe://lab/a/b", "spiffe://lab/"],
            ),
            (
                "subject:CN=*,O=Lab",
                &["CN=pump 7,O=Lab"],
                &["CN=x,O=Evil,O=Lab", "CN=a+OU=b,O=Lab", "CN=a\\,O=Lab"],
            ),
            ("principal:backup", &["backup"], &["Backup", "backup2"]),
        ] {
            let parsed: Pattern = pattern.parse().unwrap();
            let kind = &parsed.kind;
            for name in yes {
                assert!(parsed.allows(kind, name), "{pattern} and {name}");
                assert!(!parsed.allows("email", name), "{pattern} and {name}");
            }
            for name in no {
                assert!(!parsed.allows(kind, name), "{pattern} and {name}");
            }
        }
        for bad in ["", "dns", "dns:", "host:a", "ip:10.0.0.0/33", "ip:a"] {
            assert!(bad.parse::<Pattern>().is_err(), "{bad}");
        }
    }
}
