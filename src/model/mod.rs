//! Layer 4: one decoder for all families, and everything it takes to load and run one.

pub mod attention;
