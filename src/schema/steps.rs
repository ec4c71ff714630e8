//! Single decode steps.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Single decode steps, ms.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Steps {
    /// Median of all steps.
    pub median_ms: f64,
    /// 99th percentile of all steps.
    pub p99_ms: f64,
    /// Mean of the steps in which a block was quantized; `null` when none was met.
    pub flush_mean_ms: Option<f64>,
    /// Steps in which a block was quantized, in all timed runs.
    pub flushes: usize,
    /// Steps timed.
    pub count: usize,
    /// Upper edges of the histogram's bins (ms), the last one open.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub histogram_edges_ms: Vec<f64>,
    /// Steps in each bin.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub histogram_counts: Vec<u64>,
    /// The steps in which a block was quantized, in order: the same in every run.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub flush_steps: Vec<FlushStep>,
}

/// A step in which a block was quantized.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct FlushStep {
    /// Which step of a run, from 0.
    pub step: usize,
    /// Its median over the runs, ms.
    pub ms: f64,
}
