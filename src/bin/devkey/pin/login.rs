//! Logging in for a command, and what to say where that fails.

use devkey::Error;
use devkey::provider::Tries;
use devkey::store::Role;
use devkey::token::{Pin, PinState, Token};

use super::prompt::Question;
use super::source::{HEADING, UserPin};
use crate::failure::{Failure, Result};

/// How a command that uses keys gets the user's PIN.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Access {
    #[command(flatten)]
    pin: UserPin,
    /// Use the last try too, which a device that counts keeps back
    #[arg(long, help_heading = HEADING)]
    last_try: bool,
}

impl Access {
    /// Logs the user in, where the token wants that; gives what he is to know besides.
    pub(crate) fn log_in(&self, token: &dyn Token, name: &str) -> Result<Option<String>> {
        if !token.store().token().pin {
            return match self.pin.named() {
                true => Err(pinless(name)),
                false => Ok(None),
            };
        }
        let who = Who::new(token, name, Role::User);
        who.can_log_in()?;
        let pin = self.pin.read(&who.question())?;
        who.log_in(&pin, self.last_try)?;
        let state = PinState::of(token.store(), Role::User)?;
        Ok(state
            .is_some_and(|state| state.to_be_changed)
            .then(|| format!("The PIN is to be changed: devkey pin change --token {name}")))
    }
}

/// A role of a token, and the token's name.
#[derive(Clone, Copy)]
pub(crate) struct Who<'a> {
    token: &'a dyn Token,
    name: &'a str,
    role: Role,
}

impl<'a> Who<'a> {
    pub(crate) fn new(token: &'a dyn Token, name: &'a str, role: Role) -> Self {
        Who { token, name, role }
    }

    /// Refuses before anybody is asked for a PIN that would be of no use.
    pub(crate) fn can_log_in(&self) -> Result<()> {
        if !self.token.store().token().pin {
            return Err(pinless(self.name));
        }
        match self.token.tries(self.role) {
            Ok(Tries { left: 0, .. }) => Err(self.explain(Error::PinLocked)),
            Ok(_) => Ok(()),
            Err(e) => Err(self.explain(e)),
        }
    }

    pub(crate) fn log_in(&self, pin: &Pin, last_try: bool) -> Result<()> {
        let done = self.token.login(self.role, pin, last_try);
        done.map_err(|e| self.explain(e))
    }

    /// What to ask.
    pub(crate) fn question(&self) -> Question {
        let hint = match self.tries() {
            Some(Tries { left, of, .. }) if left < of => tries(left),
            _ => String::new(),
        };
        Question {
            what: format!("{} of token {}", title(self.role), self.name),
            hint,
        }
    }

    /// An error of login with what to do next.
    pub(crate) fn explain(&self, error: Error) -> Failure {
        let name = self.name;
        let title = title(self.role);
        match error {
            Error::WrongPin { tries_left } => self.wrong(tries_left),
            Error::PinLocked => self.locked(),
            Error::PinNotSet if self.role == Role::User => Failure::new(
                format!("token {name} has no user PIN yet"),
                format!("have the SO set it: devkey pin set --token {name}"),
            ),
            Error::PinNotSet => Failure::new(
                format!("token {name} has no SO PIN"),
                "it gets one when it is made, or never: who knows the user PIN changes that by \
                 `devkey pin change`",
            ),
            Error::BadBlob => Failure::new(
                format!("the record of the {title} of token {name} was changed"),
                match self.role {
                    Role::User => format!(
                        "put back a copy of {}, or have the SO make it anew: devkey pin unlock \
                         --token {name}",
                        self.token.store().dir().join("user.pin").display()
                    ),
                    Role::So => format!(
                        "put back a copy of {}",
                        self.token.store().dir().join("so.pin").display()
                    ),
                },
            ),
            Error::ReadOnly(what) => Failure::new(
                Error::ReadOnly(what),
                "mount it read-write to change a PIN; keys are used without that",
            ),
            other => other.into(),
        }
    }

    fn wrong(&self, left: Option<u32>) -> Failure {
        let title = title(self.role);
        match left {
            Some(0) => Failure::new(
                format!("wrong {title}, and that was the last try: it is locked"),
                self.unlocking(),
            ),
            Some(1) => Failure::new(
                format!("wrong {title}, 1 try left"),
                match self.unlocks() {
                    true => {
                        "do not guess: look the PIN up, or have the SO set a new one by \
                             `devkey pin unlock`"
                    }
                    false => "do not guess: after that try nothing unlocks it",
                },
            ),
            Some(left) => Failure::new(
                format!("wrong {title}, {}", tries(left)),
                "run the command again with the right one",
            ),
            None => Failure::new(
                format!("wrong {title}; it was not counted, for the store cannot be written to"),
                "run the command again with the right one",
            ),
        }
    }

    /// A device that counts keeps its last try back.
    fn locked(&self) -> Failure {
        let title = title(self.role);
        let name = self.name;
        match self.tries() {
            Some(Tries { left: 1.., .. }) => Failure::new(
                format!("1 try is left of the {title} of token {name}, and is kept back"),
                "add --last-try if you are sure of the PIN",
            ),
            _ => Failure::new(
                format!("the {title} of token {name} is locked"),
                self.unlocking(),
            ),
        }
    }

    /// How to get a PIN unlocked.
    pub(crate) fn unlocking(&self) -> String {
        let waiting = match self.tries().and_then(|tries| tries.recovery) {
            Some(seconds) => format!("wait {}, or ", duration(seconds)),
            None => String::new(),
        };
        match (self.role, self.unlocks()) {
            (Role::User, true) => format!(
                "{waiting}have the SO set a new one: devkey pin unlock --token {}",
                self.name
            ),
            (Role::User, false) => format!(
                "{waiting}make a new token with `devkey init`: there is no SO PIN to unlock it"
            ),
            (Role::So, _) => format!(
                "{waiting}go on with the user PIN while that is known: nothing unlocks an SO PIN"
            ),
        }
    }

    /// Whether the SO can help.
    fn unlocks(&self) -> bool {
        let so = PinState::of(self.token.store(), Role::So);
        self.role == Role::User && so.is_ok_and(|so| so.is_some())
    }

    fn tries(&self) -> Option<Tries> {
        self.token.tries(self.role).ok()
    }
}

/// What people call the PIN of a role.
pub(crate) fn title(role: Role) -> &'static str {
    match role {
        Role::User => "user PIN",
        Role::So => "SO PIN",
    }
}

/// A number of tries.
pub(crate) fn tries(left: u32) -> String {
    match left {
        1 => "1 try left".to_owned(),
        n => format!("{n} tries left"),
    }
}

/// Seconds for people.
pub(crate) fn duration(seconds: u64) -> String {
    match seconds {
        0..120 => format!("{seconds} s"),
        120..7200 => format!("{} min", seconds.div_ceil(60)),
        _ => format!("{} h", seconds.div_ceil(3600)),
    }
}

fn pinless(name: &str) -> Failure {
    Failure::new(
        format!("token {name} has no PINs: its keys want no login"),
        "use it without one; a token gets PINs when it is made: devkey init --pin NAME",
    )
}
