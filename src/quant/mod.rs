//! Layer 2: what a quantized group is, how one is fitted, packed and read back.

pub mod codec;
pub mod fit;
pub mod fp8;
pub mod hadamard;
pub mod hqq;
pub mod minmax;
pub mod pack;
mod parse;
mod power;
pub mod presets;
pub mod real;
mod shrinkage;
pub mod spec;
pub mod tile;

#[cfg(test)]
mod tests;

pub use hadamard::Hadamard;
pub use real::Real;
pub use spec::{Direction, Fit, Groups, Policy, QuantSpec, Scheme};
pub use tile::TileGeometry;
