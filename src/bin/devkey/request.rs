//! `devkey request`: asks a CA for certificates.

mod source;

use clap::ValueEnum;
use devkey::Error;
use devkey::identity::device;
use devkey::identity::flow::{self, SshKind, SshRequest};
use devkey::identity::signer::TokenSigner;
use devkey::identity::x509::{self, AltName, RequestSpec, Subject};
use devkey::store::KeyRecord;

pub(crate) use source::source;

use crate::failure::{Failure, Result};
use crate::key::find_key;
use crate::output::Outcome;
use crate::pin::Access;
use crate::tokens::{Tokens, parse_name};
use crate::transfer::{Out, authority};

/// Ask a CA for certificates of a key
///
/// The result holds the public key, a PKCS#10 request, what an SSH certificate is to say, and what the
/// back end can show of itself; of a TPM that is its endorsement certificate. Nothing in it is secret.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  devkey request web --subject CN=pump7 --san dns:pump7.lab.example --ca ca.pem -o pump7.request
  devkey request laptop --ssh user --principal anna --ca ca.pem | ssh ca devkey ca challenge -
  devkey request web --san dns:pump7.example --format csr > pump7.csr     # for another CA
Names: dns:NAME, ip:ADDRESS, uri:URI, email:ADDRESS, hw:OID:HEX.
Next: bring it to the CA, `devkey ca challenge`, and answer with `devkey answer`.")]
pub(crate) struct Args {
    /// The token [default: the only one, or "default"]
    #[arg(long, value_name = "NAME", value_parser = parse_name)]
    token: Option<String>,
    /// Subject of the certificate, as in RFC 4514 [default: CN=LABEL]
    #[arg(long, value_name = "NAME")]
    subject: Option<Subject>,
    /// Another name of the device; may be given several times
    #[arg(long, value_name = "KIND:NAME")]
    san: Vec<AltName>,
    /// Ask for an SSH certificate, too
    #[arg(long, value_name = "FOR", requires = "principal")]
    ssh: Option<For>,
    /// An account, or a name that the host is called by; may be given several times
    #[arg(long, value_name = "NAME", requires = "ssh")]
    principal: Vec<String>,
    /// The CA that it is for: its certificate, or its fingerprint
    #[arg(long, value_name = "FILE-or-SHA256")]
    ca: Option<String>,
    /// Do not show the TPM's endorsement certificate, which names this TPM for ever to whoever reads it;
    /// level "tpm" is not had so
    #[arg(long)]
    no_evidence: bool,
    /// What to write
    #[arg(long, default_value = "request")]
    format: Format,
    #[command(flatten)]
    out: Out,
    #[command(flatten)]
    access: Access,
    /// The key's label or its ID
    #[arg(value_name = "LABEL-or-ID")]
    key: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum For {
    User,
    Host,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    /// the request for `devkey ca challenge`
    Request,
    /// the PKCS#10 request alone, PEM, for any CA
    Csr,
    /// a PKCS#10 request, PEM, for the key of a CA below another: see devkey ca init
    CaCsr,
}

pub(crate) fn run(args: &Args) -> Outcome {
    check_format(args)?;
    let tokens = Tokens::load()?;
    let (found, token) = tokens.find_open(args.token.as_deref())?;
    let listing = token.store().list()?;
    let key = find_key(&found, &listing, &args.key)?;
    let authority = args.ca.as_deref().map(authority).transpose()?;
    let note = args.access.log_in(&*token, &found.name)?;
    let names = names(args, &key)?;
    let signer = TokenSigner {
        token: &*token,
        key: &key,
    };
    let csr = match args.format {
        Format::Request => None,
        Format::Csr => Some(x509::Request::make(&signer, &names)?),
        Format::CaCsr => Some(x509::Request::make_authority(&signer, &names.subject)?),
    };
    if let Some(der) = csr {
        return Ok(args.out.put(pem("CERTIFICATE REQUEST", &der)?)?.noted(note));
    }
    let spec = flow::RequestSpec {
        names,
        ssh: ssh(args),
        source: source(&found, &*token),
        authority,
        evidence: match args.no_evidence {
            true => None,
            false => device::evidence(&*token)?,
        },
    };
    let request = flow::Request::make(&signer, spec)?;
    let answer = args.out.put(request.encode()?)?.noted(note);
    let answer = match args.ca {
        Some(_) => answer,
        None => answer.note("It names no CA: `devkey answer` will want --ca."),
    };
    Ok(answer.hint("next: bring it to the CA, devkey ca challenge; then devkey answer"))
}

/// One block of PEM.
pub(crate) fn pem(label: &str, der: &[u8]) -> Result<Vec<u8>> {
    let text = der::pem::encode_string(label, der::pem::LineEnding::LF, der);
    Ok(text
        .map_err(|e| Error::Internal(format!("writing PEM: {e}")))?
        .into_bytes())
}

fn names(args: &Args, key: &KeyRecord) -> Result<RequestSpec> {
    let subject = match &args.subject {
        Some(subject) => subject.clone(),
        None => format!("CN={}", key.label).parse().map_err(|_| {
            let what = format!(
                "the label {:?} cannot stand in a subject as it is",
                key.label
            );
            Failure::new(what, "give the subject: --subject CN=...")
        })?,
    };
    Ok(RequestSpec {
        subject,
        alt_names: args.san.clone(),
        key_usage: key.usage,
    })
}

/// Nothing that was asked for is left out without a word.
fn check_format(args: &Args) -> Result<()> {
    let (csr, ca) = (args.format != Format::Request, args.format == Format::CaCsr);
    let unsayable = [
        ("--ssh", csr && args.ssh.is_some()),
        ("--ca", csr && args.ca.is_some()),
        ("--no-evidence", csr && args.no_evidence),
        ("--san", ca && !args.san.is_empty()),
    ];
    match unsayable.iter().find(|(_, asked)| *asked) {
        None => Ok(()),
        Some((option, _)) => Err(Failure::new(
            format!("{option} has no place in a PKCS#10 request of this kind"),
            "leave it out, or leave --format out: a request for `devkey ca challenge` says all",
        )),
    }
}

fn ssh(args: &Args) -> Option<SshRequest> {
    Some(SshRequest {
        kind: match args.ssh? {
            For::User => SshKind::User,
            For::Host => SshKind::Host,
        },
        principals: args.principal.clone(),
    })
}
