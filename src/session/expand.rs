//! From a sweep file to the runs that it names.

use super::plan::{ModelRequest, RunSpec, arrange, contents, quantizations, share_burn_in};
use super::sweep::{DEFAULT_MODEL, Matrix, ModelOverrides, Sweep, replace};
use crate::bench::{self, Settings};
use crate::model::source::ModelSource;
use crate::schema::model_name;
use crate::{Error, Result};

/// A plan, and how many runs its matrices named before duplicates were dropped.
#[derive(Debug)]
pub struct Plan {
    /// In the order of running.
    pub runs: Vec<RunSpec>,
    /// Combinations named, duplicates counted.
    pub named: usize,
}

impl Sweep {
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
            for model in matrix.models() {
                self.expand(matrix, &model, &mut runs)?;
            }
        }
        if runs.is_empty() {
            return Err(Error::usage("the matrices name no run: all are excluded"));
        }
        share_burn_in(&mut runs);
        let named = runs.len();
        Ok(Plan { runs: arrange(runs), named })
    }

    /// Adds the combinations of `matrix` that are of `model`.
    fn expand(&self, matrix: &Matrix, model: &str, runs: &mut Vec<RunSpec>) -> Result<()> {
        let (backends, names) = (matrix.attn_backends(), matrix.kv_quants());
        let overrides = self.model.get(model).cloned().unwrap_or_default();
        let request = overrides.request(model)?;
        let benchmarks = match &matrix.benchmarks {
            Some(names) => bench::expand(names)?,
            None if model == DEFAULT_MODEL && !request.dummy => vec!["ppl".into(), "needle".into()],
            None => Vec::new(),
        };
        // What the lists below vary is nothing that files are chosen by.
        let contents = contents(&benchmarks, &self.settings, model);
        for backend in &backends {
            for name in &names {
                for kv_quant in quantizations(std::slice::from_ref(name), &matrix.residual_lengths)? {
                    for output in matrix.output_tokens(&self.settings) {
                        // An unquantized cache has no window to be excluded by.
                        let residual = kv_quant.is_quantized().then_some(kv_quant.residual);
                        if matrix.exclude.iter().any(|e| e.covers(model, name, backend, output, residual)) {
                            continue;
                        }
                        let settings = self.settings_of(matrix, &overrides, output);
                        settings.check(matrix.profile)?;
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
        Ok(())
    }

    /// Its settings for runs of `matrix` and `output` tokens out: the nearest list to the model counts.
    fn settings_of(&self, matrix: &Matrix, model: &ModelOverrides, output: usize) -> Settings {
        let mut settings = Settings { decode_tokens: output, ..self.settings.clone() };
        replace(&mut settings.batch_sizes, &matrix.batch_sizes);
        replace(&mut settings.context_lengths, &matrix.context_lengths);
        if let Some(lengths) = &model.context_lengths {
            settings.context_lengths.clone_from(lengths);
        }
        settings
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
            _ => ModelSource::name_of(model),
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

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::super::sweep::DEFAULT_QUANTIZATIONS;
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
    fn a_quantization_of_the_hub_has_one_name_however_it_is_written() {
        let models = r#"models = ["org/m-GGUF:q4_k_m", "org/m-GGUF:Q4_K_M", "org/m-GGUF:m-q4_k_m.gguf"]"#;
        let runs = plan(&format!("[[matrix]]\n{models}\nkv-quants = ['none']")).unwrap().runs;
        let models: Vec<_> = runs.iter().map(|run| run.model.model.as_str()).collect();
        assert_eq!(models, ["org/m-GGUF:Q4_K_M", "org/m-GGUF:m-q4_k_m.gguf"]);
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
