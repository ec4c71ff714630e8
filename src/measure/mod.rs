//! Layer 2: instruments that know nothing of models.

pub mod clock;
pub mod memory;
pub mod phase;
pub mod process;
pub mod run;
