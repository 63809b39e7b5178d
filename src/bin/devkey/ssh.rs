//! `devkey ssh`: what an sshd asks.

use std::fs::File;
use std::io::Read;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use clap::builder::{NonEmptyStringValueParser, PossibleValuesParser, TypedValueParser};
use devkey::Error;
use devkey::identity::level::Level;
use devkey::identity::ssh::certificate::{Certificate, Expected, Kind};
use devkey::identity::ssh::principals::{self, MAX_AUTHORITIES};
use devkey::key::PublicKey;

use crate::failure::{Failure, Result};
use crate::output::{Answer, Outcome, printable};

/// LOG_AUTHPRIV and LOG_WARNING of syslog(3).
const PRIORITY: u8 = (10 << 3) | 4;

#[derive(Debug, clap::Subcommand)]
pub(crate) enum Command {
    Principals(Args),
}

/// Tell sshd which principals of a certificate open an account
///
/// For AuthorizedPrincipalsCommand of sshd_config(5). Prints those of the certificate's principals
/// that the account accepts, if a CA of FILE signed it, it is valid now and states LEVEL or a higher
/// one.
///
/// Exit code 1, and nothing printed, where that is not so; sshd then refuses the certificate.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example, as AuthorizedPrincipalsCommand:
  /usr/bin/devkey ssh principals --level tpm --ca /etc/ssh/user_ca.pub --syslog --accept=%u %k
sshd wants AuthorizedPrincipalsCommandUser beside it: nobody will do.
Next: `sshd -t`, and a reload of sshd.")]
pub(crate) struct Args {
    /// The lowest assurance level that will do
    #[arg(long, value_parser = levels())]
    level: Level,
    /// Keys of the CAs whose word on the level counts, as in TrustedUserCAKeys
    #[arg(long, value_name = "FILE")]
    ca: PathBuf,
    /// A principal that the account accepts, sshd's %u for the account's name; may be given several
    /// times
    #[arg(long, value_name = "NAME", required = true)]
    #[arg(value_parser = NonEmptyStringValueParser::new())]
    accept: Vec<String>,
    /// Tell the system's log, too, why nothing is accepted: sshd does not show it
    #[arg(long, value_name = "SOCKET", num_args = 0..=1, require_equals = true)]
    #[arg(default_missing_value = "/dev/log")]
    syslog: Option<PathBuf>,
    /// The certificate in Base64: sshd's %k
    certificate: String,
}

pub(crate) fn run(command: &Command) -> Outcome {
    let Command::Principals(args) = command;
    match accepted(args) {
        Ok(names) => Ok(Answer::text(names.join("\n"))),
        Err(failure) => {
            let told = args.syslog.as_deref().map(|to| tell(to, &failure.what));
            let untold = told.and_then(std::result::Result::err);
            Ok(Answer::default().problems([failure].into_iter().chain(untold)))
        }
    }
}

fn accepted(args: &Args) -> Result<Vec<&str>> {
    let authorities = authorities(&args.ca)?;
    let certificate = Certificate::from_base64(&args.certificate)?;
    let at = SystemTime::now().duration_since(UNIX_EPOCH);
    let expected = Expected {
        kind: Kind::User,
        authorities: &authorities,
        at: at.unwrap_or_default().as_secs(),
    };
    principals::accepted(&certificate, &expected, args.level, &args.accept).map_err(|e| {
        let said = certificate.contents();
        let which = format!("certificate {:?}, serial {}", said.key_id, said.serial);
        Failure {
            what: format!("{which}: {e}"),
            remedy: None,
        }
    })
}

fn authorities(path: &Path) -> Result<Vec<PublicKey>> {
    let failed = |e| Error::io(format!("reading {}", path.display()), e);
    let mut text = String::new();
    let file = File::open(path).map_err(failed)?;
    let most = MAX_AUTHORITIES as u64 + 1;
    file.take(most).read_to_string(&mut text).map_err(failed)?;
    let named = |e| Error::input(format!("{}: {e}", path.display()));
    let keys = principals::authorities(&text).map_err(named)?;
    match keys.is_empty() {
        true => Err(Error::input(format!("{} holds no CA key", path.display())).into()),
        false => Ok(keys),
    }
}

/// One message as syslog(3) sends it.
fn tell(socket: &Path, what: &str) -> Result<()> {
    let message = format!(
        "<{PRIORITY}>devkey[{}]: {}",
        std::process::id(),
        printable(what)
    );
    let sent = UnixDatagram::unbound().and_then(|log| log.send_to(message.as_bytes(), socket));
    sent.map_err(|e| Error::io(format!("telling {}", socket.display()), e))?;
    Ok(())
}

/// Offers the levels by name.
fn levels() -> impl TypedValueParser<Value = Level> {
    let names = Level::ALL.map(Level::name);
    PossibleValuesParser::new(names).try_map(|name| name.parse::<Level>())
}
