//! `devkey init`: makes a token.

use std::ffi::OsStr;
use std::path::{Path, PathBuf, absolute};

use clap::builder::{PossibleValue, PossibleValuesParser};
use devkey::config::{DEFAULT_TOKEN, check_name};
use devkey::provider::{BackEnd, Settings};
use devkey::service::{Wanted, make_remote};
use devkey::store::Store;
use devkey::token::{DEFAULT_TRIES, LocalToken, Token, TokenRequest};
use devkey::{Error, Result as LibraryResult};
use rustix::process::geteuid;

use crate::failure::{Failure, Result};
use crate::output::{self, Answer, Outcome};
use crate::pin::{GivenPins, InitPins};
use crate::tokens::{Tokens, parse_name};
use crate::{BACK_ENDS, puf, token};

pub(crate) const FILE: &str = "file";
pub(crate) const TPM: &str = "tpm";
pub(crate) const PUF: &str = "puf";

/// Make a token: a place for keys
///
/// A file token keeps its keys under a secret file in your home directory. A TPM token keeps them
/// so that only this machine's TPM can use them. A PUF token makes them anew from the noise of a chip
/// whenever they are used, and keeps nothing secret on the disk.
#[derive(Debug, Default, clap::Args)]
#[command(after_help = "Examples:
  devkey init                     # a file token called \"default\"
  devkey init --tpm board         # a token called \"board\" in the machine's TPM
  devkey init --puf /dev/puf0     # one whose keys come from a chip's noise
  devkey init --pin work          # one whose keys want a PIN, asked for on the terminal
Next: make a key on it with `devkey key new LABEL`.")]
pub(crate) struct Args {
    /// What keeps the keys
    #[arg(long, value_name = "NAME", default_value = FILE, value_parser = back_ends())]
    back_end: String,
    /// A setting of the back end; may be given several times
    #[arg(long, value_name = "KEY=VALUE", value_parser = parse_setting)]
    set: Vec<(String, String)>,
    /// Keep the keys in the machine's TPM 2.0: short for --back-end tpm
    #[arg(long, conflicts_with = "back_end")]
    tpm: bool,
    /// How the TPM is reached [default: device:/dev/tpmrm0]: short for --set tcti=TCTI
    #[arg(long, requires = "tpm")]
    tcti: Option<String>,
    /// Make the keys of this PUF device, after measuring it: short for --back-end puf --set
    /// device=DEVICE
    #[arg(long, value_name = "DEVICE", conflicts_with_all = ["back_end", "tpm"])]
    puf: Option<PathBuf>,
    #[command(flatten)]
    pins: InitPins,
    /// The token's label, shown by ssh and browsers [default: NAME, "devkey" for "default"]
    #[arg(long)]
    label: Option<String>,
    /// Have the system's key service make it: devkey.toml says who may use it
    #[arg(long, conflicts_with = "dir")]
    system: bool,
    /// Directory to make it in, which must not exist [default: by devkey.toml, or in your home]
    #[arg(long)]
    dir: Option<PathBuf>,
    /// The token's name [default: that of DIR, or "default"]
    #[arg(value_parser = parse_name)]
    name: Option<String>,
}

impl Args {
    /// What `devkey init --puf` would have been given.
    pub(crate) fn on_puf(
        device: PathBuf,
        set: Vec<(String, String)>,
        pins: InitPins,
        name: Option<String>,
    ) -> Self {
        Args {
            puf: Some(device),
            set,
            pins,
            name,
            ..Args::default()
        }
    }

    /// What it is called: in a store a token has the name of its directory.
    fn name(&self) -> Result<&str> {
        match (&self.name, &self.dir) {
            (Some(name), _) => Ok(name),
            (None, None) => Ok(DEFAULT_TOKEN),
            (None, Some(dir)) => {
                let name = dir.file_name().and_then(OsStr::to_str).unwrap_or_default();
                check_name(name)?;
                Ok(name)
            }
        }
    }

    fn label<'a>(&'a self, name: &'a str) -> &'a str {
        match self.label.as_deref() {
            Some(label) => label,
            None if name == DEFAULT_TOKEN => "devkey",
            None => name,
        }
    }

    fn settings(&self) -> Result<Settings> {
        if self.puf.is_some() {
            return puf::settings(self.puf.as_deref(), &self.set);
        }
        let tcti = self
            .tcti
            .iter()
            .map(|tcti| ("tcti".to_owned(), tcti.clone()));
        Ok(self.set.iter().cloned().chain(tcti).collect())
    }

    fn back_end(&self) -> Result<&'static BackEnd> {
        let name = match (self.tpm, &self.puf) {
            (true, _) => TPM,
            (_, Some(_)) => PUF,
            _ => &self.back_end,
        };
        back_end(name)
    }
}

/// The registered back end of that name.
pub(crate) fn back_end(name: &str) -> Result<&'static BackEnd> {
    let known = BACK_ENDS.iter().find(|known| known.name == name);
    known.ok_or_else(|| {
        let error = Error::unsupported(format!("this build of devkey has no {name} back end"));
        Failure::new(error, "use a file token: devkey init")
    })
}

/// The registered back ends, for help and errors.
fn back_ends() -> PossibleValuesParser {
    let value = |known: &BackEnd| PossibleValue::new(known.name).help(known.summary);
    PossibleValuesParser::new(BACK_ENDS.iter().map(value))
}

pub(crate) fn parse_setting(text: &str) -> LibraryResult<(String, String)> {
    let (name, value) = text
        .split_once('=')
        .ok_or_else(|| Error::input("KEY=VALUE is wanted"))?;
    Ok((name.to_owned(), value.to_owned()))
}

pub(crate) fn run(args: &Args) -> Outcome {
    let tokens = Tokens::load()?;
    let name = args.name()?;
    if args.system {
        return make(args, name, &tokens);
    }
    let dir = place(args, name, &tokens)?;
    let back_end = args.back_end()?;
    let settings = args.settings()?;
    let measured = match &args.puf {
        Some(_) if !settings.contains_key("renew") => puf::measure(&settings)?,
        _ => String::new(),
    };
    let pins = args.pins.read()?;
    let request = TokenRequest {
        dir: &dir,
        label: args.label(name),
        settings,
        pins: pins.as_ref().map(GivenPins::pins),
    };
    let made = LocalToken::create(back_end, &request).map_err(|e| explain(e, name, &dir))?;
    let record = made.store().token();
    let mut text = format!("{measured}made token {name}\n");
    text += &output::fields(&token::summary(record, &dir));
    if !tokens.find(Some(name)).is_ok_and(|found| found.dir == dir) {
        text += &format!(
            "\nto have it found, put this into devkey.toml:\n  [token.{name}]\n  directory = {dir:?}\n"
        );
    }
    text += &format!("\nnext: devkey key new --token {name} LABEL\n");
    let answer = Answer::text(text);
    Ok(match pins.and_then(|pins| pins.note(name)) {
        Some(note) => answer.note(note),
        None => answer,
    })
}

/// Has the key service make a token of the system.
fn make(args: &Args, name: &str, tokens: &Tokens) -> Outcome {
    let pins = args.pins.read()?;
    let given = pins.as_ref().map(GivenPins::pins);
    let wanted = Wanted {
        name: name.to_owned(),
        back_end: args.back_end()?.name.to_owned(),
        label: args.label(name).to_owned(),
        settings: args.settings()?,
        tries: given.as_ref().map_or(DEFAULT_TRIES, |pins| pins.tries),
    };
    let place = tokens.config.system_place(name)?;
    let (user, so) = given.map_or((None, None), |pins| (pins.user, pins.so));
    let made = make_remote(&tokens.service_of(&place)?, &wanted, user, so);
    made.map_err(|e| explain(e, name, &place.dir))?;
    let store = Store::kept(&place.dir, place.reach.keeper)?;
    let mut text = format!("made token {name} of the system\n");
    text += &output::fields(&token::summary(store.token(), &place.dir));
    text += &format!("\nnext: devkey key new --token {name} LABEL\n");
    let answer = Answer::text(text);
    Ok(match pins.and_then(|pins| pins.note(name)) {
        Some(note) => answer.note(note),
        None => answer,
    })
}

/// The directory to be made. A name that the configuration gives to a directory is free until
/// there is one, and a token of the system leaves its name to the user.
fn place(args: &Args, name: &str, tokens: &Tokens) -> Result<PathBuf> {
    let all = tokens.config.tokens();
    let mut twins = all.iter().filter(|token| token.name == name && token.own);
    if let Some(twin) = twins.find(|twin| twin.dir.symlink_metadata().is_ok()) {
        return Err(exists(name, &twin.dir));
    }
    if let Some(dir) = &args.dir {
        let dir = absolute(dir).map_err(|e| Error::io(format!("finding {}", dir.display()), e))?;
        return Ok(dir);
    }
    let environment = &tokens.environment;
    if environment.data_home.is_none() && environment.config.is_none() && !geteuid().is_root() {
        let error = Error::input("no place for a token: HOME is not set");
        return Err(Failure::new(error, "set HOME, or name a place with --dir"));
    }
    Ok(tokens.config.place_for(name)?)
}

fn exists(name: &str, dir: &Path) -> Failure {
    let error = Error::Exists(format!("token {name} ({})", dir.display()));
    let remedy = format!("see it with `devkey token show {name}`, or choose another name");
    Failure::new(error, remedy)
}

/// Adds what to do.
fn explain(error: Error, name: &str, dir: &Path) -> Failure {
    match error {
        // Not the directory, then, but an enrolment of the same device.
        Error::Exists(what) if dir.symlink_metadata().is_err() => Failure::new(
            Error::Exists(what),
            format!(
                "devkey puf refresh OLD {name}, for a token with other keys in place of the old one, or \
                 --set offset=N: a second enrolment could disclose the keys of both"
            ),
        ),
        Error::Exists(what) => Failure::new(
            Error::Exists(what),
            "choose another name, or name a place with --dir",
        ),
        Error::Io { context, source } if source.kind() == std::io::ErrorKind::PermissionDenied => {
            Failure::new(
                Error::io(context, source),
                "run as the owner of that directory, or name another place with --dir",
            )
        }
        Error::Unsupported(what) => Failure::new(
            Error::Unsupported(what),
            "keep the keys elsewhere: `devkey init --help` says where they can be",
        ),
        other => other.into(),
    }
}
