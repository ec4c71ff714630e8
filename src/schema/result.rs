//! One run: a model, an attention backend, a KV quantization, and what was measured.
//!
//! Version "3.0" is a superset of the thesis tool's "2.0": every field of 2.0 keeps its name and meaning (there MB means
//! 2^20 bytes), and new fields say their unit in their name. A field that was not measured is `null`, never 0. Fields this
//! version does not know are kept in `extra` and written back unchanged.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::blocks::{Benchmarks, Flags, Measurement, Perplexity};
use super::quality::Kld;
use super::scores::SCORES;

/// A result file.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct RunResult {
    /// "3.0" here; "2.0" in the thesis tool's files.
    pub schema_version: String,
    /// `{model}_{backend}_{quant|fp16}_{YYYYmmdd_HHMMSS}`: the file's name without `.json`.
    pub experiment_id: String,
    /// Local time of the start, ISO 8601.
    pub timestamp: String,
    /// The model as it was named on the command line.
    pub model: String,
    /// Its shape.
    pub model_config: ModelConfig,
    /// `eager`, `sdpa` or `fused`.
    pub attn_backend: String,
    /// The cache.
    pub kv_quant: KvQuant,
    /// Software and hardware around the run.
    pub environment: Environment,
    /// The card, as 2.0 records it.
    pub hardware: Hardware,
    /// Settings of the run; a block that `kvprof patch` measured later carries its own.
    pub config: RunConfig,
    /// One entry for each context length × batch size.
    pub measurements: Vec<Measurement>,
    /// Quality blocks by name.
    pub benchmarks: Benchmarks,
    /// Hash of what defines this run; equal hashes are the same experiment.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub spec_hash: Option<String>,
    /// Blocks that are complete, by name (`profile@4096`, `ppl`, `needle` …).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub completed: Vec<String>,
    /// What a reader should know before trusting a number.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
    /// Wall time of the whole run, in seconds.
    pub combo_elapsed_s: f64,
    /// Fields of other tools or later versions, kept as they are.
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}

/// The model's shape.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ModelConfig {
    /// Parameters in billions.
    pub num_params_b: f64,
    /// L.
    pub num_layers: usize,
    /// Hq.
    pub num_q_heads: usize,
    /// Hkv.
    pub num_kv_heads: usize,
    /// `Hq/Hkv` as "4:1".
    pub gqa_ratio: String,
    /// D.
    pub head_dim: usize,
    /// Longest context the model was made for, in tokens.
    pub max_position_embeddings: usize,
    /// Architecture family (`llama`, `mistral`, `qwen2` …).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub family: Option<String>,
    /// Sliding window in tokens, where one is in force.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sliding_window: Option<usize>,
    /// `trained`, or `dummy` for random weights.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub weights: Option<String>,
    /// Commit of the model on the hub, or SHA-256 of the weight file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revision: Option<String>,
    /// File of that commit that holds the weights, of a model in parts the first; absent where they are safetensors or local.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gguf_file: Option<String>,
    /// SHA-256 of tokenizer.json, or of that with the chat template where there is one; absent where the tokenizer is in the weight file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tokenizer_sha256: Option<String>,
    /// How queries and keys are rotated: `base` and `scaling`; absent where positions are learned.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rope: Option<Value>,
    /// Tokens that end a generated text.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub end_tokens: Vec<u32>,
    /// Float type of weights and activations.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dtype: Option<String>,
    /// Fields not known here.
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}

/// Field of a [`ModelConfig`] whose sliding window is not the same in all layers: how many of them have one.
pub const WINDOW_LAYERS: &str = "sliding_window_layers";

/// The cache's quantization.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct KvQuant {
    /// Whether anything is quantized.
    pub enabled: bool,
    /// Bits of a key code.
    pub nbits: Option<u8>,
    /// `hqq`, `quanto`, `kivi`, `fp8`.
    pub backend: Option<String>,
    /// 0 = per-channel, 1 = per-token.
    pub axis_key: Option<u8>,
    /// 0 = per-channel, 1 = per-token.
    pub axis_value: Option<u8>,
    /// Whether keys and values have different axes.
    pub asymmetric: bool,
    /// Tokens kept in full precision.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub residual_length: Option<usize>,
    /// The `--kv-quant` value.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Bits of a value code.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nbits_value: Option<u8>,
    /// Elements in a group of keys.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub group_key: Option<usize>,
    /// Elements in a group of values.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub group_value: Option<usize>,
    /// `streaming` or `transformers`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub policy: Option<String>,
    /// Sides kept in the basis of a Hadamard matrix: `k`, `v`, `kv`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hadamard: Option<String>,
    /// Layers kept in full precision.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub keep_layers: Vec<usize>,
    /// Fields not known here.
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}

impl RunResult {
    /// Tokens decoded in a timed run: those of its first row, which a patch may have measured with others than the run's, or without
    /// a row that was measured, those of the run.
    pub fn decode_tokens(&self) -> usize {
        let mut measured = self.measurements.iter().filter(|m| !m.is_skipped());
        measured.find_map(|m| m.decode_tokens).unwrap_or(self.config.decode_tokens)
    }

    /// The perplexity of the run's own cache.
    pub fn own_perplexity(&self) -> Option<&Perplexity> {
        let blocks = &self.benchmarks;
        blocks.perplexity_quantized.as_ref().filter(|_| self.kv_quant.enabled).or(blocks.perplexity.as_ref())
    }

    /// The divergence of a quantized cache from the unquantized one; that of the unquantized one from itself, which its file has too, is 0
    /// by definition and says nothing.
    pub fn divergence(&self) -> Option<&Kld> {
        self.benchmarks.kld.as_ref().filter(|_| self.kv_quant.enabled)
    }

    /// Takes out the rows and scores whose names, as in `completed`, `kept` does not want.
    pub fn retain(&mut self, kept: impl Fn(&str) -> bool) {
        self.measurements.retain(|m| kept(&m.block()));
        for name in SCORES.into_iter().filter(|name| !kept(name)) {
            self.benchmarks.copy_from(name, &Benchmarks::default());
        }
    }

    /// Whether nothing is in it: no row, not even a skipped one, and no score. A run that was stopped early leaves such a file.
    pub fn is_empty(&self) -> bool {
        self.measurements.is_empty() && !self.has_measurements()
    }

    /// Whether a row of it was measured, or a score.
    pub fn has_measurements(&self) -> bool {
        let rows = self.measurements.iter().any(|m| !m.is_skipped());
        rows || self.benchmarks.each().next().is_some()
    }

    /// Whether the block that `completed` calls `name` is there; a row that was skipped is not. Of blocks that this version does not know,
    /// nothing is held against the file.
    pub fn holds(&self, name: &str) -> bool {
        let known = SCORES.contains(&name) || (name.starts_with("profile@") && name.contains('x'));
        let row = || self.measurements.iter().any(|m| !m.is_skipped() && m.block() == name);
        !known || self.benchmarks.has(name) || row()
    }
}

/// Software and hardware around a run.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Environment {
    /// `kvprof` version.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kvprof_version: Option<String>,
    /// Git revision of the binary, with `+` where the tree was changed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub git_revision: Option<String>,
    /// Version of Python, of which 2.0's tool was a program; `null` here, as the next two, for scripts that look the three up.
    #[serde(default)]
    pub python_version: Option<String>,
    /// Version of PyTorch; `null` here.
    #[serde(default)]
    pub pytorch_version: Option<String>,
    /// Version of transformers; `null` here.
    #[serde(default)]
    pub transformers_version: Option<String>,
    /// CUDA version: of the driver, `null` on a CPU run; in files of 2.0 that of PyTorch's build.
    #[serde(default)]
    pub cuda_version: Option<String>,
    /// Driver version.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub driver_version: Option<String>,
    /// Name of the card, `null` on a CPU run.
    #[serde(default)]
    pub gpu_name: Option<String>,
    /// Memory of the card in 10^9 bytes.
    #[serde(default)]
    pub gpu_vram_gb: Option<f64>,
    /// Compute capability, "9.0".
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub compute_capability: Option<String>,
    /// Processor name and count of usable cores.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu: Option<String>,
    /// Full command line.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub command_line: Option<Vec<String>>,
    /// Fields not known here.
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}

/// The card, as 2.0 records it.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Hardware {
    /// Memory of the card, MiB.
    #[serde(default)]
    pub vram_total_mb: Option<f64>,
    /// Name of the card.
    #[serde(default)]
    pub gpu_name: Option<String>,
    /// Device the run used: `cpu`, `cuda:0`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub device: Option<String>,
    /// Bandwidth of a large device-to-device copy measured in this run (bytes read plus written), GB/s (10^9).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub copy_bandwidth_gb_s: Option<f64>,
    /// Fields not known here.
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}

/// Settings of a run: with them `kvprof patch` repeats a block, but for what its flags change.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct RunConfig {
    /// Seed of everything random.
    pub seed: u64,
    /// Untimed runs before the timed ones.
    pub warmup_runs: usize,
    /// Timed runs.
    pub measure_runs: usize,
    /// Tokens decoded in a timed run.
    pub decode_tokens: usize,
    /// Text of the perplexity block: its name, or the file that was read; empty where the run reads none.
    pub ppl_dataset: String,
    /// Tokens scored.
    pub ppl_tokens: usize,
    /// Further settings by the name of their flag (`ppl-window`, `needle-depths` …).
    #[serde(default, skip_serializing_if = "Flags::is_empty")]
    pub flags: Flags,
    /// Fields not known here.
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}

/// A file of an unquantized cache that holds nothing yet, for tests.
#[cfg(test)]
pub(crate) fn bare_result() -> RunResult {
    let json = serde_json::json!({
        "schema_version": "3.0", "experiment_id": "x", "timestamp": "", "model": "m", "attn_backend": "fused",
        "model_config": {"num_params_b": 1.0, "num_layers": 1, "num_q_heads": 1, "num_kv_heads": 1, "gqa_ratio": "1:1",
            "head_dim": 64, "max_position_embeddings": 64},
        "kv_quant": {"enabled": false, "asymmetric": false}, "environment": {}, "hardware": {}, "measurements": [],
        "benchmarks": {}, "combo_elapsed_s": 1.0,
        "config": {"seed": 1, "warmup_runs": 0, "measure_runs": 1, "decode_tokens": 4, "ppl_dataset": "", "ppl_tokens": 0},
    });
    serde_json::from_value(json).unwrap()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_decoded_are_those_of_the_rows_where_a_patch_changed_them() {
        let mut result = bare_result();
        result.config.decode_tokens = 128;
        let row = |skipped, decode_tokens| Measurement { skipped, decode_tokens, ..Default::default() };
        assert_eq!(result.decode_tokens(), 128);
        result.measurements = vec![row(Some(true), Some(32))];
        assert_eq!(result.decode_tokens(), 128);
        result.measurements.push(row(None, Some(64)));
        assert_eq!(result.decode_tokens(), 64);
    }
}
