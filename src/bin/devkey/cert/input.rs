//! What a CA handed out, as it is read from a file or a command.

use std::fs::File;
use std::io::{Read, stdin};
use std::path::Path;

use devkey::Error;
use devkey::identity::bundle::{Most, certificates};
use devkey::identity::flow::{Digest, Issued};
use devkey::identity::ssh::certificate::Certificate as SshCertificate;
use devkey::identity::ssh::principals;
use devkey::key::PublicKey;

use crate::failure::{Failure, Result};

/// Certificates that are to be installed. Nothing of them was checked but that they can be read.
#[derive(Debug, Default)]
pub(crate) struct Input {
    /// X.509, DER.
    pub(crate) x509: Vec<Vec<u8>>,
    pub(crate) ssh: Vec<SshCertificate>,
    /// The request that it answers, where it says so.
    pub(crate) request: Option<Digest>,
}

/// Whom certificates must come from; where none is named, whoever knows the key may have issued them.
#[derive(Debug, Default)]
pub(crate) struct Roots {
    /// Roots, DER.
    pub(crate) x509: Vec<Vec<u8>>,
    /// The keys of OpenSSH's CAs.
    pub(crate) ssh: Option<Vec<PublicKey>>,
}

impl Input {
    /// From a file; `-` is standard input.
    pub(crate) fn read(file: &Path) -> Result<Self> {
        let bytes = match file.as_os_str() == "-" {
            true => bounded(stdin().lock(), "standard input")?,
            false => read(file)?,
        };
        Input::parse(&bytes).map_err(|e| at(file, &e))
    }

    /// What `devkey ca issue` wrote; PEM, DER, OpenSSH's lines, or lines and PEM together.
    pub(crate) fn parse(bytes: &[u8]) -> devkey::Result<Self> {
        if bytes.trim_ascii_start().starts_with(b"{") {
            return Ok(Input::issued(&Issued::parse(bytes)?));
        }
        let mut input = Input::default();
        let Ok(text) = std::str::from_utf8(bytes) else {
            input.x509 = certificates(bytes, Most::CHAIN)?;
            return Ok(input);
        };
        let (lines, rest): (Vec<&str>, Vec<&str>) = text.lines().partition(|line| is_ssh(line));
        for line in &lines {
            input.ssh.push(SshCertificate::from_line(line.trim())?);
        }
        let rest = rest.join("\n");
        if lines.is_empty() || rest.contains("-----BEGIN ") {
            input.x509 = certificates(rest.as_bytes(), Most::CHAIN)?;
        }
        Ok(input)
    }

    fn issued(file: &Issued) -> Self {
        let chain = file.certificate().into_iter().chain(file.chain());
        Input {
            x509: chain.map(<[u8]>::to_vec).collect(),
            ssh: file.ssh().cloned().into_iter().collect(),
            request: Some(file.request()),
        }
    }
}

impl Roots {
    /// From the files that were named.
    pub(crate) fn read(x509: Option<&Path>, ssh: Option<&Path>) -> Result<Self> {
        let mut roots = Roots::default();
        if let Some(file) = x509 {
            let all = certificates(&read(file)?, Most::CHAIN);
            roots.x509 = all.map_err(|e| at(file, &e))?;
        }
        if let Some(file) = ssh {
            let text = String::from_utf8_lossy(&read(file)?).into_owned();
            let keys = principals::authorities(&text);
            roots.ssh = Some(keys.map_err(|e| at(file, &e))?);
        }
        Ok(roots)
    }
}

/// Longest input, in bytes.
pub(crate) const MAX_INPUT: usize = Most::CHAIN.bytes;

/// Reads to the end, which is not far.
pub(crate) fn bounded(from: impl Read, what: &str) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let most = MAX_INPUT as u64 + 1;
    let read = from.take(most).read_to_end(&mut bytes);
    read.map_err(|e| Error::io(format!("reading {what}"), e))?;
    match bytes.len() > MAX_INPUT {
        true => Err(Failure::new(
            format!("{what}: more than {MAX_INPUT} bytes are no certificate and its chain"),
            AS_ISSUED,
        )),
        false => Ok(bytes),
    }
}

/// What to do about a file that is something else.
const AS_ISSUED: &str = "give the file as the CA issued it; nothing was changed";

fn read(file: &Path) -> Result<Vec<u8>> {
    let what = file.display().to_string();
    let open = File::open(file).map_err(|e| {
        let error = Error::io(format!("opening {what}"), e);
        Failure::new(error, "name a file that is there; `-` is standard input")
    })?;
    bounded(open, &what)
}

fn is_ssh(line: &str) -> bool {
    let name = line.split_whitespace().next().unwrap_or_default();
    name.ends_with("-cert-v01@openssh.com")
}

fn at(file: &Path, error: &Error) -> Failure {
    Failure::new(format!("{}: {error}", file.display()), AS_ISSUED)
}
