//! A digest that no two different things share: see [`flow`](super).

use aws_lc_rs::digest::{Context, SHA256};

use super::Digest;

/// What is said so far.
pub(super) struct Transcript(Context);

impl Transcript {
    /// Begins one; `kind` is never the start of another with more behind it, for a zero byte ends it.
    pub(super) fn new(kind: &str) -> Self {
        let mut transcript = Transcript(Context::new(&SHA256));
        transcript.0.update(label(kind).as_bytes());
        transcript.0.update(&[0]);
        transcript
    }

    /// One part. Files are below [`MAX`](super::MAX), so that its length fits.
    pub(super) fn part(&mut self, bytes: &[u8]) {
        self.count(bytes.len());
        self.0.update(bytes);
    }

    /// The number of the parts that follow.
    pub(super) fn count(&mut self, count: usize) {
        self.0.update(&(count as u32).to_be_bytes());
    }

    /// As many parts as there are.
    pub(super) fn list<'a>(&mut self, parts: impl ExactSizeIterator<Item = &'a [u8]>) {
        self.count(parts.len());
        parts.for_each(|part| self.part(part));
    }

    pub(super) fn finish(self) -> Digest {
        let mut digest = [0; 32];
        digest.copy_from_slice(self.0.finish().as_ref());
        Digest(digest)
    }
}

/// What a signature on a digest of this kind is over.
pub(super) fn signed(kind: &str, digest: &Digest) -> Vec<u8> {
    [label(kind).as_bytes(), b" signature\0", &digest.0].concat()
}

fn label(kind: &str) -> String {
    format!("devkey identity {kind} v1")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// By the formula in `flow.rs`, computed elsewhere. Seen to fail without the zero byte, and with
    /// lengths of 8 bytes.
    #[test]
    fn the_digest_is_the_documented_one() {
        let mut transcript = Transcript::new("request");
        transcript.part(b"abc");
        transcript.list([b"d".as_slice(), b""].into_iter());
        let plain = [
            b"devkey identity request v1\0".as_slice(),
            b"\0\0\0\x03abc\0\0\0\x02\0\0\0\x01d\0\0\0\0",
        ];
        assert_eq!(transcript.finish(), Digest::of(&plain.concat()));
    }
}
