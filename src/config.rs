//! Which tokens there are.
//!
//! A token is a directory with a `token` file in it. Tokens are found in the system's store and in
//! the user's; a configuration file may name other places, settings and tokens to leave out. With
//! no configuration at all the user's own store is looked at, so that `devkey init` just works.

mod file;

use std::collections::HashSet;
use std::env;
use std::path::{Path, PathBuf};
use std::sync::Arc;

pub use file::Setting;

use crate::error::{Error, Result};
use crate::provider::{BackEnd, Settings};
use crate::service::{Link, RemoteToken, TokenPlace, open_store};
use crate::store::Store;
use crate::token::Token;

/// The system's configuration.
const SYSTEM_CONFIG: &str = "/etc/devkey/devkey.toml";
/// The system's store.
const SYSTEM_STORE: &str = "/var/lib/devkey";
/// The key service, unless the configuration names another.
const DEVKEYD: &str = match option_env!("DEVKEY_DEVKEYD_PATH") {
    Some(path) => path,
    None => "/usr/libexec/devkey/devkeyd",
};
/// Name of the token that is meant where none is named.
pub const DEFAULT_TOKEN: &str = "default";

/// What a process says of where its configuration is.
#[derive(Debug, Clone, Default)]
pub struct Environment {
    /// The one configuration to use (`DEVKEY_CONFIG`).
    pub config: Option<PathBuf>,
    /// `$XDG_CONFIG_HOME`, by default `~/.config`.
    pub config_home: Option<PathBuf>,
    /// `$XDG_DATA_HOME`, by default `~/.local/share`.
    pub data_home: Option<PathBuf>,
}

impl Environment {
    /// Reads the process's environment; nothing of it where `secure` says that the process runs
    /// with rights that its caller has not (AT_SECURE, getauxval(3)).
    pub fn of_process(secure: bool) -> Self {
        if secure {
            return Environment::default();
        }
        // The XDG specification has relative paths ignored.
        let path = |name| {
            env::var_os(name)
                .map(PathBuf::from)
                .filter(|p| p.is_absolute())
        };
        let home = path("HOME");
        let under_home = |tail: &str| home.as_ref().map(|home| home.join(tail));
        Environment {
            config: env::var_os("DEVKEY_CONFIG")
                .filter(|path| !path.is_empty())
                .map(PathBuf::from),
            config_home: path("XDG_CONFIG_HOME").or_else(|| under_home(".config")),
            data_home: path("XDG_DATA_HOME").or_else(|| under_home(".local/share")),
        }
    }

    /// The configuration files that are looked for.
    pub fn config_files(&self) -> Vec<PathBuf> {
        match &self.config {
            Some(only) => vec![only.clone()],
            None => [PathBuf::from(SYSTEM_CONFIG)]
                .into_iter()
                .chain(self.user_config())
                .collect(),
        }
    }

    fn user_config(&self) -> Option<PathBuf> {
        let home = self.config_home.as_ref()?;
        Some(home.join("devkey/devkey.toml"))
    }
}

/// The tokens of this process and how they are reached.
#[derive(Debug)]
pub struct Config {
    /// The configuration files that were read.
    pub files: Vec<PathBuf>,
    /// The stores that tokens are looked for in.
    pub stores: Vec<PathBuf>,
    /// Path of the key service.
    pub devkeyd: PathBuf,
    named: Vec<file::NamedToken>,
}

/// A token that was found.
#[derive(Debug, Clone)]
pub struct FoundToken {
    /// Its name: that of its directory, or the one in the configuration.
    pub name: String,
    /// Its directory.
    pub dir: PathBuf,
    /// Settings from the configuration, which go before those of its record.
    pub settings: Vec<Setting>,
}

impl Config {
    /// Reads the configuration.
    ///
    /// # Errors
    /// [`Error::BadConfig`] with file and line.
    pub fn load(environment: &Environment) -> Result<Self> {
        let mut config = Config {
            files: Vec::new(),
            stores: Vec::new(),
            devkeyd: PathBuf::from(DEVKEYD),
            named: Vec::new(),
        };
        if let Some(only) = &environment.config {
            config.read(only, None)?;
            return Ok(config);
        }
        config.read_if_there(Path::new(SYSTEM_CONFIG), Some(Path::new(SYSTEM_STORE)))?;
        let store = environment
            .data_home
            .as_ref()
            .map(|home| home.join("devkey"));
        match environment.user_config() {
            Some(user) => config.read_if_there(&user, store.as_deref())?,
            None => config.stores.extend(store),
        }
        Ok(config)
    }

    /// All tokens, those that the configuration names first, the others in order of their names.
    pub fn tokens(&self) -> Vec<FoundToken> {
        let mut found: Vec<FoundToken> = Vec::new();
        let placed = self.named.iter().filter(|token| token.enabled);
        for token in placed {
            let dir = token
                .directory
                .clone()
                .or_else(|| self.find_dir(&token.name));
            found.extend(dir.map(|dir| FoundToken {
                name: token.name.clone(),
                dir,
                settings: token.settings.clone(),
            }));
        }
        let mut names: HashSet<String> =
            self.named.iter().map(|token| token.name.clone()).collect();
        for store in &self.stores {
            for name in token_dirs(store) {
                if names.insert(name.clone()) {
                    found.push(FoundToken {
                        dir: store.join(&name),
                        name,
                        settings: Vec::new(),
                    });
                }
            }
        }
        found
    }

    /// Those tokens that the configuration names and that are nowhere, each an error at its line.
    pub fn unplaced(&self) -> Vec<Error> {
        let lost = |token: &&file::NamedToken| match &token.directory {
            Some(dir) => !Store::exists(dir),
            None => self.find_dir(&token.name).is_none(),
        };
        let named = self.named.iter().filter(|token| token.enabled);
        named
            .filter(lost)
            .map(|token| token.error(format!("there is no token {}", token.name)))
            .collect()
    }

    /// Where a new token of that name would live: the user's store, or the only one.
    pub fn place_for(&self, name: &str) -> Result<PathBuf> {
        check_name(name)?;
        let named = self.named.iter().find(|token| token.name == name);
        if let Some(dir) = named.and_then(|token| token.directory.clone()) {
            return Ok(dir);
        }
        let store = self.stores.last();
        let nowhere = || Error::input("no place for a token: set HOME, or `store` in devkey.toml");
        Ok(store.ok_or_else(nowhere)?.join(name))
    }

    fn find_dir(&self, name: &str) -> Option<PathBuf> {
        let dirs = self.stores.iter().map(|store| store.join(name));
        dirs.into_iter().find(|dir| Store::exists(dir))
    }

    fn read_if_there(&mut self, path: &Path, store: Option<&Path>) -> Result<()> {
        match path.symlink_metadata() {
            Ok(_) => self.read(path, store),
            Err(_) => {
                self.stores.extend(store.map(Path::to_owned));
                Ok(())
            }
        }
    }

    fn read(&mut self, path: &Path, store: Option<&Path>) -> Result<()> {
        let parsed = file::read(path)?;
        self.stores
            .extend(parsed.store.or(store.map(Path::to_owned)));
        self.devkeyd = parsed.devkeyd.unwrap_or(std::mem::take(&mut self.devkeyd));
        self.named.extend(parsed.tokens);
        self.files.push(path.to_owned());
        Ok(())
    }
}

impl FoundToken {
    /// Opens the token: in this process where its back end is registered here, else through the
    /// key service. Touches no device and starts no service.
    pub fn open(&self, back_ends: &[BackEnd], link: &Arc<Link>) -> Result<Arc<dyn Token>> {
        let store = Store::open(&self.dir)?;
        let place = self.place(store.token().settings.clone());
        let name = &store.token().back_end;
        match back_ends.iter().any(|known| known.name == *name) {
            true => open_store(back_ends, store, &place),
            false => Ok(Arc::new(RemoteToken::new(store, place, link.clone()))),
        }
    }

    /// The place, with the configuration's settings over those that are recorded.
    fn place(&self, recorded: Settings) -> TokenPlace {
        let mut place = TokenPlace {
            dir: self.dir.clone(),
            settings: recorded,
            ..TokenPlace::default()
        };
        for Setting {
            name,
            value,
            origin,
        } in self.settings.clone()
        {
            place.settings.insert(name.clone(), value);
            place.origins.insert(name, origin);
        }
        place
    }
}

/// Checks a token's name: what can be a directory and a file's name in any shell.
pub fn check_name(name: &str) -> Result<()> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    if name.is_empty()
        || name.len() > 32
        || name.starts_with(['.', '-'])
        || !name.chars().all(allowed)
    {
        return Err(Error::input(format!(
            "{name:?} cannot name a token: use up to 32 letters, digits, '-', '_' and '.'"
        )));
    }
    Ok(())
}

/// The names of a store's tokens, sorted. A store that cannot be read has none; it is said why.
fn token_dirs(store: &Path) -> Vec<String> {
    let entries = match std::fs::read_dir(store) {
        Ok(entries) => entries,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Vec::new(),
        Err(e) => {
            log::warn!("{}: {e}", store.display());
            return Vec::new();
        }
    };
    let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    let mut names: Vec<String> = names
        .filter(|name| check_name(name).is_ok() && Store::exists(&store.join(name)))
        .collect();
    names.sort_unstable();
    names
}
