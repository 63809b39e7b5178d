//! Endorsement keys (EKs): where their certificates stand, and the templates that they are made
//! from again (TCG EK Credential Profile for TPM Family 2.0, version 2.5, §2.2 and annex B).

use tss_esapi::abstraction::{AsymmetricAlgorithmSelection, ek};
use tss_esapi::attributes::ObjectAttributes;
use tss_esapi::interface_types::ecc::EccCurve;
use tss_esapi::interface_types::key_bits::RsaKeyBits;
use tss_esapi::structures::{Digest, EccPoint, Public, PublicKeyRsa};

use super::objects::{made_here, ours};
use super::policy::Policy;
use super::tss2::marshalled;
use crate::error::Result;

/// NV indices of certificates and templates, and, from [`CHAIN`] on, of the chain above them.
pub(super) const FIRST_INDEX: u32 = 0x01c0_0000;
pub(super) const CHAIN: u32 = 0x01c0_0100;
pub(super) const LAST_INDEX: u32 = 0x01c0_01ff;
/// Where EKs stay that the maker has made persistent.
pub(super) const FIRST_HANDLE: u32 = 0x8101_0000;
pub(super) const LAST_HANDLE: u32 = 0x8101_ffff;

/// Where an EK's certificate stands.
#[derive(Debug)]
pub(super) struct Place {
    /// NV index of the certificate.
    pub(super) certificate: u32,
    /// NV index of the template, where the maker has another than the standard's.
    pub(super) template: u32,
    algorithm: AsymmetricAlgorithmSelection,
    range: Range,
}

/// The two families of templates. In the low range the policy alone lets the key be used, and
/// `unique` is full of zeros; in the high range the empty auth does, too, and `unique` is empty.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Range {
    Low,
    High,
}

/// The places that devkey looks at, the quickest key first. SM2 and P-521 are not among its kinds.
pub(super) const PLACES: [Place; 7] = [
    ecc(0x01c0_000a, 0x01c0_000c, EccCurve::NistP256, Range::Low),
    ecc(0x01c0_0014, 0x01c0_0015, EccCurve::NistP256, Range::High),
    ecc(0x01c0_0016, 0x01c0_0017, EccCurve::NistP384, Range::High),
    rsa(0x01c0_0002, 0x01c0_0004, RsaKeyBits::Rsa2048, Range::Low),
    rsa(0x01c0_0012, 0x01c0_0013, RsaKeyBits::Rsa2048, Range::High),
    rsa(0x01c0_001c, 0x01c0_001d, RsaKeyBits::Rsa3072, Range::High),
    rsa(0x01c0_001e, 0x01c0_001f, RsaKeyBits::Rsa4096, Range::High),
];

/// TPM_RH_ENDORSEMENT.
const ENDORSEMENT: u32 = 0x4000_000b;
/// PolicyC of SHA-256, annex B.6.4: TPM2_PolicyAuthorizeNV of index 0x01c07f01.
const POLICY_C: [u8; 32] = [
    0x37, 0x67, 0xe2, 0xed, 0xd4, 0x3f, 0xf4, 0x5a, 0x3a, 0x7e, 0x1e, 0xae, 0xfc, 0xef, 0x78, 0x64,
    0x3d, 0xca, 0x96, 0x46, 0x32, 0xe7, 0xaa, 0xd8, 0x2c, 0x67, 0x3a, 0x30, 0xd8, 0x63, 0x3f, 0xde,
];

impl Place {
    /// The standard's template for a key of this place.
    pub(super) fn standard(&self) -> Result<Public> {
        let standard = ek::create_ek_public_from_default_template_2(self.algorithm, None);
        let mut template = ours(standard)?;
        // tss-esapi has the templates of the low range for these two.
        let raised = matches!(
            self.algorithm,
            AsymmetricAlgorithmSelection::Rsa(RsaKeyBits::Rsa2048)
                | AsymmetricAlgorithmSelection::Ecc(EccCurve::NistP256)
        );
        if self.range == Range::High && raised {
            raise(&mut template)?;
        }
        Ok(template)
    }
}

/// PolicyA, annex B.6.2: TPM2_PolicySecret of the endorsement hierarchy. A hierarchy's Name is its
/// handle.
pub(super) fn policy_a() -> Policy {
    Policy::new().secret(&ENDORSEMENT.to_be_bytes())
}

/// Whether `key` could have been made from this template: all but `unique` is the same.
pub(super) fn made_from(template: &Public, key: &Public) -> bool {
    match (head(template), head(key)) {
        (Ok(template), Ok(key)) => template == key,
        _ => false,
    }
}

/// Whether an object is a storage key as EKs are.
pub(super) fn is_ek(public: &Public) -> bool {
    let has = public.object_attributes();
    has.restricted() && has.decrypt() && !has.sign_encrypt() && has.fixed_tpm()
}

/// The public area without `unique`.
fn head(public: &Public) -> Result<Vec<u8>> {
    let mut public = public.clone();
    match &mut public {
        Public::Rsa { unique, .. } => *unique = PublicKeyRsa::default(),
        Public::Ecc { unique, .. } => *unique = EccPoint::default(),
        Public::KeyedHash { .. } | Public::SymCipher { .. } => {}
    }
    marshalled(&public)
}

/// Makes a template of the high range, H-1 or H-2, of one of the low range (annex B.4).
fn raise(template: &mut Public) -> Result<()> {
    let policy_b = Policy::either(&policy_a(), &Policy(POLICY_C.to_vec()));
    let policy_b = ours(Digest::try_from(policy_b.0))?;
    let attributes = high_attributes()?;
    match template {
        Public::Rsa {
            object_attributes,
            auth_policy,
            unique,
            ..
        } => {
            (*object_attributes, *auth_policy) = (attributes, policy_b);
            *unique = PublicKeyRsa::default();
        }
        Public::Ecc {
            object_attributes,
            auth_policy,
            unique,
            ..
        } => {
            (*object_attributes, *auth_policy) = (attributes, policy_b);
            *unique = EccPoint::default();
        }
        Public::KeyedHash { .. } | Public::SymCipher { .. } => {}
    }
    Ok(())
}

fn high_attributes() -> Result<ObjectAttributes> {
    let attributes = made_here()
        .with_admin_with_policy(true)
        .with_restricted(true)
        .with_decrypt(true)
        .build();
    ours(attributes)
}

const fn ecc(certificate: u32, template: u32, curve: EccCurve, range: Range) -> Place {
    Place {
        certificate,
        template,
        algorithm: AsymmetricAlgorithmSelection::Ecc(curve),
        range,
    }
}

const fn rsa(certificate: u32, template: u32, bits: RsaKeyBits, range: Range) -> Place {
    Place {
        certificate,
        template,
        algorithm: AsymmetricAlgorithmSelection::Rsa(bits),
        range,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Annex B.6.2 and B.6.5 print these digests. Seen to fail with a byte of `POLICY_C` changed,
    /// and with another `ENDORSEMENT`.
    #[test]
    fn policies_are_the_standards() {
        let a = "837197674484b3f81a90cc8d46a5d724fd52d76e06520b64f2a1da1b331469aa";
        let b = "ca3d0a99a2b93906f7a3342414efcfb3a385d44cd1fd459089d19b5071c0b7a0";
        let hex = |policy: &Policy| base16ct::lower::encode_string(&policy.0);
        assert_eq!(hex(&policy_a()), a);
        let either = Policy::either(&policy_a(), &Policy(POLICY_C.to_vec()));
        assert_eq!(hex(&either), b);
    }

    /// Seen to fail without `raise`, whose templates are then those of the low range.
    #[test]
    fn every_place_has_a_template_of_its_own() {
        let templates: Vec<_> = PLACES
            .iter()
            .map(|place| place.standard().unwrap())
            .collect();
        for (at, one) in templates.iter().enumerate() {
            assert!(is_ek(one));
            for other in &templates[at + 1..] {
                assert!(!made_from(one, other));
            }
        }
    }
}
