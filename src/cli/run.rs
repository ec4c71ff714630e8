//! `kvprof run`.

use std::path::PathBuf;
use std::process::ExitCode;

use super::outcome;
use super::settings::SettingsArgs;
use super::shown::{Form, show};
use crate::Result;
use crate::base::number::{Lengths, lengths};
use crate::session::progress::Terminal;
use crate::session::runner::{self, Existing, Output};
use crate::session::sweep::{Matrix, ModelOverrides, Sweep};
use crate::session::{interrupt, store};

/// Arguments of `kvprof run`.
#[derive(clap::Args)]
#[command(after_long_help = crate::quant::presets::help_table())]
pub struct Args {
    /// File with settings, models and quantizations, of the same form as a sweep file; what is also given as a flag is taken
    /// from the flag.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    #[command(flatten)]
    model: ModelArgs,
    /// KV-cache quantizations, each with optional overrides: `int4-hqq,group=32` (table below) [default: none int8-hqq int4-hqq
    /// int2-hqq int2-hqq-kivi].
    #[arg(long, num_args = 1.., value_name = "QUANT")]
    kv_quant: Option<Vec<String>>,
    /// Recent tokens kept in full precision, for all quantizations; several make a run each [default: 128].
    #[arg(long, num_args = 1.., value_delimiter = ',', value_name = "TOKENS", value_parser = lengths)]
    residual_length: Option<Vec<Lengths>>,
    /// How attention reads the cache: eager, sdpa or fused [default: fused].
    #[arg(long, num_args = 1.., value_delimiter = ',', value_name = "BACKEND")]
    attn_backend: Option<Vec<String>>,
    /// Benchmarks beside the profile: ppl, kld, needle, mmlu, math, all, or none [default: ppl needle for the built-in model,
    /// which brings its own text; none for others].
    #[arg(long, num_args = 1.., value_delimiter = ',', value_name = "NAME")]
    benchmarks: Option<Vec<String>>,
    /// Measure quality only.
    #[arg(long)]
    no_profile: bool,
    #[command(flatten)]
    settings: SettingsArgs,
    /// Folder for the result files.
    #[arg(long, value_name = "DIR", default_value = "results/raw")]
    output_dir: PathBuf,
    /// Go on with the runs of the same settings (and the same texts) whose files are in the output folder, from where they were
    /// stopped, instead of beginning new ones. In them, what `kvprof patch` measured with other settings stays, with a warning.
    #[arg(long)]
    resume: bool,
    /// No progress and no table; warnings and errors stay.
    #[arg(long)]
    quiet: bool,
    /// Print the results as a JSON array on standard output instead of the table.
    #[arg(long)]
    json: bool,
    /// Print the tables as Markdown (GitHub's), without the names of the files.
    #[arg(long, conflicts_with_all = ["json", "quiet"])]
    markdown: bool,
}

/// Which model, and how to load it.
#[derive(clap::Args)]
struct ModelArgs {
    /// Hub id (mistralai/Mistral-7B-v0.1; of GGUF models owner/name:Q4_K_M or owner/name:file.gguf), folder (of safetensors, or of one GGUF
    /// model), .gguf file (any part of a model in several), config.json (with --weights dummy), or `builtin` [default: builtin].
    #[arg(long, value_name = "MODEL")]
    model: Option<String>,
    /// Branch, tag or commit on the hub.
    #[arg(long, value_name = "REV")]
    revision: Option<String>,
    /// `dummy`: random weights in the model's shape; time and memory are true, quality is refused [default: auto].
    #[arg(long, value_name = "KIND", value_parser = ["auto", "dummy"])]
    weights: Option<String>,
    /// Float type of weights, activations and cache: f16, bf16, f32, or auto (f32 on a CPU; on a GPU bf16 where the model was published
    /// in it, else f16) [default: auto].
    #[arg(long, value_name = "TYPE")]
    dtype: Option<String>,
    /// auto, cpu, cuda or cuda:N [default: auto].
    #[arg(long, value_name = "DEVICE")]
    device: Option<String>,
    /// `off` ignores the model's sliding window, in the mask and in the cache [default: on].
    #[arg(long, value_name = "on|off", value_parser = ["on", "off"])]
    sliding_window: Option<String>,
}

impl Args {
    /// The file of `--config`, or an empty one, with what was given as flags.
    fn sweep(&self) -> Result<Sweep> {
        let mut sweep = match &self.config {
            Some(path) => Sweep::read(path)?,
            None => Sweep::default(),
        };
        if sweep.matrix.is_empty() {
            sweep.matrix.push(Matrix::default());
        }
        let flags = &self.settings;
        sweep.settings = flags.apply(sweep.settings);
        for matrix in &mut sweep.matrix {
            let give = |target: &mut Vec<String>, flag: &Option<Vec<String>>| {
                if let Some(given) = flag {
                    target.clone_from(given);
                }
            };
            give(&mut matrix.models, &self.model.model.clone().map(|model| vec![model]));
            give(&mut matrix.kv_quants, &self.kv_quant);
            give(&mut matrix.attn_backends, &self.attn_backend);
            for (list, flag) in [
                (&mut matrix.residual_lengths, self.residual_length.as_deref().map(Lengths::of)),
                (&mut matrix.output_tokens, flags.output_tokens()),
            ] {
                if let Some(given) = flag {
                    *list = given;
                }
            }
            matrix.benchmarks = self.benchmarks.clone().or(matrix.benchmarks.take());
            matrix.profile &= !self.no_profile;
            // A flag is meant for all runs, so it also replaces a list that a matrix has of its own.
            for (list, flag) in [
                (&mut matrix.context_lengths, flags.context_lengths.is_some()),
                (&mut matrix.batch_sizes, flags.batch_sizes.is_some()),
            ] {
                if flag {
                    list.clear();
                }
            }
        }
        let models: Vec<String> = sweep.matrix.iter().flat_map(Matrix::models).collect();
        if self.model.model.is_some() {
            sweep.model.retain(|name, _| models.contains(name));
        }
        for name in models {
            let of_model = sweep.model.entry(name).or_default();
            self.model.apply(of_model);
            if flags.context_lengths.is_some() {
                of_model.context_lengths = None;
            }
        }
        Ok(sweep)
    }
}

impl ModelArgs {
    /// Changes what was given on the command line.
    fn apply(&self, overrides: &mut ModelOverrides) {
        for (target, flag) in [
            (&mut overrides.revision, &self.revision),
            (&mut overrides.weights, &self.weights),
            (&mut overrides.dtype, &self.dtype),
            (&mut overrides.device, &self.device),
            (&mut overrides.sliding_window, &self.sliding_window),
        ] {
            if flag.is_some() {
                target.clone_from(flag);
            }
        }
    }
}

/// Runs the plan, prints tables, and says where the files are and which cache to use.
pub fn run(args: &Args) -> anyhow::Result<ExitCode> {
    interrupt::listen();
    let runs = args.sweep()?.plan()?.runs;
    runner::check(&runs)?;
    store::prepare_folder(&args.output_dir)?;
    let left_out = if args.no_profile { "--no-profile" } else { "`profile = false` of --config" };
    let left_out = runs.iter().all(|run| !run.profile).then_some(left_out);
    let benchmarks: Vec<String> = runs.iter().flat_map(|run| run.benchmarks.iter().cloned()).collect();
    args.settings.check_profile(left_out, &benchmarks)?;
    let progress = Terminal::new(args.quiet || args.json);
    let output = Output {
        folder: args.output_dir.clone(),
        existing: if args.resume { Existing::Resume } else { Existing::Keep },
        progress: &progress,
        show_loading: !(args.quiet || args.json),
    };
    let outcomes = runner::run(&runs, &output)?;

    let form = if args.json { Form::Json } else { Form::of(args.quiet, args.markdown) };
    let results = show(&outcomes, form)?;
    let resuming = "to go on with the rest, give the same command with --resume";
    Ok(outcome::exit_code(&outcomes, &results, runs.len(), Some(resuming)))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use clap::{CommandFactory, Parser};

    use super::*;
    use crate::session::plan::RunSpec;
    use crate::session::sweep::DEFAULT_QUANTIZATIONS;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        args: Args,
    }

    fn runs(line: &[&str]) -> Vec<RunSpec> {
        Line::parse_from(["kvprof"].iter().chain(line)).args.sweep().unwrap().plan().unwrap().runs
    }

    const CONFIG: &str = r#"
        [settings]
        context-lengths = [256]
        ppl-tokens = 64
        seed = 7
        [[matrix]]
        models = ["builtin"]
        kv-quants = ["none", "int4-hqq"]
        batch-sizes = [1, 4]
        output-tokens = [8, 16]
        benchmarks = ["kld"]
        [model.builtin]
        dtype = "f16"
        context-lengths = [512]
    "#;

    #[test]
    fn help_names_the_quantizations_that_run_without_flags() {
        let command = Line::command();
        let flag = command.get_arguments().find(|arg| arg.get_id() == "kv_quant").unwrap();
        let (help, default) = (flag.get_help().unwrap().to_string(), DEFAULT_QUANTIZATIONS.join(" "));
        assert!(help.contains(&format!("[default: {default}]")), "{help}");
    }

    #[test]
    fn without_flags_the_file_is_what_runs() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("run.toml");
        std::fs::write(&file, CONFIG).unwrap();
        let runs = runs(&["--config", file.to_str().unwrap()]);
        assert_eq!(runs.len(), 4);
        assert_eq!((runs[0].settings.seed, runs[0].settings.ppl_tokens), (7, 64));
        assert_eq!((&runs[0].settings.context_lengths, &runs[0].settings.batch_sizes), (&vec![512], &vec![1, 4]));
        assert_eq!((runs[0].model.dtype.as_str(), &runs[0].benchmarks), ("f16", &vec!["kld".to_string()]));
    }

    #[test]
    fn lists_of_output_and_residual_lengths_make_a_run_each() {
        let line = "--kv-quant none int8-hqq int4-hqq --output-tokens 256..1k 2K";
        let outputs = runs(&line.split_whitespace().collect::<Vec<_>>());
        let lengths: BTreeSet<usize> = outputs.iter().map(|run| run.settings.decode_tokens).collect();
        assert_eq!((outputs.len(), lengths), (12, BTreeSet::from([256, 512, 1024, 2048])));
        let line = "--kv-quant none int8-hqq int4-hqq --output-tokens 2k --residual-length 32 64 128 256 512";
        let windows = runs(&line.split_whitespace().collect::<Vec<_>>());
        // The unquantized cache has no window to vary.
        assert_eq!(windows.len(), 11);
        let of_int4: Vec<usize> = windows
            .iter()
            .filter(|run| run.kv_quant.name.starts_with("int4"))
            .map(|run| run.kv_quant.residual)
            .collect();
        assert_eq!(of_int4, [32, 64, 128, 256, 512]);
        assert!(windows.iter().all(|run| run.settings.decode_tokens == 2048));
    }

    #[test]
    fn every_way_of_making_a_step_has_a_flag() {
        use crate::model::step::StepMode::{Graph, Launches, Plain};
        for (line, mode) in [
            (vec![], Graph),
            (vec!["--no-cuda-graph"], Launches),
            (vec!["--step-mode", "launches"], Launches),
            (vec!["--step-mode", "plain"], Plain),
        ] {
            assert_eq!(runs(&line)[0].settings.step_mode, mode, "{line:?}");
        }
        assert!(Line::try_parse_from(["kvprof", "--step-mode", "plain", "--no-cuda-graph"]).is_err());
    }

    #[test]
    fn flags_win_over_the_file() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("run.toml");
        std::fs::write(&file, CONFIG).unwrap();
        let line = "--kv-quant int8-hqq --decode-tokens 4 --context-lengths 128..256,1k --batch-sizes 2 --seed 9 --dtype f32 \
                    --benchmarks none --no-profile --config";
        let mut line: Vec<&str> = line.split_whitespace().collect();
        line.push(file.to_str().unwrap());
        let runs = runs(&line);
        assert_eq!(runs.len(), 1);
        let (run, settings) = (&runs[0], &runs[0].settings);
        assert_eq!((run.kv_quant.name.as_str(), settings.decode_tokens, settings.seed), ("int8-hqq", 4, 9));
        assert_eq!((&settings.context_lengths, &settings.batch_sizes), (&vec![128, 256, 1024], &vec![2]));
        assert_eq!((run.model.dtype.as_str(), run.benchmarks.len(), run.profile), ("f32", 0, false));
        assert_eq!(settings.ppl_tokens, 64, "what no flag says stays as the file has it");
        // Another model takes none of the file's overrides for this one.
        let line = ["--model", "org/other", "--config", file.to_str().unwrap()];
        assert_eq!(super::tests::runs(&line)[0].model.dtype, "auto");
    }
}
