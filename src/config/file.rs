//! One configuration file, docs/devkey.toml.md.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::time::Duration;

use toml::Spanned;
use toml::de::{DeString, DeTable, DeValue};

use super::renew::{Renew, parse_span};
use super::{Service, check_name};
use crate::error::{Error, Result};
use crate::files::Dir;
use crate::provider::Origin;
use crate::service::{Grants, Rules, Who};

/// What a configuration file says.
#[derive(Debug, Default)]
pub(super) struct Parsed {
    pub(super) store: Option<PathBuf>,
    pub(super) devkeyd: Option<PathBuf>,
    pub(super) socket: Option<PathBuf>,
    pub(super) user: Option<String>,
    pub(super) tokens: Vec<NamedToken>,
    pub(super) renew: Renew,
}

impl Parsed {
    /// What a later file says goes before what was said until then.
    pub(super) fn heed(&mut self, later: Parsed) {
        self.store = later.store.or(self.store.take());
        self.devkeyd = later.devkeyd.or(self.devkeyd.take());
        self.socket = later.socket.or(self.socket.take());
        self.user = later.user.or(self.user.take());
        self.renew = later.renew.or(std::mem::take(&mut self.renew));
        for table in later.tokens {
            match self.tokens.iter_mut().find(|one| one.name == table.name) {
                Some(known) => known.heed(table),
                None => self.tokens.push(table),
            }
        }
    }
}

/// A `[token.NAME]` table.
#[derive(Debug)]
pub(super) struct NamedToken {
    pub(super) name: String,
    pub(super) directory: Option<PathBuf>,
    pub(super) enabled: Option<bool>,
    pub(super) alone: Option<bool>,
    pub(super) initialise: Option<bool>,
    pub(super) back_end: Option<String>,
    pub(super) service: Option<Service>,
    pub(super) rules: Rules,
    pub(super) settings: Vec<Setting>,
    path: PathBuf,
    line: usize,
}

impl NamedToken {
    fn heed(&mut self, later: NamedToken) {
        self.directory = later.directory.or(self.directory.take());
        self.enabled = later.enabled.or(self.enabled);
        self.alone = later.alone.or(self.alone);
        self.initialise = later.initialise.or(self.initialise);
        self.back_end = later.back_end.or(self.back_end.take());
        self.service = later.service.or(self.service);
        self.rules.heed(&later.rules);
        heed_settings(&mut self.settings, &later.settings);
    }

    /// An error that points at the table.
    pub(super) fn error(&self, reason: impl Into<String>) -> Error {
        Error::BadConfig {
            path: self.path.clone(),
            line: self.line,
            reason: reason.into(),
        }
    }
}

/// A setting for a back end, and where it stands.
#[derive(Debug, Clone)]
pub struct Setting {
    /// Its name.
    pub name: String,
    /// Its value.
    pub value: String,
    /// The file and the line.
    pub origin: Origin,
}

/// What is said later of a setting goes before what was said until then.
pub(super) fn heed_settings(settings: &mut Vec<Setting>, later: &[Setting]) {
    settings.retain(|known| later.iter().all(|setting| setting.name != known.name));
    settings.extend_from_slice(later);
}

/// A file's text, to find lines in.
struct Source<'a> {
    path: &'a Path,
    text: &'a str,
}

/// Reads a file that only its owner can write: it says which program runs as the key service.
pub(super) fn read(path: &Path) -> Result<Parsed> {
    let real = path
        .canonicalize()
        .map_err(|e| Error::io(format!("reading {}", path.display()), e))?;
    let (Some(dir), Some(name)) = (real.parent(), real.file_name().and_then(|n| n.to_str())) else {
        return Err(Error::input(format!("{} is no file", path.display())));
    };
    let (bytes, _) = Dir::open(dir)?.read(name)?;
    let text = String::from_utf8(bytes).map_err(|_| Error::BadConfig {
        path: path.to_owned(),
        line: 0,
        reason: "not UTF-8 text".into(),
    })?;
    Source { path, text: &text }.parse()
}

/// Checks the text of a configuration.
///
/// # Errors
/// [`Error::BadConfig`] with the line.
pub fn parse(text: &str) -> Result<()> {
    let path = Path::new("devkey.toml");
    Source { path, text }.parse().map(drop)
}

impl Source<'_> {
    fn parse(&self) -> Result<Parsed> {
        let table = DeTable::parse(self.text)
            .map_err(|e| self.error(e.span().unwrap_or_default(), e.message()))?;
        let mut parsed = Parsed::default();
        for (key, value) in table.get_ref() {
            match key.get_ref().as_ref() {
                "store" => parsed.store = Some(self.absolute(value)?),
                "devkeyd" => parsed.devkeyd = Some(self.absolute(value)?),
                "socket" => parsed.socket = Some(self.absolute(value)?),
                "user" => parsed.user = Some(self.string(value)?.to_owned()),
                "token" => parsed.tokens = self.tokens(value)?,
                "renew" => parsed.renew = self.renew(value)?,
                other => {
                    let reason = format!(
                        "unknown key {other:?}; known: store, devkeyd, socket, user, token, renew"
                    );
                    return Err(self.error(key.span(), reason));
                }
            }
        }
        Ok(parsed)
    }

    fn tokens(&self, value: &Spanned<DeValue<'_>>) -> Result<Vec<NamedToken>> {
        let mut tokens = Vec::new();
        for (name, value) in self.table(value)? {
            check_name(name.get_ref()).map_err(|e| self.error(name.span(), e.to_string()))?;
            tokens.push(self.token(name, value)?);
        }
        Ok(tokens)
    }

    fn token(
        &self,
        name: &Spanned<DeString<'_>>,
        value: &Spanned<DeValue<'_>>,
    ) -> Result<NamedToken> {
        let mut token = NamedToken {
            name: name.get_ref().clone().into_owned(),
            directory: None,
            enabled: None,
            alone: None,
            initialise: None,
            back_end: None,
            service: None,
            rules: Rules::default(),
            settings: Vec::new(),
            path: self.path.to_owned(),
            line: self.line(name.span()),
        };
        for (key, value) in self.table(value)? {
            match key.get_ref().as_ref() {
                "directory" => token.directory = Some(self.absolute(value)?),
                "enabled" => token.enabled = Some(self.boolean(value)?),
                "alone" => token.alone = Some(self.boolean(value)?),
                "initialise" => token.initialise = Some(self.boolean(value)?),
                "back_end" => token.back_end = Some(self.string(value)?.to_owned()),
                "service" => token.service = Some(self.service(value)?),
                "use" => token.rules.token.use_by = Some(self.whom(value)?),
                "manage" => token.rules.token.manage_by = Some(self.whom(value)?),
                "key" => token.rules.keys = self.keys(value)?,
                setting => token.settings.push(Setting {
                    name: setting.to_owned(),
                    value: self.string(value)?.to_owned(),
                    origin: Origin {
                        path: self.path.to_owned(),
                        line: self.line(key.span()),
                    },
                }),
            }
        }
        Ok(token)
    }

    fn service(&self, value: &Spanned<DeValue<'_>>) -> Result<Service> {
        match self.string(value)? {
            "auto" => Ok(Service::Auto),
            "never" => Ok(Service::Never),
            "always" => Ok(Service::Always),
            _ => Err(self.error(value.span(), "auto, never or always is wanted")),
        }
    }

    fn keys(&self, value: &Spanned<DeValue<'_>>) -> Result<BTreeMap<String, Grants>> {
        let mut keys = BTreeMap::new();
        for (name, value) in self.table(value)? {
            keys.insert(name.get_ref().clone().into_owned(), self.grants(value)?);
        }
        Ok(keys)
    }

    fn grants(&self, value: &Spanned<DeValue<'_>>) -> Result<Grants> {
        let mut grants = Grants::default();
        for (key, value) in self.table(value)? {
            match key.get_ref().as_ref() {
                "use" => grants.use_by = Some(self.whom(value)?),
                "manage" => grants.manage_by = Some(self.whom(value)?),
                other => {
                    let reason = format!("unknown right {other:?}; known: use, manage");
                    return Err(self.error(key.span(), reason));
                }
            }
        }
        Ok(grants)
    }

    fn whom(&self, value: &Spanned<DeValue<'_>>) -> Result<Vec<Who>> {
        let wrong = |span| self.error(span, r#"a list is wanted: ["user", "%group"]"#);
        let list = value.get_ref().as_array();
        let list = list.ok_or_else(|| wrong(value.span()))?.iter();
        let who = |one: &Spanned<DeValue<'_>>| {
            let named = one.get_ref().as_str().and_then(Who::parse);
            named.ok_or_else(|| wrong(one.span()))
        };
        list.map(who).collect()
    }

    fn renew(&self, value: &Spanned<DeValue<'_>>) -> Result<Renew> {
        let mut renew = Renew::default();
        for (key, value) in self.table(value)? {
            match key.get_ref().as_ref() {
                "command" => renew.command = Some(self.string(value)?.to_owned()),
                "after" => renew.after = Some(self.string(value)?.to_owned()),
                "within" => renew.within = Some(self.span(value)?),
                "timeout" => renew.timeout = Some(self.span(value)?),
                "ca" => renew.ca = Some(self.absolute(value)?),
                "ssh_ca" => renew.ssh_ca = Some(self.absolute(value)?),
                other => {
                    let reason = format!(
                        "unknown key {other:?}; known: command, after, within, timeout, ca, ssh_ca"
                    );
                    return Err(self.error(key.span(), reason));
                }
            }
        }
        Ok(renew)
    }

    fn span(&self, value: &Spanned<DeValue<'_>>) -> Result<Duration> {
        parse_span(self.string(value)?).map_err(|e| self.error(value.span(), e.to_string()))
    }

    fn table<'t, 'i>(&self, value: &'t Spanned<DeValue<'i>>) -> Result<&'t DeTable<'i>> {
        let wrong = || self.error(value.span(), "a table is wanted: [token.NAME], [renew]");
        value.get_ref().as_table().ok_or_else(wrong)
    }

    fn string<'t>(&self, value: &'t Spanned<DeValue<'_>>) -> Result<&'t str> {
        let wrong = || self.error(value.span(), "a string is wanted, in quotes");
        value.get_ref().as_str().ok_or_else(wrong)
    }

    fn boolean(&self, value: &Spanned<DeValue<'_>>) -> Result<bool> {
        let wrong = || self.error(value.span(), "true or false is wanted");
        value.get_ref().as_bool().ok_or_else(wrong)
    }

    fn absolute(&self, value: &Spanned<DeValue<'_>>) -> Result<PathBuf> {
        let path = PathBuf::from(self.string(value)?);
        match path.is_absolute() {
            true => Ok(path),
            false => Err(self.error(value.span(), "an absolute path is wanted")),
        }
    }

    fn error(&self, span: Range<usize>, reason: impl Into<String>) -> Error {
        Error::BadConfig {
            path: self.path.to_owned(),
            line: self.line(span),
            reason: reason.into(),
        }
    }

    /// The line, from 1, in which a span starts.
    fn line(&self, span: Range<usize>) -> usize {
        let before = self.text.as_bytes().get(..span.start).unwrap_or_default();
        before.iter().filter(|byte| **byte == b'\n').count() + 1
    }
}
