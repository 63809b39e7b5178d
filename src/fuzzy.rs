//! The fuzzy extractor: a stable root from a noisy response. Pure: no I/O, no device.

pub mod bits;
pub mod certify;
pub mod polar;
