//! Result files on disk: their names, and saving after every block.

use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::base::atomic;
use crate::bench::{self, Block};
use crate::schema::{Flags, Measurement, RunResult, model_name, read};
use crate::{Error, Result};

/// A result and the file it lives in.
pub struct Stored {
    /// The file.
    pub path: PathBuf,
    /// Its content.
    pub result: RunResult,
    /// Settings of the blocks that are kept, where they are not those of the file's `config`.
    pub block_settings: Option<Flags>,
    /// Blocks that were measured, or skipped with a reason, since it was opened.
    pub measured: Vec<String>,
    /// What failed since it was opened, not yet among the file's warnings: `block: why`, where it is a benchmark that failed.
    pub failed: Vec<String>,
    /// The file as it was found, so that what kvprof does not change is written back as it stood.
    found: Option<Found>,
}

/// A file as it was found.
struct Found {
    /// Its JSON.
    raw: Value,
    /// The same as this version would write it.
    parsed: Value,
}

/// `{model}_{backend}_{quant|fp16}_{YYYYmmdd_HHMMSS}`; the model's name ([`model_name`]) in lower case, with dashes written as underscores, and
/// without a dot at its beginning, which would hide the file.
pub fn experiment_id(model: &str, backend: &str, quant_label: &str, time: &chrono::DateTime<chrono::Local>) -> String {
    let name = model_name(model).unwrap_or(model).trim_start_matches('.').to_lowercase();
    let name: String = name.chars().map(|c| if c.is_alphanumeric() || c == '.' { c } else { '_' }).collect();
    format!("{name}_{backend}_{quant_label}_{}", time.format("%Y%m%d_%H%M%S"))
}

/// Makes sure that `folder` exists and can be written to, before hours are spent on results for it.
///
/// # Errors
/// Names the folder and what the system said.
pub fn prepare_folder(folder: &Path) -> Result<()> {
    if folder.exists() && !folder.is_dir() {
        return Err(Error::file(folder, "is a file, not a folder for results; give another --output-dir"));
    }
    std::fs::create_dir_all(folder).map_err(|e| Error::io(folder, e))?;
    tempfile::Builder::new().prefix(".kvprof-").tempfile_in(folder).map_err(|e| Error::io(folder, e))?;
    Ok(())
}

impl Stored {
    fn new(path: PathBuf, result: RunResult, found: Option<Found>) -> Self {
        Stored { path, result, block_settings: None, measured: Vec::new(), failed: Vec::new(), found }
    }

    /// Puts `result` into `folder` under its experiment id, which is changed when another run took it in the same second.
    pub fn create(folder: &Path, result: RunResult) -> Result<Self> {
        let base = result.experiment_id.clone();
        let path = folder.join(format!("{base}.json"));
        let mut stored = Stored::new(path, result, None);
        let mut n = 2;
        while !atomic::write_new(&stored.path, &stored.text()?)? {
            stored.result.experiment_id = format!("{base}_{n}");
            stored.path = folder.join(format!("{}.json", stored.result.experiment_id));
            n += 1;
        }
        Ok(stored)
    }

    /// The newest result of the experiment `hash` in `folder` that is `wanted`, to be completed; `None` when there is none that can be
    /// read.
    pub fn find(folder: &Path, hash: &str, mut wanted: impl FnMut(&Path, &RunResult) -> bool) -> Option<Self> {
        let mut paths: Vec<PathBuf> = std::fs::read_dir(folder).ok()?.flatten().map(|e| e.path()).collect();
        paths.sort_by_key(|path| std::fs::metadata(path).and_then(|m| m.modified()).ok());
        paths.into_iter().rev().filter(|p| p.extension().is_some_and(|e| e == "json")).find_map(|path| {
            let result = read::read(&path).ok()?;
            let same = result.spec_hash.as_deref() == Some(hash) && wanted(&path, &result);
            same.then(|| Stored::new(path, result, None))
        })
    }

    /// Opens a file of this version or of 2.0 in order to change parts of it.
    ///
    /// # Errors
    /// As [`read::read`].
    pub fn open(path: &Path) -> Result<Self> {
        let bytes = std::fs::read(path).map_err(|e| Error::io(path, e))?;
        let result = read::parse(path, &bytes)?;
        let as_json = |e: serde_json::Error| Error::file(path, e.to_string());
        let text = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(&bytes);
        let raw = serde_json::from_slice(text).map_err(as_json)?;
        let parsed = serde_json::to_value(&result).map_err(as_json)?;
        let found = Some(Found { raw, parsed });
        Ok(Stored::new(path.to_path_buf(), result, found))
    }

    /// Writes the file atomically.
    pub fn save(&self) -> Result<()> {
        atomic::write(&self.path, &self.text()?)
    }

    /// The file's content.
    fn text(&self) -> Result<Vec<u8>> {
        let as_json = |e: serde_json::Error| Error::file(&self.path, format!("cannot be written as JSON: {e}"));
        let mut text = match &self.found {
            None => serde_json::to_vec_pretty(&self.result),
            Some(found) => {
                let mut raw = found.raw.clone();
                apply_changes(&mut raw, &found.parsed, &serde_json::to_value(&self.result).map_err(as_json)?, 1);
                serde_json::to_vec_pretty(&raw)
            }
        }
        .map_err(as_json)?;
        text.push(b'\n');
        Ok(text)
    }

    /// Adds a row for what did not fit, or will not, into the `free` bytes that there were before anything was loaded, and saves. The
    /// block is not complete by that: where there is more memory, a resumed sweep measures it.
    ///
    /// # Errors
    /// As [`save`](Stored::save).
    pub fn skip(&mut self, row: Measurement, free: Option<u64>) -> Result<()> {
        let name = row.block();
        put(&mut self.result.measurements, Measurement { free_bytes: free, ..row });
        // Earlier versions took a row that ran out of memory for complete.
        self.result.completed.retain(|block| *block != name);
        self.note_measured(&name);
        self.save()
    }

    /// Complete blocks that were there when it was opened.
    pub fn earlier(&self) -> impl Iterator<Item = &String> {
        self.result.completed.iter().filter(|block| !self.measured.contains(block))
    }

    fn note_measured(&mut self, name: &str) {
        if !self.measured.iter().any(|known| known == name) {
            self.measured.push(name.to_string());
        }
    }

    /// Remembers why the benchmark called `name` is missing.
    pub fn fail(&mut self, name: &str, error: &Error) {
        let why = error.to_string();
        let place = format!("{name}: ");
        self.failed.push(if why.starts_with(&place) { why } else { place + &why });
    }

    /// Whether the block called `name` is complete, and there. A score of another version of its benchmark means something else.
    pub fn has(&self, name: &str) -> bool {
        let completed = self.result.completed.iter().any(|completed| completed == name);
        let outdated = || bench::outdated(&self.result).into_iter().any(|(block, ..)| block == name);
        completed && self.result.holds(name) && !outdated()
    }

    /// The row of this context and batch, where it was skipped.
    pub fn skipped(&self, context_len: usize, batch: usize) -> Option<&Measurement> {
        let row = |m: &&Measurement| m.context_len == context_len && m.batch() == batch;
        self.result.measurements.iter().find(row).filter(|m| m.is_skipped())
    }

    /// Adds a block, replacing an older one of the same kind, and saves.
    pub fn keep(&mut self, block: Block) -> Result<()> {
        let result = &mut self.result;
        let settings = self.block_settings.clone();
        let (name, complete) = match block {
            Block::Profile(mut row) => {
                row.settings = settings;
                let name = row.block();
                put(&mut result.measurements, *row);
                (name, true)
            }
            Block::Score { name, mut blocks, complete } => {
                blocks.set_settings(settings.as_ref());
                result.benchmarks.copy_from(name, &blocks);
                (name.into(), complete)
            }
        };
        if complete && !result.completed.contains(&name) {
            result.completed.push(name.clone());
        }
        self.note_measured(&name);
        self.save()
    }
}

/// Replaces the row of the same context and batch, or adds one: before the first row of a longer context or larger batch, since rows
/// that are skipped are known before the others are measured.
fn put(rows: &mut Vec<Measurement>, row: Measurement) {
    let place = |m: &Measurement| (m.context_len, m.batch());
    match rows.iter_mut().find(|m| place(m) == place(&row)) {
        Some(old) => *old = row,
        None => {
            let at = rows.iter().position(|m| place(m) > place(&row)).unwrap_or(rows.len());
            rows.insert(at, row);
        }
    }
}

/// Carries what differs between `before` and `after` over to `raw`, key by key down to `depth` further levels of objects.
fn apply_changes(raw: &mut Value, before: &Value, after: &Value, depth: usize) {
    let (Value::Object(raw), Value::Object(before), Value::Object(after)) = (raw, before, after) else { return };
    for key in before.keys().filter(|key| !after.contains_key(*key)) {
        raw.shift_remove(key);
    }
    for (key, new) in after {
        match (raw.get_mut(key), before.get(key)) {
            (_, Some(old)) if old == new => {}
            (Some(target @ Value::Object(_)), Some(old)) if depth > 0 && new.is_object() => {
                apply_changes(target, old, new, depth - 1);
            }
            _ => {
                raw.insert(key.clone(), new.clone());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use chrono::TimeZone;

    use super::*;
    use crate::schema::{Perplexity, bare_result};

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
        assert_eq!(
            experiment_id("shapes/Mistral-7B.config.json", "fused", "fp16", &time),
            "mistral_7b_fused_fp16_20260502_152932"
        );
        assert_eq!(
            experiment_id("org/Qwen2.5-7B-GGUF:Q4_K_M", "fused", "fp16", &time),
            "qwen2.5_7b_gguf_q4_k_m_fused_fp16_20260502_152932"
        );
        assert_eq!(experiment_id("模型/甲.gguf", "fused", "fp16", &time), "甲_fused_fp16_20260502_152932");
        assert_eq!(experiment_id("a/config.json", "fused", "fp16", &time), "a_fused_fp16_20260502_152932");
        assert_eq!(experiment_id("./a/.hidden/", "fused", "fp16", &time), "hidden_fused_fp16_20260502_152932");
    }

    #[test]
    fn a_score_of_another_version_of_its_benchmark_is_not_there() {
        let folder = tempfile::tempdir().unwrap();
        let has = |version: Option<u32>| {
            let path = folder.path().join("x.json");
            let mut result = bare_result();
            result.benchmarks.perplexity = Some(Perplexity { version, ..Default::default() });
            result.completed = vec!["ppl".into()];
            std::fs::write(&path, serde_json::to_vec(&result).unwrap()).unwrap();
            Stored::open(&path).unwrap().has("ppl")
        };
        assert_eq!((has(Some(1)), has(Some(1000)), has(None)), (true, false, true), "older files do not say");
    }

    #[test]
    fn rows_stand_in_the_order_of_their_sizes_whenever_they_come() {
        let mut rows = Vec::new();
        for (context_len, batch) in [(4096, 64), (512, 1), (4096, 1), (512, 64), (512, 1)] {
            put(&mut rows, Measurement { context_len, batch_size: Some(batch), ..Default::default() });
        }
        let places: Vec<_> = rows.iter().map(|m| (m.context_len, m.batch_size.unwrap())).collect();
        assert_eq!(places, [(512, 1), (512, 64), (4096, 1), (4096, 64)]);
    }
}
