//! The DigestInfo that CKM_RSA_PKCS signs.

use devkey::key::Hash::{self, Sha256, Sha384, Sha512};

/// The hash and digest of a DER DigestInfo (RFC 8017 §9.2 note 1): exactly what RSA signs, so
/// another encoding of the same is refused.
pub(super) fn digest_info(data: &[u8]) -> Option<(Hash, &[u8])> {
    let hashes = [(Sha256, 1), (Sha384, 2), (Sha512, 3)];
    hashes.into_iter().find_map(|(hash, arc)| {
        let size = hash.size() as u8;
        let prefix = [
            0x30,
            0x11 + size,
            0x30,
            0x0d,
            0x06,
            0x09,
            0x60,
            0x86,
            0x48,
            0x01,
            0x65,
            0x03,
            0x04,
            0x02,
            arc,
            0x05,
            0x00,
            0x04,
            size,
        ];
        let digest = data.strip_prefix(&prefix)?;
        (digest.len() == hash.size()).then_some((hash, digest))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// R20. Fails where the length of the digest or the arc of the hash is not compared.
    #[test]
    fn digest_infos_are_read_exactly() {
        let mut info =
            b"\x30\x31\x30\x0d\x06\x09\x60\x86\x48\x01\x65\x03\x04\x02\x01\x05\x00\x04\x20"
                .to_vec();
        info.extend([9; 32]);
        assert_eq!(digest_info(&info), Some((Sha256, &[9; 32][..])));
        assert_eq!(digest_info(&info[..50]), None);
        assert_eq!(digest_info(&[&info[..], &[0]].concat()), None);
        info[14] = 2;
        assert_eq!(digest_info(&info), None);
        let sha1 = b"\x30\x21\x30\x09\x06\x05\x2b\x0e\x03\x02\x1a\x05\x00\x04\x14";
        assert_eq!(digest_info(&[&sha1[..], &[9; 20]].concat()), None);
        assert_eq!(digest_info(&[]), None);
    }
}
