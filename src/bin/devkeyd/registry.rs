//! The tokens of a service that listens: those of its configuration that are its user's own.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use devkey::config::{Config, FoundToken};
use devkey::provider::BackEnd;
use devkey::service::protocol::ARRIVAL;
use devkey::service::{
    Accounts, Audience, Client, Granted, NO_KEY, NewToken, Right, TokenPlace, Tokens, Wanted,
    known, open_views,
};
use devkey::store::Store;
use devkey::token::{LocalToken, Pin, Pins, Token, TokenRequest};
use devkey::{Error, Result};
use rustix::fs::stat;
use rustix::process::geteuid;

use super::quiet::Quiet;

/// The tokens, opened when they are first asked for and once for all clients.
pub(super) struct Registry {
    config: Config,
    accounts: Arc<Accounts>,
    back_ends: &'static [BackEnd],
    open: Mutex<HashMap<PathBuf, Arc<LocalToken>>>,
    ending: AtomicBool,
    quiet: Quiet,
}

impl Registry {
    pub(super) fn new(config: Config, back_ends: &'static [BackEnd]) -> Self {
        Registry {
            config,
            accounts: Arc::new(Accounts::read()),
            back_ends,
            open: Mutex::default(),
            ending: AtomicBool::new(false),
            quiet: Quiet::default(),
        }
    }

    /// Whether anybody but root and our own user may do anything.
    pub(super) fn audience(&self) -> Audience {
        let mut all = self.own();
        let served = self.config.is_served_by(geteuid().as_raw());
        match served || all.any(|token| token.rules.name_somebody()) {
            true => Audience::Everyone,
            false => Audience::Own,
        }
    }

    /// Closes all tokens, with what their devices hold for them: at the end.
    pub(super) fn close(&self) {
        // Who asks from here on is not told that a device is gone, for the next service has it.
        self.ending.store(true, Ordering::Release);
        #[cfg(feature = "tpm")]
        devkey::backends::tpm::close();
        self.tokens().clear();
    }

    /// Whether one more line about a user's connections may be written.
    pub(super) fn lets_say(&self, user: u32) -> bool {
        self.quiet.lets_say(user)
    }

    /// Those whose directories are our own: nobody else's keys are to be used through us.
    fn own(&self) -> impl Iterator<Item = FoundToken> {
        let ours = |token: &FoundToken| {
            stat(&token.dir).is_ok_and(|stat| stat.st_uid == geteuid().as_raw())
        };
        self.config.tokens().into_iter().filter(ours)
    }

    fn tokens(&self) -> std::sync::MutexGuard<'_, HashMap<PathBuf, Arc<LocalToken>>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A token, opened anew where it is not the one any more that was opened before.
    fn view(&self, found: &FoundToken) -> Result<LocalToken> {
        let store = Store::open(&found.dir)?;
        let mut tokens = self.tokens();
        if let Some(known) = tokens.get(&found.dir)
            && known.store().token() == store.token()
        {
            return Ok(known.view());
        }
        let place = found.place(store.token().settings.clone());
        let opened = Arc::new(open_views(self.back_ends, store, &place)?);
        let view = opened.view();
        tokens.insert(found.dir.clone(), opened);
        Ok(view)
    }

    fn create_place(&self, wanted: &Wanted, client: &Client) -> Result<FoundToken> {
        let place = self.config.system_place(&wanted.name)?;
        let master = client.is_master();
        let allowed = master
            || place
                .rules
                .allow(Right::Manage, NO_KEY, &client.ids, &self.accounts);
        let reason = match (allowed, wanted.settings.is_empty()) {
            (false, _) => "only root, and whom `manage` of the token's table names, may make it",
            // They name files and devices that the service would open.
            (true, false) if !master => "only root may give settings; put them into devkey.toml",
            _ => return Ok(place),
        };
        Err(Error::Refused {
            path: place.dir,
            reason: reason.to_owned(),
        })
    }
}

impl Tokens for Registry {
    fn rest(&self) {
        while self.ending.load(Ordering::Acquire) {
            thread::park();
        }
    }

    fn arrival(&self) -> Option<Duration> {
        Some(ARRIVAL)
    }

    fn open(&self, place: &TokenPlace) -> Result<Granted> {
        Err(Error::NotFound(format!(
            "a token at {}",
            place.dir.display()
        )))
    }

    fn create(&self, new: &NewToken, _: &Pin) -> Result<()> {
        Err(Error::unsupported(format!(
            "making a token at {}",
            new.place.dir.display()
        )))
    }

    fn find(&self, name: &str, client: &Client) -> Result<Granted> {
        let missing = || Error::NotFound(format!("token {name}, in the key service,"));
        let found = self.own().find(|token| token.reach.name == name);
        let found = found.ok_or_else(missing)?;
        let master = client.is_master();
        if !master && !found.rules.allow_anything(&client.ids, &self.accounts) {
            if self.lets_say(client.ids.user) {
                log::info!(target: devkey::service::AUDIT, "token={name:?} do=find {client} result=\"refused\"");
            }
            return Err(missing());
        }
        Ok(Granted {
            token: Arc::new(self.view(&found)?),
            name: name.to_owned(),
            rules: (!master).then(|| (found.rules.clone(), self.accounts.clone())),
        })
    }

    fn make(
        &self,
        wanted: &Wanted,
        user: Option<&Pin>,
        so: Option<&Pin>,
        client: &Client,
    ) -> Result<()> {
        let place = self.create_place(wanted, client)?;
        let back_end = known(self.back_ends, &wanted.back_end)?;
        let settings = place.place(wanted.settings.clone()).settings;
        let pins = (user.is_some() || so.is_some()).then_some(Pins {
            user,
            so,
            tries: wanted.tries,
        });
        let request = TokenRequest {
            dir: &place.dir,
            label: &wanted.label,
            settings,
            pins,
        };
        LocalToken::create_as(back_end, &request, true).map(drop)
    }
}
