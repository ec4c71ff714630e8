//! Result files, read and set in order: the input of every table and chart.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::path::{Path, PathBuf};

use rayon::prelude::*;

use super::label;
use super::quality::Quality;
use super::run::{Run, Sources};
use super::setting::{Part, Setting};
use super::sharing::{set_apart, share_blocks};
use crate::base::error::{Error, Result};
use crate::schema::read;
use crate::schema::{Benchmarks, FollowUp, Machine, Measurement, RunResult};

/// Bytes in the unit that result files call MB.
pub const MIB: f64 = 1_048_576.0;

/// One measurement of one run.
#[derive(Debug, Clone, Copy)]
pub struct Row<'a> {
    /// Index of the run in [`Study::runs`].
    pub index: usize,
    /// The run.
    pub run: &'a Run,
    /// The measurement; `None` for a file that holds quality blocks only.
    pub measured: Option<&'a Measurement>,
    /// Its follow-up prompt, or where it read none that of a row which it replaces; with the index of the run that it was read in.
    pub follow_up: Option<(usize, &'a FollowUp)>,
}

impl Row<'_> {
    /// Prompt length, tokens.
    pub fn context(&self) -> Option<usize> {
        self.measured.map(|m| m.context_len)
    }

    /// Sequences side by side (1 where a 2.0 file does not say).
    pub fn batch(&self) -> Option<usize> {
        self.measured.map(|m| m.batch())
    }

    /// Whether nothing was measured.
    pub fn skipped(&self) -> bool {
        self.measured.is_some_and(|m| m.is_skipped())
    }

    /// Cache bytes: by the ledger, else from `kv_cache_mb`.
    pub fn cache_bytes(&self) -> Option<f64> {
        let m = self.measured?;
        m.kv_bytes.map(|b| b.total_bytes as f64).or(m.kv_cache_mb.map(|mb| mb * MIB))
    }

    /// What an unquantized cache of the same shape takes, bytes, by the ledger.
    pub fn unquantized_bytes(&self) -> Option<f64> {
        self.measured?.kv_bytes.map(|bytes| bytes.unquantized_bytes as f64).filter(|bytes| *bytes > 0.0)
    }

    /// The machine that measured it; that of the file for one without measurement.
    pub fn machine(&self) -> Machine {
        self.run.result.machine(&self.measured.map(Measurement::block).unwrap_or_default())
    }

    /// Generated tokens per second, from the unrounded time where the file has one.
    pub fn decode_rate(&self) -> Option<f64> {
        let m = self.measured?;
        let timed = m.decode_ms.zip(m.decode_tokens).filter(|(ms, _)| *ms > 0.0);
        timed.map(|(ms, tokens)| tokens as f64 * m.batch() as f64 / ms * 1e3).or(m.decode_tokens_per_sec)
    }

    /// Decode energy per generated token, joules; 2.0 files write 0 where nothing was measured.
    pub fn energy_j(&self) -> Option<f64> {
        let m = self.measured?;
        let window = m.energy.as_ref().and_then(|e| e.decode.as_ref()).map(|d| d.j_per_token);
        window.or(m.energy_mj_per_token.map(|mj| mj / 1e3)).filter(|j| *j > 0.0)
    }

    /// Whether device memory did not suffice and the driver used the host's, which makes times meaningless: by the file's
    /// own flag, or because the allocator held more than the card has.
    pub fn spilled(&self) -> bool {
        let Some(m) = self.measured else { return false };
        let card_mb = self.machine().vram_total_mb;
        let reserved_too_much = m.vram_reserved_mb.zip(card_mb).is_some_and(|(r, t)| r > t);
        m.vram_overflow == Some(true) || reserved_too_much
    }
}

/// Where a measurement stands: its run, and its place in that; no place for a run without measurements.
type At = (usize, Option<usize>);

/// The newest of the measurements of one experiment.
#[derive(Debug)]
struct Kept {
    at: At,
    /// The newest of those that read a follow-up prompt.
    follow_up: Option<At>,
}

/// All result files of a report.
#[derive(Debug, Default)]
pub struct Study {
    /// By model, backend, cache and time.
    pub runs: Vec<Run>,
    /// Files that were skipped: each error names its file.
    pub rejected: Vec<Error>,
    /// Files that hold nothing measured, as a run leaves that was stopped early or failed.
    pub empty: Vec<PathBuf>,
    /// Measurements that a later one of the same experiment replaces.
    pub superseded: usize,
    /// Quality blocks that a later one of the same model, backend and cache replaces.
    pub superseded_scores: usize,
    kept: Vec<Kept>,
    /// See [`folded`].
    folded: BTreeSet<usize>,
}

impl Study {
    /// Reads `paths`: files, and folders with all `*.json` below them. A file that cannot be read is put into
    /// [`Study::rejected`]; the rest goes on.
    ///
    /// # Errors
    /// A path that does not exist, and a folder that cannot be listed.
    pub fn load(paths: &[PathBuf]) -> Result<Self> {
        let files = find(paths)?;
        let read: Vec<Result<(PathBuf, RunResult)>> =
            files.into_par_iter().map(|file| read::read(&file).map(|result| (file, result))).collect();
        let (mut good, mut empty, mut rejected) = (Vec::new(), Vec::new(), Vec::new());
        for outcome in read {
            match outcome {
                Ok((file, result)) if result.is_empty() => empty.push(file),
                Ok(pair) => good.push(pair),
                Err(error) => rejected.push(error),
            }
        }
        let mut study = Study::of(good);
        (study.rejected, study.empty) = (rejected, empty);
        Ok(study)
    }

    /// Sets results in order and derives what follows from them.
    pub fn of(results: Vec<(PathBuf, RunResult)>) -> Self {
        let short = label::models(results.iter().map(|(_, result)| result));
        let mut runs: Vec<Run> = results
            .into_iter()
            .flat_map(|(file, result)| {
                let model = short.get(&label::loaded_as(&result)).cloned().unwrap_or_else(|| result.model.clone());
                measured_alike(result).into_iter().map(move |(setting, result)| Run {
                    model: model.clone(),
                    cache: label::cache(&result),
                    setting,
                    told: Setting::default(),
                    scored: BTreeSet::new(),
                    quality: Quality::default(),
                    sources: Sources::default(),
                    file: file.clone(),
                    result,
                })
            })
            .collect();
        tell_settings(&mut runs);
        set_apart(&mut runs);
        // The file name decides last, so that the order never depends on the folder's.
        runs.sort_by(|a, b| {
            let key = |r: &Run| {
                let backend = r.result.attn_backend.clone();
                let cache = (label::order(&r.cache), r.scored.clone());
                (r.model.clone(), r.result.model.clone(), backend, cache, r.told.clone())
            };
            let when = |r: &Run| (r.result.timestamp.clone(), r.file.clone());
            key(a).cmp(&key(b)).then_with(|| when(a).cmp(&when(b)))
        });
        let superseded_scores = share_blocks(&mut runs);
        let qualities: Vec<Quality> = {
            let mut references: BTreeMap<_, &RunResult> = BTreeMap::new();
            for run in runs.iter().filter(|r| !r.quantized()) {
                references.insert(run.scored_as(), &run.result);
            }
            runs.iter().map(|run| Quality::of(&run.result, references.get(&run.scored_as()).copied())).collect()
        };
        for (run, quality) in runs.iter_mut().zip(qualities) {
            run.quality = quality;
        }
        let mut study = Study { superseded_scores, folded: folded(&runs), runs, ..Study::default() };
        study.keep_newest();
        study
    }

    /// Picks the measurements to show: of two for the same subject × cache × context × batch, the later one; a row that was skipped only
    /// where nothing was measured. A follow-up prompt, which changes no other number, is not lost to a later row that read none.
    fn keep_newest(&mut self) {
        let mut newest: BTreeMap<_, Kept> = BTreeMap::new();
        for (index, run) in self.unfolded() {
            let name = (run.subject(), &run.cache);
            let places: Vec<Option<usize>> = match run.result.measurements.len() {
                0 => vec![None],
                n => (0..n).map(Some).collect(),
            };
            for place in places {
                let at = (index, place);
                let row = self.row(at);
                let size = row.measured.map(|m| (m.context_len, m.batch()));
                let kept = newest.entry((name, size)).or_insert(Kept { at, follow_up: None });
                // The runs are in order of the times their files were begun, but a patch may have come later.
                if self.rank(at) >= self.rank(kept.at) {
                    kept.at = at;
                }
                // A time in the host's memory is that of its own row alone.
                let read = row.follow_up.is_some() && !row.spilled();
                if read && kept.follow_up.is_none_or(|before| self.rank(at) >= self.rank(before)) {
                    kept.follow_up = Some(at);
                }
            }
        }
        self.kept = newest.into_values().collect();
        let is_measured = |m: &Measurement| !m.is_skipped();
        let all = self.runs.iter().flat_map(|run| &run.result.measurements).filter(|m| is_measured(m)).count();
        self.superseded = all - self.rows().filter(|row| row.measured.is_some_and(is_measured)).count();
    }

    /// Which of several measurements counts: the greatest.
    fn rank(&self, at: At) -> (bool, &str) {
        let Row { run, measured, .. } = self.row(at);
        match measured {
            Some(m) => (!m.is_skipped(), run.result.measured_at(&m.block())),
            None => (false, &run.result.timestamp),
        }
    }

    /// The measurement at a place as it stands there.
    fn row(&self, (index, place): At) -> Row<'_> {
        let run = &self.runs[index];
        let measured = place.and_then(|place| run.result.measurements.get(place));
        let follow_up = measured.and_then(|m| m.follow_up.as_ref()).map(|follow_up| (index, follow_up));
        Row { index, run, measured, follow_up }
    }

    /// The runs that stand for themselves, each with its index.
    fn unfolded(&self) -> impl Iterator<Item = (usize, &Run)> {
        self.runs.iter().enumerate().filter(|(index, _)| !self.folded.contains(index))
    }

    /// How many files were read.
    pub fn files(&self) -> usize {
        self.runs.iter().map(|run| &run.file).collect::<BTreeSet<_>>().len()
    }

    /// The result files that were found, those that hold nothing measured among them.
    pub fn result_files(&self) -> impl Iterator<Item = &PathBuf> {
        self.runs.iter().map(|run| &run.file).chain(&self.empty)
    }

    /// The measurements, by model, backend, cache, context and batch.
    pub fn rows(&self) -> impl Iterator<Item = Row<'_>> {
        self.kept.iter().map(|kept| {
            let row = self.row(kept.at);
            let older = || self.row(kept.follow_up?).follow_up;
            Row { follow_up: row.follow_up.or_else(older), ..row }
        })
    }

    /// The newest run of each subject × cache, in order of name: where quality is read from.
    pub fn newest(&self) -> Vec<&Run> {
        let mut newest: BTreeMap<_, &Run> = BTreeMap::new();
        for (_, run) in self.unfolded() {
            let entry = newest.entry((run.subject(), &run.cache)).or_insert(run);
            // In order of time: the last one stays. Its blocks are the newest of all.
            *entry = run;
        }
        newest.into_values().collect()
    }
}

/// The runs without rows whose cache other runs have rows of: these carry their scores, whatever settings the rows were measured with.
fn folded(runs: &[Run]) -> BTreeSet<usize> {
    fn cache(run: &Run) -> ((&str, &str, &BTreeSet<String>), &str) {
        (run.scored_as(), &run.cache)
    }
    let measured: BTreeSet<_> = runs.iter().filter(|run| !run.result.measurements.is_empty()).map(cache).collect();
    let carried = |run: &Run| run.result.measurements.is_empty() && measured.contains(&cache(run));
    runs.iter().enumerate().filter(|(_, run)| carried(run)).map(|(index, _)| index).collect()
}

/// A result by the settings of its rows, which are the same unless a patch measured some of them again with others. The first part
/// keeps the quality blocks.
fn measured_alike(result: RunResult) -> Vec<(Setting, RunResult)> {
    let mut by_setting: BTreeMap<Setting, Vec<Measurement>> = BTreeMap::new();
    for m in &result.measurements {
        by_setting.entry(Setting::of(&result, m)).or_default().push(m.clone());
    }
    if by_setting.len() < 2 {
        let setting = by_setting.into_keys().next().unwrap_or_default();
        return vec![(setting, result)];
    }
    let blocks = |at: usize| if at == 0 { result.benchmarks.clone() } else { Benchmarks::default() };
    let part =
        |(at, (setting, measurements))| (setting, RunResult { measurements, benchmarks: blocks(at), ..result.clone() });
    by_setting.into_iter().enumerate().map(part).collect()
}

/// Says for each run the settings in which runs of its model differ.
fn tell_settings(runs: &mut [Run]) {
    let mut by_model: BTreeMap<String, Vec<Setting>> = BTreeMap::new();
    for run in runs.iter() {
        by_model.entry(run.model.clone()).or_default().push(run.setting.clone());
    }
    let varying: BTreeMap<String, BTreeSet<Part>> =
        by_model.into_iter().map(|(model, settings)| (model, Setting::varying(settings.iter()))).collect();
    for run in runs {
        if let Some(parts) = varying.get(&run.model) {
            run.told = run.setting.only(parts);
        }
    }
}

/// Files named by `paths`, each once, folders searched below for `*.json` (hidden ones and links to folders left out), sorted.
fn find(paths: &[PathBuf]) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for path in paths {
        let metadata = std::fs::metadata(path)
            .map_err(|e| Error::file(path, format!("{e}; give result files, or a folder that holds them")))?;
        if metadata.is_dir() { search(path, &mut files)? } else { files.push(path.clone()) }
    }
    files.sort();
    // Links and spellings may name one file several times.
    let mut known = HashSet::new();
    files.retain(|path| known.insert(canonical(path)));
    Ok(files)
}

/// `path` as it is known whatever links and spellings it was given by; as it is where that cannot be told.
pub fn canonical(path: &Path) -> PathBuf {
    std::fs::canonicalize(path).unwrap_or_else(|_| path.to_path_buf())
}

/// Adds the `*.json` files below `folder`, without hidden ones and links to folders: what every command means by a folder of results.
///
/// # Errors
/// A folder that cannot be listed.
pub fn search(folder: &Path, files: &mut Vec<PathBuf>) -> Result<()> {
    for entry in std::fs::read_dir(folder).map_err(|e| Error::io(folder, e))? {
        let entry = entry.map_err(|e| Error::io(folder, e))?;
        let (path, kind) = (entry.path(), entry.file_type().map_err(|e| Error::io(entry.path(), e))?);
        if entry.file_name().to_string_lossy().starts_with('.') {
            continue;
        }
        if kind.is_dir() {
            search(&path, files)?;
        } else if path.extension().is_some_and(|e| e == "json") {
            files.push(path);
        }
    }
    Ok(())
}
