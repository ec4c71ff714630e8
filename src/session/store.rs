//! Result files on disk: their names, and saving after every block.

use std::path::{Path, PathBuf};

use crate::base::atomic;
use crate::bench::Block;
use crate::schema::RunResult;
use crate::{Error, Result};

/// A result and the file it lives in.
pub struct Stored {
    /// The file.
    pub path: PathBuf,
    /// Its content.
    pub result: RunResult,
}

/// `{model}_{backend}_{quant|fp16}_{YYYYmmdd_HHMMSS}`; the model's name is the last part of its id, lower case, with
/// dashes written as underscores.
pub fn experiment_id(model: &str, backend: &str, quant_label: &str, time: &chrono::DateTime<chrono::Local>) -> String {
    let name = model.trim_end_matches('/').rsplit('/').next().unwrap_or(model);
    let name = name.strip_suffix(".gguf").unwrap_or(name).to_lowercase();
    let name: String = name.chars().map(|c| if c.is_ascii_alphanumeric() || c == '.' { c } else { '_' }).collect();
    format!("{name}_{backend}_{quant_label}_{}", time.format("%Y%m%d_%H%M%S"))
}

/// Makes sure that `folder` exists and can be written to, before hours are spent on results for it.
///
/// # Errors
/// Names the folder and what the system said.
pub fn prepare_folder(folder: &Path) -> Result<()> {
    std::fs::create_dir_all(folder).map_err(|e| Error::io(folder, e))?;
    tempfile::Builder::new().prefix(".kvprof-").tempfile_in(folder).map_err(|e| Error::io(folder, e))?;
    Ok(())
}

impl Stored {
    /// Puts `result` into `folder` under its experiment id, which is changed when another run took it in the same second.
    pub fn create(folder: &Path, mut result: RunResult) -> Result<Self> {
        let base = result.experiment_id.clone();
        let mut path = folder.join(format!("{base}.json"));
        for n in 2.. {
            if !path.exists() {
                break;
            }
            result.experiment_id = format!("{base}_{n}");
            path = folder.join(format!("{}.json", result.experiment_id));
        }
        let stored = Stored { path, result };
        stored.save()?;
        Ok(stored)
    }

    /// Writes the file atomically.
    pub fn save(&self) -> Result<()> {
        let mut text = serde_json::to_vec_pretty(&self.result)
            .map_err(|e| Error::file(&self.path, format!("cannot be written as JSON: {e}")))?;
        text.push(b'\n');
        atomic::write(&self.path, &text)
    }

    /// Adds a block, replacing an older one of the same kind, and saves.
    pub fn keep(&mut self, block: Block) -> Result<()> {
        let result = &mut self.result;
        let name = match block {
            Block::Profile(measurement) => {
                let name = profile_block(measurement.context_len, measurement.batch_size.unwrap_or(1));
                let same = |m: &crate::schema::Measurement| {
                    m.context_len == measurement.context_len
                        && m.batch_size.unwrap_or(1) == measurement.batch_size.unwrap_or(1)
                };
                match result.measurements.iter_mut().find(|m| same(m)) {
                    Some(old) => *old = *measurement,
                    None => result.measurements.push(*measurement),
                }
                name
            }
            Block::Perplexity { reference, quantized } => {
                result.benchmarks.perplexity = Some(reference);
                result.benchmarks.perplexity_quantized = quantized;
                "ppl".into()
            }
            Block::Needle(needle, trials) => {
                result.benchmarks.needle_in_haystack = Some(needle);
                result.benchmarks.needle_in_haystack_trials = Some(trials);
                "needle".into()
            }
        };
        if !result.completed.contains(&name) {
            result.completed.push(name);
        }
        self.save()
    }
}

/// Name of a `profile` block among the completed ones.
pub fn profile_block(context_len: usize, batch: usize) -> String {
    format!("profile@{context_len}x{batch}")
}

#[cfg(test)]
mod tests {
    use chrono::TimeZone;

    use super::*;

    #[test]
    fn files_are_named_as_the_thesis_names_them() {
        let time = chrono::Local.with_ymd_and_hms(2026, 5, 2, 15, 29, 32).unwrap();
        assert_eq!(
            experiment_id("mistralai/Mistral-7B-v0.1", "fused", "int4_hqq", &time),
            "mistral_7b_v0.1_fused_int4_hqq_20260502_152932"
        );
        assert_eq!(
            experiment_id("models/SmolLM2-135M-Instruct.Q4_1.gguf", "eager", "fp16", &time),
            "smollm2_135m_instruct.q4_1_eager_fp16_20260502_152932"
        );
    }
}
