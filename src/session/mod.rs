//! Layer 6: from a plan to result files.

pub mod environment;
pub mod interrupt;
pub mod plan;
pub mod progress;
pub mod runner;
pub mod store;
