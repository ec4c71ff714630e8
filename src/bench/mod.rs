//! Layer 5: what is measured.
