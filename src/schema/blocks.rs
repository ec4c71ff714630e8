//! What the benchmarks put into a result file.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::follow_up::FollowUp;
use super::instruments::{Energy, KernelTimes};
use super::memory::{KvBytes, Memory};
use super::paired::Paired;
use super::quality::{Accuracy, Kld};
use super::steps::Steps;
use crate::base::stats::{Estimate, Summary};

/// Settings by the names of their flags, as a configuration file has them.
pub type Flags = BTreeMap<String, Value>;

/// Cost at one context length and batch size. Sizes in `_mb` are 2^20 bytes, as in 2.0.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Measurement {
    /// Prompt length, tokens.
    pub context_len: usize,
    /// Sequences side by side.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub batch_size: Option<usize>,
    /// `true` where nothing was measured, with the reason beside it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub skipped: Option<bool>,
    /// Why (out of memory, …).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub skip_reason: Option<String>,
    /// Where memory lacked: bytes that were free for the run, before anything of it was loaded. A resumed run tries again where more
    /// are free.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub free_bytes: Option<u64>,
    /// Tokens of each sequence's prompt that were computed together.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prefill_chunk: Option<usize>,
    /// Median time from the prompt to the first token's logits.
    #[serde(default)]
    pub prefill_ms: Option<f64>,
    /// Prompt tokens of all sequences over that time.
    #[serde(default)]
    pub prefill_tokens_per_sec: Option<f64>,
    /// Median time of `decode_tokens` steps, prefill not included.
    #[serde(default)]
    pub decode_ms: Option<f64>,
    /// Steps in a timed decode.
    #[serde(default)]
    pub decode_tokens: Option<usize>,
    /// Generated tokens of all sequences over `decode_ms`.
    #[serde(default)]
    pub decode_tokens_per_sec: Option<f64>,
    /// Most in tensors during prefill and decode, MiB: the high-water mark of the memory pool (`memory.pool_peak_bytes`), as 2.0 has
    /// PyTorch's. What the device itself counts is larger (`memory.device_used_bytes`). On a CPU the peak resident set of the process.
    #[serde(default)]
    pub vram_peak_mb: Option<f64>,
    /// Most that the pool held during prefill and decode, MiB, what no tensor used included; `null` on a CPU.
    #[serde(default)]
    pub vram_reserved_mb: Option<f64>,
    /// Cache bytes by the ledger, MiB.
    #[serde(default)]
    pub kv_cache_mb: Option<f64>,
    /// What kind of cache ran.
    #[serde(default)]
    pub kv_cache_type: Option<String>,
    /// 2.0's estimate; `null` here, where steps and kernels are timed instead.
    #[serde(default)]
    pub quant_overhead_ms: Option<f64>,
    /// 2.0's estimate; `null` here.
    #[serde(default)]
    pub dequant_overhead_ms: Option<f64>,
    /// 2.0's estimate; `null` here.
    #[serde(default)]
    pub overhead_pct: Option<f64>,
    /// Mean power in the decode window, watts.
    #[serde(default)]
    pub avg_power_watts: Option<f64>,
    /// Decode energy per generated token, millijoules.
    #[serde(default)]
    pub energy_mj_per_token: Option<f64>,
    /// Wall time of this measurement, seconds.
    #[serde(default)]
    pub ctx_elapsed_s: Option<f64>,
    /// Whether the driver spilled device memory to the host.
    #[serde(default)]
    pub vram_overflow: Option<bool>,
    /// Prefill times, ms.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prefill_runs_ms: Option<Summary>,
    /// Decode times, ms.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub decode_runs_ms: Option<Summary>,
    /// A prompt read after the row's own, where `--follow-up-tokens` asked for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub follow_up: Option<FollowUp>,
    /// Single decode steps.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub steps: Option<Steps>,
    /// Cache bytes by purpose.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kv_bytes: Option<KvBytes>,
    /// Memory by phase.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory: Option<Memory>,
    /// Energy windows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub energy: Option<Energy>,
    /// Time by kernel category.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kernels: Option<KernelTimes>,
    /// The attention that ran: kernel name, or the path taken where no fused kernel serves the shape.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attention_kernel: Option<String>,
    /// How decode steps were made, by the name of `--step-mode` for it, whatever was asked for; older files tell by `attention_kernel` only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub step_mode: Option<String>,
    /// Bytes that a decode step had to read (weights, and keys and values half way) over its median time, GB/s (10^9).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub step_bandwidth_gb_s: Option<f64>,
    /// The same as a share of the copy bandwidth measured in this run; absent, with a warning, where it is above that, as what is read
    /// from a cache may be.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub step_bandwidth_share: Option<f64>,
    /// Bytes of keys and values that a decode step had to read over the time of its attention kernel, GB/s (10^9); `null` where no
    /// kernels were traced, or attention has no kernel of its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attention_bandwidth_gb_s: Option<f64>,
    /// The same as a share of the copy bandwidth measured in this run; absent, with a warning, where it is above that, as what is read
    /// from a cache may be.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attention_bandwidth_share: Option<f64>,
    /// Share of key reads that came from codes, over prefill and decode.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub quantized_read_fraction: Option<f64>,
    /// What a reader should know (drift, throttling, no flush met …).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
    /// Settings that it was measured with, by the names of their flags, where `kvprof patch` did; without them, those of the file's
    /// `config`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub settings: Option<Flags>,
    /// Fields not known here.
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}

impl Measurement {
    /// A row that says why nothing was measured at this context and batch.
    pub fn skipped(context_len: usize, batch: usize, reason: String) -> Self {
        Measurement {
            context_len,
            batch_size: Some(batch),
            skipped: Some(true),
            skip_reason: Some(reason),
            ..Default::default()
        }
    }

    /// Whether it is such a row.
    pub fn is_skipped(&self) -> bool {
        self.skipped == Some(true)
    }

    /// Sequences side by side; 1 where a file of 2.0 does not say.
    pub fn batch(&self) -> usize {
        self.batch_size.unwrap_or(1)
    }

    /// What `completed` calls it.
    pub fn block(&self) -> String {
        profile_block(self.context_len, self.batch())
    }
}

/// Name of a row among the completed blocks.
pub fn profile_block(context_len: usize, batch: usize) -> String {
    format!("profile@{context_len}x{batch}")
}

/// Quality blocks by name. The first four are 2.0's.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Benchmarks {
    /// Perplexity of the unquantized cache.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub perplexity: Option<Perplexity>,
    /// Perplexity through the quantized cache.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub perplexity_quantized: Option<Perplexity>,
    /// Needle scores.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub needle_in_haystack: Option<Needle>,
    /// Each needle trial.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub needle_in_haystack_trials: Option<Vec<NeedleTrial>>,
    /// KL divergence from the unquantized cache's predictions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kld: Option<Kld>,
    /// MMLU.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mmlu: Option<Accuracy>,
    /// MATH.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub math: Option<Accuracy>,
    /// Fields not known here.
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}

/// What a text or question set was.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct DataSource {
    /// Name of the data set.
    pub name: String,
    /// Hub revision, where it came from a hub.
    pub revision: Option<String>,
    /// SHA-256 of the bytes read.
    pub sha256: String,
}

/// A perplexity.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Perplexity {
    /// Name of the text.
    pub dataset: String,
    /// Tokens scored.
    pub tokens: usize,
    /// exp(mean negative log-likelihood).
    pub value: f64,
    /// Version of the benchmark's meaning.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<u32>,
    /// `streaming` or `two-phase`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub protocol: Option<String>,
    /// Window, tokens.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub window: Option<usize>,
    /// Tokens fed together.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub chunk: Option<usize>,
    /// Tokens of each window that are not scored.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub burn_in: Option<usize>,
    /// Mean negative log-likelihood, nats a token.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nll: Option<f64>,
    /// The same of each section of the text, in order: the scored tokens cut into sections of equal length (to a token), as many as there are
    /// tokens but at most 128. Runs of the same tokens are paired by them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub by_section: Vec<f64>,
    /// Standard error of `value`, from the means of `blocks` of the text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub standard_error: Option<f64>,
    /// Blocks of equal length that the scored tokens were cut into for standard errors, since neighbouring tokens are alike. Absent in older
    /// files, whose errors took tokens as independent and are up to three times too small.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub blocks: Option<usize>,
    /// Share of key reads that came from codes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub quantized_read_fraction: Option<f64>,
    /// Perplexity of the unquantized cache on the same tokens.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reference_value: Option<f64>,
    /// `value − reference_value`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub delta: Option<f64>,
    /// ln(value / reference_value).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ln_ratio: Option<f64>,
    /// Standard error of `ln_ratio` from the paired differences by token (the covariance is in them), their means over `blocks`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ln_ratio_standard_error: Option<f64>,
    /// The text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub data: Option<DataSource>,
    /// Wall time, seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub elapsed_s: Option<f64>,
    /// Settings that it was measured with, by the names of their flags, where `kvprof patch` did; without them, those of the file's
    /// `config`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub settings: Option<Flags>,
    /// Fields not known here.
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}

impl Perplexity {
    /// `ln_ratio` with its error; `None` where either is not known.
    pub fn ln_ratio_estimate(&self) -> Option<Estimate> {
        let blocks = self.blocks.unwrap_or(0);
        Some(Estimate { value: self.ln_ratio?, error: self.ln_ratio_standard_error?, blocks })
    }

    /// ln(`value`) with its error, likewise.
    pub fn log_estimate(&self) -> Option<Estimate> {
        let blocks = self.blocks.unwrap_or(0);
        Some(Estimate { value: self.value.ln(), error: self.standard_error? / self.value, blocks })
    }
}

/// Needle scores of one context length.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct NeedleScore {
    /// Trials.
    pub trials: usize,
    /// Trials in which the number appeared.
    pub successes: usize,
    /// `successes / trials`.
    pub success_rate: f64,
    /// Share of its key reads that came from codes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub quantized_read_fraction: Option<f64>,
}

/// Needle scores.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Needle {
    /// Trials.
    pub total_trials: usize,
    /// Successes.
    pub successes: usize,
    /// `successes / total_trials`.
    pub success_rate: f64,
    /// By context length (tokens, as a string).
    pub per_context: BTreeMap<String, NeedleScore>,
    /// Contexts that were asked for and have no score, each with the reason.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub skipped_contexts: BTreeMap<String, String>,
    /// Version of the benchmark's meaning.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<u32>,
    /// What was hidden: `number`, `words` or `multi-key`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kind: Option<String>,
    /// Where it was hidden: `filler` or a text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub haystack: Option<String>,
    /// That text; absent for filler, which comes with kvprof.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub data: Option<DataSource>,
    /// Its interval, and its pairs with the unquantized cache's trials.
    #[serde(flatten)]
    pub paired: Paired,
    /// Successes of the unquantized cache on the same trials.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reference_successes: Option<usize>,
    /// Share of key reads that came from codes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub quantized_read_fraction: Option<f64>,
    /// Wall time, seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub elapsed_s: Option<f64>,
    /// Settings that it was measured with, by the names of their flags, where `kvprof patch` did; without them, those of the file's
    /// `config`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub settings: Option<Flags>,
    /// Fields not known here.
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}

/// One needle trial.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct NeedleTrial {
    /// Context length asked for, tokens.
    pub context_length: usize,
    /// Where the needle lies, 0…1.
    pub depth_percent: f64,
    /// Tokens of the prompt.
    pub input_tokens: usize,
    /// What the model wrote.
    pub generated_text: String,
    /// Whether the number is in it.
    pub success: bool,
    /// The number hidden in this trial.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub needle: Option<String>,
    /// Trial at this context and depth, from 0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trial: Option<usize>,
    /// Whether the unquantized cache found it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reference_success: Option<bool>,
    /// Fields not known here.
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}
