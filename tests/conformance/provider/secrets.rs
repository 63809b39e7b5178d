//! Rules for key agreement and decryption.

use devkey::Error;
use devkey::key::{DecryptScheme, Hash, KeyKind, PublicKey};

use super::made::*;
use crate::peer;

/// Seen to fail with a constant secret and with one that lacks its first byte, in `EcKey::agree`.
pub(crate) fn two_keys_agree(fresh: Fresh) {
    let made = Made::on(fresh());
    for capability in made.agreeing() {
        let [one, other] = [(); 2].map(|()| made.key(capability.kind, AGREE));
        let [a, b] = [&one, &other].map(|new| made.open(new, AGREE).unwrap());
        let shared = a.agree(&other.public).unwrap();
        assert_eq!(shared.len(), capability.kind.bits() / 8);
        assert_eq!(shared.expose(), b.agree(&one.public).unwrap().expose());
        assert_ne!(shared.expose(), a.agree(&one.public).unwrap().expose());
    }
}

/// Seen to fail with the secret turned round in `EcKey::agree`: both sides agree on that.
pub(crate) fn openssl_agrees(fresh: Fresh) {
    let made = Made::on(fresh());
    for capability in made.agreeing() {
        let new = made.key(capability.kind, AGREE);
        let key = made.open(&new, AGREE).unwrap();
        let (peer, shared) = peer::agree(&new.public);
        assert_eq!(key.agree(&peer).unwrap().expose(), shared);
    }
}

/// Seen to fail without the `filter` on the peer's kind in ec.rs.
pub(crate) fn only_points_of_the_own_curve_agree(fresh: Fresh) {
    let made = Made::on(fresh());
    let sample = |kind| match kind {
        KeyKind::EcP256 | KeyKind::EcP384 => {
            let of =
                |bits: usize| -> Vec<u8> { [vec![2], vec![0; bits / 8 - 1], vec![5]].concat() };
            PublicKey::from_sec1(kind, &of(kind.bits())).ok()
        }
        KeyKind::Ed25519 => PublicKey::from_ed25519(&[9; 32]).ok(),
        kind if kind.is_ml_dsa() => PublicKey::from_ml_dsa(kind, &vec![9; kind.bits() / 8]).ok(),
        kind => PublicKey::from_rsa(&vec![0xff; kind.bits() / 8], &[1, 0, 1]).ok(),
    };
    for capability in made.agreeing() {
        let new = made.key(capability.kind, AGREE);
        let key = made.open(&new, AGREE).unwrap();
        let others = KeyKind::ALL
            .into_iter()
            .filter(|kind| *kind != capability.kind);
        for peer in others.filter_map(sample) {
            let refused = key.agree(&peer);
            assert!(matches!(refused, Err(Error::BadInput(_))), "{refused:?}");
        }
        // A point off the curve, and infinity, do not even become a `PublicKey`.
        let mut off = new.public.point().unwrap().to_vec();
        *off.last_mut().unwrap() ^= 1;
        for point in [off.as_slice(), &[0]] {
            let refused = PublicKey::from_sec1(capability.kind, point);
            assert!(matches!(refused, Err(Error::BadInput(_))));
        }
    }
}

/// Seen to fail with `OAEP_SHA256_MGF1SHA256` for every hash in rsa.rs.
pub(crate) fn what_openssl_encrypts_is_decrypted(fresh: Fresh) {
    let made = Made::on(fresh());
    for capability in made.decrypting() {
        let new = made.key(capability.kind, DECRYPT);
        let key = made.open(&new, DECRYPT).unwrap();
        for hash in HASHES {
            // The longest that fits, RFC 8017 §7.1.1 step 1b.
            let longest = capability.kind.bits() / 8 - 2 * hash.size() - 2;
            for len in [0, 1, 32, longest] {
                let plaintext = vec![0x5a; len];
                let ciphertext = peer::encrypt(&new.public, hash, &plaintext);
                let scheme = DecryptScheme::RsaOaep(hash);
                assert_eq!(
                    key.decrypt(scheme, &ciphertext).unwrap().expose(),
                    plaintext
                );
            }
        }
    }
}

/// Seen to fail with an empty plaintext given back in place of the error in rsa.rs.
pub(crate) fn what_is_no_ciphertext_is_refused(fresh: Fresh) {
    let made = Made::on(fresh());
    for capability in made.decrypting() {
        let new = made.key(capability.kind, DECRYPT);
        let key = made.open(&new, DECRYPT).unwrap();
        let size = capability.kind.bits() / 8;
        let right = peer::encrypt(&new.public, Hash::Sha256, b"hello");
        let mut changed = right.clone();
        changed[size / 2] ^= 1;
        let longer = [right.as_slice(), &[0]].concat();
        let padded = [&[0], right.as_slice()].concat();
        let garbage = [
            vec![],
            vec![0; size],
            vec![0x55; size],
            vec![0xff; size],
            right[1..].to_vec(),
            right[..size - 1].to_vec(),
            changed,
            longer,
            padded,
        ];
        for ciphertext in garbage {
            let refused = key.decrypt(DecryptScheme::RsaOaep(Hash::Sha256), &ciphertext);
            assert!(matches!(refused, Err(Error::Crypto)), "{refused:?}");
        }
        let refused = key.decrypt(DecryptScheme::RsaOaep(Hash::Sha384), &right);
        assert!(matches!(refused, Err(Error::Crypto)), "{refused:?}");
    }
}
