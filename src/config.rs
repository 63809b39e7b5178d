//! Which tokens there are.
//!
//! A token is a directory with a `token` file in it. Tokens are found in the system's store and in
//! the user's; a configuration file may name other places, settings and tokens to leave out. With
//! no configuration at all the user's own store is looked at, so that `devkey init` just works.

mod environment;
mod file;
mod merged;
mod parts;
mod reach;
mod renew;
mod stores;

use std::path::{Path, PathBuf};
use std::sync::Arc;

pub use environment::Environment;
use file::NamedToken;
pub use file::Setting;
pub use file::parse;
use merged::Merged;
pub use merged::Offer;
pub use parts::parts_dir;
pub use reach::{Links, Reach, Service};
pub use renew::{Renew, parse_span};
use stores::{check_store, list, token_dirs, token_in};

use crate::error::{Error, Result};
use crate::provider::{BackEnd, Settings};
use crate::service::{Accounts, RemoteToken, Rules, TokenPlace, Who, open_store};
use crate::store::Store;
use crate::token::Token;

/// The system's configuration.
const SYSTEM_CONFIG: &str = "/etc/devkey/devkey.toml";
/// The system's store.
const SYSTEM_STORE: &str = "/var/lib/devkey";
/// Where the system's key service listens, unless the configuration says otherwise.
const SYSTEM_SOCKET: &str = "/run/devkey/socket";
/// The user that it runs as, unless the configuration says otherwise.
const SYSTEM_USER: &str = "devkeyd";
/// The group whose members may use the system's tokens, where the configuration says nothing of them.
const SYSTEM_GROUP: &str = "devkey";
/// The key service, unless the configuration names another.
const DEVKEYD: &str = match option_env!("DEVKEY_DEVKEYD_PATH") {
    Some(path) => path,
    None => "/usr/libexec/devkey/devkeyd",
};
/// Name of the token that is meant where none is named.
pub const DEFAULT_TOKEN: &str = "default";

/// The tokens of this process and how they are reached.
#[derive(Debug)]
pub struct Config {
    /// The configuration files that were read.
    pub files: Vec<PathBuf>,
    /// The stores that tokens are looked for in.
    pub stores: Vec<PathBuf>,
    /// Path of the key service.
    pub devkeyd: PathBuf,
    /// How certificates are renewed.
    pub renew: Renew,
    layers: Vec<Layer>,
}

/// What one configuration file says, or would say.
#[derive(Debug)]
struct Layer {
    store: Option<PathBuf>,
    named: Vec<NamedToken>,
    /// Whether it is the user's own, and not the system's.
    own: bool,
    /// Where the key service listens that serves what is its own.
    socket: Option<PathBuf>,
    /// The user that this service runs as.
    keeper: Option<u32>,
}

/// A token that was found.
#[derive(Debug, Clone, Default)]
pub struct FoundToken {
    /// Its name: that of its directory, or the one in the configuration.
    pub name: String,
    /// Its directory.
    pub dir: PathBuf,
    /// Settings from the configuration, which go before those of its record.
    pub settings: Vec<Setting>,
    /// Whether it is of the user's own configuration or store, and not of the system's.
    pub own: bool,
    /// Whether programs see it only through a module that is named after it.
    pub alone: bool,
    /// Whether it is used through the key service that listens.
    pub service: Service,
    /// Where that is.
    pub reach: Reach,
    /// Who may do what with it there.
    pub rules: Rules,
}

impl Config {
    /// Without any token.
    pub fn none() -> Self {
        Config {
            files: Vec::new(),
            stores: Vec::new(),
            devkeyd: PathBuf::from(DEVKEYD),
            renew: Renew::default(),
            layers: Vec::new(),
        }
    }

    /// Reads the configuration.
    ///
    /// # Errors
    /// [`Error::BadConfig`] with file and line.
    pub fn load(environment: &Environment) -> Result<Self> {
        let mut config = Config::none();
        if let Some(only) = &environment.config {
            config.read(only, true, None, true)?;
            return Ok(config);
        }
        config.read(
            Path::new(SYSTEM_CONFIG),
            false,
            Some(SYSTEM_STORE.into()),
            false,
        )?;
        let store = environment.data_home.as_ref();
        let store = store.map(|home| home.join("devkey"));
        match environment.user_config() {
            Some(user) => config.read(&user, false, store, true)?,
            None => config.add(store, file::Parsed::default(), true),
        }
        Ok(config)
    }

    /// All tokens, those that the configuration names first, the others in order of their names.
    /// Two may have one name; each has a directory of its own.
    pub fn tokens(&self) -> Vec<FoundToken> {
        let mut all = self.merged();
        for layer in &self.layers {
            let dirs = |store: &PathBuf| token_dirs(store, layer.keeper);
            for (name, dir) in layer.store.iter().flat_map(dirs) {
                if !all.iter().any(|known| known.token.dir == dir) {
                    all.push(Merged::found(name, dir, layer.own));
                }
            }
        }
        let there = all.into_iter().filter(|one| one.enabled && !one.is_offer());
        there.map(|one| self.placed(one.token)).collect()
    }

    /// The places where the configuration lets clients of the module make a token, and where none
    /// is yet.
    pub fn offers(&self) -> Vec<Offer> {
        let all = self.merged().into_iter();
        let offers = all.filter(|one| one.enabled && one.is_offer());
        let placed = offers.map(|one| {
            let offer = Offer::from(one);
            let token = self.placed(offer.token);
            Offer { token, ..offer }
        });
        placed.collect()
    }

    /// A token with what the file says of the key service whose own it is: the system's for what
    /// the system's file names and what is in its store.
    fn placed(&self, mut token: FoundToken) -> FoundToken {
        let owns = |layer: &&Layer| {
            let dir = Some(&*token.dir);
            let table = |table: &NamedToken| self.dir_of(layer, table).as_deref() == dir;
            layer.named.iter().any(table) || layer.store.as_deref() == token.dir.parent()
        };
        let Some(layer) = self.layers.iter().find(owns) else {
            return token;
        };
        let of_file = |table: &&NamedToken| self.dir_of(layer, table).as_ref() == Some(&token.dir);
        let named = layer.named.iter().find(of_file);
        let named = named.map(|table| table.name.clone());
        let by_dir = || Some(token.dir.file_name()?.to_str()?.to_owned());
        let system = !layer.own && layer.socket.as_deref() == Some(Path::new(SYSTEM_SOCKET));
        token.reach = Reach {
            socket: layer.socket.clone(),
            named: !system && layer.socket.is_some(),
            name: named.or_else(by_dir).unwrap_or_default(),
            keeper: layer.keeper,
        };
        if !layer.own && token.rules.token.use_by.is_none() {
            token.rules.token.use_by = Some(vec![Who::Group(SYSTEM_GROUP.to_owned())]);
        }
        token
    }

    /// What the tables say, those about the same directory joined.
    fn merged(&self) -> Vec<Merged> {
        let mut all = Vec::new();
        for (layer, table) in self.tables() {
            if let Some(dir) = self.dir_of(layer, table) {
                merged::join(&mut all, dir, layer.own, table);
            }
        }
        all
    }

    /// Those tokens that the configuration names and that are nowhere, each an error at its line.
    pub fn unplaced(&self) -> Vec<Error> {
        let tables = self.tables();
        let wanted =
            |table: &NamedToken| table.enabled != Some(false) && table.initialise != Some(true);
        let named = tables.filter(|(_, table)| wanted(table));
        let lost = named.filter(|(layer, table)| {
            let dir = self.dir_of(layer, table);
            !dir.is_some_and(|dir| Store::exists(&dir))
        });
        lost.map(|(_, table)| table.error(format!("there is no token {}", table.name)))
            .collect()
    }

    /// Why stores that are there are not used.
    pub fn unusable(&self) -> Vec<Error> {
        let unusable = |layer: &Layer| {
            let store = layer.store.as_ref()?;
            let usable = check_store(store, layer.keeper).and_then(|()| list(store));
            usable.err()
        };
        self.layers.iter().filter_map(unusable).collect()
    }

    /// Where a new token of that name would live: where the configuration says and none is yet,
    /// or in the user's store, or in the only one.
    pub fn place_for(&self, name: &str) -> Result<PathBuf> {
        check_name(name)?;
        let placed = self.tables().filter(|(_, table)| table.name == name);
        let free = |(layer, table): (&Layer, &NamedToken)| {
            let dir = table.directory.clone();
            dir.filter(|dir| layer.own || !Store::exists(dir))
        };
        if let Some(dir) = placed.filter_map(free).last() {
            return Ok(dir);
        }
        let nowhere = || Error::input("no place for a token: set HOME, or `store` in devkey.toml");
        let mut stores = self.layers.iter().rev();
        let place = stores.find_map(|layer| Some((layer.store.as_ref()?, layer.keeper)));
        let (store, keeper) = place.ok_or_else(nowhere)?;
        check_store(store, keeper)?;
        Ok(store.join(name))
    }

    /// A place of a new token of the system's, which its key service makes.
    ///
    /// # Errors
    /// [`Error::Exists`] where there is one of that name.
    pub fn system_place(&self, name: &str) -> Result<FoundToken> {
        check_name(name)?;
        let system = self.layers.iter().find(|layer| layer.socket.is_some());
        let nowhere =
            || Error::input("no key service listens for this configuration: name its `socket`");
        let layer = system.ok_or_else(nowhere)?;
        let table = layer.named.iter().find(|table| table.name == name);
        let placed = table.and_then(|table| table.directory.clone());
        let nowhere = || Error::input("no place for a token: name a `store` in devkey.toml");
        let in_store = || layer.store.as_ref().map(|store| store.join(name));
        let dir = placed.or_else(in_store).ok_or_else(nowhere)?;
        let mut token = Merged::found(name.to_owned(), dir, layer.own);
        if let Some(table) = table {
            token.heed(layer.own, table);
        }
        Ok(self.placed(token.token))
    }

    /// Whether a key service that `user` runs is one for others too: the system's, by its user.
    pub fn is_served_by(&self, user: u32) -> bool {
        let keeps = |layer: &Layer| layer.keeper == Some(user) || (!layer.own && user == 0);
        self.layers.iter().any(keeps)
    }

    /// Sockets of key services that listen, as the configuration has them.
    pub fn sockets(&self) -> Vec<&Path> {
        let sockets = self
            .layers
            .iter()
            .filter_map(|layer| layer.socket.as_deref());
        sockets.collect()
    }

    /// The same, each with the user that it runs as beside root, where that is known.
    pub fn services(&self) -> Vec<(&Path, Option<u32>)> {
        let layers = self.layers.iter();
        let services = layers.filter_map(|layer| Some((layer.socket.as_deref()?, layer.keeper)));
        services.collect()
    }

    fn tables(&self) -> impl Iterator<Item = (&Layer, &NamedToken)> {
        let layers = self.layers.iter();
        layers.flat_map(|layer| layer.named.iter().map(move |table| (layer, table)))
    }

    /// The token that a table is about: the one in its directory; without one, that of its name
    /// in the file's own store, else the one that another file says, else that of another store.
    fn dir_of(&self, layer: &Layer, table: &NamedToken) -> Option<PathBuf> {
        let name = &table.name;
        let elsewhere = || {
            let mut twins = self.tables().filter(|(_, other)| other.name == *name);
            twins.find_map(|(_, other)| other.directory.clone())
        };
        table
            .directory
            .clone()
            .or_else(|| token_in(layer, name))
            .or_else(elsewhere)
            .or_else(|| self.layers.iter().find_map(|layer| token_in(layer, name)))
            .or_else(|| {
                let offered = table.initialise == Some(true);
                offered.then(|| layer.store.as_ref().map(|store| store.join(name)))?
            })
    }

    fn read(&mut self, path: &Path, needed: bool, store: Option<PathBuf>, own: bool) -> Result<()> {
        let (mut parsed, files) = parts::read(path, needed)?;
        self.devkeyd = parsed
            .devkeyd
            .take()
            .unwrap_or(std::mem::take(&mut self.devkeyd));
        self.renew = std::mem::take(&mut parsed.renew).or(std::mem::take(&mut self.renew));
        self.files.extend(files);
        self.add(store, parsed, own);
        Ok(())
    }

    fn add(&mut self, store: Option<PathBuf>, parsed: file::Parsed, own: bool) {
        let store = parsed.store.or(store);
        self.stores.extend(store.clone());
        let system = |default: &str| (!own).then(|| default.to_owned());
        // Nobody's tokens are looked at where there are none.
        let there = || store.as_ref().is_some_and(|store| store.exists());
        let user = parsed
            .user
            .or_else(|| system(SYSTEM_USER).filter(|_| there()));
        self.layers.push(Layer {
            store,
            named: parsed.tokens,
            own,
            socket: parsed
                .socket
                .or_else(|| system(SYSTEM_SOCKET).map(PathBuf::from)),
            keeper: user.and_then(|user| Accounts::read().user(&user)),
        });
    }
}

impl FoundToken {
    /// Opens the token: in this process where its back end is registered here, else through a key
    /// service. Touches no device and starts no service.
    pub fn open(&self, back_ends: &[BackEnd], links: &Links) -> Result<Arc<dyn Token>> {
        let store = Store::kept(&self.dir, self.reach.keeper)?;
        let place = self.place(store.token().settings.clone());
        let name = &store.token().back_end;
        let here = |known: &BackEnd| known.name == *name && !(known.service)(&place.settings);
        match links.to(self, back_ends.iter().any(here)) {
            None => open_store(back_ends, store, &place),
            Some((link, None)) => Ok(Arc::new(RemoteToken::new(store, place, link))),
            Some((link, Some(name))) => Ok(Arc::new(RemoteToken::named(store, name, &place, link))),
        }
    }

    /// The place, with the configuration's settings over those that are recorded.
    pub fn place(&self, recorded: Settings) -> TokenPlace {
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

#[cfg(test)]
mod tests {
    use std::fs::{self, Permissions};
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    /// A system's and a user's configuration and store, with a token in each for each name.
    fn two(home: &Path, names: &[&str], system: &str, user: &str) -> Config {
        let mut config = Config {
            files: Vec::new(),
            stores: Vec::new(),
            devkeyd: PathBuf::new(),
            renew: Renew::default(),
            layers: Vec::new(),
        };
        for (of, text, own) in [("system", system, false), ("user", user, true)] {
            for name in names {
                fs::create_dir_all(home.join(of).join(name)).unwrap();
                fs::write(home.join(of).join(name).join("token"), "").unwrap();
            }
            let path = home.join(format!("{of}.toml"));
            fs::write(&path, text).unwrap();
            fs::set_permissions(&path, Permissions::from_mode(0o600)).unwrap();
            config.read(&path, true, Some(home.join(of)), own).unwrap();
        }
        config
    }

    /// Name, place below `home` and settings of each token.
    fn seen(config: &Config, home: &Path) -> Vec<String> {
        let line = |token: FoundToken| {
            let dir = token.dir.strip_prefix(home).unwrap().display().to_string();
            let settings = token
                .settings
                .iter()
                .map(|s| format!(" {}={}", s.name, s.value));
            format!("{} {dir}{}", token.name, settings.collect::<String>())
        };
        config.tokens().into_iter().map(line).collect()
    }

    /// Seen to fail with `known.name == name` for `known.dir == dir` in `tokens`.
    #[test]
    fn tokens_of_one_name_are_both_listed() {
        let home = tempfile::tempdir().unwrap();
        let config = two(home.path(), &["a"], "", "");
        assert_eq!(seen(&config, home.path()), ["a system/a", "a user/a"]);
        let own: Vec<bool> = config.tokens().iter().map(|token| token.own).collect();
        assert_eq!(own, [false, true]);
        assert_eq!(config.place_for("b").unwrap(), home.path().join("user/b"));
    }

    /// Seen to fail with `enabled` and with `settings` left as they are in `apply`.
    #[test]
    fn the_users_file_goes_before_the_systems_key_by_key() {
        let home = tempfile::tempdir().unwrap();
        let far = home.path().join("far");
        let system = format!("[token.x]\ndirectory = {far:?}\nt = '1'\nu = '2'\n");
        let config = two(home.path(), &[], &system, "[token.x]\nt = '3'\n");
        assert_eq!(seen(&config, home.path()), ["x far u=2 t=3"]);
        let config = two(home.path(), &[], &system, "[token.x]\nenabled = false\n");
        assert_eq!(seen(&config, home.path()), [""; 0]);
        let renamed = format!("[token.y]\ndirectory = {far:?}\n");
        let config = two(home.path(), &[], &system, &renamed);
        assert_eq!(seen(&config, home.path()), ["y far t=1 u=2"]);
    }

    /// Seen to fail with `alone`, `initialise` and `back_end` left out of `heed`, each by itself; without
    /// `is_offer` in `tokens`; and without the last `or_else` of `dir_of`.
    #[test]
    fn a_token_is_offered_until_it_is_there() {
        let home = tempfile::tempdir().unwrap();
        let system = "[token.a]\nalone = true\n[token.b]\ninitialise = true\n";
        let user = "[token.b]\ninitialise = true\nback_end = 'tpm'\ntcti = 'x'\n\
                    [token.a]\ninitialise = true\n";
        let config = two(home.path(), &["a"], system, user);
        assert_eq!(seen(&config, home.path()), ["a system/a", "a user/a"]);
        let alone: Vec<bool> = config.tokens().iter().map(|token| token.alone).collect();
        assert_eq!(alone, [true, false]);
        let offers = |config: &Config| {
            let offers = config.offers().into_iter();
            let dir = |token: &FoundToken| token.dir.strip_prefix(home.path()).unwrap().to_owned();
            let line = |o: Offer| format!("{} {}", dir(&o.token).display(), o.back_end);
            offers.map(line).collect::<Vec<_>>()
        };
        assert_eq!(offers(&config), ["system/b file", "user/b tpm"]);
        assert!(config.unplaced().is_empty());
        fs::create_dir_all(home.path().join("user/b")).unwrap();
        fs::write(home.path().join("user/b/token"), "").unwrap();
        // Any token of that name will do, as it does for other tables without a directory.
        assert_eq!(offers(&config), [""; 0]);
        let last = ["a system/a", "b user/b tcti=x", "a user/a"];
        assert_eq!(seen(&config, home.path()), last);
        // The user's word goes before the system's.
        let far = home.path().join("far");
        let system = format!("[token.c]\ndirectory = {far:?}\ninitialise = true\nalone = true\n");
        let user = "[token.c]\ninitialise = false\nalone = false\n";
        let config = two(home.path(), &[], &system, user);
        assert_eq!(offers(&config), [""; 0]);
        assert_eq!(config.unplaced().len(), 1);
    }

    /// Seen to fail without the file's own store in `dir_of`.
    #[test]
    fn a_table_is_about_the_token_of_its_own_files_store() {
        let home = tempfile::tempdir().unwrap();
        let off = "[token.a]\nenabled = false\n";
        let config = two(home.path(), &["a"], "", off);
        assert_eq!(seen(&config, home.path()), ["a system/a"]);
        let config = two(home.path(), &["a"], off, "");
        assert_eq!(seen(&config, home.path()), ["a user/a"]);
        fs::remove_dir_all(home.path().join("user")).unwrap();
        let config = two(home.path(), &[], "", off);
        assert_eq!(seen(&config, home.path()), [""; 0]);
    }

    /// Seen to fail with `check_store` taken out of `token_in`, and out of `token_dirs`.
    #[test]
    fn a_store_that_others_can_write_is_not_used() {
        let home = tempfile::tempdir().unwrap();
        let config = two(home.path(), &["a"], "", "[token.a]\n");
        let (system, user) = (home.path().join("system"), home.path().join("user"));
        let mode = |dir, mode| fs::set_permissions(dir, Permissions::from_mode(mode)).unwrap();
        mode(&user, 0o770);
        assert_eq!(seen(&config, home.path()), ["a system/a"]);
        let [Error::Refused { path, reason }] = &*config.unusable() else {
            panic!("{:?}", config.unusable());
        };
        assert_eq!((path, reason.contains("chmod go-w")), (&user, true));
        assert!(config.place_for("b").is_err());
        mode(&system, 0o777);
        assert_eq!(seen(&config, home.path()), [""; 0]);
        assert_eq!(config.unplaced().len(), 1);
    }
}
