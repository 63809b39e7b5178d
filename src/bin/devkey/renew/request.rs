//! What is asked for again: the names of the certificates that there are.

use std::fs::{self, DirBuilder};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use devkey::Error;
use devkey::config::FoundToken;
use devkey::identity::ca::KEY_ID;
use devkey::identity::device;
use devkey::identity::flow::{self, Digest, SshKind, SshRequest};
use devkey::identity::signer::TokenSigner;
use devkey::identity::ssh::certificate::{Contents, Kind};
use devkey::identity::ssh::key as ssh;
use devkey::identity::x509::{self, Subject};
use devkey::token::Token;

use super::{COMMAND, Due};
use crate::cert::{Input, Item, pem};
use crate::failure::{Failure, Result};
use crate::request::source;

/// A request, in a directory of its own that goes with it.
pub(super) struct Request {
    dir: PathBuf,
    /// What the command's environment names.
    pub(super) environment: Vec<(&'static str, String)>,
    /// What it has on its standard input.
    pub(super) input: PathBuf,
    digest: Digest,
    /// The end of the X.509 certificate that is to be renewed, in seconds since 1970.
    x509: Option<u64>,
    /// The kind of OpenSSH's, and its end.
    ssh: Option<(Kind, u64)>,
}

impl Request {
    /// Asks for the names that the certificates have, and signs that with the key.
    pub(super) fn make(found: &FoundToken, token: &dyn Token, due: &Due) -> Result<Self> {
        let made = flow(found, token, due)?;
        let mut request = Request {
            dir: scratch()?,
            environment: vec![
                ("DEVKEY_TOKEN", found.name.clone()),
                ("DEVKEY_LABEL", due.key.label.clone()),
                (
                    "DEVKEY_KEY",
                    base16ct::lower::encode_string(&due.key.cka_id),
                ),
            ],
            input: PathBuf::new(),
            digest: made.digest(),
            x509: None,
            ssh: None,
        };
        request.input = request.write("DEVKEY_REQUEST", "request", &made.encode()?)?;
        let csr = crate::request::pem("CERTIFICATE REQUEST", &made.csr().der)?;
        request.write("DEVKEY_CSR", "request.pem", &csr)?;
        if let Ok(line) = ssh::line(&due.key.public, &due.key.label) {
            request.write("DEVKEY_PUBLIC", "key.pub", (line + "\n").as_bytes())?;
        }
        if let Some((der, said)) = due.x509.as_ref().and_then(Item::x509) {
            request.x509 = Some(said.not_after);
            request.write(
                "DEVKEY_CERTIFICATE",
                "certificate.pem",
                pem(der)?.as_bytes(),
            )?;
        }
        if let Some(certificate) = due.ssh.as_ref().and_then(Item::ssh) {
            let said = certificate.contents();
            request.ssh = Some((said.kind, said.valid_before));
            let kind = kind(said.kind).name().to_owned();
            request.environment.push(("DEVKEY_SSH_KIND", kind));
            let line = certificate.line(&due.key.label) + "\n";
            request.write("DEVKEY_SSH_CERTIFICATE", "key-cert.pub", line.as_bytes())?;
        }
        Ok(request)
    }

    /// X.509's end and OpenSSH's, which those of the answer must be later than.
    pub(super) fn later_than(&self) -> (u64, u64) {
        (
            self.x509.unwrap_or_default(),
            self.ssh.map_or(0, |(_, end)| end),
        )
    }

    /// Whether there is an answer to all that was asked for, and to this request.
    pub(super) fn answered_by(&self, input: &Input) -> Result<()> {
        let right = |kind: Kind| input.ssh.iter().any(|one| one.contents().kind == kind);
        let what = match (self.x509, self.ssh) {
            _ if input.request.is_some_and(|digest| digest != self.digest) => {
                "the command printed the answer to another request"
            }
            (Some(_), _) if input.x509.is_empty() => "the command printed no X.509 certificate",
            (_, Some((kind, _))) if !right(kind) => {
                "the command printed no OpenSSH certificate of the same kind"
            }
            _ => return Ok(()),
        };
        Err(Failure::new(what, COMMAND))
    }

    fn write(&mut self, variable: &'static str, name: &str, text: &[u8]) -> Result<PathBuf> {
        let path = self.dir.join(name);
        let written = fs::write(&path, text);
        written.map_err(|e| Error::io(format!("writing {}", path.display()), e))?;
        self.environment
            .push((variable, path.display().to_string()));
        Ok(path)
    }
}

impl Drop for Request {
    fn drop(&mut self) {
        // What stays behind holds nothing secret.
        let _ = fs::remove_dir_all(&self.dir);
    }
}

/// A request for what the certificates say, with all that the device can show.
fn flow(found: &FoundToken, token: &dyn Token, due: &Due) -> Result<flow::Request> {
    let key = &due.key;
    let names = names(due).map_err(|e| {
        Failure::new(
            format!("its names cannot be asked for again: {e}"),
            "ask for a new one by hand, then devkey cert install FILE",
        )
    })?;
    let ssh = due.ssh.as_ref().and_then(Item::ssh).map(|certificate| {
        let said = certificate.contents();
        SshRequest {
            kind: kind(said.kind),
            principals: said.principals.clone(),
        }
    });
    let spec = flow::RequestSpec {
        names,
        ssh,
        source: source(found, token),
        authority: None,
        evidence: device::evidence(token)?,
    };
    Ok(flow::Request::make(&TokenSigner { token, key }, spec)?)
}

fn kind(kind: Kind) -> SshKind {
    match kind {
        Kind::User => SshKind::User,
        Kind::Host => SshKind::Host,
    }
}

/// The names of the key's X.509 certificate; without one, those of OpenSSH's.
fn names(due: &Due) -> devkey::Result<x509::RequestSpec> {
    let key_usage = due.key.usage;
    let Some(said) = &due.said else {
        let certificate = due.ssh.as_ref().and_then(Item::ssh);
        let said = certificate.map(|certificate| certificate.contents());
        return Ok(x509::RequestSpec {
            subject: said.map_or_else(|| common_name("").parse(), subject)?,
            alt_names: Vec::new(),
            key_usage,
        });
    };
    let alt_names = said.alt_names.iter().map(|name| name.parse());
    Ok(x509::RequestSpec {
        subject: said.subject.parse()?,
        alt_names: alt_names.collect::<devkey::Result<_>>()?,
        key_usage,
    })
}

/// Whose an OpenSSH certificate is. A CA of devkey's writes the subject, as long as it is short, and the
/// serial, whose end is the certificate's own; others write what they please.
fn subject(said: &Contents) -> devkey::Result<Subject> {
    let serial = format!("{:016x}", said.serial);
    let ours = said
        .key_id
        .rsplit_once(' ')
        .filter(|(subject, hex)| hex.ends_with(&serial) && subject.chars().count() < KEY_ID);
    match ours.map(|(subject, _)| subject.parse()) {
        Some(Ok(subject)) => Ok(subject),
        _ => common_name(&said.key_id).parse(),
    }
}

/// Most characters of a common name: RFC 5280, appendix A.1.
const COMMON_NAME: usize = 64;

/// A name in RFC 4514's text, cut where it is too long: what means something there stands behind a backslash.
fn common_name(name: &str) -> String {
    let plain = |c: char| c.is_alphanumeric() || "-_.@ ".contains(c);
    let escape = |c: char| match plain(c) {
        true => c.to_string(),
        false => format!("\\{c}"),
    };
    let text: String = name.trim().chars().take(COMMON_NAME).map(escape).collect();
    format!("CN={text}")
}

/// A directory that nobody else can look into.
fn scratch() -> Result<PathBuf> {
    let mut random = [0; 8];
    rustix::rand::getrandom(&mut random, rustix::rand::GetRandomFlags::empty())
        .map_err(|e| Error::io("getrandom", e.into()))?;
    let name = format!("devkey-renew-{:016x}", u64::from_ne_bytes(random));
    let dir = Path::new(&std::env::temp_dir()).join(name);
    let made = DirBuilder::new().mode(0o700).create(&dir);
    made.map_err(|e| Error::io(format!("creating {}", dir.display()), e))?;
    Ok(dir)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use devkey::key::PublicKey;

    use super::*;

    /// Seen to fail without the comparisons of the serial and of the length.
    #[test]
    fn a_key_id_of_devkeys_is_a_subject() {
        let of = |key_id: &str| {
            let contents = Contents {
                kind: Kind::User,
                key: PublicKey::from_ed25519(&[9; 32]).unwrap(),
                serial: 0x0123_4567_89ab_cdef,
                key_id: key_id.to_owned(),
                principals: vec!["anna".to_owned()],
                valid_after: 0,
                valid_before: 1,
                critical_options: BTreeMap::new(),
                extensions: BTreeMap::new(),
            };
            subject(&contents).unwrap()
        };
        let is = |key_id: &str, wanted: &str| {
            assert_eq!(of(key_id), wanted.parse().unwrap(), "{key_id}");
        };
        let serial = "5a000000000000000123456789abcdef";
        is(&format!("CN=pump 7,O=Lab {serial}"), "CN=pump 7,O=Lab");
        is("anna", "CN=anna");
        is("CN=pump7 5a0f", "CN=CN\\=pump7 5a0f");
        let long = format!("CN={}", "a".repeat(57));
        is(
            &format!("{long} {serial}"),
            &format!("CN=CN\\={} 5a0", "a".repeat(57)),
        );
    }
}
