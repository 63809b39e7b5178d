//! A CA for a lab, a factory line, a fleet of hundreds: its books, and what it does by them.
//!
//! The books are one directory of mode 0700, one file for each thing that is known, none of which ever
//! changes its meaning:
//!
//! | file | says |
//! |---|---|
//! | `ca.toml` | name, key, profiles: [`Config`]. People edit it. |
//! | `ca.pem` | the CA's certificate, and those above it, the root last |
//! | `ek-roots/*.pem`, `*.crt`, `*.der` | makers of TPMs who are believed |
//! | `registered/KEY.toml` | a PUF's public key that came through a trusted channel |
//! | `challenges/NONCE.toml`, `.secret` | a question that was asked, and a credential's secret |
//! | `answered/NONCE.toml` | the serial that its answer got |
//! | `issued/SERIAL.toml`, `.json` | a serial that is taken, then the certificates |
//! | `revoked/SERIAL.toml` | what is no longer good, since when, and why |
//! | `barred/KEY.toml` | a TPM, by an endorsement key, that is certified no more |
//! | `lists.toml` | the number of the last list of what is revoked |
//!
//! Files are replaced whole or not at all, also where the power fails. **A serial is a random number of
//! 127 bits**, and not a counter: books that were put back from a copy, or copied to another machine,
//! would count on from what was used already. Its file is made before anything is signed and fails
//! where it exists, so that it is no one else's even without the lock that is held besides. A process
//! that is killed in between leaves a serial that is taken and never issued; the answer is taken again
//! then, and gets another.

mod books;
mod challenge;
mod config;
mod device;
mod evidence;
mod issue;
mod list;
mod own;
mod pattern;
mod register;
mod revoke;

pub use challenge::Challenged;
pub use config::{Config, Profile};
pub use issue::{Granted, KEY_ID};
pub use list::{Entry, State};
pub use own::Own;
pub use pattern::Pattern;
pub use register::Registered;

use std::path::Path;

use crate::error::{Error, Result};
use crate::identity::flow::{Authority, Digest, fingerprint};
use crate::identity::level::Level;
use crate::identity::signer::Signer;
use crate::identity::x509::{self, Issuer};
use crate::key::PublicKey;
use books::Books;

/// Seconds by which a certificate begins earlier than it is made: clocks differ.
const CLOCK_SKEW: u64 = 300;

/// A CA: its books, opened. Times are seconds since 1970 throughout.
#[derive(Debug)]
pub struct Ca {
    books: Books,
    config: Config,
    issuer: Issuer,
    /// Its certificate and those above it, the root last, DER.
    chain: Vec<Vec<u8>>,
}

/// What a new CA is made of.
#[derive(Debug, Clone)]
pub struct NewCa {
    /// What stands in `ca.toml`.
    pub config: Config,
    /// Its certificate.
    pub own: Own,
    /// Certificates of makers of TPMs, DER.
    pub ek_roots: Vec<Vec<u8>>,
}

impl Ca {
    /// Makes a CA in a directory that is not there yet.
    ///
    /// # Errors
    /// [`Error::Exists`], [`Error::BadInput`] for a configuration or a name that cannot be, or where what is
    /// above it does not lead to a root or does not let it issue, and those of signing and writing. Nothing
    /// is left behind.
    pub fn create(dir: &Path, signer: &dyn Signer, new: &NewCa) -> Result<Self> {
        new.config.check(&new.config.encode()?)?;
        if fingerprint(signer.public()) != new.config.key {
            return Err(Error::Internal("the CA's key is another".to_owned()));
        }
        let chain = new.own.chain(signer)?;
        Books::create(dir, |books| {
            books.put_config(&new.config.encode()?)?;
            books.put_chain(&chain)?;
            new.ek_roots
                .iter()
                .try_for_each(|root| books.add_ek_root(root))
        })?;
        Ca::open(dir)
    }

    /// Opens a CA's books.
    ///
    /// # Errors
    /// [`Error::NotFound`] where there are none, [`Error::Refused`] where others can write them,
    /// [`Error::BadConfig`] and [`Error::BadRecord`].
    pub fn open(dir: &Path) -> Result<Self> {
        let books = Books::open(dir)?;
        let (text, path) = books.config()?;
        let config = Config::parse(&text, &path)?;
        let chain = books.chain()?;
        let own = chain
            .first()
            .ok_or_else(|| Error::NotFound("the CA's certificate".to_owned()))?;
        let issuer = Issuer::from_certificate(own)?;
        if fingerprint(issuer.public()) != config.key {
            return Err(Error::BadRecord {
                path,
                reason: "its key is not the one of ca.pem; put the right certificate back"
                    .to_owned(),
            });
        }
        Ok(Ca {
            books,
            config,
            issuer,
            chain,
        })
    }

    /// What stands in `ca.toml`.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// The CA's key.
    pub fn public(&self) -> &PublicKey {
        self.issuer.public()
    }

    /// Its certificate and those above it, the root last, DER.
    pub fn chain(&self) -> &[Vec<u8>] {
        &self.chain
    }

    /// Who it is, to a device.
    pub fn authority(&self) -> Authority {
        Authority {
            name: self.config.name.clone(),
            public: self.public().clone(),
        }
    }

    /// What stands for its key, to a device.
    pub fn fingerprint(&self) -> Digest {
        self.authority().fingerprint()
    }

    /// The policies that state a level here.
    pub fn policies(&self, level: Level) -> Vec<String> {
        match self.config.policies.get(&level) {
            Some(own) => own.clone(),
            None => level.policies().iter().map(|&oid| oid.to_owned()).collect(),
        }
    }

    /// The levels that it cannot state in X.509: a certificate of its chain does not allow the policies. What a
    /// root says counts for nothing (RFC 5280 §6.1.1).
    ///
    /// # Errors
    /// [`Error::BadInput`] where the chain cannot be read.
    pub fn unstatable(&self) -> Result<Vec<Level>> {
        let mut levels = Level::ALL.to_vec();
        let mut not = Vec::new();
        for der in self.chain.iter().rev().skip(1) {
            let may = x509::describe(der)?.policies;
            let states = |level: &Level| {
                let any = may.iter().any(|policy| policy == x509::ANY_POLICY);
                any || self
                    .policies(*level)
                    .iter()
                    .all(|policy| may.contains(policy))
            };
            not.extend(levels.iter().filter(|level| !states(level)));
            levels.retain(states);
        }
        Ok(not)
    }

    /// # Errors
    /// [`Error::BadInput`] where `signer` is not the CA's key.
    fn check_signer(&self, signer: &dyn Signer) -> Result<()> {
        match signer.public() == self.public() {
            true => Ok(()),
            false => Err(Error::input("that is not the CA's key")),
        }
    }
}
