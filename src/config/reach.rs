//! Through which process a token is used: this one, a private child, or a key service that listens.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{FileType, stat};
use rustix::process::geteuid;

use super::{Config, FoundToken};
use crate::service::{Accounts, Ids, Launcher, Link};

/// Whether a token is used through the key service that listens.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Service {
    /// Where its socket is there, or the token belongs to the service's user.
    #[default]
    Auto,
    /// Never: in this process, or through a private child.
    Never,
    /// Always, or not at all.
    Always,
}

/// Where a token's key service is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Reach {
    /// Its socket; `None` where there is none to listen.
    pub socket: Option<PathBuf>,
    /// Whether the configuration names that socket.
    pub named: bool,
    /// What the service calls the token.
    pub name: String,
    /// The user that the service runs as, who owns its tokens.
    pub keeper: Option<u32>,
}

/// The ways to all key services that the configuration knows.
#[derive(Debug)]
pub struct Links {
    /// To a private child.
    private: Arc<Link>,
    /// To those that listen.
    sockets: Vec<(PathBuf, Arc<Link>)>,
}

impl Links {
    /// No process is started and nothing is connected before the first operation that needs it.
    pub fn new(config: &Config, launch: Launcher) -> Self {
        let mut sockets: Vec<(PathBuf, Arc<Link>)> = Vec::new();
        for layer in &config.layers {
            if let Some(socket) = &layer.socket
                && !sockets.iter().any(|(known, _)| known == socket)
            {
                let link = Link::to(socket.clone(), layer.keeper);
                sockets.push((socket.clone(), Arc::new(link)));
            }
        }
        Links {
            sockets,
            ..Links::private(config.devkeyd.clone(), launch)
        }
    }

    /// The way to a private child alone.
    pub fn private(devkeyd: PathBuf, launch: Launcher) -> Self {
        Links {
            private: Arc::new(Link::new(devkeyd, launch)),
            sockets: Vec::new(),
        }
    }

    /// The way to the service that listens at a socket of the configuration.
    pub fn at(&self, socket: &Path) -> Option<Arc<Link>> {
        let mut known = self.sockets.iter();
        known.find_map(|(path, link)| (path == socket).then(|| link.clone()))
    }

    /// All of them.
    pub fn all(&self) -> impl Iterator<Item = &Arc<Link>> {
        self.sockets
            .iter()
            .map(|(_, link)| link)
            .chain([&self.private])
    }

    /// How a token is reached that can (`here`) or cannot be used in this process: `None` for that,
    /// else the link, with the token's name for a service that knows it by that.
    pub(super) fn to<'t>(
        &self,
        token: &'t FoundToken,
        here: bool,
    ) -> Option<(Arc<Link>, Option<&'t str>)> {
        let reach = &token.reach;
        let listening = |socket: &&PathBuf| match token.service {
            Service::Never => false,
            Service::Always => true,
            Service::Auto => is_socket(socket) || (reach.named && !here) || token.is_kept(),
        };
        let socket = reach.socket.as_ref().filter(listening);
        match socket.and_then(|socket| self.at(socket)) {
            Some(link) => Some((link, Some(&reach.name))),
            None if here && token.service != Service::Always => None,
            None => Some((self.private.clone(), None)),
        }
    }
}

impl FoundToken {
    /// Whether this process may do anything with the token, as far as the configuration tells; the
    /// service decides. One that is used without it belongs to whoever can read it.
    pub fn is_permitted(&self) -> bool {
        let listening = match (self.service, &self.reach.socket) {
            (Service::Never, _) | (_, None) => false,
            (Service::Always, _) => true,
            (Service::Auto, Some(socket)) => is_socket(socket) || self.is_kept(),
        };
        let us = geteuid();
        if !listening || us.is_root() || self.reach.keeper == Some(us.as_raw()) {
            return true;
        }
        if self.of_user() {
            return true;
        }
        self.rules
            .allow_anything(&Ids::of_process(), &Accounts::read())
    }

    /// Whether its service alone has its keys, also while it does not listen: its directory belongs to the
    /// service's user, who is not this process's. Not even root uses what is another user's.
    fn is_kept(&self) -> bool {
        let kept = |keeper| {
            let owner = stat(&self.dir).map(|stat| stat.st_uid);
            keeper != geteuid().as_raw() && owner == Ok(keeper)
        };
        self.reach.keeper.is_some_and(kept)
    }

    /// Whether its directory is this process's user's own.
    fn of_user(&self) -> bool {
        stat(&self.dir).is_ok_and(|stat| stat.st_uid == geteuid().as_raw())
    }
}

fn is_socket(path: &Path) -> bool {
    stat(path).is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::Socket)
}
