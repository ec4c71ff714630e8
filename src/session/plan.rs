//! What a run consists of.

use std::collections::HashSet;
use std::path::Path;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::base::hex::hex;
use crate::bench::Settings;
use crate::bench::settings::MOST;
use crate::model::hub::names_below;
use crate::model::{LoadOptions, WeightsKind};
use crate::quant::QuantSpec;
use crate::{Error, Result};

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
    /// Hex hash of everything that defines the experiment: equal hashes are the same experiment. Files of texts and questions count
    /// by their content, a folder of them by the names and sizes of its files.
    pub fn hash(&self) -> String {
        // Serialization of plain data into memory cannot fail; an empty text would still be a valid (shared) hash.
        let mut hasher = Sha256::new_with_prefix(serde_json::to_string(self).unwrap_or_default());
        let Settings { ppl_data, needle_haystack, data, .. } = &self.settings;
        let named = ppl_data.iter().chain([needle_haystack]).map(Path::new).chain(data.as_deref());
        for path in named {
            // What cannot be read is told of where it is to be scored.
            let _ = add_content(&mut hasher, path);
        }
        hex(&hasher.finalize()[..8])
    }
}

/// Adds what a file holds, or which files a folder does. A name that is neither adds nothing.
fn add_content(hasher: &mut Sha256, path: &Path) -> Result<()> {
    if path.is_file() {
        let mut file = std::fs::File::open(path).map_err(|e| Error::io(path, e))?;
        std::io::copy(&mut file, hasher).map_err(|e| Error::io(path, e))?;
    } else if path.is_dir() {
        let mut names = names_below(path)?;
        names.sort();
        for name in names {
            let bytes = std::fs::metadata(path.join(&name)).map_or(0, |file| file.len());
            hasher.update(format!("\n{name} {bytes}"));
        }
    }
    Ok(())
}

/// Parses `--kv-quant` names, each with each of `residuals` where any are given; duplicates are dropped.
///
/// # Errors
/// As the parsing of a [`QuantSpec`].
pub fn quantizations(names: &[String], residuals: &[usize]) -> Result<Vec<QuantSpec>> {
    if let Some(tokens) = residuals.iter().find(|tokens| **tokens > MOST) {
        return Err(Error::usage(format!("--residual-length {tokens} is more than {MOST}")));
    }
    let mut specs: Vec<QuantSpec> = Vec::new();
    for name in names {
        let spec: QuantSpec = name.parse()?;
        let varied = match residuals {
            // An unquantized cache has no residual window to vary.
            _ if !spec.is_quantized() => vec![spec],
            [] => vec![spec],
            _ if name.contains("residual=") => {
                let message = format!("'{name}' has a residual window of its own; give that or --residual-length");
                return Err(Error::usage(message));
            }
            _ => residuals.iter().map(|&tokens| spec.clone().with_residual(tokens)).collect(),
        };
        for spec in varied {
            if !specs.contains(&spec) {
                specs.push(spec);
            }
        }
    }
    Ok(specs)
}

/// A plan in the order of running: each model is loaded once, and its unquantized caches come first, since their scores are the
/// reference of the others. Runs that are the same experiment are made once.
pub fn arrange(runs: Vec<RunSpec>) -> Vec<RunSpec> {
    let mut models: Vec<ModelRequest> = Vec::new();
    let mut seen = HashSet::new();
    let mut keyed: Vec<_> = Vec::new();
    for run in runs {
        if !seen.insert(run.hash()) {
            continue;
        }
        let model = models.iter().position(|m| *m == run.model).unwrap_or_else(|| {
            models.push(run.model.clone());
            models.len() - 1
        });
        keyed.push(((model, run.kv_quant.is_quantized()), run));
    }
    keyed.sort_by_key(|(key, _)| *key);
    keyed.into_iter().map(|(_, run)| run).collect()
}

/// Every `of`-th run of a plan, starting with number `index` (from 1): shards together are the plan, and share nothing.
pub fn shard(runs: Vec<RunSpec>, index: usize, of: usize) -> Vec<RunSpec> {
    runs.into_iter().enumerate().filter(|(at, _)| at % of == index - 1).map(|(_, run)| run).collect()
}
