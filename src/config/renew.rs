//! How certificates are renewed: the table `[renew]`.

use std::path::PathBuf;
use std::time::Duration;

use crate::error::{Error, Result};

/// What `[renew]` says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Renew {
    /// What reaches the CA: a line for `/bin/sh -c`.
    pub command: Option<String>,
    /// What is run when something was renewed: a line for `/bin/sh -c`.
    pub after: Option<String>,
    /// How long before its end a certificate is renewed.
    pub within: Option<Duration>,
    /// How long each command may take.
    pub timeout: Option<Duration>,
    /// A file with the roots (PEM) that new certificates must lead to.
    pub ca: Option<PathBuf>,
    /// A file with the public keys of the CAs of OpenSSH certificates, one a line.
    pub ssh_ca: Option<PathBuf>,
}

impl Renew {
    /// What is not said here is as in `other`.
    pub(super) fn or(self, other: Renew) -> Renew {
        Renew {
            command: self.command.or(other.command),
            after: self.after.or(other.after),
            within: self.within.or(other.within),
            timeout: self.timeout.or(other.timeout),
            ca: self.ca.or(other.ca),
            ssh_ca: self.ssh_ca.or(other.ssh_ca),
        }
    }
}

/// A span of time: a whole number and `s`, `m`, `h`, `d` or `w`.
///
/// # Errors
/// [`Error::BadInput`]
pub fn parse_span(text: &str) -> Result<Duration> {
    let wrong = || {
        Error::input(format!(
            "{text:?} is no span of time; write 30d, 12h, 45m or 90s"
        ))
    };
    let unit = text.chars().last().ok_or_else(wrong)?;
    let seconds = match unit {
        's' => 1,
        'm' => 60,
        'h' => 3600,
        'd' => 86_400,
        'w' => 7 * 86_400,
        _ => return Err(wrong()),
    };
    let number: u32 = text
        .strip_suffix(unit)
        .and_then(|number| number.parse().ok())
        .ok_or_else(wrong)?;
    Ok(Duration::from_secs(u64::from(number) * seconds))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_have_a_unit() {
        assert_eq!(parse_span("30d").unwrap().as_secs(), 2_592_000);
        assert_eq!(parse_span("90s").unwrap().as_secs(), 90);
        for wrong in [
            "",
            "30",
            "d",
            "-1d",
            "1.5h",
            "3 d",
            "1y",
            "99999999999d",
            "d\u{e9}",
        ] {
            assert!(parse_span(wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn the_users_goes_before_the_systems() {
        let said = |command: Option<&str>| Renew {
            command: command.map(str::to_owned),
            ..Renew::default()
        };
        let (user, system) = (said(Some("user")), said(Some("system")));
        assert_eq!(user.clone().or(system.clone()), user);
        assert_eq!(said(None).or(system.clone()), system);
    }
}
