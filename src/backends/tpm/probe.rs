//! What this TPM is and what it can do.

use aws_lc_rs::encoding::AsDer;
use aws_lc_rs::rsa::{KeyPair, KeySize};
use der::asn1::{AnyRef, ObjectIdentifier, OctetStringRef, UintRef};
use der::{Decode, Reader, Sequence, SliceReader};
use tss_esapi::abstraction::ek;
use tss_esapi::constants::{AlgorithmIdentifier, CapabilityType, PropertyTag};
use tss_esapi::handles::KeyHandle;
use tss_esapi::interface_types::algorithm::AsymmetricAlgorithm;
use tss_esapi::interface_types::resource_handles::Hierarchy;
use tss_esapi::interface_types::session_handles::AuthSession;
use tss_esapi::structures::{
    Auth, CapabilityData, Digest, PrivateKeyRsa, Public, PublicKeyRsa, Sensitive,
};
use tss_esapi::utils::get_tpm_vendor;

use super::errors::Fault;
use super::link::Link;
use super::live::Live;
use super::objects::{self, Parent, ours};
use crate::error::{Error, Result};
use crate::key::{Hash, KeyKind, PublicKey, Scheme, Usage};
use crate::provider::{Capability, ProviderInfo};

/// Where the endorsement keys of the low range stay (TCG PC Client provisioning guidance).
const ENDORSEMENT_KEYS: [u32; 2] = [0x8101_0001, 0x8101_0002];

/// Model, serial and binding.
pub(super) fn info(link: &mut Link) -> Result<ProviderInfo, Fault> {
    let binding = link.binding()?;
    let live = link.live()?;
    let model = model(live)?;
    let name = endorsement_name(live)?.unwrap_or_else(|| binding.name.clone());
    live.flush_passing()?;
    let mut serial = base16ct::lower::encode_string(&Hash::Sha256.digest(&name));
    serial.truncate(16);
    Ok(ProviderInfo {
        model,
        serial: Some(serial),
        binding: Some(binding.to_string()),
    })
}

/// Every kind of key that the TPM makes, with what it can do.
pub(super) fn capabilities(link: &mut Link) -> Result<Vec<Capability>, Fault> {
    let live = link.live()?;
    let mut found = Vec::new();
    let hashes = hashes(live)?;
    let mut pss = None;
    for kind in KeyKind::ALL {
        if !has(live, kind)? {
            continue;
        }
        let mut capability = Capability::new(kind, kind.uses());
        if kind.is_rsa() && pss.is_none() {
            pss = Some(pss_hashes(live, &hashes)?);
        }
        capability.schemes.retain(|scheme| match scheme {
            Scheme::Ecdsa if kind == KeyKind::EcP384 => hashes.contains(&Hash::Sha384),
            Scheme::RsaPkcs1(hash) => hashes.contains(hash),
            Scheme::RsaPss(hash) => pss.as_ref().is_some_and(|good| good.contains(hash)),
            _ => true,
        });
        if !capability.schemes.is_empty() {
            found.push(capability);
        }
    }
    live.flush_passing()?;
    Ok(found)
}

/// Whether the TPM makes keys of this kind.
pub(super) fn has(live: &mut Live, kind: KeyKind) -> Result<bool, Fault> {
    let Ok(parameters) = objects::parameters(kind) else {
        return Ok(false);
    };
    match live.plain(|context| context.test_parms(parameters)) {
        Ok(()) => Ok(true),
        Err(fault) if fault.blames_input() => Ok(false),
        Err(fault) => Err(fault),
    }
}

/// The vendor's string, or the manufacturer's four letters.
pub(super) fn model(live: &mut Live) -> Result<String, Fault> {
    let vendor = live.plain(get_tpm_vendor)?;
    let maker = live.plain(|context| context.get_tpm_property(PropertyTag::Manufacturer))?;
    let maker = maker.unwrap_or_default().to_be_bytes();
    let printable = |text: &str| {
        let clean: String = text.chars().filter(|c| (' '..='~').contains(c)).collect();
        clean.split_whitespace().collect::<Vec<_>>().join(" ")
    };
    let mut model = printable(&vendor);
    if model.is_empty() {
        model = printable(&String::from_utf8_lossy(&maker));
    }
    if model.is_empty() {
        model = "TPM 2.0".to_owned();
    }
    model.truncate(16);
    Ok(model)
}

/// The Name of the endorsement key: made anew from TCG's template and so the same for ever, or,
/// where the endorsement hierarchy has a password, the one that is kept. `None` where there is
/// neither.
fn endorsement_name(live: &mut Live) -> Result<Option<Vec<u8>>, Fault> {
    for algorithm in [AsymmetricAlgorithm::Ecc, AsymmetricAlgorithm::Rsa] {
        let template = ours(ek::create_ek_public_from_default_template(algorithm, None))?;
        match live.primary(Hierarchy::Endorsement, template) {
            Ok((_, name)) => return Ok(Some(name)),
            Err(fault) if fault.answered() => {}
            Err(fault) => return Err(fault),
        }
    }
    for handle in ENDORSEMENT_KEYS {
        match live.parent_name(Parent::Persistent(handle)) {
            Ok(name) => return Ok(Some(name)),
            Err(fault) if fault.answered() => {}
            Err(fault) => return Err(fault),
        }
    }
    Ok(None)
}

fn hashes(live: &mut Live) -> Result<Vec<Hash>, Fault> {
    let (data, _) =
        live.plain(|context| context.get_capability(CapabilityType::Algorithms, 0, 128))?;
    let CapabilityData::Algorithms(list) = data else {
        return Err(Fault::Wrong);
    };
    let known = [
        (Hash::Sha256, AlgorithmIdentifier::Sha256),
        (Hash::Sha384, AlgorithmIdentifier::Sha384),
        (Hash::Sha512, AlgorithmIdentifier::Sha512),
    ];
    let has = known.into_iter().filter(|(_, id)| list.find(*id).is_some());
    Ok(has.map(|(hash, _)| hash).collect())
}

/// The hashes with which the TPM's PSS signatures have a salt as long as the hash. Older TPMs take
/// the longest salt that fits, which TLS 1.3 and PKCS#11 callers do not accept. Tried with a key of
/// our own making, because the TPM would need seconds to make one.
fn pss_hashes(live: &mut Live, hashes: &[Hash]) -> Result<Vec<Hash>, Fault> {
    let (key, public) = throw_away_key(live)?;
    let mut good = Vec::new();
    for hash in hashes {
        let (scheme, len) = objects::scheme(KeyKind::Rsa2048, Scheme::RsaPss(*hash))?;
        let input = vec![0x5a; len];
        let digest = ours(Digest::try_from(input.as_slice()))?;
        let signed = match live.sign(key, AuthSession::Password, digest, scheme) {
            Ok(signed) => signed,
            Err(fault) if fault.answered() => continue,
            Err(fault) => return Err(fault),
        };
        let signature = objects::signature(KeyKind::Rsa2048, &signed).unwrap_or_default();
        let scheme = Scheme::RsaPss(*hash);
        if public.verify(scheme, &input, &signature).is_ok() {
            good.push(*hash);
        }
    }
    Ok(good)
}

/// PrivateKeyInfo, RFC 5208 §5.
#[derive(Sequence)]
struct PrivateKeyInfo<'a> {
    version: u8,
    algorithm: Algorithm<'a>,
    key: &'a OctetStringRef,
}

#[derive(Sequence)]
struct Algorithm<'a> {
    oid: ObjectIdentifier,
    parameters: Option<AnyRef<'a>>,
}

/// Loads an RSA key that protects nothing.
fn throw_away_key(live: &mut Live) -> Result<(KeyHandle, PublicKey), Fault> {
    let pair = KeyPair::generate(KeySize::Rsa2048).map_err(Error::from)?;
    let pkcs8 = pair.as_der().map_err(Error::from)?;
    let (modulus, prime) = modulus_and_prime(pkcs8.as_ref())
        .map_err(|_| Error::Internal("a new RSA key cannot be read".into()))?;
    let template = objects::template(KeyKind::Rsa2048, Usage::SIGN)?;
    let public = external(template, &modulus)?;
    let sensitive = Sensitive::Rsa {
        auth_value: Auth::default(),
        seed_value: Digest::default(),
        sensitive: ours(PrivateKeyRsa::try_from(prime))?,
    };
    let known = objects::public_key(&public)?;
    Ok((live.load_external(sensitive, public)?, known))
}

/// RSAPrivateKey, RFC 8017 appendix A.1.2: modulus and first prime.
fn modulus_and_prime(pkcs8: &[u8]) -> der::Result<(Vec<u8>, Vec<u8>)> {
    let info = PrivateKeyInfo::from_der(pkcs8)?;
    let mut reader = SliceReader::new(info.key.as_bytes())?;
    reader.sequence(|fields| {
        let _version = u8::decode(fields)?;
        let modulus = UintRef::decode(fields)?.as_bytes().to_vec();
        let _exponents = (UintRef::decode(fields)?, UintRef::decode(fields)?);
        let prime = UintRef::decode(fields)?.as_bytes().to_vec();
        while !fields.is_finished() {
            AnyRef::decode(fields)?;
        }
        Ok((modulus, prime))
    })
}

/// The public area of a key that was made elsewhere.
fn external(template: Public, modulus: &[u8]) -> Result<Public> {
    let Public::Rsa {
        name_hashing_algorithm,
        auth_policy,
        parameters,
        object_attributes,
        ..
    } = template
    else {
        return Err(Error::Internal("an RSA template is none".into()));
    };
    let attributes = tss_esapi::attributes::ObjectAttributesBuilder::new()
        .with_user_with_auth(true)
        .with_no_da(object_attributes.no_da())
        .with_sign_encrypt(true)
        .build();
    Ok(Public::Rsa {
        object_attributes: ours(attributes)?,
        name_hashing_algorithm,
        auth_policy,
        parameters,
        unique: ours(PublicKeyRsa::try_from(modulus))?,
    })
}
