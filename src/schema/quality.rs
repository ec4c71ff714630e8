//! Quality beyond perplexity and needle: distribution divergence and question sets.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::DataSource;

/// How far the quantized cache's next-token distributions lie from the unquantized cache's, over the scored tokens of the
/// perplexity pass. KL(reference ‖ quantized), nats.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Kld {
    /// Tokens scored.
    pub tokens: usize,
    /// Mean divergence.
    pub mean: f64,
    /// Standard error of `mean`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub standard_error: Option<f64>,
    /// Median.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub median: Option<f64>,
    /// 90th percentile.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub p90: Option<f64>,
    /// 99th percentile.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub p99: Option<f64>,
    /// 99.9th percentile.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub p999: Option<f64>,
    /// Largest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max: Option<f64>,
    /// Root mean square change of the true token's probability, 0…1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rms_delta_p: Option<f64>,
    /// Share of positions at which both caches rank the same token first, 0…1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub top1_agreement: Option<f64>,
    /// The same by position in the window, in order of position.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub by_position: Vec<KldBin>,
    /// Version of the benchmark's meaning.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<u32>,
    /// Fields not known here.
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}

/// Divergence over the positions `from..to` of the window.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct KldBin {
    /// First position.
    pub from: usize,
    /// Past the last position.
    pub to: usize,
    /// Tokens scored in the bin.
    pub tokens: usize,
    /// Mean divergence, nats.
    pub mean: f64,
    /// Standard error of `mean`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub standard_error: Option<f64>,
    /// Median, nats.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub median: Option<f64>,
    /// 99th percentile, nats.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub p99: Option<f64>,
    /// Root mean square change of the true token's probability, 0…1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rms_delta_p: Option<f64>,
    /// Share of positions at which both caches rank the same token first, 0…1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub top1_agreement: Option<f64>,
}

/// Score of a question set (MMLU, MATH).
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Accuracy {
    /// Questions asked.
    pub questions: usize,
    /// Answered correctly.
    pub correct: usize,
    /// `correct / questions`.
    pub accuracy: f64,
    /// Wilson interval of `accuracy` at 95 %.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interval: Option<(f64, f64)>,
    /// Answers that could not be read (counted as wrong).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unparsed: Option<usize>,
    /// Correct answers of the unquantized cache to the same questions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reference_correct: Option<usize>,
    /// `accuracy` less the reference's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub delta: Option<f64>,
    /// Questions that only the reference answered correctly.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lost: Option<usize>,
    /// Questions that only the quantized cache answered correctly.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gained: Option<usize>,
    /// McNemar's exact p of `lost` against `gained`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mcnemar_p: Option<f64>,
    /// Share of key reads that came from codes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub quantized_read_fraction: Option<f64>,
    /// Version of the benchmark's meaning.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<u32>,
    /// The questions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub data: Option<DataSource>,
    /// Wall time, seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub elapsed_s: Option<f64>,
    /// Fields not known here (each question's outcome, first divergences …).
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}
