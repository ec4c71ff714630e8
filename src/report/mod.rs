//! Layer 6: from result files to tables and figures. Imports `schema` and `base` only.

pub mod needle_grid;
pub mod quality_summary;
pub mod summary;
