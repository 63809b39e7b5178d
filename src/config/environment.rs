//! Where a process has its configuration looked for.

use std::env;
use std::path::PathBuf;

use super::SYSTEM_CONFIG;

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

    pub(super) fn user_config(&self) -> Option<PathBuf> {
        let home = self.config_home.as_ref()?;
        Some(home.join("devkey/devkey.toml"))
    }
}
