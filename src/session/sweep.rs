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
use super::plan::quantizations;
use crate::base::number::{length_list, some_length_list};
use crate::bench::Settings;
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
}

impl Matrix {
    /// The models that it names, or the default.
    pub fn models(&self) -> Vec<String> {
        or_default(&self.models, &[DEFAULT_MODEL.to_string()])
    }

    pub(super) fn attn_backends(&self) -> Vec<String> {
        or_default(&self.attn_backends, &[DEFAULT_BACKEND.to_string()])
    }

    pub(super) fn kv_quants(&self) -> Vec<String> {
        or_default(&self.kv_quants, &DEFAULT_QUANTIZATIONS.map(String::from))
    }

    pub(super) fn output_tokens(&self, settings: &Settings) -> Vec<usize> {
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

fn or_default<T: Clone>(list: &[T], default: &[T]) -> Vec<T> {
    if list.is_empty() { default.to_vec() } else { list.to_vec() }
}

/// Puts `list` into the place of `target`, where it names anything.
pub(super) fn replace<T: Clone>(target: &mut Vec<T>, list: &[T]) {
    if !list.is_empty() {
        *target = list.to_vec();
    }
}

#[cfg(test)]
mod tests {
    use super::super::expand::Plan;
    use super::super::plan::RunSpec;
    use super::*;

    fn plan(text: &str) -> Result<Plan> {
        Sweep::parse(Path::new("sweep.toml"), text)?.plan()
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
    fn every_key_that_counts_tokens_takes_them_as_tables_write_them() {
        let read = |text: String| Sweep::parse(Path::new("sweep.toml"), &text).unwrap();
        for key in [
            "output-tokens",
            "follow-up-tokens",
            "prefill-chunk",
            "ppl-window",
            "ppl-burn-in",
            "ppl-tokens",
            "max-new-tokens",
        ] {
            let [short, long] = ["'4k'", "4096"].map(|value| read(format!("[settings]\n{key} = {value}")).settings);
            assert_eq!(short, long, "{key}");
        }
        for key in ["output-tokens", "residual-lengths", "context-lengths"] {
            let [short, long] = ["'4k'", "4096"].map(|value| read(format!("[[matrix]]\n{key} = [{value}]")).matrix);
            assert_eq!(format!("{short:?}"), format!("{long:?}"), "{key}");
        }
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
}
