//! Everything that computes on a GPU, against the CPU reference or float64.
//!
//! Without a GPU (or in a build without the feature `cuda`) each test says that it was skipped and passes; with
//! `KVPROF_REQUIRE_GPU=1` it fails instead.

#![allow(clippy::unwrap_used, reason = "a test that panics fails, as it should")]

#[path = "gpu/attention.rs"]
mod attention;
#[path = "gpu/cache.rs"]
mod cache;
#[path = "gpu/decode.rs"]
mod decode;
#[path = "gpu/device.rs"]
mod device;
#[path = "gpu/inputs.rs"]
mod inputs;
#[path = "gpu/instruments.rs"]
mod instruments;
#[path = "gpu/model.rs"]
mod model;
#[path = "gpu/reference.rs"]
mod reference;
#[path = "gpu/tile.rs"]
mod tile;
#[path = "support/gpu.rs"]
mod which;

use which::gpu;
