//! The tokens of this process: found by configuration, opened with the registered back ends.

use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::Arc;
use std::{fs, io};

use devkey::config::{Config, DEFAULT_TOKEN, Environment, FoundToken, Links, Service, check_name};
use devkey::service::Link;
use devkey::token::Token;
use devkey::{Error, Result as LibraryResult};
use rustix::process::{getegid, geteuid, getgid, getuid};

use crate::BACK_ENDS;
use crate::failure::{Failure, Result};

/// A token and where it was found.
pub(crate) type OpenToken = (FoundToken, Arc<dyn Token>);

/// The configuration, and the means to open what it names.
#[derive(Debug)]
pub(crate) struct Tokens {
    pub(crate) environment: Environment,
    pub(crate) config: Config,
    links: Links,
}

impl Tokens {
    /// Reads the configuration.
    pub(crate) fn load() -> Result<Self> {
        let environment = environment();
        let config = Config::load(&environment)?;
        Ok(Tokens {
            links: Links::new(&config, no_child),
            environment,
            config,
        })
    }

    /// The token of that name, the user's own before the system's; without a name the only one, or
    /// the one called "default".
    pub(crate) fn find(&self, name: Option<&str>) -> Result<FoundToken> {
        let found = self.permitted();
        let names: Vec<&str> = found.iter().map(|token| token.name.as_str()).collect();
        let listed = names.join(", ");
        let wanted = match (name, names.as_slice()) {
            (Some(name), _) => name,
            (None, [only]) => only,
            (None, _) => DEFAULT_TOKEN,
        };
        let of_name = || found.iter().filter(|token| token.name == wanted);
        if let Some(token) = of_name().find(|token| token.own).or(of_name().next()) {
            return Ok(token.clone());
        }
        Err(match (name, names.is_empty()) {
            (_, true) => Failure::new(
                Error::NotFound(name.map_or("any token".into(), |name| format!("token {name}"))),
                "make one: devkey init",
            ),
            (Some(name), false) => Failure::new(
                Error::NotFound(format!("token {name}")),
                format!("one of these: {listed}"),
            ),
            (None, false) => Failure::new(
                Error::input("several tokens, and none of them is called \"default\""),
                format!("name one of these: {listed}"),
            ),
        })
    }

    /// The way to the key service that has a token or is to make it.
    pub(crate) fn service_of(&self, found: &FoundToken) -> LibraryResult<Arc<Link>> {
        let socket = found.reach.socket.as_deref();
        let link = socket.and_then(|socket| self.links.at(socket));
        let nobody = || Error::input("no key service listens for this configuration");
        link.ok_or_else(nobody)
    }

    /// The tokens, without those that a key service has for others alone.
    fn permitted(&self) -> Vec<FoundToken> {
        let mut all = self.config.tokens();
        all.retain(FoundToken::is_permitted);
        all
    }

    /// The token to work with, opened.
    pub(crate) fn find_open(&self, name: Option<&str>) -> Result<OpenToken> {
        let found = self.find(name)?;
        let token = self.open(&found)?;
        Ok((found, token))
    }

    /// Opens a token. Touches no device.
    ///
    /// Without a service that listens it is opened here, for this command is a process of its own.
    pub(crate) fn open(&self, found: &FoundToken) -> LibraryResult<Arc<dyn Token>> {
        let mut back_ends = BACK_ENDS.to_vec();
        if !found.reach.named {
            back_ends.iter_mut().for_each(|one| one.service = |_| false);
        }
        let service = match found.reach.socket {
            Some(_) => found.service,
            None => Service::Never,
        };
        let found = FoundToken {
            service,
            ..found.clone()
        };
        found.open(&back_ends, &self.links)
    }

    /// Those tokens that can be opened, and why the others cannot.
    pub(crate) fn open_all(&self) -> (Vec<OpenToken>, Vec<Failure>) {
        let (mut open, mut problems) = (Vec::new(), Vec::new());
        for found in self.permitted() {
            match self.open(&found) {
                Ok(token) => open.push((found, token)),
                Err(e) => problems.push(e.into()),
            }
        }
        (open, problems)
    }
}

/// A token's name from the command line.
pub(crate) fn parse_name(name: &str) -> LibraryResult<String> {
    check_name(name).map(|()| name.to_owned())
}

/// The environment, of which nothing counts where the command runs with rights of another.
fn environment() -> Environment {
    Environment::of_process(is_secure())
}

/// AT_SECURE (getauxval(3)): set-user-ID, set-group-ID and file capabilities alike. Read as a file,
/// for rustix has it only in an interface that it does not keep stable. The kernel hides the file
/// from such a process; where there is no /proc, the ids must do.
pub(crate) fn is_secure() -> bool {
    const AT_SECURE: usize = 23;
    let word = |bytes: &[u8]| bytes.try_into().map_or(0, usize::from_ne_bytes);
    match fs::read("/proc/self/auxv") {
        Ok(auxv) => {
            let words: Vec<usize> = auxv.chunks(size_of::<usize>()).map(word).collect();
            words
                .chunks(2)
                .any(|pair| matches!(*pair, [AT_SECURE, yes] if yes != 0))
        }
        Err(e) if e.kind() == io::ErrorKind::PermissionDenied => true,
        Err(_) => getuid() != geteuid() || getgid() != getegid(),
    }
}

/// Reached only by a token whose back end this build has not.
fn no_child(_: &Path, _: OwnedFd) -> LibraryResult<()> {
    Err(Error::unsupported(
        "the token's back end is not in this build of devkey",
    ))
}
