//! Bytes: the cache's ledger, and memory by phase.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The cache's byte ledger: predicted from the spec and equal to what was allocated.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct KvBytes {
    /// Packed codes.
    pub codes_bytes: u64,
    /// Scales and minima.
    pub parameters_bytes: u64,
    /// Full-precision window (everything, for an unquantized cache).
    pub window_bytes: u64,
    /// Working space of the cache.
    pub scratch_bytes: u64,
    /// All of it.
    pub total_bytes: u64,
    /// What an unquantized cache of the same shape takes.
    pub unquantized_bytes: u64,
}

/// Memory by phase, bytes; `null` where the device cannot tell.
///
/// On a GPU `weights + cache + activations + logits` are the high-water mark of tensors (`pool_peak_bytes`); with `framework` and
/// `fragmentation` they are the device's own count at its peak (`device_used_bytes`).
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Memory {
    /// Model weights, by their shapes.
    pub weights_bytes: Option<u64>,
    /// Cache, by the ledger.
    pub cache_bytes: Option<u64>,
    /// What else was in tensors at the peak: activations, tables of positions, buffers of the decode step.
    pub activations_bytes: Option<u64>,
    /// Logits of the last token of each sequence, `[B, V]` f32: prefill computes no others.
    pub logits_bytes: Option<u64>,
    /// Device count less what the pool held: context, modules, libraries, other programs.
    pub framework_bytes: Option<u64>,
    /// High-water mark of the pool over prefill and decode: weights, cache, activations, logits.
    #[serde(default)]
    pub pool_peak_bytes: Option<u64>,
    /// High-water mark of the pool while the model was loaded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub load_peak_bytes: Option<u64>,
    /// High-water mark of the pool in prefill (on a CPU: of the process).
    pub prefill_peak_bytes: Option<u64>,
    /// High-water mark of the pool in decode (on a CPU: of the process, with what its allocator keeps of prefill).
    pub decode_peak_bytes: Option<u64>,
    /// Held by the pool at its peak.
    pub pool_reserved_bytes: Option<u64>,
    /// Held by the pool at its peak beyond `pool_peak_bytes`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fragmentation_bytes: Option<u64>,
    /// Used on the device by the device's own count, when the pool held most.
    pub device_used_bytes: Option<u64>,
    /// Growth of what is in tensors after a run, from the first run to the last; 0 when each frees what it made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub leaked_bytes: Option<u64>,
    /// Peak resident set of the process, in host memory.
    pub process_peak_bytes: Option<u64>,
    /// A run's memory over time (`--memory-timeline`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeline: Option<MemoryTimeline>,
}

/// Memory during one run, which is not among the timed ones.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct MemoryTimeline {
    /// When prefill was done and decode began, ms since the run began.
    pub decode_began_ms: f64,
    /// In order of time. A sample that agrees with those before and after it is left out: between two samples nothing changed.
    pub samples: Vec<MemorySample>,
}

/// One look at the counters.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct MemorySample {
    /// When, ms since the run began.
    pub ms: f64,
    /// In tensors (on a CPU: the process's resident set), bytes.
    pub used_bytes: u64,
    /// Held by the pool; `null` on a CPU.
    pub reserved_bytes: Option<u64>,
    /// The device's own count; `null` on a CPU.
    pub device_used_bytes: Option<u64>,
}
