//! What stays secret of a response with biased cells.

use crate::fuzzy::polar::Family;

/// Bits that a 256-bit key asks for: 64 more than itself, SP 800-90C's rule for a vetted conditioner.
const NEEDED: f64 = 320.0;

/// Bits by which an enrolment exceeds what it needs, see the ledger.
const SPARE: f64 = 32.0;

/// Standard deviations of a response's information content that are taken off.
const DEVIATIONS: f64 = 6.0;

/// The account of a response whose cells are one with a given probability, each by itself.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Residual {
    /// Bits missing from N: N (1 - h(p)) and six standard deviations of -log2 P(response).
    pub loss: f64,
    /// K less the loss: the bits that the helper leaves unknown.
    pub secret: f64,
    /// Whether a 256-bit key may be made of it: 320 bits are left.
    pub enough: bool,
}

impl Residual {
    /// The least K, a multiple of 64, that an enrolment would choose.
    pub fn least_k(&self) -> usize {
        // Below 2^15 for the longest code.
        ((NEEDED + SPARE + self.loss) / 64.0).ceil() as usize * 64
    }
}

/// The account for K secret bits of a family and cells that are one with the probability `bias`,
/// more than 0 and less than 1. Shannon entropy with a margin, as in Maes et al., CHES 2015: the
/// response is typical but for one device in 10^9. Structure between cells is the ledger's matter.
pub fn residual(family: Family, k: usize, bias: f64) -> Residual {
    let n = family.len_bits() as f64;
    let entropy = -bias * bias.log2() - (1.0 - bias) * (1.0 - bias).log2();
    let deviation = (n * bias * (1.0 - bias)).sqrt() * ((1.0 - bias) / bias).log2().abs();
    let loss = n * (1.0 - entropy) + DEVIATIONS * deviation;
    let secret = k as f64 - loss;
    Residual {
        loss,
        secret,
        enough: secret >= NEEDED,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Figures that were computed by another program; docs/puf.md has more.
    ///
    /// Fails with five standard deviations, and with natural logarithms.
    #[test]
    fn the_losses_are_those_of_another_program() {
        let biases = [0.50, 0.51, 0.52, 0.55, 0.60, 0.65, 0.70];
        for (family, losses) in [
            (Family::Dk256, [0, 8, 18, 54, 137, 251, 395]),
            (Family::Dk512, [0, 12, 27, 85, 229, 434, 701]),
            (Family::Dk1024, [0, 18, 41, 137, 394, 771, 1277]),
        ] {
            let found = biases.map(|bias| residual(family, 512, bias).loss.round() as i32);
            let near = found.iter().zip(losses).all(|(a, b)| (a - b).abs() <= 1);
            assert!(near, "{family:?}: {found:?}");
        }
    }

    /// Fails with `NEEDED` at 256.
    #[test]
    fn too_little_is_said_to_be_too_little() {
        assert!(residual(Family::Dk1024, 512, 0.55).enough);
        assert!(!residual(Family::Dk1024, 512, 0.60).enough);
        assert_eq!(residual(Family::Dk1024, 512, 0.60).least_k(), 768);
        assert_eq!(residual(Family::Dk512, 384, 0.50).least_k(), 384);
    }
}
