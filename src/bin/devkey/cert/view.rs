//! Certificates as the command shows them.

use std::path::Path;
use std::time::Duration;

use der::DateTime;
use devkey::identity::ssh::certificate::{Certificate as SshCertificate, Kind};
use devkey::identity::x509::Description;
use serde::Serialize;

use super::item::{Body, Item};
use super::{items, now};
use crate::output::{self, Answer, Outcome};
use crate::tokens::Tokens;

/// Exit code where a certificate expires within the time asked for.
const EXPIRES: u8 = 3;

/// `devkey cert list`
#[derive(Debug)]
pub(super) struct List<'a> {
    pub(super) token: Option<&'a str>,
    pub(super) within: Option<Duration>,
    pub(super) ssh_dir: Option<&'a Path>,
    pub(super) json: bool,
}

/// What is said of a certificate; its fields are those of `--json`.
#[derive(Debug, Serialize)]
pub(crate) struct View {
    token: String,
    /// The label of its key.
    key: Option<String>,
    key_id: Option<String>,
    /// `x509`, `ssh-user` or `ssh-host`.
    kind: &'static str,
    certificate: String,
    file: String,
    subject: String,
    names: Vec<String>,
    issuer: String,
    serial: String,
    /// Seconds since 1970.
    not_before: u64,
    /// Last second of its validity since 1970; null where it never ends.
    not_after: Option<u64>,
    /// Seconds until it ends, negative where it has; null where it never does.
    expires_in: Option<i64>,
    level: Option<&'static str>,
    fingerprint: Option<String>,
}

impl View {
    pub(crate) fn new(item: &Item) -> Self {
        let key = item.key.as_ref();
        let end = item.end();
        let mut view = View {
            token: item.token.clone(),
            key: key.map(|key| key.label.clone()),
            key_id: key.map(|key| base16ct::lower::encode_string(&key.cka_id)),
            kind: "x509",
            certificate: item.name(),
            file: item.file.display().to_string(),
            subject: String::new(),
            names: Vec::new(),
            issuer: String::new(),
            serial: String::new(),
            not_before: 0,
            not_after: end.map(|end| end.saturating_sub(1)),
            expires_in: end.map(seconds_until),
            level: None,
            fingerprint: None,
        };
        match &item.body {
            Body::X509(_, said) => view.x509(said),
            Body::Ssh(certificate) => view.ssh(certificate),
        }
        view
    }

    fn x509(&mut self, said: &Description) {
        self.subject = said.subject.clone();
        self.names = said.alt_names.clone();
        self.issuer = said.issuer.clone();
        self.serial = said.serial.to_string();
        self.not_before = said.not_before;
        self.level = said.level.map(|level| level.name());
        self.fingerprint = Some(said.fingerprint.clone());
    }

    fn ssh(&mut self, certificate: &SshCertificate) {
        let said = certificate.contents();
        self.kind = match said.kind {
            Kind::User => "ssh-user",
            Kind::Host => "ssh-host",
        };
        self.subject = said.key_id.clone();
        self.names = said.principals.clone();
        let issuer = devkey::identity::ssh::key::fingerprint(certificate.authority());
        self.issuer = issuer.unwrap_or_default();
        self.serial = said.serial.to_string();
        self.not_before = said.valid_after;
        self.level = certificate.level().map(|level| level.name());
    }

    /// For people.
    pub(super) fn describe(&self) -> String {
        let or_none = |text: Option<&str>| match text {
            None | Some("") => "-".to_owned(),
            Some(text) => text.to_owned(),
        };
        let fields = [
            ("token", self.token.clone()),
            ("key", or_none(self.key.as_deref())),
            ("certificate", self.certificate.clone()),
            ("kind", self.kind.to_owned()),
            ("subject", self.subject.clone()),
            ("names", or_none(Some(self.names.join(", ").as_str()))),
            ("issuer", self.issuer.clone()),
            ("serial", self.serial.clone()),
            ("valid from", date(self.not_before)),
            ("valid until", self.until()),
            ("level", or_none(self.level)),
            ("sha-256", or_none(self.fingerprint.as_deref())),
            ("file", self.file.clone()),
        ];
        output::fields(&fields)
    }

    fn cells(&self) -> [String; 6] {
        [
            self.token.clone(),
            self.key.clone().unwrap_or_else(|| "-".to_owned()),
            self.kind.to_owned(),
            self.subject.clone(),
            self.until(),
            self.certificate.clone(),
        ]
    }

    /// The end, and how far away it is.
    fn until(&self) -> String {
        match (self.not_after, self.expires_in) {
            (Some(end), Some(left)) => format!("{} ({})", date(end), left_words(left)),
            _ => "for ever".to_owned(),
        }
    }
}

impl List<'_> {
    pub(super) fn run(&self, tokens: &Tokens) -> Outcome {
        let (open, mut problems) = match self.token {
            Some(_) => (vec![tokens.find_open(self.token)?], Vec::new()),
            None => tokens.open_all(),
        };
        let mut views = Vec::new();
        for (found, token) in &open {
            match items(found, &**token, self.ssh_dir) {
                Ok((all, bad)) => {
                    views.extend(all.iter().filter(|item| self.wanted(item)).map(View::new));
                    problems.extend(bad);
                }
                Err(e) => problems.push(e),
            }
        }
        let answer = match self.json {
            true => Answer::json(&views)?,
            false => Answer::text(table(&views)),
        };
        let answer = match (self.within.is_some(), views.is_empty()) {
            (true, false) => answer.exit(EXPIRES).hint("next: devkey renew"),
            (false, true) => answer.hint("next: devkey cert install FILE"),
            _ => answer,
        };
        Ok(answer.problems(problems))
    }

    fn wanted(&self, item: &Item) -> bool {
        match self.within {
            None => true,
            Some(within) => ends_within(item, within),
        }
    }
}

/// Whether a certificate has ended, or will within that time.
pub(crate) fn ends_within(item: &Item, within: Duration) -> bool {
    let by = now().saturating_add(within.as_secs());
    item.end().is_some_and(|end| end <= by)
}

fn table(views: &[View]) -> String {
    let rows: Vec<_> = views.iter().map(View::cells).collect();
    let header = ["TOKEN", "KEY", "KIND", "SUBJECT", "UNTIL", "CERTIFICATE"];
    output::table(header, &rows)
}

/// A time, in seconds since 1970, as RFC 3339 text.
pub(crate) fn date(seconds: u64) -> String {
    let time = DateTime::from_unix_duration(Duration::from_secs(seconds));
    time.map_or_else(|_| seconds.to_string(), |time| time.to_string())
}

fn seconds_until(end: u64) -> i64 {
    let signed = |seconds: u64| i64::try_from(seconds).unwrap_or(i64::MAX);
    signed(end).saturating_sub(signed(now()))
}

fn left_words(seconds: i64) -> String {
    match u64::try_from(seconds) {
        Ok(left @ 1..) => words(left),
        _ => "expired".to_owned(),
    }
}

/// A span of time for people, in one unit.
pub(crate) fn words(seconds: u64) -> String {
    match seconds {
        ..120 => format!("{seconds} s"),
        120..7200 => format!("{} min", seconds / 60),
        7200..172_800 => format!("{} h", seconds / 3600),
        _ => format!("{} days", seconds / 86_400),
    }
}
