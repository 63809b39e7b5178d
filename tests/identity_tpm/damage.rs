//! Every byte of what crosses between device and CA, changed: refused or another object's, and
//! nothing panics.

use devkey::identity::tpm::check_ak;

use super::*;

/// Everything that differs from `good` in one byte, in three ways, or in its length.
fn damaged(good: &[u8]) -> impl Iterator<Item = Vec<u8>> {
    let changed = (0..good.len()).flat_map(|at| {
        [0x01, 0x80, 0xff].map(|bits| {
            let mut bytes = good.to_vec();
            bytes[at] ^= bits;
            bytes
        })
    });
    let cut = (0..good.len()).map(|len| good[..len].to_vec());
    let longer = [[good, &[0]].concat(), [good, good].concat()];
    changed.chain(cut).chain(longer)
}

fn bad<T: Debug>(done: Result<T>) -> bool {
    match done {
        Ok(_) => false,
        Err(Error::BadInput(_)) => true,
        Err(other) => panic!("{other:?}"),
    }
}

/// Seen to fail with `Reader::all` not looking at what is left over, and with the signature not
/// verified.
#[test]
fn a_changed_attestation_is_refused() {
    let device = Device::of(&Maker::new());
    let ak = device.identity().ak_public;
    for kind in [KeyKind::EcP256, KeyKind::Rsa2048] {
        let (new, key) = device.key(kind, KeyAuth::None);
        let good = key.certify(NONCE).unwrap();
        let verify = |certified: &Certified| verify_certify(certified, &ak, &new.public, NONCE);
        verify(&good).unwrap();
        let mut tried = 0;
        for (field, get) in fields() {
            for bytes in damaged(get(&mut good.clone())) {
                let mut changed = good.clone();
                *get(&mut changed) = bytes;
                assert!(bad(verify(&changed)), "{field}: {changed:?}");
                tried += 1;
            }
        }
        assert!(tried > 1000);
    }
}

type Field = fn(&mut Certified) -> &mut Vec<u8>;

fn fields() -> [(&'static str, Field); 3] {
    [
        ("attest", |one| &mut one.attest),
        ("signature", |one| &mut one.signature),
        ("key_public", |one| &mut one.key_public),
    ]
}

/// Public areas have no signature: a changed one is no AK or EK at all, or one of another Name, for
/// which nothing opens.
#[test]
fn a_changed_identity_is_refused_or_another() {
    let device = Device::of(&Maker::new());
    let identity = device.identity();
    let mut publics: Vec<_> = identity
        .endorsement
        .iter()
        .map(|ek| ek.public.clone())
        .collect();
    publics.push(identity.ak_public.clone());
    for good in publics {
        let (_, name) = object(&good).unwrap();
        for bytes in damaged(&good) {
            let other = object(&bytes).map(|(_, name)| name);
            assert!(other.as_ref().is_ok_and(|other| *other != name) || bad(other));
            let _ = bad(check_ak(&bytes));
            let _ = bad(make_credential(&bytes, &name, b"s"));
        }
    }
}

/// Its signature is the chain's to verify; what is read of it here is the key and its usage.
#[test]
fn a_changed_endorsement_certificate_is_of_no_other_key() {
    let identity = Device::of(&Maker::new()).identity();
    for ek in &identity.endorsement {
        let good = evidence(&identity, ek);
        let key = good.check().unwrap().ek;
        let mut passed = 0;
        for bytes in damaged(&good.ek_certificate) {
            let mut changed = good.clone();
            changed.ek_certificate = bytes;
            match changed.check() {
                Ok(checked) => assert_eq!(checked.ek, key),
                Err(Error::BadInput(_)) => passed += 1,
                Err(other) => panic!("{other:?}"),
            }
        }
        assert!(passed > good.ek_certificate.len());
    }
}

/// The device's side: each is refused, no try is counted, nothing stays. Seen to fail with `blames_input` in `Live::activate` taken out: the TPM's error is shown, after three
/// attempts.
#[test]
fn a_changed_challenge_is_refused() {
    let device = Device::of(&Maker::new());
    let identity = device.identity();
    let (_, name) = object(&identity.ak_public).unwrap();
    for ek in &identity.endorsement {
        let good = make_credential(&ek.public, &name, &[7; 32]).unwrap();
        // RSA is slow, so of five changes one, each time another.
        for id_object in damaged(&good.id_object).step_by(5) {
            let changed = Credential {
                id_object,
                ..good.clone()
            };
            assert!(bad(device.activate(ek, &changed)), "{changed:?}");
        }
        for encrypted_secret in damaged(&good.encrypted_secret).step_by(5) {
            // TPMs read a point and do not look at what follows it: it changes nothing.
            let longer = encrypted_secret.starts_with(&good.encrypted_secret);
            let changed = Credential {
                encrypted_secret,
                ..good.clone()
            };
            let refused = bad(device.activate(ek, &changed));
            assert!(refused || longer, "{changed:?}");
        }
        device.swtpm.assert_empty();
        assert_eq!(device.activate(ek, &good).unwrap().expose(), [7; 32]);
    }
    let lockout = device.swtpm.tool("tpm2_getcap", &["properties-variable"]);
    assert!(
        lockout.contains("TPM2_PT_LOCKOUT_COUNTER: 0x0\n"),
        "{lockout}"
    );
}

/// What says it is an EK and is none of this TPM's.
#[test]
fn a_changed_endorsement_key_is_refused_by_the_device() {
    let device = Device::of(&Maker::new());
    let identity = device.identity();
    let (_, name) = object(&identity.ak_public).unwrap();
    let ek = ek(&identity, KeyKind::EcP384);
    let credential = make_credential(&ek.public, &name, b"s").unwrap();
    for bytes in damaged(&ek.public) {
        assert!(bad(activate(&*device.provider, &bytes, &credential)));
    }
    device.swtpm.assert_empty();
}
