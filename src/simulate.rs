//! A simulated PUF device, to try devkey without a chip: a node whose every opening is a fresh,
//! noisy reading of a chip that its seed alone makes.
//!
//! It keeps no secret: whoever knows the seed has the chip. devkey never takes its keys for those of
//! hardware.

mod chip;
mod node;

pub use chip::{Chip, Conditions, Make};
pub use node::{Fault, Node};
