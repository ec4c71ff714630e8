//! Layer 0: what every other layer may use.

pub mod atomic;
pub mod error;
pub mod hex;
pub mod interrupt;
pub mod message;
pub mod number;
pub mod progress;
pub mod rng;
pub mod stats;
