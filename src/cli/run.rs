//! `kvprof run`.

use std::path::PathBuf;
use std::process::ExitCode;

use super::outcome;
use crate::bench::settings::{NeedleKind, Protocol};
use crate::bench::{self, Settings};
use crate::measure::trace::chrome;
use crate::model::step::StepMode;
use crate::report::{needle_grid, quality_summary, summary};
use crate::session::plan::RunSpec;
use crate::session::progress::Terminal;
use crate::session::runner::{self, Existing, Output};
use crate::session::{interrupt, plan, store};
use crate::{Error, Result};

/// Quantizations that `kvprof run` compares when none are named.
const DEFAULT_QUANTIZATIONS: [&str; 5] = ["none", "int8-hqq", "int4-hqq", "int2-hqq", "int2-hqq-kivi"];

/// Arguments of `kvprof run`.
#[derive(clap::Args)]
#[command(after_long_help = crate::quant::presets::help_table())]
pub struct Args {
    #[command(flatten)]
    model: ModelArgs,
    /// KV-cache quantizations, each with optional overrides: `int4-hqq,group=32` (table below).
    #[arg(long, num_args = 1.., value_name = "QUANT", default_values_t = DEFAULT_QUANTIZATIONS.map(String::from))]
    kv_quant: Vec<String>,
    /// Recent tokens kept in full precision, for all quantizations; several make a run each.
    #[arg(long, num_args = 1.., value_name = "TOKENS")]
    residual_length: Vec<usize>,
    /// How attention reads the cache: eager, sdpa or fused.
    #[arg(long, num_args = 1.., value_name = "BACKEND", default_values_t = ["fused".to_string()])]
    attn_backend: Vec<String>,
    /// Benchmarks beside the profile: ppl, kld, needle, mmlu, math, all, or none [default: ppl needle for the built-in model,
    /// which brings its own text; none for others].
    #[arg(long, num_args = 1.., value_name = "NAME")]
    benchmarks: Option<Vec<String>>,
    /// Measure quality only.
    #[arg(long)]
    no_profile: bool,
    #[command(flatten)]
    settings: SettingsArgs,
    /// Folder for the result files.
    #[arg(long, value_name = "DIR", default_value = "results/raw")]
    output_dir: PathBuf,
    /// Go on with the runs of the same settings whose files are in the output folder, from where they were stopped, instead of
    /// beginning new ones.
    #[arg(long)]
    resume: bool,
    /// No progress bars and no table.
    #[arg(long)]
    quiet: bool,
    /// Print the results as a JSON array on standard output instead of the table.
    #[arg(long)]
    json: bool,
}

/// Which model, and how to load it.
#[derive(clap::Args)]
struct ModelArgs {
    /// Hub id (mistralai/Mistral-7B-v0.1), folder, .gguf file, config.json (with --weights dummy), or `builtin`.
    #[arg(long, value_name = "MODEL", default_value = "builtin")]
    model: String,
    /// Branch, tag or commit on the hub.
    #[arg(long, value_name = "REV")]
    revision: Option<String>,
    /// `dummy`: random weights in the model's shape; time and memory are true, quality is refused.
    #[arg(long, value_name = "KIND", default_value = "auto", value_parser = ["auto", "dummy"])]
    weights: String,
    /// Float type of weights, activations and cache: f16, bf16, f32, or auto (f32 on a CPU, the model's own on a GPU).
    #[arg(long, value_name = "TYPE", default_value = "auto")]
    dtype: String,
    /// auto, cpu, cuda or cuda:N.
    #[arg(long, value_name = "DEVICE", default_value = "auto")]
    device: String,
    /// `off` ignores the model's sliding window, in the mask and in the cache.
    #[arg(long, value_name = "on|off", default_value = "on", value_parser = ["on", "off"])]
    sliding_window: String,
}

/// Settings of the benchmarks; what is not given keeps its default.
#[derive(clap::Args)]
pub struct SettingsArgs {
    /// Prompt lengths in tokens, for the profile and needle [default: 1024, or the model's limit if that is smaller].
    #[arg(long, num_args = 1.., value_name = "TOKENS")]
    context_lengths: Option<Vec<usize>>,
    /// Sequences side by side, for the profile [default: 1].
    #[arg(long, num_args = 1.., value_name = "B")]
    batch_sizes: Option<Vec<usize>>,
    /// Steps in a timed decode [default: 128].
    #[arg(long, value_name = "N")]
    decode_tokens: Option<usize>,
    /// Untimed runs before the timed ones [default: 2].
    #[arg(long, value_name = "N")]
    warmup_runs: Option<usize>,
    /// Timed runs [default: 5].
    #[arg(long, value_name = "N")]
    measure_runs: Option<usize>,
    /// Prompt tokens computed together in the profile [default: 2048].
    #[arg(long, value_name = "TOKENS")]
    prefill_chunk: Option<usize>,
    /// Trace one more run of each profile: time by kernel category (CUPTI on a GPU, ranges of the model's code on a CPU).
    #[arg(long)]
    trace: bool,
    /// Write the traces for chrome://tracing or ui.perfetto.dev; implies --trace.
    #[arg(long, value_name = "FILE")]
    trace_out: Option<PathBuf>,
    /// Shortest window in which energy is measured, seconds [default: 1].
    #[arg(long, value_name = "S")]
    energy_seconds: Option<f64>,
    /// Record the memory of one more run over time, for a plot.
    #[arg(long)]
    memory_timeline: bool,
    /// Launch the kernels of a decode step one by one instead of replaying a CUDA graph, for comparison.
    #[arg(long)]
    no_cuda_graph: bool,
    /// Local file or folder with the data of the benchmarks, instead of the hub.
    #[arg(long, value_name = "PATH")]
    data: Option<PathBuf>,
    /// Text for ppl: builtin, wikitext2, pg19 or a file [default: wikitext2; builtin for the built-in model].
    #[arg(long, value_name = "NAME|FILE")]
    ppl_data: Option<String>,
    /// Window of ppl in tokens [default: 4096, or the model's limit if that is smaller].
    #[arg(long, value_name = "TOKENS")]
    ppl_window: Option<usize>,
    /// Tokens of each window that are read but not scored [default: 256, at least one residual window and block].
    #[arg(long, value_name = "TOKENS")]
    ppl_burn_in: Option<usize>,
    /// Tokens scored by ppl and kld, 0: the whole text [default: 4096].
    #[arg(long, value_name = "TOKENS")]
    ppl_tokens: Option<usize>,
    /// How ppl and kld feed a window: streaming (chunks of 64) or two-phase (half fills the cache, half is scored in one
    /// pass) [default: streaming].
    #[arg(long, value_name = "NAME")]
    ppl_protocol: Option<Protocol>,
    /// Windows of ppl and kld read side by side [default: 1 on a CPU, up to 16 on a GPU].
    #[arg(long, value_name = "N")]
    ppl_batch: Option<usize>,
    /// Depths at which the needle is hidden, 0 to 1 [default: 0.1 0.25 0.5 0.75 0.9].
    #[arg(long, num_args = 1.., value_name = "DEPTH")]
    needle_depths: Option<Vec<f64>>,
    /// Needles at each context and depth [default: 1].
    #[arg(long, value_name = "N")]
    needle_trials: Option<usize>,
    /// What the needle is: number, words or multi-key [default: number].
    #[arg(long, value_name = "KIND")]
    needle_kind: Option<NeedleKind>,
    /// Where it is hidden: filler, or a text as --ppl-data names it [default: filler].
    #[arg(long, value_name = "NAME|FILE")]
    needle_haystack: Option<String>,
    /// Questions of mmlu, spread over its subjects, 0: all [default: 200].
    #[arg(long, value_name = "N")]
    mmlu_questions: Option<usize>,
    /// Examples before each question of mmlu [default: 5].
    #[arg(long, value_name = "N")]
    mmlu_shots: Option<usize>,
    /// Problems of math, 0: all [default: 100].
    #[arg(long, value_name = "N")]
    math_problems: Option<usize>,
    /// Longest answer that math generates, in tokens [default: 512].
    #[arg(long, value_name = "TOKENS")]
    max_new_tokens: Option<usize>,
    /// Answers that math generates side by side [default: 1].
    #[arg(long, value_name = "N")]
    batch_size: Option<usize>,
    /// Seed of everything random [default: 42].
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
}

impl SettingsArgs {
    /// `settings` with what was given on the command line.
    pub fn apply(&self, mut settings: Settings) -> Settings {
        macro_rules! take {
            ($($field:ident),*) => { $( if let Some(value) = &self.$field { settings.$field = value.clone(); } )* };
        }
        take!(context_lengths, batch_sizes, decode_tokens, warmup_runs, measure_runs, prefill_chunk, ppl_tokens);
        take!(needle_depths, needle_trials, needle_kind, needle_haystack, seed, ppl_protocol);
        take!(energy_seconds, mmlu_questions, mmlu_shots, math_problems, max_new_tokens, batch_size);
        settings.trace |= self.trace || self.trace_out.is_some();
        settings.trace_out = self.trace_out.clone().or(settings.trace_out);
        settings.ppl_batch = self.ppl_batch.or(settings.ppl_batch);
        settings.memory_timeline |= self.memory_timeline;
        if self.no_cuda_graph {
            settings.step_mode = StepMode::Launches;
        }
        settings.ppl_data = self.ppl_data.clone().or(settings.ppl_data);
        settings.ppl_window = self.ppl_window.or(settings.ppl_window);
        settings.ppl_burn_in = self.ppl_burn_in.or(settings.ppl_burn_in);
        settings.data = self.data.clone().or(settings.data);
        settings
    }
}

impl ModelArgs {
    fn request(&self) -> plan::ModelRequest {
        plan::ModelRequest {
            model: self.model.clone(),
            revision: self.revision.clone(),
            dummy: self.weights == "dummy",
            dtype: self.dtype.clone(),
            device: self.device.clone(),
            sliding_window: self.sliding_window == "on",
        }
    }
}

/// Runs the plan, prints a table, and says where the files are.
pub fn run(args: &Args) -> anyhow::Result<ExitCode> {
    interrupt::listen();
    let quantizations = plan::quantizations(&args.kv_quant, &args.residual_length)?;
    let benchmarks = match &args.benchmarks {
        Some(names) => bench::expand(names),
        None if args.model.model == "builtin" && args.model.weights == "auto" => vec!["ppl".into(), "needle".into()],
        None => Vec::new(),
    };
    let settings = args.settings.apply(Settings::default());
    check(&settings)?;
    store::prepare_folder(&args.output_dir)?;
    if let Some(file) = &settings.trace_out {
        chrome::create(file)?;
    }
    let mut runs = Vec::new();
    for attn_backend in &args.attn_backend {
        for kv_quant in &quantizations {
            runs.push(RunSpec {
                model: args.model.request(),
                attn_backend: attn_backend.clone(),
                kv_quant: kv_quant.clone(),
                benchmarks: benchmarks.clone(),
                profile: !args.no_profile,
                settings: settings.clone(),
            });
        }
    }
    let runs = plan::arrange(runs);
    let progress = Terminal::new(args.quiet || args.json);
    let output = Output {
        folder: args.output_dir.clone(),
        existing: if args.resume { Existing::Resume } else { Existing::Keep },
        progress: &progress,
        show_loading: !(args.quiet || args.json),
    };
    let outcomes = runner::run(&runs, &output)?;

    let results: Vec<_> = outcomes.iter().filter_map(|o| o.stored.as_ref()).map(|s| &s.result).collect();
    if args.json {
        println!("{}", serde_json::to_string_pretty(&results)?);
    } else if !args.quiet {
        println!("{}", summary::table(&results));
        for more in [quality_summary::table(&results), needle_grid::table(&results)].into_iter().flatten() {
            println!("{more}");
        }
        for stored in outcomes.iter().filter_map(|o| o.stored.as_ref()) {
            println!("{}", stored.path.display());
        }
    }
    Ok(outcome::exit_code(&outcomes, runs.len()))
}

/// Refuses settings that cannot measure anything.
fn check(settings: &Settings) -> Result<()> {
    let positive = [
        ("--measure-runs", settings.measure_runs),
        ("--decode-tokens", settings.decode_tokens),
        ("--prefill-chunk", settings.prefill_chunk),
        ("--max-new-tokens", settings.max_new_tokens),
        ("--batch-size", settings.batch_size),
        ("--batch-sizes", settings.batch_sizes.iter().copied().min().unwrap_or(0)),
        ("--context-lengths", settings.context_lengths.iter().copied().min().unwrap_or(1)),
    ];
    if !settings.energy_seconds.is_finite() || settings.energy_seconds <= 0.0 {
        return Err(Error::usage("--energy-seconds must be more than 0"));
    }
    match positive.iter().find(|(_, value)| *value == 0) {
        Some((flag, _)) => Err(Error::usage(format!("{flag} must be at least 1"))),
        None => Ok(()),
    }
}
