//! Layer 2: what a quantized group is, how one is fitted, packed and read back.

pub mod spec;

pub use spec::{Direction, Fit, Groups, Policy, QuantSpec, Scheme};
