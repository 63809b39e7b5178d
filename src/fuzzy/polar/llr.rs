//! Log-likelihood ratios: the two polar updates and the path metric, exact up to rounding.
//!
//! A ratio is ln(P(0) / P(1)). The loops have neither branches nor table look-ups, so the compiler
//! makes vector code of them and their time does not depend on what they see. Two machines may round
//! differently; whatever comes of that is checked by the caller's tag.

use zeroize::Zeroize;

/// Ratios this large say "certain": exp(-87) is the least normal number.
const LARGEST: f32 = 87.0;

/// Each bit of half a word.
#[allow(clippy::indexing_slicing, reason = "32 places, and at < 32")]
const EACH: [u32; 32] = {
    let mut bits = [0; 32];
    let mut at = 0;
    while at < 32 {
        bits[at] = 1 << at;
        at += 1;
    }
    bits
};

/// f: the ratio of the sum of two bits, ln((1 + e^(a+b)) / (e^a + e^b)), for each pair.
pub(super) fn f(a: &[f32], b: &[f32], to: &mut [f32]) {
    for ((&a, &b), to) in a.iter().zip(b).zip(to) {
        *to = sum_of_bits(a, b);
    }
}

fn sum_of_bits(a: f32, b: f32) -> f32 {
    let sign = (a.to_bits() ^ b.to_bits()) & 1 << 31;
    let (a, b) = (a.abs(), b.abs());
    let (large, small) = (if a > b { a } else { b }, if a > b { b } else { a });
    let (sum, difference) = (exp_minus(large + small), exp_minus(large - small));
    // ln((1 + sum) / (1 + difference)) as twice the inverse hyperbolic tangent of z, |z| <= 1/3.
    let z = (sum - difference) / (2.0 + sum + difference);
    let magnitude = small + 2.0 * atanh_third(z);
    let magnitude = if magnitude > 0.0 { magnitude } else { 0.0 };
    f32::from_bits(magnitude.to_bits() | sign)
}

/// g: the ratio of the second bit once the sum of both is known to be the bit of `known`.
pub(super) fn g(a: &[f32], b: &[f32], known: &[u64], to: &mut [f32]) {
    let halves = known
        .iter()
        .flat_map(|word| [*word as u32, (word >> 32) as u32]);
    let blocks = a.chunks(32).zip(b.chunks(32)).zip(to.chunks_mut(32));
    for (((a, b), to), word) in blocks.zip(halves) {
        for (((&a, &b), to), bit) in a.iter().zip(b).zip(to).zip(EACH) {
            // A comparison with a constant, which vectors have, rather than a shift by the place.
            let sign = if word & bit == 0 { 0 } else { 1 << 31 };
            *to = b + f32::from_bits(a.to_bits() ^ sign);
        }
    }
}

/// The bits that the ratios point to.
pub(super) fn decide(ratios: &[f32], to: &mut [u64]) {
    for (ratios, to) in ratios.chunks(64).zip(to) {
        let bits = ratios.iter().zip(0..);
        *to = bits.fold(0, |word, (&ratio, at)| word | u64::from(ratio < 0.0) << at);
    }
}

/// The sum of the ratios.
pub(super) fn total(ratios: &[f32]) -> f32 {
    summed(ratios, |ratio| ratio)
}

/// The path metric of zeros: the sum of ln(1 + e^-ratio), which is -ln P(all bits zero).
pub(super) fn surprise(ratios: &[f32]) -> f32 {
    summed(ratios, of_zero)
}

/// The same for each piece of `len` ratios, `len` being a power of two. Short pieces fill vectors
/// together.
pub(super) fn surprises(ratios: &[f32], len: usize, to: &mut [f32]) {
    const BLOCK: usize = 32;
    if len >= BLOCK {
        let pieces = ratios.chunks_exact(len).zip(to);
        return pieces.for_each(|(piece, to)| *to = surprise(piece));
    }
    for (ratios, to) in ratios.chunks(BLOCK).zip(to.chunks_mut(BLOCK / len)) {
        let mut each = [0.0; BLOCK];
        for (each, &ratio) in each.iter_mut().zip(ratios) {
            *each = of_zero(ratio);
        }
        let pieces = each.chunks_exact(len).zip(to);
        pieces.for_each(|(piece, to)| *to = piece.iter().sum());
        each.zeroize();
    }
}

/// ln(1 + e^-ratio).
fn of_zero(ratio: f32) -> f32 {
    let e = exp_minus(ratio.abs());
    let below = if ratio < 0.0 { -ratio } else { 0.0 };
    below + 2.0 * atanh_third(e / (2.0 + e))
}

/// A sum in eight lanes.
fn summed(ratios: &[f32], of: impl Fn(f32) -> f32) -> f32 {
    let mut lanes = [0.0; 8];
    let blocks = ratios.chunks_exact(8);
    let rest = blocks.remainder();
    for block in blocks {
        for (lane, &ratio) in lanes.iter_mut().zip(block) {
            *lane += of(ratio);
        }
    }
    lanes.iter().sum::<f32>() + rest.iter().map(|&ratio| of(ratio)).sum::<f32>()
}

/// e^-x for x >= 0, within 2e-7 of itself; 1.6e-38 beyond [`LARGEST`].
fn exp_minus(x: f32) -> f32 {
    // 1.5 × 2^23: what is added to it is rounded to an integer in its lowest bits.
    const ROUND: f32 = 12_582_912.0;
    const COEFFICIENTS: [f32; 7] = [
        1.0,
        std::f32::consts::LN_2,
        0.240_226_5,
        0.055_504_11,
        0.009_618_129,
        0.001_333_355_8,
        0.000_154_035_3,
    ];
    let x = if x < LARGEST { x } else { LARGEST };
    let power = x * -std::f32::consts::LOG2_E;
    let rounded = power + ROUND;
    let fraction = power - (rounded - ROUND);
    let terms = COEFFICIENTS.iter().rev();
    let mantissa = terms.fold(0.0, |sum, &term| sum * fraction + term);
    let exponent = (rounded.to_bits() << 23).wrapping_add(1.0f32.to_bits());
    mantissa * f32::from_bits(exponent)
}

/// The inverse hyperbolic tangent for |z| <= 1/3, within 2e-7 of itself.
fn atanh_third(z: f32) -> f32 {
    const COEFFICIENTS: [f32; 6] = [1.0, 1.0 / 3.0, 1.0 / 5.0, 1.0 / 7.0, 1.0 / 9.0, 1.0 / 11.0];
    let terms = COEFFICIENTS.iter().rev();
    z * terms.fold(0.0, |sum, &term| sum * (z * z) + term)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Ratios of both signs, from 1e-7 to beyond what is certain.
    fn samples() -> Vec<f32> {
        let sizes = (0..200).map(|n| 1e-7 * 1.12f32.powi(n));
        sizes.flat_map(|size| [size, -size]).collect()
    }

    /// Fails with min-sum (a difference of 0.69 at a = b = 5), with four terms of `atanh_third`, and
    /// with five coefficients of `exp_minus`.
    #[test]
    fn f_is_exact() {
        for &a in &samples() {
            for &b in &samples() {
                let (x, y) = (f64::from(a), f64::from(b));
                let correction = (-(x + y).abs()).exp().ln_1p() - (-(x - y).abs()).exp().ln_1p();
                let exact = x.signum() * y.signum() * x.abs().min(y.abs()) + correction;
                let found = f64::from(sum_of_bits(a, b));
                let tolerance = 4e-7 * (1.0 + exact.abs());
                assert!(
                    (found - exact).abs() < tolerance,
                    "{a} {b}: {found} {exact}"
                );
            }
        }
    }

    /// Fails without `below` and with the sign of `ratio` exchanged.
    #[test]
    fn the_metric_is_exact() {
        for ratio in samples() {
            let x = f64::from(ratio);
            let exact = (-x.abs()).exp().ln_1p() + (-x).max(0.0);
            let found = f64::from(surprise(&[ratio]));
            assert!((found - exact).abs() < 4e-7 * (1.0 + exact), "{ratio}");
        }
        let many = samples();
        let one_by_one: f64 = many.iter().map(|&x| f64::from(surprise(&[x]))).sum();
        assert!((f64::from(surprise(&many)) / one_by_one - 1.0).abs() < 1e-5);
        for len in [1, 2, 8, 32, 64] {
            let mut pieces = vec![0.0; many.len() / len];
            surprises(&many[..pieces.len() * len], len, &mut pieces);
            for (piece, found) in many.chunks_exact(len).zip(pieces) {
                assert!((found / surprise(piece) - 1.0).abs() < 1e-5, "{len}");
            }
        }
    }

    /// Fails with the halves of a word of `known` exchanged.
    #[test]
    fn g_adds_or_subtracts_as_the_bits_say() {
        let a: Vec<f32> = (0..96).map(|n| n as f32 + 0.5).collect();
        let b = vec![100.0; 96];
        let mut to = vec![0.0; 96];
        g(&a, &b, &[0b101, 1 << 31], &mut to);
        assert_eq!(to[..3], [99.5, 101.5, 97.5]);
        assert_eq!((to[94], to[95]), (194.5, 4.5));
        let mut bits = [0; 2];
        let signs: Vec<f32> = (0..96)
            .map(|n| if n % 5 == 0 { -1.0 } else { 1.0 })
            .collect();
        decide(&signs, &mut bits);
        let minus = (0..96).filter(|at| bits[at / 64] >> (at % 64) & 1 == 1);
        assert!(minus.eq((0..96).step_by(5)));
        assert_eq!(total(&signs), 96.0 - 40.0);
    }
}
