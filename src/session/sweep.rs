//! Sweep files: a matrix of runs in TOML, for `kvprof sweep` and `kvprof run --config`.
//!
//! ```toml
//! [settings]                       # what holds for all runs: the keys of `Settings`, which are the flags of `kvprof run`
//! context-lengths = [4096, "32k"]  # or ["4k..32k"]: 4k 8k 16k 32k
//! ppl-window = "2k"
//!
//! [[matrix]]                       # every combination of these lists; several matrices are joined
//! models = ["mistralai/Mistral-7B-v0.1"]
//! kv-quants = ["none", "int4-hqq"]
//! benchmarks = ["ppl", "needle"]
//! exclude = [{ kv-quants = ["int4-hqq"], output-tokens = [2048] }]
//!
//! [model."mistralai/Mistral-7B-v0.1"]   # what differs for one model
//! sliding-window = "off"
//! ```

use std::collections::BTreeMap;
use std::path::Path;

use serde::Deserialize;

use super::config_error;
pub use super::exclude::Exclude;
use super::plan::{ModelRequest, RunSpec, arrange, contents, quantizations, share_burn_in};
use crate::base::number::{length_list, some_length_list};
use crate::bench::{self, Settings};
use crate::schema::model_name;
use crate::{Error, Result};

/// A sweep file.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Sweep {
    /// What holds for all runs.
    #[serde(default)]
    pub settings: Settings,
    /// Joined, so that a further matrix includes what the first leaves out; a run that several of them name is made once.
    #[serde(default)]
    pub matrix: Vec<Matrix>,
    /// What differs for one model, by its name.
    #[serde(default)]
    pub model: BTreeMap<String, ModelOverrides>,
}

/// Quantizations that are compared when none are named.
pub const DEFAULT_QUANTIZATIONS: [&str; 5] = ["none", "int8-hqq", "int4-hqq", "int2-hqq", "int2-hqq-kivi"];
/// The model that is run when none is named.
pub const DEFAULT_MODEL: &str = "builtin";
/// The attention that is run when none is named.
pub const DEFAULT_BACKEND: &str = "fused";

/// Every combination of the lists; an empty list stands for the default, the same as that of the flag.
#[derive(Debug, Clone, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct Matrix {
    /// `--model`.
    pub models: Vec<String>,
    /// `--kv-quant`.
    pub kv_quants: Vec<String>,
    /// `--attn-backend`.
    pub attn_backends: Vec<String>,
    /// `--output-tokens`: a run each.
    #[serde(deserialize_with = "length_list")]
    pub output_tokens: Vec<usize>,
    /// `--residual-length`: a run each, for quantized caches.
    #[serde(deserialize_with = "length_list")]
    pub residual_lengths: Vec<usize>,
    /// `--batch-sizes`: all in one run.
    pub batch_sizes: Vec<usize>,
    /// `--context-lengths`: all in one run.
    #[serde(deserialize_with = "length_list")]
    pub context_lengths: Vec<usize>,
    /// `--benchmarks`; without the key, those that need no data: `ppl` and `needle` for the built-in model, none for others.
    pub benchmarks: Option<Vec<String>>,
    /// Whether to measure cost.
    pub profile: bool,
    /// Combinations to leave out.
    pub exclude: Vec<Exclude>,
}

impl Default for Matrix {
    fn default() -> Self {
        Matrix {
            models: Vec::new(),
            kv_quants: Vec::new(),
            attn_backends: Vec::new(),
            output_tokens: Vec::new(),
            residual_lengths: Vec::new(),
            batch_sizes: Vec::new(),
            context_lengths: Vec::new(),
            benchmarks: None,
            profile: true,
            exclude: Vec::new(),
        }
    }
}

/// What differs for one model.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct ModelOverrides {
    /// `--revision`.
    pub revision: Option<String>,
    /// `--weights`: `auto` or `dummy`.
    pub weights: Option<String>,
    /// `--dtype`.
    pub dtype: Option<String>,
    /// `--device`.
    pub device: Option<String>,
    /// `--sliding-window`: `on` or `off`.
    pub sliding_window: Option<String>,
    /// `--context-lengths`.
    #[serde(deserialize_with = "some_length_list")]
    pub context_lengths: Option<Vec<usize>>,
}

/// A plan, and how many runs its matrices named before duplicates were dropped.
#[derive(Debug)]
pub struct Plan {
    /// In the order of running.
    pub runs: Vec<RunSpec>,
    /// Combinations named, duplicates counted.
    pub named: usize,
}

impl Sweep {
    /// Reads a sweep file.
    ///
    /// # Errors
    /// Names the file, and the key or value that cannot be.
    pub fn read(path: &Path) -> Result<Self> {
        let text = std::fs::read_to_string(path).map_err(|e| Error::io(path, e))?;
        Self::parse(path, &text)
    }

    /// Parses `text` as the content of the sweep file at `path` (used in messages only).
    ///
    /// # Errors
    /// As [`read`](Sweep::read).
    pub fn parse(path: &Path, text: &str) -> Result<Self> {
        let sweep: Sweep = toml::from_str(text).map_err(|e| Error::file(path, config_error::words(&e, text)))?;
        if let Some(fault) = sweep.fault() {
            return Err(Error::file(path, fault));
        }
        for matrix in &sweep.matrix {
            matrix.check_exclusions(&sweep.settings).map_err(|e| Error::file(path, e.to_string()))?;
        }
        Ok(sweep)
    }

    /// The first of its numbers that cannot measure anything, with its key and what is wrong with it.
    fn fault(&self) -> Option<String> {
        let told = |place: String, settings: &Settings| settings.fault().map(|fault| format!("{place}.{fault}"));
        let of_matrix = |matrix: &Matrix| {
            matrix.output_tokens(&self.settings).into_iter().find_map(|output| {
                let mut settings = Settings { decode_tokens: output, ..Settings::default() };
                replace(&mut settings.batch_sizes, &matrix.batch_sizes);
                settings.context_lengths.clone_from(&matrix.context_lengths);
                told("matrix".into(), &settings)
            })
        };
        let of_model = |(name, model): (&String, &ModelOverrides)| {
            let context_lengths = model.context_lengths.clone().unwrap_or_default();
            told(format!("model.{name:?}"), &Settings { context_lengths, ..Settings::default() })
        };
        told("settings".into(), &self.settings)
            .or_else(|| self.matrix.iter().find_map(of_matrix))
            .or_else(|| self.model.iter().find_map(of_model))
    }

    /// All its runs.
    ///
    /// # Errors
    /// When a name in it is unknown, a setting cannot measure anything, or it names no runs at all.
    pub fn plan(&self) -> Result<Plan> {
        if self.matrix.is_empty() {
            return Err(Error::usage("there is no [[matrix]]: nothing to run"));
        }
        let mut runs = Vec::new();
        for name in self.model.keys() {
            if !self.matrix.iter().any(|m| m.models().contains(name)) {
                return Err(Error::usage(format!("[model.{name:?}] is in no matrix")));
            }
        }
        for matrix in &self.matrix {
            self.expand(matrix, &mut runs)?;
        }
        if runs.is_empty() {
            return Err(Error::usage("the matrices name no run: all are excluded"));
        }
        share_burn_in(&mut runs);
        let named = runs.len();
        Ok(Plan { runs: arrange(runs), named })
    }

    fn expand(&self, matrix: &Matrix, runs: &mut Vec<RunSpec>) -> Result<()> {
        let (backends, names) = (matrix.attn_backends(), matrix.kv_quants());
        let outputs = matrix.output_tokens(&self.settings);
        for model in &matrix.models() {
            let overrides = self.model.get(model).cloned().unwrap_or_default();
            let request = overrides.request(model)?;
            let benchmarks = match &matrix.benchmarks {
                Some(names) => bench::expand(names)?,
                None if *model == DEFAULT_MODEL && !request.dummy => vec!["ppl".into(), "needle".into()],
                None => Vec::new(),
            };
            // What the lists below vary is nothing that files are chosen by.
            let contents = contents(&benchmarks, &self.settings, model);
            for backend in &backends {
                for name in &names {
                    for kv_quant in quantizations(std::slice::from_ref(name), &matrix.residual_lengths)? {
                        for &output in &outputs {
                            // An unquantized cache has no window to be excluded by.
                            let residual = kv_quant.is_quantized().then_some(kv_quant.residual);
                            if matrix.exclude.iter().any(|e| e.covers(model, name, backend, output, residual)) {
                                continue;
                            }
                            let mut settings = self.settings.clone();
                            settings.decode_tokens = output;
                            replace(&mut settings.batch_sizes, &matrix.batch_sizes);
                            replace(&mut settings.context_lengths, &matrix.context_lengths);
                            if let Some(lengths) = &overrides.context_lengths {
                                settings.context_lengths = lengths.clone();
                            }
                            settings.check()?;
                            runs.push(RunSpec {
                                model: request.clone(),
                                attn_backend: backend.clone(),
                                kv_quant: kv_quant.clone(),
                                benchmarks: benchmarks.clone(),
                                profile: matrix.profile,
                                settings,
                                contents: contents.clone(),
                            });
                        }
                    }
                }
            }
        }
        Ok(())
    }
}

impl Matrix {
    /// The models that it names, or the default.
    pub fn models(&self) -> Vec<String> {
        or_default(&self.models, &[DEFAULT_MODEL.to_string()])
    }

    fn attn_backends(&self) -> Vec<String> {
        or_default(&self.attn_backends, &[DEFAULT_BACKEND.to_string()])
    }

    fn kv_quants(&self) -> Vec<String> {
        or_default(&self.kv_quants, &DEFAULT_QUANTIZATIONS.map(String::from))
    }

    fn output_tokens(&self, settings: &Settings) -> Vec<usize> {
        or_default(&self.output_tokens, &[settings.decode_tokens])
    }

    /// Refuses to leave out what the matrix does not have: a misspelt name would leave out nothing.
    fn check_exclusions(&self, settings: &Settings) -> Result<()> {
        let quants = quantizations(&self.kv_quants(), &self.residual_lengths)?;
        let residuals: Vec<usize> = quants.iter().filter(|q| q.is_quantized()).map(|q| q.residual).collect();
        for exclude in &self.exclude {
            exclude.require_known(&Exclude {
                models: self.models(),
                kv_quants: self.kv_quants(),
                attn_backends: self.attn_backends(),
                output_tokens: self.output_tokens(settings),
                residual_lengths: residuals.clone(),
            })?;
        }
        Ok(())
    }
}

impl ModelOverrides {
    fn request(&self, model: &str) -> Result<ModelRequest> {
        let one_of = |key: &str, value: &Option<String>, known: [&str; 2]| match value.as_deref() {
            None => Ok(known[0].to_string()),
            Some(value) if known.contains(&value) => Ok(value.to_string()),
            Some(value) => {
                Err(Error::usage(format!("[model.{model:?}] {key} = {value:?}: {} or {}", known[0], known[1])))
            }
        };
        // A path that does not say what the model is called (`.`) is written out, for the names of files and rows.
        let named = match (model_name(model), std::fs::canonicalize(model)) {
            (None, Ok(path)) => path.display().to_string(),
            _ => model.to_string(),
        };
        let request = ModelRequest {
            model: named,
            revision: self.revision.clone(),
            dummy: one_of("weights", &self.weights, ["auto", "dummy"])? == "dummy",
            dtype: self.dtype.clone().unwrap_or_else(|| "auto".into()),
            device: self.device.clone().unwrap_or_else(|| "auto".into()),
            sliding_window: one_of("sliding-window", &self.sliding_window, ["on", "off"])? == "on",
        };
        request.options(false)?;
        Ok(request)
    }
}

fn or_default<T: Clone>(list: &[T], default: &[T]) -> Vec<T> {
    if list.is_empty() { default.to_vec() } else { list.to_vec() }
}

fn replace<T: Clone>(target: &mut Vec<T>, list: &[T]) {
    if !list.is_empty() {
        *target = list.to_vec();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(text: &str) -> Result<Plan> {
        Sweep::parse(Path::new("sweep.toml"), text)?.plan()
    }

    #[test]
    fn a_model_whose_path_has_no_name_is_written_out() {
        let model = |name: &str| {
            plan(&format!("[[matrix]]\nmodels = ['{name}']\nkv-quants = ['none']")).unwrap().runs[0].model.model.clone()
        };
        assert_eq!(model("."), std::fs::canonicalize(".").unwrap().to_str().unwrap());
        assert_eq!(
            (model("src/."), model("org/name"), model("no/such/..")),
            ("src/.".into(), "org/name".into(), "no/such/..".into())
        );
    }

    #[test]
    fn matrices_are_joined_and_equal_runs_are_made_once() {
        let plan = plan(
            r#"
            [[matrix]]
            models = ["a", "b"]
            kv-quants = ["none", "int8-hqq"]
            output-tokens = [64, 128]
            [[matrix]]
            models = ["a"]
            kv-quants = ["int8-hqq"]
            residual-lengths = [64, 128]
            "#,
        )
        .unwrap();
        // 8 + 2, of which int8-hqq with its usual residual of 128 and 128 output tokens is named twice.
        assert_eq!((plan.named, plan.runs.len()), (10, 9));
        let models: Vec<_> = plan.runs.iter().map(|r| r.model.model.as_str()).collect();
        assert_eq!(models.iter().filter(|m| **m == "a").count(), 5);
        assert!(models.is_sorted(), "each model is loaded once: {models:?}");
        assert!(!plan.runs[0].kv_quant.is_quantized(), "the reference runs first");
    }

    #[test]
    fn numbers_of_tokens_may_be_written_as_people_write_them() {
        let plan = plan(
            r#"
            [settings]
            context-lengths = ["1k..4k", 300]
            ppl-window = "2k"
            ppl-tokens = "8K"
            [[matrix]]
            models = ["a"]
            kv-quants = ["int8-hqq"]
            output-tokens = [64, "1k"]
            residual-lengths = ["64..128"]
            exclude = [{ output-tokens = ["1k"], residual-lengths = [64] }]
            [[matrix]]
            models = ["b"]
            kv-quants = ["none"]
            [model.b]
            context-lengths = ["8K"]
            "#,
        )
        .unwrap();
        let of = |run: &RunSpec| (run.kv_quant.residual, run.settings.decode_tokens);
        let [a, b] = ["a", "b"].map(|name| plan.runs.iter().filter(|r| r.model.model == name).collect::<Vec<_>>());
        assert_eq!(a.iter().map(|run| of(run)).collect::<Vec<_>>(), [(64, 64), (128, 64), (128, 1024)]);
        assert!(a.iter().all(|run| run.settings.context_lengths == [1024, 2048, 4096, 300]));
        assert_eq!((a[0].settings.ppl_window, a[0].settings.ppl_tokens), (Some(2048), 8192));
        assert_eq!(b[0].settings.context_lengths, [8192]);
    }

    #[test]
    fn exclusions_must_agree_with_every_list() {
        let plan = plan(
            r#"
            [[matrix]]
            models = ["a"]
            kv-quants = ["none", "int8-hqq", "int4-hqq"]
            output-tokens = [64, 128]
            exclude = [{ kv-quants = ["int4-hqq"], output-tokens = [128] }]
            "#,
        )
        .unwrap();
        assert_eq!(plan.runs.len(), 5);
    }

    #[test]
    fn an_exclusion_of_what_is_not_there_is_refused() {
        for wrong in [
            "models = ['b']",
            "kv-quants = ['int4-hq']",
            "attn-backends = ['fusd']",
            "output-tokens = [65]",
            "residual-lengths = [65]",
        ] {
            let text = format!(
                "[[matrix]]\nmodels = ['a']\nkv-quants = ['int4-hqq']\noutput-tokens = [64]\nexclude = [{{ {wrong} }}]"
            );
            let error = plan(&text).unwrap_err().to_string();
            let key = wrong.split(' ').next().unwrap();
            assert!(error.contains("exclude") && error.contains(key), "{error}");
        }
        let error = plan("[[matrix]]\nmodels = ['a']\nexclude = [{ kv-quants = [] }]").unwrap_err().to_string();
        assert!(error.contains("exclude") && error.contains("names nothing"), "{error}");
    }

    #[test]
    fn an_empty_matrix_is_what_the_command_line_runs_without_flags() {
        let runs = plan("[[matrix]]").unwrap().runs;
        let names: Vec<_> = runs.iter().map(|r| r.kv_quant.name.as_str()).collect();
        assert_eq!(names, DEFAULT_QUANTIZATIONS);
        assert_eq!((runs[0].model.model.as_str(), runs[0].attn_backend.as_str()), ("builtin", "fused"));
        assert_eq!(runs[0].benchmarks, ["ppl", "needle"]);
        assert!(plan("[settings]\nseed = 1").unwrap_err().to_string().contains("[[matrix]]"));
    }

    #[test]
    fn overrides_for_a_model_of_no_matrix_are_refused() {
        let error = plan("[[matrix]]\nmodels = ['a']\nkv-quants = ['none']\n[model.b]\ndtype = 'f16'").unwrap_err();
        assert!(error.to_string().contains("\"b\""), "{error}");
    }
}
