//! Layer 1: the result file. Types only; nothing here measures anything.

pub mod blocks;
pub mod concerns;
pub mod follow_up;
pub mod history;
pub mod instruments;
pub mod json_schema;
pub mod memory;
pub mod model_name;
pub mod paired;
pub mod quality;
pub mod read;
pub mod result;
pub mod scores;
pub mod steps;
pub mod validate;

pub use blocks::*;
pub use follow_up::FollowUp;
pub use history::Machine;
pub use instruments::*;
pub use memory::*;
pub use model_name::model_name;
pub use paired::Paired;
pub use quality::*;
pub use result::*;
pub use scores::*;
pub use steps::*;

/// The version this binary writes. It reads this one and the thesis tool's "2.0".
pub const SCHEMA_VERSION: &str = "3.0";
