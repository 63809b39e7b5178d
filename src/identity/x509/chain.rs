//! Path validation (RFC 5280 §6): from a certificate to a root that is trusted.

use std::collections::BTreeSet;

use der::oid::ObjectIdentifier;
use x509_cert::certificate::Version;

use super::certificate::Certificate;
use super::extensions::ANY_POLICY;
use super::name::{same, shown};
use super::usage::ExtendedUsage;
use crate::error::{Error, Result};
use crate::identity::level::Level;

/// Most certificates between the leaf and the root.
const MAX_BETWEEN: usize = 8;
/// Most certificates that are taken from the other side as intermediates.
const MAX_OFFERED: usize = 32;
/// Most signatures that are checked for one leaf: cross-signed CAs multiply paths.
const MAX_CHECKS: usize = 64;

/// subjectDirectoryAttributes: TPM makers state the specification and the evaluation there (TCG EK
/// Credential Profile §3.2); critical or not, it takes nothing back.
const SUBJECT_DIRECTORY_ATTRIBUTES: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.29.9");

/// What a certificate is to be good for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// Whatever it says: a device's or a CA's.
    Any,
    /// To be a TLS client.
    Client,
    /// To be a TLS server.
    Server,
    /// To be a TPM's endorsement key (TCG EK Credential Profile).
    EndorsementKey,
}

/// A certificate whose path to a root was checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verified {
    /// The certified key: SubjectPublicKeyInfo, DER.
    pub spki: Vec<u8>,
    /// The policies (OIDs) that it states and that every CA of its path may state.
    pub policies: Vec<String>,
    /// The strongest level that those policies state. Of worth only where the root is that of a CA
    /// which states levels as devkey does.
    pub level: Option<Level>,
    /// Whose it is: RFC 4514 text.
    pub subject: String,
    /// The last second of validity of the certificate itself, since 1970.
    pub not_after: u64,
    /// The path, DER: the certificate, its issuer, and so on to the root.
    pub path: Vec<Vec<u8>>,
}

/// Finds a path from `leaf` through some of `intermediates` to one of `roots` (all DER), all of whose
/// certificates are good `at` that second since 1970. Nothing is fetched, revocation is not looked at.
///
/// The intermediates may be hostile; the roots are trusted, and only their names, keys, times and rights
/// are looked at.
///
/// # Errors
/// [`Error::BadInput`] with what is wrong: with the leaf, or with the path that led furthest.
pub fn verify(
    leaf: &[u8],
    intermediates: &[Vec<u8>],
    roots: &[Vec<u8>],
    at: u64,
    purpose: Purpose,
) -> Result<Verified> {
    if intermediates.len() > MAX_OFFERED {
        return Err(Error::input(format!(
            "more than {MAX_OFFERED} intermediate certificates"
        )));
    }
    let read = |all: &[Vec<u8>]| all.iter().map(|der| Certificate::read(der)).collect();
    let (intermediates, roots): (Result<Vec<_>>, Result<Vec<_>>) =
        (read(intermediates), read(roots));
    let (intermediates, roots) = (intermediates?, roots?);
    let leaf = Certificate::read(leaf)?;
    let mut search = Search {
        intermediates: &intermediates,
        roots: &roots,
        at,
        purpose,
        checks: 0,
    };
    search.current(&leaf).map_err(|e| about(&leaf, &e))?;
    fit(&leaf, purpose).map_err(|e| about(&leaf, &e))?;
    let path = search
        .up(&mut vec![&leaf])
        .map_err(|failure| failure.error)?;
    Ok(verified(&leaf, &path))
}

struct Search<'a> {
    intermediates: &'a [Certificate],
    roots: &'a [Certificate],
    at: u64,
    purpose: Purpose,
    checks: usize,
}

/// Why no path was found, and how long the longest was that was tried.
struct Failure {
    length: usize,
    error: Error,
}

impl<'a> Search<'a> {
    /// Extends a path upwards until a root ends it.
    fn up(&mut self, path: &mut Vec<&'a Certificate>) -> Result<Vec<&'a Certificate>, Failure> {
        let Some(&last) = path.last() else {
            return Err(Failure {
                length: 0,
                error: Error::Internal("an empty path".into()),
            });
        };
        let mut worst = Failure {
            length: path.len(),
            error: Error::input(format!(
                "no certificate of its issuer, {}, is known",
                shown(&last.issuer.to_string())
            )),
        };
        worst.error = about(last, &worst.error);
        for (candidate, trusted) in self.issuers(last) {
            if path.iter().any(|below| below.der == candidate.der) {
                continue;
            }
            let between = path.len() - 1;
            let found = match self.link(last, candidate, between, trusted) {
                Err(error) => Err(Failure {
                    length: path.len() + 1,
                    error,
                }),
                Ok(()) => {
                    path.push(candidate);
                    if trusted {
                        return Ok(path.clone());
                    }
                    let found = self.up(path);
                    path.pop();
                    found
                }
            };
            match found {
                Ok(path) => return Ok(path),
                Err(failure) if failure.length > worst.length => worst = failure,
                Err(_) => {}
            }
        }
        Err(worst)
    }

    /// Who may have issued a certificate, roots first: by name, and by key identifier where both say
    /// one.
    fn issuers(&self, of: &Certificate) -> Vec<(&'a Certificate, bool)> {
        let fits = |candidate: &&Certificate| {
            let keys = (&of.known.authority_key, &candidate.known.subject_key);
            let same_key = !matches!(keys, (Some(wanted), Some(has)) if wanted != has);
            same_key && same(&of.issuer, &candidate.subject)
        };
        let roots = self.roots.iter().filter(fits).map(|root| (root, true));
        let others = self
            .intermediates
            .iter()
            .filter(fits)
            .map(|other| (other, false));
        roots.chain(others).collect()
    }

    /// Whether `issuer` may and did sign `below`, with so many CAs between it and the leaf.
    fn link(
        &mut self,
        below: &Certificate,
        issuer: &Certificate,
        between: usize,
        trusted: bool,
    ) -> Result<()> {
        let may = || {
            self.current(issuer)?;
            may_issue(issuer, between)?;
            understood(issuer, trusted, self.purpose)
        };
        may().map_err(|e| about(issuer, &e))?;
        self.checks += 1;
        if self.checks > MAX_CHECKS || (!trusted && between >= MAX_BETWEEN) {
            return Err(Error::input("the path to a root is too long"));
        }
        below.verify(&issuer.spki).map_err(|e| match e {
            Error::Crypto => about(below, &Error::input("its issuer's key did not sign it")),
            other => about(below, &other),
        })
    }

    fn current(&self, certificate: &Certificate) -> Result<()> {
        if self.at < certificate.not_before {
            return Err(Error::input("it is not valid yet; is the clock right?"));
        }
        if self.at > certificate.not_after {
            return Err(Error::input("it has expired"));
        }
        Ok(())
    }
}

/// RFC 5280 §6.1.4 (k) to (n).
fn may_issue(issuer: &Certificate, between: usize) -> Result<()> {
    // A root of version 1 has no extensions to say that it is one. Makers of TPMs have none such.
    if issuer.version != Version::V3 || !issuer.known.is_authority() {
        return Err(Error::input("it is not the certificate of a CA"));
    }
    let most = issuer
        .known
        .basic
        .as_ref()
        .and_then(|basic| basic.path_len_constraint);
    match most.is_some_and(|most| between > usize::from(most)) {
        true => Err(Error::input("there are more CAs below it than it allows")),
        false => Ok(()),
    }
}

/// Whether nothing stands in a CA's certificate that is not obeyed here.
fn understood(issuer: &Certificate, trusted: bool, purpose: Purpose) -> Result<()> {
    no_unknown(issuer, purpose)?;
    if issuer.known.name_constraints {
        return Err(Error::unsupported("nameConstraints"));
    }
    // A CA's purposes bound those of what it issues, as TLS programs have it. Makers of TPMs put there
    // what they please.
    match wanted(purpose) {
        Some(usage) if !trusted && purpose != Purpose::EndorsementKey => allows(issuer, usage),
        _ => Ok(()),
    }
}

fn no_unknown(certificate: &Certificate, purpose: Purpose) -> Result<()> {
    let tolerated = |oid: &ObjectIdentifier| {
        purpose == Purpose::EndorsementKey && *oid == SUBJECT_DIRECTORY_ATTRIBUTES
    };
    let mut unknown = certificate
        .known
        .unknown_critical
        .iter()
        .filter(|oid| !tolerated(oid));
    match unknown.next() {
        Some(oid) => Err(Error::unsupported(format!("critical extension {oid}"))),
        None => Ok(()),
    }
}

/// Whether the leaf is good for the purpose.
fn fit(leaf: &Certificate, purpose: Purpose) -> Result<()> {
    no_unknown(leaf, purpose)?;
    let Some(usage) = wanted(purpose) else {
        return Ok(());
    };
    if leaf.known.basic.as_ref().is_some_and(|basic| basic.ca) {
        return Err(Error::input("it is a CA's, not a device's"));
    }
    allows(leaf, usage)?;
    let right = leaf.known.key_usage.is_none_or(|bits| match purpose {
        // RSA keys decrypt credentials, those of curves agree on a key (EK Credential Profile §3.2).
        Purpose::EndorsementKey => bits.key_encipherment() || bits.key_agreement(),
        _ => bits.digital_signature(),
    });
    match right {
        true => Ok(()),
        false => Err(Error::input("its key usage is another")),
    }
}

fn wanted(purpose: Purpose) -> Option<ExtendedUsage> {
    match purpose {
        Purpose::Any => None,
        Purpose::Client => Some(ExtendedUsage::CLIENT),
        Purpose::Server => Some(ExtendedUsage::SERVER),
        Purpose::EndorsementKey => Some(ExtendedUsage::ENDORSEMENT),
    }
}

fn allows(certificate: &Certificate, usage: ExtendedUsage) -> Result<()> {
    let all = certificate.known.extended.as_ref();
    match all.is_none_or(|all| all.contains(&usage) || all.contains(&ExtendedUsage::ANY)) {
        true => Ok(()),
        false => Err(Error::input(format!("it is not for the purpose {usage}"))),
    }
}

fn verified(leaf: &Certificate, path: &[&Certificate]) -> Verified {
    let mut policies = stated(leaf);
    let above = path.len().saturating_sub(2);
    for ca in path.iter().skip(1).take(above) {
        let may = stated(ca);
        if !may.contains(ANY_POLICY) {
            policies.retain(|policy| may.contains(policy));
        }
    }
    let policies: Vec<_> = policies.into_iter().collect();
    Verified {
        spki: leaf.spki.clone(),
        level: Level::stated_by(&policies),
        policies,
        not_after: leaf.not_after,
        subject: leaf.subject.to_string(),
        path: path.iter().map(|one| one.der.clone()).collect(),
    }
}

/// The policies of a certificate. That of a root counts for nothing (RFC 5280 §6.1.1).
fn stated(certificate: &Certificate) -> BTreeSet<String> {
    let all = certificate.known.policies.iter().flatten();
    all.map(ObjectIdentifier::to_string).collect()
}

/// An error that says which certificate is meant.
fn about(certificate: &Certificate, error: &Error) -> Error {
    let (subject, serial) = (shown(&certificate.subject.to_string()), &certificate.serial);
    Error::input(format!(
        "the certificate of {subject} (serial {serial}): {error}"
    ))
}
