//! What a run consists of.

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::Result;
use crate::bench::Settings;
use crate::model::{LoadOptions, WeightsKind};
use crate::quant::QuantSpec;

/// Which model, as it was asked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ModelRequest {
    /// `--model`.
    pub model: String,
    /// `--revision`.
    pub revision: Option<String>,
    /// `--weights dummy`.
    pub dummy: bool,
    /// `--dtype`.
    pub dtype: String,
    /// `--device`.
    pub device: String,
    /// `--sliding-window on`.
    pub sliding_window: bool,
}

impl ModelRequest {
    /// The request in the model layer's terms.
    ///
    /// # Errors
    /// When dtype or device are no such words.
    pub fn options(&self, progress: bool) -> Result<LoadOptions> {
        Ok(LoadOptions {
            model: self.model.clone(),
            revision: self.revision.clone(),
            dtype: self.dtype.parse()?,
            device: self.device.parse()?,
            weights: if self.dummy { WeightsKind::Dummy } else { WeightsKind::Trained },
            sliding_window: self.sliding_window,
            progress,
        })
    }
}

/// One result file: a model, an attention backend and a KV quantization, with what to measure.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct RunSpec {
    /// The model and how to load it.
    pub model: ModelRequest,
    /// `eager`, `sdpa` or `fused`.
    pub attn_backend: String,
    /// The cache.
    pub kv_quant: QuantSpec,
    /// Benchmarks by name, beside `profile`.
    pub benchmarks: Vec<String>,
    /// Whether to measure cost at all.
    pub profile: bool,
    /// Settings of the benchmarks.
    pub settings: Settings,
}

impl RunSpec {
    /// Hex hash of everything that defines the experiment: equal hashes are the same experiment.
    pub fn hash(&self) -> String {
        // Serialization of plain data into memory cannot fail; an empty text would still be a valid (shared) hash.
        let text = serde_json::to_string(self).unwrap_or_default();
        Sha256::digest(text.as_bytes()).iter().take(8).map(|b| format!("{b:02x}")).collect()
    }
}

/// The runs of one model, in an order that loads it once.
pub fn runs_of(
    model: &ModelRequest,
    backends: &[String],
    quantizations: &[QuantSpec],
    benchmarks: &[String],
    profile: bool,
    settings: &Settings,
) -> Vec<RunSpec> {
    let mut runs = Vec::new();
    for backend in backends {
        // The unquantized cache first: its scores are the reference of all others.
        let (baseline, quantized): (Vec<_>, Vec<_>) = quantizations.iter().partition(|q| !q.is_quantized());
        for quant in baseline.into_iter().chain(quantized) {
            runs.push(RunSpec {
                model: model.clone(),
                attn_backend: backend.clone(),
                kv_quant: quant.clone(),
                benchmarks: benchmarks.to_vec(),
                profile,
                settings: settings.clone(),
            });
        }
    }
    runs
}
