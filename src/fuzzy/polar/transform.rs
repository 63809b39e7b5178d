//! The polar transform x = u F^(x)m modulo 2, F = [1 0; 1 1], in natural order; its own inverse.

use super::super::bits::Bits;

/// For strides below 64: the places of a word that receive.
const RECEIVERS: [(u32, u64); 6] = [
    (1, 0x5555_5555_5555_5555),
    (2, 0x3333_3333_3333_3333),
    (4, 0x0f0f_0f0f_0f0f_0f0f),
    (8, 0x00ff_00ff_00ff_00ff),
    (16, 0x0000_ffff_0000_ffff),
    (32, 0x0000_0000_ffff_ffff),
];

/// Transforms bits in place; their number is a power of two and at least 64. Takes the same time and
/// touches the same memory whatever the bits.
pub(super) fn transform(bits: &mut Bits) {
    let words = bits.words_mut();
    for word in words.iter_mut() {
        for (stride, receivers) in RECEIVERS {
            *word ^= *word >> stride & receivers;
        }
    }
    let mut stride = 1;
    while stride < words.len() {
        for pair in words.chunks_exact_mut(2 * stride) {
            let (first, second) = pair.split_at_mut(stride);
            for (to, from) in first.iter_mut().zip(second) {
                *to ^= *from;
            }
        }
        stride *= 2;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Row u of F^(x)m has ones where the binary digits of the column are among those of the row.
    ///
    /// Fails with a mask of `RECEIVERS` complemented, and with `first` and `second` exchanged.
    #[test]
    fn each_unit_vector_gives_its_row() {
        for row in 0..256 {
            let mut bits = Bits::zeros(256);
            bits.set(row, true);
            transform(&mut bits);
            for column in 0..256 {
                assert_eq!(bits.get(column), column & !row == 0, "{row} {column}");
            }
        }
    }

    #[test]
    fn it_is_its_own_inverse() {
        let bytes: Vec<u8> = (0..=255)
            .map(|n: u8| n.wrapping_mul(167) ^ n >> 3)
            .collect();
        let mut bits = Bits::from_bytes(&bytes);
        transform(&mut bits);
        assert_ne!(bits.to_bytes(), bytes);
        transform(&mut bits);
        assert_eq!(bits.to_bytes(), bytes);
    }
}
