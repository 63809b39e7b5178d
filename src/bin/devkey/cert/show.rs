//! `devkey cert show`

use clap::ValueEnum;
use der::pem::{LineEnding, encode_string};
use devkey::Error;

use super::item::{Body, Item, named};
use super::{View, Which};
use crate::failure::Result;
use crate::output::{self, Answer, Outcome};
use crate::tokens::Tokens;

/// Show the certificates of a key
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  devkey cert show laptop
  devkey cert show web --format pem > chain.pem
  ssh -o CertificateFile=\"$(devkey cert show laptop --format ssh-file)\" HOST
--format json: an array of objects with token, key, key_id, kind, certificate, file, subject,
names [text], issuer, serial, not_before, not_after, expires_in, level, fingerprint. Times are
seconds; kind is x509, ssh-user or ssh-host.
Next: `devkey renew`.")]
pub(crate) struct Args {
    #[command(flatten)]
    which: Which,
    /// What to print [default: all of it, for people]
    #[arg(long)]
    format: Option<Format>,
}

/// What to print of certificates.
#[derive(Debug, Clone, Copy, ValueEnum)]
enum Format {
    /// The X.509 certificate and its chain, as a TLS server wants them
    Pem,
    /// Path of the file that holds the X.509 certificate and its chain
    File,
    /// The lines of OpenSSH's certificates
    Ssh,
    /// Paths of the files that hold them
    SshFile,
    /// All of it, for programs
    Json,
}

pub(super) fn run(tokens: &Tokens, args: &Args) -> Outcome {
    let (found, token) = tokens.find_open(args.which.token.as_deref())?;
    let items = named(&found, &*token, &args.which)?;
    let views: Vec<View> = items.iter().map(View::new).collect();
    let text = match args.format {
        None => views
            .iter()
            .map(View::describe)
            .collect::<Vec<_>>()
            .join("\n"),
        Some(Format::Json) => output::json(&views)?,
        Some(format) => {
            let mut lines = Vec::new();
            for item in &items {
                lines.extend(line(item, format)?);
            }
            lines.dedup();
            lines.concat()
        }
    };
    match text.is_empty() {
        true => Err(Error::NotFound("a certificate of that kind".to_owned()).into()),
        false => Ok(Answer::text(text)),
    }
}

fn line(item: &Item, format: Format) -> Result<Option<String>> {
    let file = format!("{}\n", item.file.display());
    Ok(match (&item.body, format) {
        (Body::X509(certificate, _), Format::Pem) => Some(pem(&certificate.der)?),
        (Body::X509(..), Format::File) | (Body::Ssh(_), Format::SshFile) => Some(file),
        (Body::Ssh(certificate), Format::Ssh) => {
            let comment = item.key.as_ref().map_or("", |key| key.label.as_str());
            Some(certificate.line(comment) + "\n")
        }
        _ => None,
    })
}

/// A certificate as PEM.
pub(crate) fn pem(der: &[u8]) -> Result<String> {
    let text = encode_string("CERTIFICATE", LineEnding::LF, der);
    Ok(text.map_err(|e| Error::Internal(e.to_string()))?)
}
