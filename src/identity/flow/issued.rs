//! What the CA gives to the device in the end.

use serde::{Deserialize, Serialize};

use super::file::{Body, Signed};
use super::text::{CertificateLabel, Digest, Pem};
use super::transcript::Transcript;
use super::{Authority, MAX};
use crate::error::{Error, Result};
use crate::identity::level::Level;
use crate::identity::signer::Signer;
use crate::identity::ssh;
use crate::identity::x509::{self, chain};
use crate::key::PublicKey;

/// Most certificates above the device's.
const MAX_CHAIN: usize = 8;

/// What is issued.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IssuedSpec {
    /// Who issues it.
    pub authority: Authority,
    /// The digest of the request that it answers.
    pub request: Digest,
    /// The device's certificate, DER.
    pub certificate: Option<Vec<u8>>,
    /// The CA's certificate and those above it, the root last, DER. Empty without a certificate.
    pub chain: Vec<Vec<u8>>,
    /// The device's SSH certificate: a line without its end.
    pub ssh: Option<String>,
}

/// Certificates for one key, at least one of the two kinds, signed by the CA as a whole.
///
/// Parts: the CA's name and key (SubjectPublicKeyInfo), the request's digest, the certificate's DER
/// where there is one, the list of the chain's, the SSH certificate's line where there is one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Issued {
    file: Signed<IssuedBody>,
    public: PublicKey,
    level: Option<Level>,
    ssh: Option<ssh::certificate::Certificate>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct IssuedBody {
    authority: Authority,
    request: Digest,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    certificate: Option<Pem<CertificateLabel>>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    chain: Vec<Pem<CertificateLabel>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    ssh: Option<String>,
}

impl Body for IssuedBody {
    const KIND: &'static str = "issued";

    fn say(&self, to: &mut Transcript) {
        to.part(self.authority.name.as_bytes());
        to.part(&self.authority.public.to_spki());
        to.part(&self.request.0);
        to.list(self.certificate.iter().map(|one| one.der.as_slice()));
        to.list(self.chain.iter().map(|one| one.der.as_slice()));
        to.list(self.ssh.iter().map(String::as_bytes));
    }

    fn signer(&self) -> Result<PublicKey> {
        self.authority.check()?;
        Ok(self.authority.public.clone())
    }
}

impl Issued {
    /// Puts it together and signs it.
    ///
    /// # Errors
    /// [`Error::BadInput`] where the parts do not belong together, and those of signing.
    pub fn make(ca: &dyn Signer, spec: IssuedSpec) -> Result<Self> {
        let body = IssuedBody {
            authority: spec.authority,
            request: spec.request,
            certificate: spec.certificate.map(Pem::new),
            chain: spec.chain.into_iter().map(Pem::new).collect(),
            ssh: spec.ssh,
        };
        Issued::checked(Signed::make(ca, body)?)
    }

    /// Reads a file of at most [`MAX`] bytes: its signature is right, and so are those of the device's
    /// certificates; they are for one key, which is [`Issued::public`], and state one level.
    ///
    /// # Errors
    /// [`Error::BadInput`] with what is wrong.
    pub fn parse(bytes: &[u8]) -> Result<Self> {
        Issued::checked(Signed::parse(bytes)?)
    }

    /// The file.
    pub fn encode(&self) -> Result<Vec<u8>> {
        self.file.encode()
    }

    /// Who issued it. Whether that is the CA that the device trusts is for the caller to say.
    pub fn authority(&self) -> &Authority {
        &self.file.body.authority
    }

    /// The digest of the request that it answers.
    pub fn request(&self) -> Digest {
        self.file.body.request
    }

    /// The key that the certificates are for.
    pub fn public(&self) -> &PublicKey {
        &self.public
    }

    /// The level that they state.
    pub fn level(&self) -> Option<Level> {
        self.level
    }

    /// The device's certificate, DER.
    pub fn certificate(&self) -> Option<&[u8]> {
        self.file
            .body
            .certificate
            .as_ref()
            .map(|pem| pem.der.as_slice())
    }

    /// The certificates above it, the issuer's first and the root last, DER.
    pub fn chain(&self) -> impl ExactSizeIterator<Item = &[u8]> {
        self.file.body.chain.iter().map(|pem| pem.der.as_slice())
    }

    /// The device's SSH certificate.
    pub fn ssh(&self) -> Option<&ssh::certificate::Certificate> {
        self.ssh.as_ref()
    }

    /// The SSH certificate's line as the CA wrote it, without its end.
    pub fn ssh_line(&self) -> Option<&str> {
        self.file.body.ssh.as_deref()
    }

    /// Whether the certificates are for this key and good `at` that second since 1970, the X.509 one by
    /// a path to the root that came along.
    ///
    /// # Errors
    /// [`Error::BadInput`] says which is not.
    pub fn check(&self, public: &PublicKey, at: u64) -> Result<()> {
        if self.public != *public {
            return Err(Error::input("the certificates are for another key"));
        }
        if let Some(certificate) = self.certificate() {
            let mut above: Vec<Vec<u8>> = self.chain().map(<[u8]>::to_vec).collect();
            let root = above.split_off(above.len().saturating_sub(1));
            chain::verify(certificate, &above, &root, at, chain::Purpose::Any)?;
        }
        match &self.ssh {
            None => Ok(()),
            Some(ssh) => ssh.check(&ssh::certificate::Expected {
                kind: ssh.contents().kind,
                authorities: std::slice::from_ref(&self.authority().public),
                at,
            }),
        }
    }

    fn checked(file: Signed<IssuedBody>) -> Result<Self> {
        let body = &file.body;
        let wrong = |reason: &str| Err(Error::input(format!("the issued file {reason}")));
        if body.chain.len() > MAX_CHAIN {
            return wrong("has too long a chain");
        }
        if body.chain.is_empty() != body.certificate.is_none() {
            return wrong("has a chain and no certificate, or a certificate and no chain");
        }
        let ssh = body
            .ssh
            .as_deref()
            .map(ssh::certificate::Certificate::from_line);
        let ssh = ssh.transpose()?;
        let by_ssh = ssh
            .as_ref()
            .map(|ssh| (ssh.contents().key.clone(), ssh.level()));
        if ssh
            .as_ref()
            .is_some_and(|ssh| *ssh.authority() != body.authority.public)
        {
            return wrong("has an SSH certificate of another CA");
        }
        let (public, level) = match (body.x509()?, by_ssh) {
            (None, None) => return wrong("has no certificate"),
            (Some((one, level)), Some((other, also))) => {
                // A CA with policies of its own states no level that is known here.
                if one != other || level.is_some_and(|level| Some(level) != also) {
                    return wrong("has certificates for two keys, or of two levels");
                }
                (one, level.or(also))
            }
            (Some(one), None) | (None, Some(one)) => one,
        };
        Ok(Issued {
            public,
            level,
            ssh,
            file,
        })
    }
}

impl IssuedBody {
    /// The key and the level of the X.509 certificate, whose issuer is the first of the chain.
    fn x509(&self) -> Result<Option<(PublicKey, Option<Level>)>> {
        let Some(pem) = &self.certificate else {
            return Ok(None);
        };
        let issuer = self.chain.first();
        let by = issuer.map(|issuer| x509::matches_key(&issuer.der, &self.authority.public));
        if !by.transpose()?.unwrap_or_default() {
            return Err(Error::input(
                "the issued file's chain does not begin with the CA's certificate",
            ));
        }
        let public = PublicKey::from_certificate(&pem.der)?;
        Ok(Some((public, x509::describe(&pem.der)?.level)))
    }
}

/// The parts are bounded by the whole.
const _: () = assert!(ssh::certificate::MAX < MAX);
