//! Endorsement keys: found by what their maker certified.

use der::{Reader, SliceReader};
use tss_esapi::handles::KeyHandle;
use tss_esapi::structures::{Digest, Public};
use tss_esapi::traits::UnMarshall;

use super::Endorser;
use crate::backends::tpm::endorsement::{
    CHAIN, FIRST_HANDLE, FIRST_INDEX, LAST_HANDLE, LAST_INDEX, PLACES, Place, is_ek, made_from,
    policy_a,
};
use crate::backends::tpm::errors::Fault;
use crate::backends::tpm::live::Live;
use crate::backends::tpm::objects::{self, ours};
use crate::backends::tpm::tss2::marshalled;
use crate::error::{Error, Result};
use crate::key::PublicKey;
use crate::provider::EndorsementKey;

/// Longest chain in bytes that is read, and most certificates of it.
const CHAIN_MOST: usize = 16 * 1024;
const CHAIN_LINKS: usize = 8;

/// The EKs that have a certificate. Where none has one, one without.
pub(super) fn all(live: &mut Live, endorser: &Endorser<'_>) -> Result<Vec<EndorsementKey>, Fault> {
    let indices = live.handles(FIRST_INDEX, LAST_INDEX)?;
    let intermediates = chain(live, &indices)?;
    let mut found = Vec::new();
    for place in PLACES
        .iter()
        .filter(|place| indices.contains(&place.certificate))
    {
        let contents = live.nv_contents(place.certificate)?.unwrap_or_default();
        let Some(certificate) = certificates(&contents).into_iter().next() else {
            continue;
        };
        let public = certified(live, endorser, place, &indices, &certificate)?;
        // The CA has each that is shown prove itself.
        if let Some(public) = public.filter(|public| by_policy(public).is_ok()) {
            found.push(EndorsementKey {
                public: marshalled(&public)?,
                certificate: Some(certificate),
                intermediates: intermediates.clone(),
            });
        }
    }
    if found.is_empty() {
        found.push(bare(live, endorser)?);
    }
    Ok(found)
}

/// Reads the TPMT_PUBLIC of an EK, this TPM's or another's.
///
/// # Errors
/// [`Error::BadInput`] where it is none.
pub(super) fn parse(bytes: &[u8]) -> Result<Public> {
    let public = Public::unmarshall(bytes).ok();
    let whole = |public: &Public| marshalled(public).is_ok_and(|again| again == bytes);
    public
        .filter(|public| is_ek(public) && whole(public))
        .ok_or_else(|| Error::input("the challenge is for what is no endorsement key"))
}

/// The EK of this public area, loaded.
pub(super) fn find(
    live: &mut Live,
    endorser: &Endorser<'_>,
    wanted: &Public,
) -> Result<KeyHandle, Fault> {
    for (handle, resident) in residents(live)? {
        if resident == *wanted {
            return Ok(handle);
        }
    }
    let indices = live.handles(FIRST_INDEX, LAST_INDEX)?;
    for place in &PLACES {
        for template in templates(live, place, &indices)? {
            if !made_from(&template, wanted) {
                continue;
            }
            if let Some((handle, made)) = make(live, endorser, template)? {
                if made == *wanted {
                    return Ok(handle);
                }
                live.flush_passing()?;
            }
        }
    }
    Err(Fault::Final(Error::input(
        "the challenge is for another TPM: its endorsement key is none of this one's",
    )))
}

/// Whether the EK wants its policy: in the high range its empty auth does.
///
/// # Errors
/// [`Error::Unsupported`] for a policy that is not the standard's.
pub(super) fn by_policy(ek: &Public) -> Result<bool> {
    if ek.object_attributes().user_with_auth() {
        return Ok(false);
    }
    match *ek.auth_policy() == ours(Digest::try_from(policy_a().0))? {
        true => Ok(true),
        false => Err(Error::unsupported(
            "an endorsement key with a policy of its maker's own",
        )),
    }
}

/// The EK that a certificate is of: one that stays in the TPM, or made from its template.
fn certified(
    live: &mut Live,
    endorser: &Endorser<'_>,
    place: &Place,
    indices: &[u32],
    certificate: &[u8],
) -> Result<Option<Public>, Fault> {
    let key = match PublicKey::from_certificate(certificate) {
        Ok(key) => key,
        Err(error) => {
            let index = place.certificate;
            log::warn!("the endorsement certificate in NV index {index:#010x}: {error}");
            return Ok(None);
        }
    };
    let is = |public: &Public| objects::public_key(public).is_ok_and(|public| public == key);
    let mut residents = residents(live)?.into_iter();
    if let Some((_, public)) = residents.find(|(_, public)| is(public)) {
        return Ok(Some(public));
    }
    for template in templates(live, place, indices)? {
        let made = make(live, endorser, template)?;
        live.flush_passing()?;
        if let Some((_, public)) = made.filter(|(_, public)| is(public)) {
            return Ok(Some(public));
        }
    }
    let index = place.certificate;
    log::warn!("the endorsement certificate in NV index {index:#010x} is of no key of this TPM");
    Ok(None)
}

/// An EK without a certificate: one that stays, or else of the first template that the TPM takes.
fn bare(live: &mut Live, endorser: &Endorser<'_>) -> Result<EndorsementKey, Fault> {
    let mut public = residents(live)?
        .into_iter()
        .map(|(_, public)| public)
        .next();
    for place in &PLACES {
        if public.is_none() {
            public = make(live, endorser, place.standard()?)?.map(|(_, public)| public);
            live.flush_passing()?;
        }
    }
    let none = || Error::unsupported("a TPM that makes no endorsement key");
    Ok(EndorsementKey {
        public: marshalled(&public.ok_or_else(none)?)?,
        certificate: None,
        intermediates: Vec::new(),
    })
}

/// The EKs that stay in the TPM.
fn residents(live: &mut Live) -> Result<Vec<(KeyHandle, Public)>, Fault> {
    let mut found = Vec::new();
    for number in live.handles(FIRST_HANDLE, LAST_HANDLE)? {
        match live.persistent_key(number) {
            Ok(key) => found.push(key),
            // It holds another kind of object.
            Err(Fault::Code(0)) => {}
            Err(fault) => return Err(fault),
        }
    }
    found.retain(|(_, public)| is_ek(public));
    Ok(found)
}

/// The templates that a place's EK may be made from: the maker's, then the standard's.
fn templates(live: &mut Live, place: &Place, indices: &[u32]) -> Result<Vec<Public>, Fault> {
    let mut found = Vec::new();
    if indices.contains(&place.template)
        && let Some(bytes) = live.nv_contents(place.template)?
        && let Ok(template) = Public::unmarshall(&bytes)
        && is_ek(&template)
    {
        found.push(template);
    }
    found.push(place.standard()?);
    Ok(found)
}

/// Makes an EK; `None` where the TPM has not its algorithms.
fn make(
    live: &mut Live,
    endorser: &Endorser<'_>,
    template: Public,
) -> Result<Option<(KeyHandle, Public)>, Fault> {
    match live.endorsement_primary(endorser.password, endorser.session, template) {
        Ok(made) => Ok(Some(made)),
        Err(fault) if fault.blames_input() => Ok(None),
        Err(fault) => Err(fault),
    }
}

/// The chain above the certificates: certificates one after the other, over the indices from
/// [`CHAIN`] on, which may cut them anywhere.
fn chain(live: &mut Live, indices: &[u32]) -> Result<Vec<Vec<u8>>, Fault> {
    let mut contents = Vec::new();
    for index in indices.iter().filter(|index| **index >= CHAIN) {
        if contents.len() < CHAIN_MOST {
            contents.extend(live.nv_contents(*index)?.unwrap_or_default());
        }
    }
    Ok(certificates(&contents))
}

/// The certificates at the beginning of an index, which may have room left behind them.
fn certificates(contents: &[u8]) -> Vec<Vec<u8>> {
    let mut found = Vec::new();
    let Ok(mut reader) = SliceReader::new(contents) else {
        return found;
    };
    while found.len() < CHAIN_LINKS
        && contents.get(usize::try_from(reader.position()).unwrap_or(usize::MAX)) == Some(&0x30)
        && let Ok(certificate) = reader.tlv_bytes()
    {
        found.push(certificate.to_vec());
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Seen to fail without the comparison with 0x30, and without the bound.
    #[test]
    fn what_follows_certificates_is_left() {
        let one = [0x30, 0x03, 2, 1, 7];
        for rest in [&[][..], &[0], &[0xff; 9], &[0x30, 0x82, 1], &[4, 1, 1]] {
            let contents = [&one[..], &one, rest].concat();
            assert_eq!(certificates(&contents), [one, one], "{rest:?}");
            assert!(certificates(rest).is_empty());
        }
        assert_eq!(certificates(&one.repeat(20)).len(), CHAIN_LINKS);
    }
}
