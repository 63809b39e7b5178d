//! What a device asks for.

use serde::{Deserialize, Serialize};

use super::file::{Body, Signed};
use super::plain;
use super::text::{Digest, Pem, RequestLabel, base64};
use super::transcript::Transcript;
use crate::error::{Error, Result};
use crate::identity::signer::Signer;
use crate::identity::{tpm, x509};
use crate::key::PublicKey;
use crate::provider;

/// Longest PKCS#10 request in bytes. One of ML-DSA-87 with many names has 10 KiB.
const MAX_CSR: usize = 16 * 1024;
/// Longest request in bytes as a file: a challenge has all of it inside, indented.
const MAX_REQUEST: usize = 128 * 1024;
/// Most principals that are asked for.
const MAX_PRINCIPALS: usize = 64;
/// Longest principal, in bytes: that of a DNS name, and more than an account has.
const MAX_PRINCIPAL: usize = 255;
/// Longest name of a back end, in bytes.
const MAX_BACK_END: usize = 32;
/// Most endorsement keys: TPMs have up to four.
pub(super) const MAX_EKS: usize = 4;
/// Longest TPMT_PUBLIC in bytes: that of RSA-4096 has 550.
pub(super) const MAX_PUBLIC: usize = 1024;

/// What a device asks for.
#[derive(Debug, Clone)]
pub struct RequestSpec {
    /// The names of the X.509 certificate, and what the key is used for.
    pub names: x509::RequestSpec,
    /// The SSH certificate, where one is wanted, too.
    pub ssh: Option<SshRequest>,
    /// What the device says of where its key is.
    pub source: Source,
    /// The one CA that this is for: [`Authority::fingerprint`](super::Authority::fingerprint).
    pub authority: Option<Digest>,
    /// What its TPM can show.
    pub evidence: Option<provider::Identity>,
}

/// An SSH certificate to be issued.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SshRequest {
    /// Whom it is for.
    pub kind: SshKind,
    /// Names of accounts, or the names that a host is called by: 1 to 64.
    pub principals: Vec<String>,
}

/// Whom an SSH certificate is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SshKind {
    /// Who logs in.
    User,
    /// A server.
    Host,
}

impl SshKind {
    /// Its name in files and on the command line.
    pub fn name(self) -> &'static str {
        match self {
            SshKind::User => "user",
            SshKind::Host => "host",
        }
    }
}

/// What a device says of where its key is. Nobody else says it: it never makes a level higher, but it
/// can make one lower.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Source {
    /// Name of the back end.
    pub back_end: String,
    /// Whether an ordinary file or a simulator may stand where the device should be.
    pub stand_in: bool,
}

/// A key and what it is to be certified as, signed by the key itself.
///
/// Parts: the PKCS#10 request's DER; the SSH request where there is one, as its kind (`user`, `host`)
/// and the list of its principals; the back end's name; `stand-in` or nothing; the CA's fingerprint
/// where one is named; the evidence where there is some, as the AK's TPMT_PUBLIC and the list of EKs,
/// each as its TPMT_PUBLIC, its certificate where it has one, and the list of intermediates.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    pub(super) file: Signed<RequestBody>,
    csr: x509::Request,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RequestBody {
    csr: Pem<RequestLabel>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    ssh: Option<SshRequest>,
    source: Source,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    authority: Option<Digest>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    tpm: Option<Tpm>,
}

/// [`provider::Identity`] as it stands in the file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Tpm {
    #[serde(with = "base64")]
    ak_public: Vec<u8>,
    endorsement: Vec<EndorsementKey>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct EndorsementKey {
    #[serde(with = "base64")]
    public: Vec<u8>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    certificate: Option<Bytes>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    intermediates: Vec<Bytes>,
}

/// DER that need not be a certificate; makers of TPMs leave all kinds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
struct Bytes(#[serde(with = "base64")] Vec<u8>);

impl Body for RequestBody {
    const KIND: &'static str = "request";

    fn say(&self, to: &mut Transcript) {
        to.part(&self.csr.der);
        to.count(self.ssh.iter().len());
        if let Some(ssh) = &self.ssh {
            to.part(ssh.kind.name().as_bytes());
            to.list(ssh.principals.iter().map(String::as_bytes));
        }
        to.part(self.source.back_end.as_bytes());
        to.part(if self.source.stand_in {
            b"stand-in"
        } else {
            b""
        });
        to.list(self.authority.iter().map(|digest| digest.0.as_slice()));
        to.count(self.tpm.iter().len());
        if let Some(tpm) = &self.tpm {
            tpm.say(to);
        }
    }

    fn signer(&self) -> Result<PublicKey> {
        self.csr().map(|csr| csr.public)
    }
}

impl Request {
    /// Makes one and signs it, twice: the PKCS#10 request is good by itself.
    ///
    /// # Errors
    /// [`Error::BadInput`] for names that cannot be, and those of signing.
    pub fn make(signer: &dyn Signer, spec: RequestSpec) -> Result<Self> {
        let body = RequestBody {
            csr: Pem::new(x509::Request::make(signer, &spec.names)?),
            ssh: spec.ssh,
            source: spec.source,
            authority: spec.authority,
            tpm: spec.evidence.map(Tpm::from),
        };
        Request::checked(Signed::make(signer, body)?)
    }

    /// Reads a file of at most 128 KiB.
    ///
    /// # Errors
    /// [`Error::BadInput`] with what is wrong: not a request, changed since it was made, a name that
    /// cannot be. Whether the names may be had is for the CA to say.
    pub fn parse(bytes: &[u8]) -> Result<Self> {
        if bytes.len() > MAX_REQUEST {
            return Err(too_long());
        }
        Request::checked(Signed::parse(bytes)?)
    }

    /// The file.
    pub fn encode(&self) -> Result<Vec<u8>> {
        let bytes = self.file.encode()?;
        match bytes.len() <= MAX_REQUEST {
            true => Ok(bytes),
            false => Err(too_long()),
        }
    }

    /// What stands for all of it.
    pub fn digest(&self) -> Digest {
        self.file.digest()
    }

    /// The key.
    pub fn public(&self) -> &PublicKey {
        &self.csr.public
    }

    /// The PKCS#10 request.
    pub fn csr(&self) -> &x509::Request {
        &self.csr
    }

    /// The SSH certificate that is wanted.
    pub fn ssh(&self) -> Option<&SshRequest> {
        self.file.body.ssh.as_ref()
    }

    /// Where the device says that its key is.
    pub fn source(&self) -> &Source {
        &self.file.body.source
    }

    /// The one CA that it is for.
    pub fn authority(&self) -> Option<Digest> {
        self.file.body.authority
    }

    /// The TPM's attestation key and those endorsement keys that have a certificate, in their order.
    pub fn evidence(&self) -> Vec<tpm::Evidence> {
        self.file.body.tpm.iter().flat_map(Tpm::evidence).collect()
    }

    pub(super) fn checked(file: Signed<RequestBody>) -> Result<Self> {
        file.verify()?;
        file.body.check()?;
        let csr = file.body.csr()?;
        let request = Request { csr, file };
        request.encode()?;
        Ok(request)
    }
}

impl RequestBody {
    fn csr(&self) -> Result<x509::Request> {
        if self.csr.der.len() > MAX_CSR {
            return Err(Error::input(format!(
                "a PKCS#10 request has at most {MAX_CSR} bytes here"
            )));
        }
        x509::Request::parse(&self.csr.der).map_err(|e| match e {
            Error::Crypto => Error::input("the PKCS#10 request was changed after it was signed"),
            other => other,
        })
    }

    fn check(&self) -> Result<()> {
        plain("a back end's name", &self.source.back_end, MAX_BACK_END)?;
        if let Some(ssh) = &self.ssh {
            if !(1..=MAX_PRINCIPALS).contains(&ssh.principals.len()) {
                return Err(Error::input(format!(
                    "an SSH certificate is asked for with 1 to {MAX_PRINCIPALS} principals"
                )));
            }
            let names = &mut ssh.principals.iter();
            names.try_for_each(|name| plain("a principal", name, MAX_PRINCIPAL))?;
        }
        self.tpm.as_ref().map_or(Ok(()), Tpm::check)
    }
}

impl Tpm {
    fn say(&self, to: &mut Transcript) {
        to.part(&self.ak_public);
        to.count(self.endorsement.len());
        for ek in &self.endorsement {
            to.part(&ek.public);
            to.list(ek.certificate.iter().map(|der| der.0.as_slice()));
            to.list(ek.intermediates.iter().map(|der| der.0.as_slice()));
        }
    }

    fn check(&self) -> Result<()> {
        let certificates = |ek: &EndorsementKey| {
            let mut all = ek.certificate.iter().chain(&ek.intermediates);
            all.all(|der| der.0.len() <= tpm::MAX_CERTIFICATE)
                && ek.intermediates.len() <= tpm::MAX_INTERMEDIATES
        };
        let fits = |ek: &EndorsementKey| ek.public.len() <= MAX_PUBLIC && certificates(ek);
        match self.ak_public.len() <= MAX_PUBLIC
            && self.endorsement.len() <= MAX_EKS
            && self.endorsement.iter().all(fits)
        {
            true => Ok(()),
            false => Err(Error::input("more is shown of a TPM than any TPM has")),
        }
    }

    fn evidence(&self) -> impl Iterator<Item = tpm::Evidence> {
        self.endorsement.iter().filter_map(|ek| {
            Some(tpm::Evidence {
                ek_certificate: ek.certificate.as_ref()?.0.clone(),
                intermediates: ek.intermediates.iter().map(|der| der.0.clone()).collect(),
                ek_public: ek.public.clone(),
                ak_public: self.ak_public.clone(),
            })
        })
    }
}

impl From<provider::Identity> for Tpm {
    fn from(identity: provider::Identity) -> Self {
        let ek = |ek: provider::EndorsementKey| EndorsementKey {
            public: ek.public,
            certificate: ek.certificate.map(Bytes),
            intermediates: ek.intermediates.into_iter().map(Bytes).collect(),
        };
        Tpm {
            ak_public: identity.ak_public,
            endorsement: identity.endorsement.into_iter().map(ek).collect(),
        }
    }
}

fn too_long() -> Error {
    Error::input(format!("a request has at most {MAX_REQUEST} bytes"))
}
