//! `devkey pin`: sets, changes and unlocks PINs, and says how many tries are left.

mod login;
mod prompt;
mod source;
mod status;

use devkey::Error;
use devkey::config::FoundToken;
use devkey::store::Role;
use devkey::token::{DEFAULT_TRIES, Pin, PinState, Pins, Token};

pub(crate) use login::Access;
use login::{Who, title};
use prompt::Question;
use source::{HEADING, NewPin, SoPin, UserPin};

use crate::failure::{Failure, Result};
use crate::output::{Answer, Outcome};
use crate::tokens::{Tokens, parse_name};

#[derive(Debug, clap::Subcommand)]
pub(crate) enum Command {
    /// Set the first user PIN, as the SO
    #[command(after_help = "Example:
  devkey pin set --token board
Next: hand the PIN to its owner, then `devkey key new LABEL`.")]
    Set(ByTheSo),
    /// Change a PIN that is known; keys stay as they are
    #[command(after_help = "Examples:
  devkey pin change
  devkey pin change --so --token board
  devkey pin change --pin-file old --new-pin-file new
Next: `devkey pin status`.")]
    Change(ChangeArgs),
    /// Give the user a new PIN in place of one that is locked or forgotten, as the SO
    #[command(after_help = "Example:
  devkey pin unlock --token board --must-change
Next: hand the PIN to its owner, who changes it with `devkey pin change`.")]
    Unlock(ByTheSo),
    /// Say how many tries are left, asking the device, and what to do about a locked PIN
    ///
    /// Exit code 1 where the device cannot be asked.
    #[command(after_help = "Example:
  devkey pin status --json
--json: an object with token, pins, and user and so, each null or {left, of, locked, to_be_changed,
by_device, recovery_seconds, shared}.
Next: what its last line says.")]
    Status {
        /// The token [default: the only one, or "default"]
        #[arg(long, value_name = "NAME", value_parser = parse_name)]
        token: Option<String>,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
}

/// What the SO does for the user.
#[derive(Debug, clap::Args)]
pub(crate) struct ByTheSo {
    /// The token [default: the only one, or "default"]
    #[arg(long, value_name = "NAME", value_parser = parse_name)]
    token: Option<String>,
    /// Have programs ask the user to change it
    #[arg(long)]
    must_change: bool,
    #[command(flatten)]
    so: SoPin,
    #[command(flatten)]
    new: NewPin,
    /// Use the last try too, which a device that counts keeps back
    #[arg(long, help_heading = HEADING)]
    last_try: bool,
}

#[derive(Debug, clap::Args)]
pub(crate) struct ChangeArgs {
    /// The token [default: the only one, or "default"]
    #[arg(long, value_name = "NAME", value_parser = parse_name)]
    token: Option<String>,
    /// Change the SO's PIN, not the user's
    #[arg(long, conflicts_with = "UserPin")]
    so: bool,
    #[command(flatten)]
    user_pin: UserPin,
    #[command(flatten)]
    so_pin: SoPin,
    #[command(flatten)]
    new: NewPin,
    /// Use the last try too, which a device that counts keeps back
    #[arg(long, help_heading = HEADING)]
    last_try: bool,
}

pub(crate) fn run(command: &Command) -> Outcome {
    let tokens = Tokens::load()?;
    match command {
        Command::Set(args) => {
            let (found, token) = tokens.find_open(args.token.as_deref())?;
            unset(&*token, &found)?;
            by_the_so(args, &found, &*token)
        }
        Command::Change(args) => change(&tokens, args),
        Command::Unlock(args) => {
            let (found, token) = tokens.find_open(args.token.as_deref())?;
            by_the_so(args, &found, &*token)
        }
        Command::Status { token, json } => {
            let (found, token) = tokens.find_open(token.as_deref())?;
            status::run(&found, &*token, *json)
        }
    }
}

/// Who knows the user PIN changes it; the SO replaces it by another command.
fn unset(token: &dyn Token, found: &FoundToken) -> Result<()> {
    match PinState::of(token.store(), Role::User)? {
        None => Ok(()),
        Some(_) => Err(Failure::new(
            Error::Exists(format!("the user PIN of token {}", found.name)),
            "change it with `devkey pin change`, or as the SO with `devkey pin unlock`",
        )),
    }
}

fn by_the_so(args: &ByTheSo, found: &FoundToken, token: &dyn Token) -> Outcome {
    let so = Who::new(token, &found.name, Role::So);
    so.can_log_in()?;
    so.log_in(&args.so.read(&so.question())?, args.last_try)?;
    let new = args.new.read(&new_pin(Role::User, found))?;
    let done = token.init_pin(&new, args.must_change);
    done.map_err(|e| so.explain(e))?;
    Ok(Answer::text(format!(
        "the user of token {} has a new PIN",
        found.name
    )))
}

fn change(tokens: &Tokens, args: &ChangeArgs) -> Outcome {
    let (found, token) = tokens.find_open(args.token.as_deref())?;
    let role = match args.so || args.so_pin.named() {
        true => Role::So,
        false => Role::User,
    };
    let who = Who::new(&*token, &found.name, role);
    who.can_log_in()?;
    let old = match role {
        Role::User => args.user_pin.read(&who.question())?,
        Role::So => args.so_pin.read(&who.question())?,
    };
    // A wrong one is named before a new one is asked for.
    who.log_in(&old, args.last_try)?;
    let new = args.new.read(&new_pin(role, &found))?;
    let done = token.set_pin(role, &old, &new);
    done.map_err(|e| who.explain(e))?;
    Ok(Answer::text(format!(
        "changed the {} of token {}",
        title(role),
        found.name
    )))
}

fn new_pin(role: Role, found: &FoundToken) -> Question {
    Question {
        what: format!("new {} of token {}", title(role), found.name),
        hint: String::new(),
    }
}

/// The PINs of a token that is to be made.
#[derive(Debug, Default, Clone, clap::Args)]
pub(crate) struct InitPins {
    /// Guard the keys by a PIN: asks for one of the user and one of the SO, who can replace it
    #[arg(long)]
    pin: bool,
    /// Wrong PINs in a row that lock one [default: 10]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(3..=100))]
    tries: Option<u32>,
    #[command(flatten)]
    user: UserPin,
    #[command(flatten)]
    so: SoPin,
}

/// PINs that were given for a new token.
#[derive(Debug)]
pub(crate) struct GivenPins {
    user: Option<Pin>,
    so: Option<Pin>,
    tries: u32,
}

impl InitPins {
    /// Reads the PINs; `None` where the token is to have none. A source that is named wants a PIN.
    ///
    /// Where a source is named, nothing is asked: a script does not stop for an SO PIN.
    pub(crate) fn read(&self) -> Result<Option<GivenPins>> {
        let (user, so) = (self.user.named(), self.so.named());
        if !self.pin && !user && !so {
            return match self.tries {
                None => Ok(None),
                Some(_) => Err(Failure::new("--tries without a PIN", "add --pin")),
            };
        }
        let ask = !user && !so;
        if ask && prompt::possible() {
            prompt::say("A PIN has 4 to 32 bytes. It is not shown while you type.");
        }
        let question = |role, empty: &str| Question {
            what: title(role).to_owned(),
            hint: format!("empty: {empty}"),
        };
        let later = question(Role::User, "the SO sets it later");
        let never = "none, and a user PIN that is locked or forgotten stays so";
        let user = match user || self.pin {
            true => self.user.read_new(&later)?,
            false => None,
        };
        let so = match so || ask {
            true => self.so.read_new(&question(Role::So, never))?,
            false => None,
        };
        if user.is_none() && so.is_none() {
            let error = Error::input("a token with PINs needs one of the two");
            return Err(Failure::new(error, "give one, or leave --pin out"));
        }
        Ok(Some(GivenPins {
            user,
            so,
            tries: self.tries.unwrap_or(DEFAULT_TRIES),
        }))
    }
}

impl GivenPins {
    /// As the library takes them.
    pub(crate) fn pins(&self) -> Pins<'_> {
        Pins {
            user: self.user.as_ref(),
            so: self.so.as_ref(),
            tries: self.tries,
        }
    }

    /// What follows from the PIN that was left out.
    pub(crate) fn note(&self, name: &str) -> Option<String> {
        match (&self.user, &self.so) {
            (_, None) => Some(
                "There is no SO PIN: a user PIN that is locked or forgotten stays so, and the keys \
                 with it."
                    .to_owned(),
            ),
            (None, _) => Some(format!(
                "There is no user PIN yet: devkey pin set --token {name}"
            )),
            _ => None,
        }
    }
}
