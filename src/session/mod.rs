//! Layer 6: from a plan to result files.
