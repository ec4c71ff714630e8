//! What a run consists of.

use std::collections::{BTreeMap, HashSet};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::base::hex::hex;
use crate::bench::contexts::check_default_context;
use crate::bench::limits::MOST;
use crate::bench::settings::{Protocol, default_burn_in};
use crate::bench::{self, Settings, data, text};
use crate::model::{DecoderConfig, LoadOptions, WeightsKind};
use crate::quant::{QuantSpec, presets};
use crate::schema::concerns::concerns;
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
            weights_sha256: None,
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
    /// Digests of the local files that its benchmarks read, when it was planned ([`contents`]).
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub contents: BTreeMap<String, String>,
}

impl RunSpec {
    /// Hex hash of everything that defines the experiment: equal hashes are the same experiment. Local files of texts and questions
    /// count by [`contents`](RunSpec::contents), not by their names.
    pub fn hash(&self) -> String {
        let mut spec = self.clone();
        let Settings { ppl_data, needle_haystack, data, .. } = &mut spec.settings;
        *data = None;
        for name in ppl_data.iter_mut().chain([needle_haystack]).filter(|name| text::is_file_name(name)) {
            *name = "file".into();
        }
        // Serialization of plain data into memory cannot fail; an empty text would still be a valid (shared) hash.
        let text = serde_json::to_string(&spec).unwrap_or_default();
        hex(&Sha256::digest(text)[..8])
    }

    /// Refuses a context that nobody asked for and that is too short to measure a quantized cache of a model of `config`.
    ///
    /// # Errors
    /// Says what to give.
    pub fn check_default_context(&self, config: &DecoderConfig) -> Result<()> {
        let used = self.profile || concerns("context-lengths", &self.benchmarks);
        if used && self.settings.context_lengths.is_empty() {
            check_default_context(config, self.settings.decode_tokens)?;
        }
        Ok(())
    }
}

/// Digests of the local files that `benchmarks` read, by benchmark.
pub fn contents(benchmarks: &[String], settings: &Settings, model: &str) -> BTreeMap<String, String> {
    let mut contents = BTreeMap::new();
    for benchmark in bench::all().iter().filter(|b| benchmarks.iter().any(|name| name == b.name())) {
        let files = benchmark.local_files(settings, model);
        // What cannot be read is told of where it is to be scored.
        if let Ok(digest) = data::digest(&files)
            && !files.is_empty()
        {
            contents.insert(benchmark.name().to_string(), digest);
        }
    }
    contents
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
        // Commas are for overrides.
        if let Some(other) = name.split(',').skip(1).map(str::trim).find(|part| presets::find(part).is_some()) {
            return Err(Error::usage(format!(
                "'{name}': {other} is a quantization of its own; separate quantizations by spaces, as in --kv-quant {}",
                name.replace(',', " ")
            )));
        }
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

/// Has all runs of a model that read a text score the same tokens of it: where a cache needs a longer burn-in than the usual before it reads
/// codes, all have it. What was asked for stays. A cache that needs more than the window has is left out: it is refused by itself, and
/// does not have the others refused. That the model is shorter than the window is not known yet.
pub fn share_burn_in(runs: &mut [RunSpec]) {
    let reads = |run: &RunSpec| {
        concerns("ppl-burn-in", &run.benchmarks)
            && run.settings.ppl_burn_in.is_none()
            && run.settings.ppl_protocol == Protocol::Streaming
            && default_burn_in([&run.kv_quant]) + 1 < run.settings.window(usize::MAX)
    };
    let mut needed: BTreeMap<String, usize> = BTreeMap::new();
    for run in runs.iter().filter(|run| reads(run)) {
        let of_model = needed.entry(run.model.model.clone()).or_default();
        *of_model = default_burn_in([&run.kv_quant]).max(*of_model);
    }
    let usual = default_burn_in([]);
    for run in runs.iter_mut().filter(|run| reads(run)) {
        // The usual one is not said, so that plans without long windows are the experiments that they were.
        run.settings.ppl_burn_in = needed.get(&run.model.model).copied().filter(|tokens| *tokens > usual);
    }
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

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::path::Path;

    use super::super::sweep::Sweep;
    use super::{RunSpec, quantizations};

    /// The hash of a run of `benchmarks` with `settings`, and the texts and questions below `folder` (as `FOLDER`).
    fn hash(folder: &Path, benchmarks: &str, settings: &str) -> String {
        let settings = settings.replace("FOLDER", &folder.display().to_string());
        let text = format!("[settings]\n{settings}\n[[matrix]]\nkv-quants = ['none']\nbenchmarks = [{benchmarks}]");
        Sweep::parse(Path::new("sweep.toml"), &text).unwrap().plan().unwrap().runs[0].hash()
    }

    fn write(folder: &Path, files: &[(&str, &str)]) {
        for (name, content) in files {
            let path = folder.join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, content).unwrap();
        }
    }

    #[test]
    fn quantizations_that_commas_join_are_told_apart_from_overrides() {
        let of = |name: &str| quantizations(&[name.to_string()], &[]);
        let told = of("none,int8-hqq").unwrap_err().to_string();
        assert!(told.contains("by spaces, as in --kv-quant none int8-hqq"), "{told}");
        assert!(of("int8-hqq,group=32,int4-hqq").unwrap_err().to_string().contains("int4-hqq is a quantization"));
        assert_eq!(of("int8-hqq,group=32").unwrap()[0].name, "int8-hqq,group=32");
    }

    #[test]
    fn all_caches_of_a_model_score_the_same_tokens_however_long_their_windows() {
        let burn_ins = |text: &str| {
            let runs = Sweep::parse(Path::new("sweep.toml"), text).unwrap().plan().unwrap().runs;
            let of = |run: &RunSpec| (run.model.model.clone(), run.settings.ppl_burn_in);
            runs.iter().map(of).collect::<BTreeSet<_>>().into_iter().collect::<Vec<_>>()
        };
        let matrix = |more: &str| {
            format!("[[matrix]]\nmodels = ['a']\nkv-quants = ['none', 'int4-hqq', 'int4-hqq,residual=512']\n{more}")
        };
        let scored = matrix("benchmarks = ['ppl']");
        assert_eq!(burn_ins(&scored), [("a".into(), Some(512 + 64 + 1))]);
        assert_eq!(burn_ins(&format!("[settings]\nppl-burn-in = 64\n{scored}")), [("a".into(), Some(64))], "as asked");
        assert_eq!(burn_ins(&matrix("benchmarks = ['needle']")), [("a".into(), None)], "no text is read");
        assert_eq!(burn_ins(&format!("[settings]\nppl-protocol = 'two-phase'\n{scored}")), [("a".into(), None)]);
        let short = matrix("residual-lengths = [256]\nbenchmarks = ['ppl']").replace(", 'int4-hqq,residual=512'", "");
        let long = short.replace("256", "256, 1000");
        let window = |text: &str| burn_ins(&format!("[settings]\nppl-window = 1024\n{text}"));
        assert_eq!(window(&short), [("a".into(), Some(321))]);
        assert_eq!(window(&long), [("a".into(), None), ("a".into(), Some(321))], "1065 are more than the window has");
        let other = "[[matrix]]\nmodels = ['b']\nkv-quants = ['none', 'int4-hqq']\nbenchmarks = ['kld']";
        assert_eq!(burn_ins(&format!("{scored}\n{other}")), [("a".into(), Some(577)), ("b".into(), None)]);
    }

    #[test]
    fn a_text_counts_by_what_it_holds_and_how_it_is_read_whatever_its_name() {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path();
        let files = [("a.txt", "one"), ("b.TXT", "one"), ("c.txt", "two"), ("d.jsonl", "one")];
        write(folder, &files);
        for line in ["ppl-data = 'FOLDER/a.txt'", "needle-haystack = 'FOLDER/a.txt'", "data = 'FOLDER/a.txt'"] {
            let line = if line.starts_with("data") { format!("ppl-data = 'wikitext2'\n{line}") } else { line.into() };
            let of = |name: &str| hash(folder, "'ppl', 'needle'", &line.replace("a.txt", name));
            assert_eq!(of("a.txt"), of("b.TXT"), "{line}");
            assert_ne!(of("a.txt"), of("c.txt"), "{line}");
            assert_ne!(of("a.txt"), of("d.jsonl"), "{line}: rows of JSON are no plain text");
        }
        let haystack = "needle-haystack = 'FOLDER/a.txt'";
        assert_ne!(hash(folder, "'ppl', 'needle'", haystack), hash(folder, "'ppl', 'needle'", ""));
        assert_ne!(
            hash(folder, "'ppl', 'needle'", haystack),
            hash(folder, "'ppl', 'needle'", "ppl-data = 'FOLDER/a.txt'"),
            "one text in two places is two experiments"
        );
    }

    #[test]
    fn a_folder_of_data_counts_by_what_the_benchmarks_read_of_it() {
        let (here, there) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let (here, there) = (here.path(), there.path());
        let files = [
            ("test/houses_test.csv", "one"),
            ("dev/houses_dev.csv", "two"),
            ("math500/test.jsonl", "three"),
            ("wikitext2/wiki.test.raw", "four"),
            ("README.md", "five"),
        ];
        write(here, &files);
        write(there, &files);
        let of = |folder: &Path| hash(folder, "'mmlu', 'math'", "data = 'FOLDER'");
        assert_eq!(of(here), of(there), "a folder that was moved is the same");
        write(there, &[("README.md", "six"), ("wikitext2/wiki.test.raw", "seven"), ("notes.txt", "")]);
        assert_eq!(of(here), of(there), "nothing of that is read");
        let ppl = |folder: &Path| hash(folder, "'ppl'", "ppl-data = 'wikitext2'\ndata = 'FOLDER'");
        assert_ne!(ppl(here), ppl(there));
        for (name, content) in [("math500/test.jsonl", "THREE"), ("dev/houses_dev.csv", "TWO"), ("test/x_test.csv", "")]
        {
            let before = of(there);
            write(there, &[(name, content)]);
            assert_ne!(of(there), before, "{name}");
        }
        let math = |data: &str| hash(here, "'math'", &format!("data = '{data}'"));
        assert_eq!(math("FOLDER"), math("FOLDER/math500/test.jsonl"), "the file alone is the same");
        // The subject of MMLU's questions stands in the name of their file.
        let before = of(here);
        std::fs::rename(here.join("test/houses_test.csv"), here.join("test/boats_test.csv")).unwrap();
        assert_ne!(of(here), before);
    }
}
