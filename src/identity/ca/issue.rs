//! Issuing, once for each answer.

use super::books::{Asked, Taken};
use super::config::Profile;
use super::device::endorsement;
use super::{CLOCK_SKEW, Ca};
use crate::error::{Error, Result};
use crate::identity::flow::{
    Answer, Challenge, Digest, Issued, IssuedSpec, SshKind, SshRequest, fingerprint,
};
use crate::identity::level::Level;
use crate::identity::signer::Signer;
use crate::identity::ssh::certificate::{Contents, Kind, Options, issue as issue_ssh};
use crate::identity::x509::{self, CertificateSpec, Serial};
use crate::key::Usage;

/// How often another serial is drawn where one is taken. Once is more than will ever happen.
const DRAWS: usize = 8;
/// Of the subject, so many characters go into the key ID of an SSH certificate.
pub const KEY_ID: usize = 60;

/// What an answer got.
#[derive(Debug)]
pub struct Granted {
    /// Its serial.
    pub serial: Serial,
    /// For the device.
    pub issued: Issued,
    /// The level that it states.
    pub level: Level,
    /// Last second of its validity.
    pub not_after: u64,
}

/// All that is signed about one device.
struct Grant<'a> {
    challenge: &'a Challenge,
    profile: &'a Profile,
    serial: &'a Serial,
    taken: &'a Taken,
    not_before: u64,
}

impl Ca {
    /// Checks an answer, and everything about its request anew, and issues what was asked for. What was
    /// issued is in the books before this returns.
    ///
    /// # Errors
    /// [`Error::BadInput`] with what is wrong, and those of signing and writing.
    pub fn issue(&self, signer: &dyn Signer, answer: &Answer, now: u64) -> Result<Granted> {
        self.check_signer(signer)?;
        let _lock = self.books.lock()?;
        let nonce = answer.nonce();
        let asked = self.books.asked(nonce)?.ok_or_else(unknown)?;
        self.check_unanswered(nonce)?;
        let challenge = self.ours(&asked)?;
        if now > asked.expires {
            return Err(Error::input("the challenge has expired; ask for a new one"));
        }
        self.check_not_stolen(fingerprint(challenge.request().public()), now)?;
        self.check_not_barred(challenge.request())?;
        let secret = || self.books.secret(nonce);
        self.proven(&challenge, answer, secret, (asked.level, now))?;
        let (_, profile) = self.config.profile(Some(&asked.profile))?;
        profile.check(challenge.request(), asked.level)?;
        let (serial, taken) = self.take(&challenge, &asked, profile, now)?;
        self.books.put_answered(nonce, &serial)?;
        let grant = Grant {
            challenge: &challenge,
            profile,
            serial: &serial,
            taken: &taken,
            not_before: now.saturating_sub(CLOCK_SKEW).max(self.issuer.not_before()),
        };
        let issued = self.sign(signer, &grant)?;
        let done = Taken {
            issued: true,
            ..taken
        };
        self.books.put_issued(&serial, &done, &issued.encode()?)?;
        Ok(Granted {
            serial,
            issued,
            level: done.level,
            not_after: done.not_after,
        })
    }

    /// Nobody gets two certificates for one answer. One that was killed at it got none.
    fn check_unanswered(&self, nonce: Digest) -> Result<()> {
        let Some(serial) = self.books.answered(nonce)? else {
            return Ok(());
        };
        match self.books.taken(&serial)? {
            Some(taken) if taken.issued => Err(Error::input(format!(
                "the challenge was answered before: serial {serial} was issued for it"
            ))),
            _ => Ok(()),
        }
    }

    /// The challenge as it was given out.
    fn ours(&self, asked: &Asked) -> Result<Challenge> {
        let challenge = Challenge::parse(asked.challenge.as_bytes())?;
        match challenge.authority().public == *self.public() {
            true => Ok(challenge),
            false => Err(Error::input("the challenge was of another key of this CA")),
        }
    }

    /// Takes a serial that nobody has, before anything is signed.
    fn take(
        &self,
        challenge: &Challenge,
        asked: &Asked,
        profile: &Profile,
        now: u64,
    ) -> Result<(Serial, Taken)> {
        let request = challenge.request();
        let csr = request.csr();
        let ends = now.saturating_add(u64::from(profile.days) * 86400);
        let mut taken = Taken {
            issued: false,
            profile: asked.profile.clone(),
            level: asked.level,
            subject: csr.subject.to_string(),
            alt_names: csr.alt_names.iter().map(ToString::to_string).collect(),
            principals: request
                .ssh()
                .map(|ssh| ssh.principals.clone())
                .unwrap_or_default(),
            key: fingerprint(request.public()),
            device: endorsement(challenge)?,
            ssh_serial: None,
            at: now,
            not_after: ends.min(self.issuer.not_after()),
        };
        for _ in 0..DRAWS {
            let serial = Serial::random()?;
            taken.ssh_serial = request.ssh().map(|_| ssh_serial(&serial));
            match self.books.take(&serial, &taken) {
                Err(Error::Exists(_)) => {}
                other => return other.map(|()| (serial, taken)),
            }
        }
        Err(Error::Internal("random numbers that repeat".to_owned()))
    }

    fn sign(&self, signer: &dyn Signer, grant: &Grant<'_>) -> Result<Issued> {
        let request = grant.challenge.request();
        let certificate = match grant.profile.x509 {
            true => Some(x509::issue(signer, &self.issuer, &self.x509(grant))?),
            false => None,
        };
        let ssh = match request.ssh() {
            Some(wanted) => {
                let contents = ssh_contents(grant, wanted);
                let made = issue_ssh(signer, &contents, grant.taken.level)?;
                Some(made.line(&contents.key_id))
            }
            None => None,
        };
        let spec = IssuedSpec {
            authority: self.authority(),
            request: request.digest(),
            chain: certificate
                .iter()
                .flat_map(|_| self.chain.clone())
                .collect(),
            certificate,
            ssh,
        };
        Issued::make(signer, spec)
    }

    fn x509(&self, grant: &Grant<'_>) -> CertificateSpec {
        let csr = grant.challenge.request().csr();
        CertificateSpec {
            serial: grant.serial.clone(),
            public: csr.public.clone(),
            subject: csr.subject.clone(),
            alt_names: csr.alt_names.clone(),
            not_before: grant.not_before,
            not_after: grant.taken.not_after,
            key_usage: csr.key_usage.unwrap_or(Usage::SIGN),
            extended_usage: grant.profile.extended_usage.clone(),
            policies: self.policies(grant.taken.level),
            ca: None,
            crl_url: grant.profile.crl_url.clone(),
        }
    }
}

fn ssh_contents(grant: &Grant<'_>, wanted: &SshRequest) -> Contents {
    let request = grant.challenge.request();
    let kind = match wanted.kind {
        SshKind::User => Kind::User,
        SshKind::Host => Kind::Host,
    };
    // A host is granted nothing: extensions are rights of users.
    let extensions = grant
        .profile
        .ssh_extensions
        .iter()
        .filter(|_| kind == Kind::User);
    let extensions: Options = extensions
        .map(|name| (name.clone(), String::new()))
        .collect();
    Contents {
        kind,
        key: request.public().clone(),
        serial: ssh_serial(grant.serial),
        key_id: key_id(&grant.taken.subject, grant.serial),
        principals: wanted.principals.clone(),
        valid_after: grant.not_before,
        valid_before: grant.taken.not_after.saturating_add(1),
        critical_options: Options::new(),
        extensions,
    }
}

/// What sshd's log calls the device: its subject and its serial.
fn key_id(subject: &str, serial: &Serial) -> String {
    let subject: String = subject
        .chars()
        .filter(|c| !c.is_control())
        .take(KEY_ID)
        .collect();
    format!("{subject} {serial}").trim_start().to_owned()
}

/// The last 8 bytes. Not 0, but once in 2^64 times, where SSH would take it for none.
fn ssh_serial(serial: &Serial) -> u64 {
    let last = serial
        .as_bytes()
        .last_chunk()
        .map_or(1, |last| u64::from_be_bytes(*last));
    last.max(1)
}

fn unknown() -> Error {
    Error::input("no challenge of this CA has that nonce, or it expired more than a day ago")
}
