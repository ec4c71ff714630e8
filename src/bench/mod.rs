//! Layer 5: what is measured.

pub mod corpus;
