//! Which level a device can show.

use super::Ca;
use super::register::disqualified;
use crate::error::{Error, Result};
use crate::identity::flow::{
    Answer, Challenge, Request, TpmAnswer, activation, fingerprint, qualifying_data,
};
use crate::identity::level::Level;
use crate::identity::tpm::{self, Evidence};
use crate::identity::x509::chain::{self, Purpose};
use crate::secret::Secret;

/// What a request earns if it is answered.
#[derive(Debug)]
pub(super) struct Judged {
    pub(super) level: Level,
    /// For level TPM: each endorsement key that is shown, with the AK's Name. One at least has a maker who is
    /// believed; all are to prove that they are of one TPM.
    pub(super) tpm: Vec<(Evidence, Vec<u8>)>,
    /// Why it is no more.
    pub(super) reasons: Vec<String>,
}

impl Ca {
    /// Judges a request by the books as they are now.
    pub(super) fn judge(&self, request: &Request, now: u64) -> Result<Judged> {
        let mut reasons = Vec::new();
        if self.has_trusted_tpm(request, now, &mut reasons)? {
            let shown = request.evidence().into_iter();
            let sound = |one: Evidence| {
                let ak_name = one.check().ok()?.ak_name;
                Some((one, ak_name))
            };
            return Ok(Judged {
                level: Level::Tpm,
                tpm: shown.filter_map(sound).collect(),
                reasons: Vec::new(),
            });
        }
        let level = match self.puf(request)? {
            None => Level::Puf,
            Some(reason) => {
                reasons.push(reason);
                Level::Software
            }
        };
        Ok(Judged {
            level,
            tpm: Vec::new(),
            reasons,
        })
    }

    /// Why a key is not that of a PUF; nothing where it is one.
    fn puf(&self, request: &Request) -> Result<Option<String>> {
        Ok(match self.registered(fingerprint(request.public()))? {
            Some(_) => disqualified(request.source()),
            None => Some("its key is not registered as a PUF's".to_owned()),
        })
    }

    /// Whether there is an endorsement key whose maker is believed.
    fn has_trusted_tpm(
        &self,
        request: &Request,
        now: u64,
        reasons: &mut Vec<String>,
    ) -> Result<bool> {
        let all = request.evidence();
        if all.is_empty() {
            reasons.push("it shows no endorsement certificate of a TPM".to_owned());
            return Ok(false);
        }
        let roots = self.books.ek_roots()?;
        if roots.is_empty() {
            reasons.push("no maker of TPMs is believed: ek-roots is empty".to_owned());
            return Ok(false);
        }
        for evidence in all {
            match trusted(&evidence, &roots, now) {
                Ok(()) => return Ok(true),
                Err(e) => reasons.push(e.to_string()),
            }
        }
        Ok(false)
    }

    /// Whether an answer shows the level that its challenge asked for, by the books as they are now.
    pub(super) fn proven(
        &self,
        challenge: &Challenge,
        answer: &Answer,
        secret: impl FnOnce() -> Result<Secret>,
        (asked, now): (Level, u64),
    ) -> Result<()> {
        answer.check(challenge)?;
        match asked {
            Level::Tpm => self.tpm_proven(challenge, answer, &secret()?, now),
            Level::Puf | Level::Software if answer.tpm().is_some() => Err(Error::input(
                "the answer adds what the challenge did not ask for",
            )),
            Level::Puf => match self.puf(challenge.request())? {
                None => Ok(()),
                Some(reason) => Err(Error::input(format!(
                    "level puf is no longer the device's: {reason}"
                ))),
            },
            Level::Software => Ok(()),
        }
    }

    fn tpm_proven(
        &self,
        challenge: &Challenge,
        answer: &Answer,
        secret: &Secret,
        now: u64,
    ) -> Result<()> {
        let Some(TpmAnswer {
            activation: given,
            certified,
        }) = answer.tpm()
        else {
            return Err(Error::input("the answer lacks what the TPM adds"));
        };
        let asked = asked(challenge);
        let Some(shown) = asked.first() else {
            return Err(Error::input("the challenge was for another TPM"));
        };
        let roots = self.books.ek_roots()?;
        let believed = trusted(shown, &roots, now);
        if !asked.iter().any(|one| trusted(one, &roots, now).is_ok()) {
            return believed;
        }
        if !same(&activation(secret, challenge).0, &given.0) {
            return Err(Error::input(
                "the TPM did not open the credentials: another TPM, or another attestation key",
            ));
        }
        let data = qualifying_data(challenge);
        tpm::verify_certify(
            &certified,
            &shown.ak_public,
            challenge.request().public(),
            &data.0,
        )
    }
}

/// The endorsement keys that a challenge has credentials for, as its request shows them.
pub(super) fn asked(challenge: &Challenge) -> Vec<Evidence> {
    let mut all = challenge.request().evidence();
    all.retain(|one| {
        let mut credentials = challenge.credentials();
        credentials.any(|(ek, _)| ek == one.ek_public)
    });
    all
}

/// Whether an endorsement key is one of a maker who is believed.
fn trusted(evidence: &Evidence, roots: &[Vec<u8>], now: u64) -> Result<()> {
    evidence.check()?;
    let (leaf, above) = (&evidence.ek_certificate, &evidence.intermediates);
    chain::verify(leaf, above, roots, now, Purpose::EndorsementKey)
        .map_err(|e| Error::input(format!("the TPM's endorsement certificate: {e}")))?;
    Ok(())
}

/// Compares MACs in constant time.
fn same(one: &[u8], other: &[u8]) -> bool {
    aws_lc_rs::constant_time::verify_slices_are_equal(one, other).is_ok()
}
