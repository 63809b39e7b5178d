//! The format of helper data: a header of fixed layout, the syndrome, the reliability map where
//! there is one, the tag. Integers are little-endian.
//!
//! | at | bytes | what |
//! |---|---|---|
//! | 0 | 8 | `DKPUFHLP` |
//! | 8 | 2, 2 | version, and its complement: a flipped bit makes no newer version |
//! | 12 | 1 | profile, from 1 |
//! | 13 | 1 | kind of the source, from 1 |
//! | 14 | 1 | number of readings at enrolment, 255 for more |
//! | 15 | 1 | flags: 1 for a reliability map |
//! | 16 | 2 | K in bits |
//! | 18 | 2 | loss by the ledger in bits |
//! | 20 | 4 | length of the response in bytes |
//! | 24 | 8 | offset of the window in the source in bytes |
//! | 32 | 8 | design id: of the polar code's frozen positions |
//! | 40 | 16 | enrolment id, random |
//! | 56 | 8 | zeros |
//! | 64 | (8·length − K)/8 | syndrome |
//! | | length | reliability map, by the flag: a one for each cell that readings differed in |
//! | | 32 | tag |
//!
//! What it protects against: helper data is as good as an attacker's input. There is one way to
//! write each value, so that nothing can be changed without changing what the tag is made over, and
//! nothing of it steers which cells are used. All but the version's being newer is one error.

use std::path::PathBuf;

use aws_lc_rs::digest::{SHA256, digest};

use super::kdf::{Material, TAG_LEN};
use super::{Profile, Source, SourceKind};
use crate::error::{Error, Result};
use crate::secret::Secret;

const MAGIC: &[u8; 8] = b"DKPUFHLP";
const VERSION: u16 = 1;
const HEADER_LEN: usize = 64;
const MAP: u8 = 1;

/// What the header says besides magic, version and the response's length.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) profile: Profile,
    pub(super) source: Source,
    pub(super) readings: u8,
    pub(super) map: bool,
    pub(super) k: usize,
    pub(super) loss: usize,
    pub(super) design_id: [u8; 8],
    pub(super) enrolment_id: [u8; 16],
}

impl Header {
    fn encode(&self) -> Result<[u8; HEADER_LEN]> {
        let short = |n: usize| u16::try_from(n).map_err(|_| Error::Internal("a length".into()));
        let mut header = [0; HEADER_LEN];
        let fields: [&[u8]; 13] = [
            MAGIC,
            &VERSION.to_le_bytes(),
            &(!VERSION).to_le_bytes(),
            &[number(&Profile::ALL, self.profile)],
            &[number(&SourceKind::ALL, self.source.kind)],
            &[self.readings],
            &[if self.map { MAP } else { 0 }],
            &short(self.k)?.to_le_bytes(),
            &short(self.loss)?.to_le_bytes(),
            &u32::from(short(self.profile.response_len())?).to_le_bytes(),
            &self.source.offset.to_le_bytes(),
            &self.design_id,
            &self.enrolment_id,
        ];
        // 56 bytes, and zeros.
        for (place, byte) in header.iter_mut().zip(fields.concat()) {
            *place = byte;
        }
        Ok(header)
    }

    /// A header, of bytes that [`encode`](Header::encode) gives back.
    fn parse(bytes: &[u8; HEADER_LEN]) -> Option<Self> {
        let mut fields = Fields(bytes.get(MAGIC.len() + 4..)?);
        let profile = of_number(&Profile::ALL, fields.byte()?)?;
        let kind = of_number(&SourceKind::ALL, fields.byte()?)?;
        let [readings, flags] = fields.take()?;
        let k = usize::from(u16::from_le_bytes(fields.take()?));
        let loss = usize::from(u16::from_le_bytes(fields.take()?));
        let _len: [u8; 4] = fields.take()?;
        let offset = u64::from_le_bytes(fields.take()?);
        let header = Header {
            profile,
            source: Source { kind, offset },
            readings,
            map: flags == MAP,
            k,
            loss,
            design_id: fields.take()?,
            enrolment_id: fields.take()?,
        };
        // Whatever was not looked at above is as it would be written.
        let canonical = header.encode().is_ok_and(|again| again == *bytes);
        (canonical && profile.offers(k)).then_some(header)
    }

    /// Lengths of the syndrome and of the map in bytes.
    fn lengths(&self) -> (usize, usize) {
        let response = self.profile.response_len();
        let map = if self.map { response } else { 0 };
        (response.saturating_sub(self.k / 8), map)
    }
}

/// Fields of fixed length, one after the other.
struct Fields<'a>(&'a [u8]);

impl Fields<'_> {
    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (field, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(*field)
    }

    fn byte(&mut self) -> Option<u8> {
        self.take().map(|[byte]| byte)
    }
}

/// The number of one of `all`, from 1.
fn number<T: PartialEq>(all: &[T], one: T) -> u8 {
    let at = all.iter().zip(1..).find(|(other, _)| **other == one);
    at.map_or(0, |(_, number)| number)
}

fn of_number<T: Copy>(all: &[T], number: u8) -> Option<T> {
    let at = usize::from(number).checked_sub(1)?;
    all.get(at).copied()
}

/// Public helper data: what [`reconstruct`](super::reconstruct) needs besides a reading.
///
/// Whoever reads it learns nothing about the root; whoever changes it gets an error.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Helper {
    header: Header,
    bytes: Vec<u8>,
}

impl Helper {
    /// Reads helper data as [`encode`](Helper::encode) wrote it. That it was not changed, only
    /// [`reconstruct`](super::reconstruct) can tell.
    ///
    /// # Errors
    /// [`Error::NewerRecord`] for a newer format; [`Error::NotReproduced`] for all that is not
    /// exactly right.
    pub fn parse(bytes: &[u8]) -> Result<Self> {
        if let Some(found) = newer(bytes) {
            return Err(Error::NewerRecord {
                path: PathBuf::from("helper data"),
                found: found.into(),
                known: VERSION.into(),
            });
        }
        let header = bytes.first_chunk().and_then(Header::parse);
        let header = header.ok_or(Error::NotReproduced)?;
        let (syndrome, map) = header.lengths();
        match bytes.len() == HEADER_LEN + syndrome + map + TAG_LEN {
            true => Ok(Helper {
                header,
                bytes: bytes.to_vec(),
            }),
            false => Err(Error::NotReproduced),
        }
    }

    /// Helper data of a response: header, syndrome and map, and their tag. Also gives what the root
    /// is derived from.
    pub(super) fn seal(
        header: Header,
        syndrome: &[u8],
        map: &[u8],
        response: &Secret,
    ) -> Result<(Self, Material)> {
        if header.lengths() != (syndrome.len(), map.len()) {
            return Err(Error::Internal("parts of helper data".to_owned()));
        }
        let mut bytes = [&header.encode()?, syndrome, map].concat();
        let material = Material::new(response, &bytes);
        let tag = material.tag(&bytes)?;
        bytes.extend(tag);
        Ok((Helper { header, bytes }, material))
    }

    /// The bytes to store: at most [`Profile::response_len`] + 96, and where there is a reliability
    /// map as many bytes as a response more.
    pub fn encode(&self) -> &[u8] {
        &self.bytes
    }

    /// The profile.
    pub fn profile(&self) -> Profile {
        self.header.profile
    }

    /// Where the response came from.
    pub fn source(&self) -> Source {
        self.header.source
    }

    /// K: how many bits of the response the syndrome does not disclose.
    pub fn k(&self) -> usize {
        self.header.k
    }

    /// How many bits the response lacks by the ledger.
    pub fn loss(&self) -> usize {
        self.header.loss
    }

    /// How many readings the enrolment was made from; 255 for more.
    pub fn readings(&self) -> u8 {
        self.header.readings
    }

    /// 16 random bytes, new with each enrolment and refresh.
    pub fn enrolment_id(&self) -> [u8; 16] {
        self.header.enrolment_id
    }

    /// SHA-256 of the syndrome: the same before and after a [`refresh`](super::refresh), and
    /// different for each other enrolment, also of the same window.
    pub fn syndrome_id(&self) -> [u8; 32] {
        sha256(self.syndrome())
    }

    /// SHA-256 of all helper data.
    pub fn id(&self) -> [u8; 32] {
        sha256(&self.bytes)
    }

    pub(super) fn header(&self) -> &Header {
        &self.header
    }

    /// u on the frozen positions.
    pub(super) fn syndrome(&self) -> &[u8] {
        let (syndrome, _) = self.header.lengths();
        part(&self.bytes, HEADER_LEN, syndrome)
    }

    /// A one for each cell that readings differed in; empty where there is no map.
    pub(super) fn map(&self) -> &[u8] {
        let (syndrome, map) = self.header.lengths();
        part(&self.bytes, HEADER_LEN + syndrome, map)
    }

    /// What a response makes of this helper data, where the tag says that it is the enrolled one.
    pub(super) fn confirm(&self, response: &Secret) -> Option<Material> {
        let (data, tag) = self.bytes.split_last_chunk::<TAG_LEN>()?;
        let material = Material::new(response, data);
        material.confirms(data, tag).then_some(material)
    }
}

fn part(bytes: &[u8], from: usize, len: usize) -> &[u8] {
    bytes.get(from..from + len).unwrap_or_default()
}

/// The version, where it is a newer one that says so twice.
fn newer(bytes: &[u8]) -> Option<u16> {
    let mut fields = Fields(bytes.strip_prefix(MAGIC)?);
    let version = u16::from_le_bytes(fields.take()?);
    let complement = u16::from_le_bytes(fields.take()?);
    (version == !complement && version > VERSION).then_some(version)
}

fn sha256(bytes: &[u8]) -> [u8; 32] {
    let digest = digest(&SHA256, bytes);
    digest.as_ref().try_into().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::super::synthetic::chip;
    use super::*;

    const HEADER: Header = Header {
        profile: Profile::Dk512,
        source: Source {
            kind: SourceKind::Serial,
            offset: 0x0102_0304_0506_0708,
        },
        readings: 3,
        map: false,
        k: 448,
        loss: 0x51,
        design_id: *b"designid",
        enrolment_id: *b"0123456789abcdef",
    };

    fn sealed(header: Header) -> Helper {
        let (syndrome, map) = header.lengths();
        let response = Secret::new(chip(1, 512, 0.5));
        let (syndrome, map) = (vec![0xaa; syndrome], vec![0x55; map]);
        Helper::seal(header, &syndrome, &map, &response).unwrap().0
    }

    /// The layout is what other versions will read. Fails with two fields exchanged, with
    /// big-endian numbers, and with profiles from 0.
    #[test]
    fn the_layout_is_the_documented_one() {
        let helper = sealed(HEADER);
        let header = [
            b"DKPUFHLP".as_slice(),
            &[1, 0, 0xfe, 0xff, 2, 3, 3, 0, 0xc0, 1, 0x51, 0, 0, 2, 0, 0],
            &[8, 7, 6, 5, 4, 3, 2, 1],
            b"designid0123456789abcdef",
            &[0; 8],
        ]
        .concat();
        assert_eq!(helper.encode()[..64], header);
        assert_eq!(helper.encode().len(), 512 + 96 - 448 / 8);
        let again = Helper::parse(helper.encode()).unwrap();
        assert_eq!(again, helper);
        assert_eq!(again.header(), &HEADER);
        let with_map = sealed(Header {
            map: true,
            ..HEADER
        });
        assert_eq!(with_map.encode().len(), 2 * 512 + 96 - 448 / 8);
        let again = Helper::parse(with_map.encode()).unwrap();
        assert_eq!(
            (again.syndrome()[0], again.map()),
            (0xaa, [0x55; 512].as_slice())
        );
    }

    fn refused(bytes: &[u8]) {
        let refused = Helper::parse(bytes);
        assert!(matches!(refused, Err(Error::NotReproduced)), "{refused:?}");
    }

    /// Fails without the comparison with the canonical bytes (reserved ones, flags, the length, the
    /// complement), without `offers`, and without the comparison of the lengths.
    #[test]
    fn there_is_one_way_to_write_it() {
        let good = sealed(HEADER).encode().to_vec();
        refused(&[]);
        for len in 0..good.len() {
            refused(&good[..len]);
        }
        refused(&[good.as_slice(), &[0]].concat());
        refused(&[good.as_slice(), &good].concat());
        for at in (0..24).chain(56..64) {
            // Kind and profile, readings, K and the loss have other values that are in order.
            if [12, 13, 14, 16, 17, 18, 19].contains(&at) {
                continue;
            }
            for bit in 0..8 {
                let mut bad = good.clone();
                bad[at] ^= 1 << bit;
                refused(&bad);
            }
        }
        for (at, value) in [
            (12, 0),
            (12, 5),
            (13, 0),
            (13, 4),
            (16, 0xc1),
            (17, 0),
            (17, 3),
        ] {
            let mut bad = good.clone();
            bad[at] = value;
            refused(&bad);
        }
    }

    /// Fails without the complement in `newer`, and with `>=`.
    #[test]
    fn a_newer_version_is_named() {
        let mut newer = sealed(HEADER).encode().to_vec();
        newer[8..12].copy_from_slice(&[2, 1, 0xfd, 0xfe]);
        let found = Helper::parse(&newer).unwrap_err().to_string();
        assert!(
            found.contains("helper data: written by a newer devkey (format 258"),
            "{found}"
        );
        newer[8..12].copy_from_slice(&[2, 0, 0xfe, 0xff]);
        refused(&newer);
        newer[8..12].copy_from_slice(&[0, 0, 0xff, 0xff]);
        refused(&newer);
    }

    /// Fails with the ids over one another's bytes.
    #[test]
    fn ids_tell_enrolments_and_refreshes_apart() {
        let one = sealed(HEADER);
        let enrolment_id = [7; 16];
        let other = sealed(Header {
            enrolment_id,
            ..HEADER
        });
        assert_eq!(one.syndrome_id(), other.syndrome_id());
        assert_ne!(one.id(), other.id());
        assert_eq!(other.enrolment_id(), enrolment_id);
    }
}
