//! Layer 1: the machine. All `unsafe` lives here.

pub mod matmul;
