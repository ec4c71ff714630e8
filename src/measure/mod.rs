//! Layer 2: instruments that know nothing of models.

pub mod clock;
pub mod energy;
pub mod memory;
pub mod phase;
pub mod power;
pub mod process;
pub mod rapl;
pub mod run;
pub mod sampler;
pub mod timeline;
pub mod trace;
