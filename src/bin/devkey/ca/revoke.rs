//! `devkey ca revoke`, `crl` and `krl`.

use clap::builder::{PossibleValue, PossibleValuesParser, TypedValueParser};
use devkey::Error;
use devkey::identity::ca::Ca;
use devkey::identity::signer::TokenSigner;
use devkey::identity::x509::{Reason, Serial};
use serde::Deserialize;
use serde::de::IntoDeserializer;
use serde::de::value::Error as Unknown;

use super::{Books, signer};
use crate::cert::now;
use crate::failure::{Failure, Result};
use crate::output::{Answer, Outcome};
use crate::pin::Access;
use crate::request::pem;
use crate::transfer::Out;

/// The reasons by their names in the books, and what they say.
const REASONS: [(&str, &str); 6] = [
    ("unspecified", "nothing is said"),
    (
        "key-compromise",
        "another may have the key: lost, stolen, copied",
    ),
    (
        "affiliation-changed",
        "what the certificate says is no longer so",
    ),
    ("superseded", "another certificate took its place"),
    ("cessation-of-operation", "the device is out of service"),
    (
        "privilege-withdrawn",
        "the level or the right was withdrawn",
    ),
];

/// Take certificates back, for ever
///
/// That alone changes nothing for those who trust them: they need a new list.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:
  devkey ca revoke --dir lab-ca 5a0f... --reason key-compromise
Next: `devkey ca crl` for TLS, `devkey ca krl` for SSH.")]
pub(crate) struct Args {
    #[command(flatten)]
    books: Books,
    /// Why: the lists say it
    #[arg(long, default_value = "unspecified", value_parser = reasons())]
    reason: Reason,
    /// And all else that its TPM got, under whatever key and name; that TPM is certified no more
    #[arg(long)]
    device: bool,
    /// A serial of `devkey ca list`
    serial: Serial,
}

/// Make the list of revoked X.509 certificates
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:
  devkey ca crl --dir lab-ca -o /srv/www/lab.crl.pem
Next: have it fetched, and made again before it ends.")]
pub(crate) struct CrlArgs {
    #[command(flatten)]
    books: Books,
    /// How long it is valid
    #[arg(long, value_name = "DAYS", default_value = "7", value_parser = clap::value_parser!(u32).range(1..=3650))]
    days: u32,
    /// Write DER, and not PEM
    #[arg(long)]
    der: bool,
    #[command(flatten)]
    out: Out,
    #[command(flatten)]
    access: Access,
}

/// Make OpenSSH's list of revoked certificates
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:
  devkey ca krl --dir lab-ca -o /etc/ssh/revoked
Next: RevokedKeys /etc/ssh/revoked in sshd_config, RevokedHostKeys in ssh_config.")]
pub(crate) struct KrlArgs {
    #[command(flatten)]
    books: Books,
    #[command(flatten)]
    out: Out,
}

pub(super) fn run(args: &Args) -> Outcome {
    let ca = args.books.open()?;
    let done = match args.device {
        true => device(&ca, args)?,
        false => {
            let done = ca.revoke(&args.serial, args.reason, now());
            done.map_err(explained)?;
            format!("revoked {}", args.serial)
        }
    };
    Ok(Answer::text(done)
        .note("Make new lists, and bring them to those who trust this CA:")
        .note("devkey ca crl, devkey ca krl"))
}

fn device(ca: &Ca, args: &Args) -> Result<String> {
    let revoked = ca.revoke_device(&args.serial, args.reason, now());
    let revoked = revoked.map_err(explained)?;
    let mut lines: Vec<String> = revoked.iter().map(|one| format!("revoked {one}")).collect();
    let device = ca.entry(&args.serial, now())?.device;
    let named = device
        .iter()
        .map(|ek| format!("certified no more: the TPM of endorsement key {ek}"));
    lines.extend(named);
    Ok(lines.join("\n"))
}

fn explained(error: Error) -> Failure {
    match error {
        Error::NotFound(_) => Failure::new(error, "devkey ca list"),
        Error::BadInput(_) => Failure::new(
            error,
            "revoke its serials without --device; the next certificate of a TPM names it",
        ),
        other => other.into(),
    }
}

pub(super) fn crl(args: &CrlArgs) -> Outcome {
    let ca = args.books.open()?;
    let ((_, token), key, note) = signer(&ca, &args.access)?;
    let signer = TokenSigner {
        token: &*token,
        key: &key,
    };
    let der = ca.crl(&signer, u64::from(args.days) * 86400, now())?;
    let file = match args.der {
        true => der,
        false => pem("X509 CRL", &der)?,
    };
    Ok(args.out.put(file)?.noted(note))
}

pub(super) fn krl(args: &KrlArgs) -> Outcome {
    let krl = args.books.open()?.krl(now())?;
    args.out.put(krl)
}

fn reasons() -> impl TypedValueParser<Value = Reason> {
    let value = |(name, help)| PossibleValue::new(name).help(help);
    PossibleValuesParser::new(REASONS.map(value)).try_map(|name| reason(&name))
}

fn reason(name: &str) -> std::result::Result<Reason, Unknown> {
    Reason::deserialize(name.into_deserializer())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Seen to fail with a letter of a name changed.
    #[test]
    fn every_reason_is_known() {
        for (name, _) in REASONS {
            reason(name).unwrap();
        }
    }
}
