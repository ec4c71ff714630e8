//! Measuring blocks of existing result files again; everything else in them stays as it is.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use serde_json::{Value, json};

use super::bench::{Bench, Outcome};
use super::claim::Claim;
use super::describe::{flags, run_of};
use super::identity::difference;
use super::interrupt;
use super::plan::{ModelRequest, RunSpec};
use super::prepared::Prepared;
use super::progress::tell_end;
use super::store::Stored;
use crate::base::atomic;
use crate::base::progress::Progress;
use crate::bench::{self, Settings};
use crate::schema::{Measurement, RunResult};
use crate::{Error, Result};

/// What to measure again, and how.
pub struct Request {
    /// `profile` or benchmark names.
    pub blocks: Vec<String>,
    /// Whether the old file is kept beside the new one as `.bak`.
    pub backup: bool,
}

/// One file and the run it records.
struct Target {
    stored: Stored,
    run: Prepared,
    /// What is measured again.
    blocks: Vec<String>,
    /// Held until the file is done, so that two processes do not write it at once.
    _claim: Rc<Claim>,
}

/// Measures the blocks again in every file, loading each model once. `adjust` changes each recorded run as the command line asks.
/// A damaged file is refused and left untouched; the others go on.
pub fn run(
    files: &[PathBuf],
    request: &Request,
    adjust: &dyn Fn(&mut RunSpec),
    progress: &dyn Progress,
    show_loading: bool,
) -> Vec<Outcome> {
    let mut outcomes = Vec::new();
    let mut targets = Vec::new();
    let mut claims = Claims::default();
    for path in files {
        match Target::open(path, request, adjust, &mut claims) {
            Ok(target) => targets.push(target),
            Err(error) => outcomes.push(Outcome { name: path.display().to_string(), stored: None, error: Some(error) }),
        }
    }
    // From here on a claim lasts as long as the files that need it.
    drop(claims);
    // The stable sort keeps files of one model in the order given, the unquantized ones first.
    targets.sort_by_key(|t| (format!("{:?}", t.run.spec.model), t.run.spec.kv_quant.is_quantized()));
    let mut loaded: Option<(ModelRequest, Bench)> = None;
    let planned = targets.len();
    for (number, mut target) in (1..).zip(targets) {
        if interrupt::requested() {
            break;
        }
        let name = target.stored.path.display().to_string();
        progress.begin_run(number, planned, &name);
        let error = target.measure(&mut loaded, request, progress, show_loading).err();
        tell_end(progress, Some(&target.stored), error.as_ref());
        outcomes.push(Outcome { name, stored: Some(target.stored), error });
    }
    outcomes
}

impl Target {
    fn open(path: &Path, request: &Request, adjust: &dyn Fn(&mut RunSpec), claims: &mut Claims) -> Result<Self> {
        // The claim and the backup belong beside the file itself.
        let path = &atomic::through_link(path)?;
        let hash = Stored::open(path)?.result.spec_hash;
        let claim = claims.take(path, hash.as_deref())?;
        // As it is now that nobody else changes it.
        let stored = Stored::open(path)?;
        let mut spec = run_of(&stored.result).map_err(|e| Error::file(path, e.to_string()))?;
        let blocks = bench::expand(&request.blocks)?;
        spec.profile = blocks.iter().any(|b| b == "profile");
        spec.benchmarks = blocks.iter().filter(|b| *b != "profile").cloned().collect();
        adjust(&mut spec);
        spec.settings.check(spec.profile).map_err(|e| Error::file(path, e.to_string()))?;
        Ok(Target { stored, run: Prepared::new(spec)?, blocks, _claim: claim })
    }

    fn measure(
        &mut self,
        loaded: &mut Option<(ModelRequest, Bench)>,
        request: &Request,
        progress: &dyn Progress,
        show_loading: bool,
    ) -> Result<()> {
        let spec = &self.run.spec;
        if loaded.as_ref().is_none_or(|(model, _)| *model != spec.model) {
            // The earlier model must be gone before the next one asks for its memory.
            *loaded = None;
            *loaded = Some((spec.model.clone(), Bench::load(spec, None, show_loading)?));
        }
        let Some((_, bench)) = loaded else { return Ok(()) };
        let here = bench.model_config(&spec.model);
        if let Some(told) = difference(&self.stored.result.model_config, &here, &spec.benchmarks) {
            let message = format!(
                "was not measured with {}: {told}. Give the model that it was measured with by --model, wherever that lies now, or \
                 measure this one with kvprof run",
                spec.model.model
            );
            return Err(Error::file(&self.stored.path, message));
        }
        bench.prepare(&self.run, None)?;
        let backup = request.backup.then(|| backup(&self.stored.path)).transpose()?;
        let settings = bench.settings(spec);
        let complete = self.stored.result.completed.iter().filter(|block| self.stored.has(block));
        let before: Vec<String> = complete.cloned().collect();
        forget(spec, &settings, &mut self.stored.result);
        self.stored.block_settings = Some(flags(&settings)?);
        let note = json!({
            "time": chrono::Local::now().format("%Y-%m-%dT%H:%M:%S").to_string(),
            "blocks": self.blocks,
            // The rest of the file tells of the run it was made in; this tells of the run that made these blocks.
            "model": spec.model.model,
            "settings": self.stored.block_settings,
            "environment": bench.environment(),
            "hardware": bench.hardware(),
        });
        let history = self.stored.result.extra.entry("patched").or_insert_with(|| json!([]));
        if let Value::Array(entries) = history {
            entries.push(note);
        }
        let mut outcome = bench.measure(&self.run, &mut self.stored, progress);
        if self.stored.measured.iter().any(|block| !before.contains(block) && self.stored.has(block)) {
            renew_warnings(&mut self.stored);
            outcome = outcome.and(self.stored.save());
        }
        // A patch that failed before it changed anything leaves nothing behind.
        if let Some(backup) = backup
            && outcome.is_err()
            && std::fs::read(&backup).ok() == std::fs::read(&self.stored.path).ok()
        {
            let _ = std::fs::remove_file(backup);
        }
        outcome
    }
}

/// Makes a file lack the blocks that `spec` is to measure, so that they are measured.
fn forget(spec: &RunSpec, settings: &Settings, result: &mut RunResult) {
    let mut names = spec.benchmarks.clone();
    for row in result.measurements.iter_mut().filter(|_| spec.profile) {
        if settings.context_lengths.contains(&row.context_len) && settings.batch_sizes.contains(&row.batch()) {
            names.push(row.block());
            // Where memory once lacked it is tried whatever is free now: it was asked for.
            row.free_bytes = None;
        }
    }
    result.completed.retain(|block| !names.contains(block));
}

/// Brings the warnings of a file, which say why it lacks blocks, up to date once it has some of these: those of rows that are skipped still
/// and of benchmarks that are missing still stay, and what failed now is added.
fn renew_warnings(stored: &mut Stored) {
    let speaks_of = |warning: &str, name: &str| warning.strip_prefix(name).is_some_and(|why| why.starts_with(": "));
    let failed_now = std::mem::take(&mut stored.failed);
    let warnings = std::mem::take(&mut stored.result.warnings).into_iter().filter(|warning| {
        let row = |row: &Measurement| row.is_skipped() && row.skip_reason.as_ref() == Some(warning);
        let missing = |name: &str| !stored.has(name) && !failed_now.iter().any(|now| speaks_of(now, name));
        stored.result.measurements.iter().any(row)
            || bench::all().iter().any(|benchmark| speaks_of(warning, benchmark.name()) && missing(benchmark.name()))
    });
    stored.result.warnings = warnings.chain(failed_now.iter().cloned()).collect();
}

/// The claims of a request by folder and key: repetitions of a run lie in one folder under one hash, which is claimed once for all of them.
#[derive(Default)]
struct Claims(HashMap<(PathBuf, String), Rc<Claim>>);

impl Claims {
    /// The claim on a file: that of the run it records, which whoever measures that run holds, or one on its name.
    fn take(&mut self, path: &Path, hash: Option<&str>) -> Result<Rc<Claim>> {
        let folder = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
        // Files of one folder may be named by several spellings of it.
        let folder = std::fs::canonicalize(folder).map_err(|e| Error::io(folder, e))?;
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let key = hash.map_or_else(|| format!("patch-{name}"), str::to_string);
        let place = (folder, key);
        if let Some(held) = self.0.get(&place) {
            return Ok(held.clone());
        }
        let claim = Claim::take(&place.0, &place.1)?
            .ok_or_else(|| Error::file(path, "another kvprof is writing this file; try again when it has ended"))?;
        Ok(self.0.entry(place).or_insert(Rc::new(claim)).clone())
    }
}

/// Copies `results.json` to `results.json.bak`, or to `.bak2` and so on: no backup takes the place of an older one.
fn backup(path: &Path) -> Result<PathBuf> {
    let content = std::fs::read(path).map_err(|e| Error::io(path, e))?;
    for n in 1.. {
        let mut name = path.as_os_str().to_os_string();
        name.push(if n == 1 { ".bak".to_string() } else { format!(".bak{n}") });
        let backup = PathBuf::from(name);
        if atomic::write_new(&backup, &content)? {
            return Ok(backup);
        }
    }
    Err(Error::usage(format!("{}: there is no name left for a backup", path.display())))
}

#[cfg(test)]
mod tests {
    use super::super::sweep::Sweep;
    use super::*;

    #[test]
    fn a_patch_forgets_the_rows_of_its_own_contexts_and_batches_alone() {
        let sweep = Sweep::parse(Path::new("sweep.toml"), "[[matrix]]\nbenchmarks = ['ppl']").unwrap();
        let spec = sweep.plan().unwrap().runs.remove(0);
        let text = r#"{"schema_version": "3.0", "experiment_id": "x", "timestamp": "", "model": "m", "model_config": {"num_params_b": 0,
            "num_layers": 1, "num_q_heads": 1, "num_kv_heads": 1, "gqa_ratio": "1:1", "head_dim": 64, "max_position_embeddings": 64},
            "attn_backend": "fused", "kv_quant": {"enabled": false, "asymmetric": false}, "environment": {}, "hardware": {},
            "config": {"seed": 1, "warmup_runs": 0, "measure_runs": 1, "decode_tokens": 128, "ppl_dataset": "", "ppl_tokens": 1},
            "measurements": [{"context_len": 256, "batch_size": 1, "free_bytes": 7}, {"context_len": 256, "batch_size": 8, "free_bytes": 7},
                {"context_len": 512, "batch_size": 1, "free_bytes": 7}],
            "benchmarks": {}, "combo_elapsed_s": 0,
            "completed": ["profile@256x1", "profile@256x8", "profile@512x1", "ppl", "mmlu"]}"#;
        let mut result = crate::schema::read::parse(Path::new("x.json"), text.as_bytes()).unwrap();
        let settings = Settings { context_lengths: vec![256], batch_sizes: vec![1], ..Settings::default() };
        forget(&spec, &settings, &mut result);
        assert_eq!(result.completed, ["profile@256x8", "profile@512x1", "mmlu"]);
        let free: Vec<_> = result.measurements.iter().map(|row| row.free_bytes).collect();
        assert_eq!(free, [None, Some(7), Some(7)]);
    }
}
