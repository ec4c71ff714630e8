//! Layer 6: from a plan to result files.

mod bench;
pub mod claim;
mod config_error;
pub mod describe;
pub mod environment;
pub mod estimate;
mod exclude;
pub mod expand;
mod identity;
pub mod interrupt;
pub mod patch;
pub mod plan;
pub mod prepared;
pub mod progress;
pub mod resume;
pub mod runner;
mod skip;
pub mod store;
pub mod sweep;
