//! Every byte of what crosses, changed: refused, or it means the same; nothing panics.

use devkey::identity::flow::Issued;

use super::*;

/// Everything that differs from `good` in one byte, in four ways, or in its length.
fn damaged(good: &[u8]) -> impl Iterator<Item = Vec<u8>> {
    let changed = (0..good.len()).flat_map(|at| {
        [0x01, 0x02, 0x20, 0x80].map(|bits| {
            let mut bytes = good.to_vec();
            bytes[at] ^= bits;
            bytes
        })
    });
    let cut = (0..good.len()).step_by(7).map(|len| good[..len].to_vec());
    let gone = (0..good.len())
        .step_by(3)
        .map(|at| [&good[..at], &good[at + 1..]].concat());
    changed.chain(cut).chain(gone)
}

/// What is changed in blanks alone is the same; the rest is refused.
fn survives<T: Debug + PartialEq>(good: &[u8], parse: fn(&[u8]) -> Result<T>) {
    let whole = parse(good).unwrap();
    let (mut refused, mut same) = (0_usize, 0_usize);
    for bytes in damaged(good) {
        match parse(&bytes) {
            Ok(parsed) => {
                assert_eq!(parsed, whole, "{}", String::from_utf8_lossy(&bytes));
                same += 1;
            }
            Err(Error::BadInput(reason) | Error::Unsupported(reason)) => {
                assert!(!reason.is_empty());
                refused += 1;
            }
            Err(other) => panic!("{other:?}"),
        }
    }
    assert!(refused > 4 * same, "{refused} refused, {same} the same");
}

fn round() -> (Request, Challenge, Answer, Issued) {
    let (authority, device) = (Authority::new(), Soft::new());
    let request = request(&device);
    let challenge = authority.challenge(&request);
    let answer = Answer::make(&device, &challenge, None).unwrap();
    let issued = authority
        .ca
        .issue(&authority.key, &answer, NOW)
        .unwrap()
        .issued;
    (request, challenge, answer, issued)
}

/// Each seen to fail without `verify` in `Signed::parse`; the challenge also without that in
/// `Request::checked`, and the request without the two of them.
#[test]
fn a_changed_request_is_refused() {
    survives(&round().0.encode().unwrap(), Request::parse);
}

#[test]
fn a_changed_challenge_is_refused() {
    survives(&round().1.encode().unwrap(), Challenge::parse);
}

#[test]
fn a_changed_answer_is_refused() {
    survives(&round().2.encode().unwrap(), Answer::parse);
}

#[test]
fn a_changed_issued_file_is_refused() {
    survives(&round().3.encode().unwrap(), Issued::parse);
}
