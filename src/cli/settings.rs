//! The flags that set what benchmarks do, shared by `run` and `patch`.

use std::path::PathBuf;

use crate::base::message::tell;
use crate::base::number::{Lengths, lengths, real, tokens, whole};
use crate::bench::Settings;
use crate::bench::limits::OUTPUT_TOKENS;
use crate::bench::settings::{NeedleKind, Protocol};
use crate::measure::trace::chrome;
use crate::model::step::StepMode;
use crate::schema::concerns::concerns;
use crate::{Error, Result};

/// Settings of the benchmarks; what is not given keeps its default.
#[derive(clap::Args)]
pub struct SettingsArgs {
    /// Prompt lengths in tokens, for the profile and needle: 4096 or 4k; 1k..32k is 1k 2k 4k 8k 16k 32k [default: 1024, or what --output-tokens leaves of the model's
    /// limit if that is less; refused where that is too little for a quantized cache to hold codes].
    #[arg(long, num_args = 1.., value_delimiter = ',', value_name = "TOKENS", value_parser = lengths)]
    pub(super) context_lengths: Option<Vec<Lengths>>,
    /// Sequences side by side, for the profile [default: 1].
    #[arg(long, num_args = 1.., value_delimiter = ',', value_name = "B", value_parser = whole::<usize>)]
    pub(super) batch_sizes: Option<Vec<usize>>,
    /// Tokens that a timed decode generates; several make a run each [default: 128].
    #[arg(long, visible_alias = "decode-tokens", num_args = 1.., value_delimiter = ',', value_name = "N", value_parser = lengths)]
    pub(super) output_tokens: Option<Vec<Lengths>>,
    /// Also time the reading of a further prompt of so many tokens after each context's own, as in a chat's next turn (for quantized
    /// caches: reading them back); no more than --output-tokens, whose room in the cache it takes [default: none].
    #[arg(long, value_name = "TOKENS", value_parser = tokens)]
    follow_up_tokens: Option<usize>,
    /// Untimed runs before the timed ones [default: 2].
    #[arg(long, value_name = "N", value_parser = whole::<usize>)]
    warmup_runs: Option<usize>,
    /// Timed runs [default: 5].
    #[arg(long, value_name = "N", value_parser = whole::<usize>)]
    measure_runs: Option<usize>,
    /// Prompt tokens computed together in the profile [default: 4096; 2048 for each of several sequences;
    /// less for a model of few layers].
    #[arg(long, value_name = "TOKENS", value_parser = tokens)]
    prefill_chunk: Option<usize>,
    /// Trace one more run of each profile: time by kernel category (CUPTI on a GPU, ranges of the model's code on a CPU).
    #[arg(long)]
    trace: bool,
    /// Write the traces for chrome://tracing or ui.perfetto.dev; implies --trace.
    #[arg(long, value_name = "FILE")]
    pub(super) trace_out: Option<PathBuf>,
    /// Shortest window in which energy is measured, seconds [default: 1].
    #[arg(long, value_name = "S", value_parser = real)]
    energy_seconds: Option<f64>,
    /// Record the memory of one more run over time, for a plot.
    #[arg(long)]
    memory_timeline: bool,
    /// How a GPU makes decode steps with fused attention: graph (kernels of kvprof's own, replayed as a CUDA graph), launches (the
    /// same ones, launched one by one) or plain (the decoder that eager and sdpa use, for comparing attention only) [default: graph].
    #[arg(long, value_name = "MODE")]
    step_mode: Option<StepMode>,
    /// The same as --step-mode launches.
    #[arg(long, conflicts_with = "step_mode")]
    no_cuda_graph: bool,
    /// Local file or folder with the data of the benchmarks, instead of the hub.
    #[arg(long, value_name = "PATH")]
    data: Option<PathBuf>,
    /// Text of ppl and kld: builtin, wikitext2, pg19 or a file [default: wikitext2; builtin for the built-in model].
    #[arg(long, value_name = "NAME|FILE")]
    ppl_data: Option<String>,
    /// Window of ppl and kld, in tokens [default: 4096, or the model's limit if that is smaller].
    #[arg(long, value_name = "TOKENS", value_parser = tokens)]
    ppl_window: Option<usize>,
    /// Tokens of each window that are read but not scored, at least 1; each score records them as `burn_in` [default: 256, or one
    /// more than the longest residual window and block of the plan's caches, of those that a window has room for, if that is more, so that
    /// all score the same tokens].
    #[arg(long, value_name = "TOKENS", value_parser = tokens)]
    ppl_burn_in: Option<usize>,
    /// Tokens scored by ppl and kld, 0: the whole text [default: 4096].
    #[arg(long, value_name = "TOKENS", value_parser = tokens)]
    ppl_tokens: Option<usize>,
    /// How ppl and kld feed a window: streaming (chunks of 64) or two-phase (half fills the cache, half is scored in one
    /// pass) [default: streaming].
    #[arg(long, value_name = "NAME")]
    ppl_protocol: Option<Protocol>,
    /// Windows of ppl and kld read side by side [default: 1 on a CPU, up to 16 on a GPU].
    #[arg(long, value_name = "N", value_parser = whole::<usize>)]
    ppl_batch: Option<usize>,
    /// Depths at which the needle is hidden, 0 to 1 [default: 0.1 0.25 0.5 0.75 0.9].
    #[arg(long, num_args = 1.., value_delimiter = ',', value_name = "DEPTH", value_parser = real)]
    needle_depths: Option<Vec<f64>>,
    /// Needles at each context and depth [default: 1].
    #[arg(long, value_name = "N", value_parser = whole::<usize>)]
    needle_trials: Option<usize>,
    /// What the needle is: number, words or multi-key [default: number].
    #[arg(long, value_name = "KIND")]
    needle_kind: Option<NeedleKind>,
    /// Where it is hidden: filler, or a text as --ppl-data names it [default: filler].
    #[arg(long, value_name = "NAME|FILE")]
    needle_haystack: Option<String>,
    /// Questions of mmlu, spread over its subjects, 0: all [default: 200].
    #[arg(long, value_name = "N", value_parser = whole::<usize>)]
    mmlu_questions: Option<usize>,
    /// Examples before each question of mmlu [default: 5].
    #[arg(long, value_name = "N", value_parser = whole::<usize>)]
    mmlu_shots: Option<usize>,
    /// Problems of math, 0: all [default: 100].
    #[arg(long, value_name = "N", value_parser = whole::<usize>)]
    math_problems: Option<usize>,
    /// Longest answer that math generates, in tokens [default: 512].
    #[arg(long, value_name = "TOKENS", value_parser = tokens)]
    max_new_tokens: Option<usize>,
    /// Answers that math generates side by side [default: 1].
    #[arg(long, value_name = "N", value_parser = whole::<usize>)]
    batch_size: Option<usize>,
    /// Seed of everything random [default: 42].
    #[arg(long, value_name = "N", value_parser = whole::<u64>)]
    seed: Option<u64>,
}

impl SettingsArgs {
    /// Refuses lists that make several runs, for a command that repeats one.
    ///
    /// # Errors
    /// A usage error that names the flag.
    pub fn require_one_run(&self) -> Result<()> {
        match self.output_tokens().as_deref() {
            Some([_, _, ..]) => {
                Err(Error::usage(format!("--{OUTPUT_TOKENS}: give one number; each file records one run")))
            }
            _ => Ok(()),
        }
    }

    /// The output lengths that were given.
    pub(super) fn output_tokens(&self) -> Option<Vec<usize>> {
        self.output_tokens.as_deref().map(Lengths::of)
    }

    /// `settings` with what was given on the command line; of several output lengths, the first.
    pub fn apply(&self, mut settings: Settings) -> Settings {
        macro_rules! take {
            ($($field:ident),*) => { $( if let Some(value) = &self.$field { settings.$field = value.clone(); } )* };
        }
        take!(batch_sizes, warmup_runs, measure_runs, ppl_tokens);
        take!(needle_depths, needle_trials, needle_kind, needle_haystack, seed, ppl_protocol);
        take!(energy_seconds, mmlu_questions, mmlu_shots, math_problems, max_new_tokens, batch_size);
        if let Some(lengths) = &self.context_lengths {
            settings.context_lengths = Lengths::of(lengths);
        }
        if let Some(tokens) = self.output_tokens().and_then(|list| list.first().copied()) {
            settings.decode_tokens = tokens;
        }
        settings.trace |= self.trace || self.trace_out.is_some();
        settings.trace_out = self.trace_out.clone().or(settings.trace_out);
        settings.follow_up_tokens = self.follow_up_tokens.or(settings.follow_up_tokens);
        settings.prefill_chunk = self.prefill_chunk.or(settings.prefill_chunk);
        settings.ppl_batch = self.ppl_batch.or(settings.ppl_batch);
        settings.memory_timeline |= self.memory_timeline;
        let step_mode = self.no_cuda_graph.then_some(StepMode::Launches).or(self.step_mode);
        settings.step_mode = step_mode.unwrap_or(settings.step_mode);
        settings.ppl_data = self.ppl_data.clone().or(settings.ppl_data);
        settings.ppl_window = self.ppl_window.or(settings.ppl_window);
        settings.ppl_burn_in = self.ppl_burn_in.or(settings.ppl_burn_in);
        settings.data = self.data.clone().or(settings.data);
        settings
    }

    /// Refuses what would be measured in the profile where `left_out` leaves that out, and a file for traces that cannot be written; warns of the
    /// other flags that only the profile goes by. Told before anything is measured, which are `benchmarks`.
    ///
    /// # Errors
    /// A usage error that names the flag.
    pub(super) fn check_profile(&self, left_out: Option<&str>, benchmarks: &[String]) -> Result<()> {
        let Some(left_out) = left_out else { return self.trace_out.as_deref().map_or(Ok(()), chrome::check) };
        if let Some(flag) = self.asked_of_profile().first() {
            return Err(Error::usage(format!(
                "--{flag} asks for what is measured in the profile, which {left_out} leaves out: leave out --{flag} too, or have the profile \
                 measured"
            )));
        }
        // The default context is what the output leaves of the model's tokens.
        let by_output = concerns("context-lengths", benchmarks);
        let idle = self.tuning_of_profile().into_iter().filter(|flag| *flag != OUTPUT_TOKENS || !by_output);
        let idle: Vec<String> = idle.map(|flag| format!("--{flag}")).collect();
        if !idle.is_empty() {
            tell!("warning: {}: no effect, since {left_out} leaves out the profile", idle.join(", "));
        }
        Ok(())
    }

    /// The flags given that have the profile measure more.
    fn asked_of_profile(&self) -> Vec<&'static str> {
        given([
            ("follow-up-tokens", self.follow_up_tokens.is_some()),
            ("trace", self.trace),
            ("trace-out", self.trace_out.is_some()),
            ("memory-timeline", self.memory_timeline),
        ])
    }

    /// The flags given that say how, or in which rows, the profile alone is measured.
    fn tuning_of_profile(&self) -> Vec<&'static str> {
        given([
            ("batch-sizes", self.batch_sizes.is_some()),
            (OUTPUT_TOKENS, self.output_tokens.is_some()),
            ("warmup-runs", self.warmup_runs.is_some()),
            ("measure-runs", self.measure_runs.is_some()),
            ("prefill-chunk", self.prefill_chunk.is_some()),
            ("energy-seconds", self.energy_seconds.is_some()),
            ("step-mode", self.step_mode.is_some()),
            ("no-cuda-graph", self.no_cuda_graph),
        ])
    }
}

fn given<const N: usize>(flags: [(&'static str, bool); N]) -> Vec<&'static str> {
    flags.into_iter().filter(|(_, given)| *given).map(|(flag, _)| flag).collect()
}

#[cfg(test)]
mod tests {
    use clap::{CommandFactory, Parser};

    use super::*;
    use crate::schema::concerns::blocks_of;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        settings: SettingsArgs,
    }

    /// The settings of a line with `flag`, and a value of it where it takes one.
    fn with(flag: &str) -> SettingsArgs {
        let flag = format!("--{flag}");
        let lines = ["4", "0.5", "plain", "streaming", "words"].map(|value| vec!["kvprof", &flag, value]);
        let line = lines.into_iter().chain([vec!["kvprof", &flag]]).find_map(|line| Line::try_parse_from(line).ok());
        line.unwrap_or_else(|| panic!("no value for {flag}")).settings
    }

    #[test]
    fn every_flag_that_only_the_profile_goes_by_is_known_to_be_idle_without_it() {
        let mut known = Vec::new();
        for arg in Line::command().get_arguments() {
            let flag = arg.get_long().unwrap();
            let key = if flag == "output-tokens" { "decode-tokens" } else { flag };
            // --batch-sizes says which rows there are; the other two are spellings of --step-mode and --trace.
            let of_profile = ["batch-sizes", "no-cuda-graph", "trace-out"].contains(&flag)
                || blocks_of(key).is_some_and(|blocks| blocks == ["profile"]);
            let settings = with(flag);
            let told = [settings.asked_of_profile(), settings.tuning_of_profile()].concat();
            assert_eq!(told.len(), usize::from(of_profile), "--{flag}: {told:?}");
            known.extend(told);
        }
        assert_eq!(known.len(), 12);
    }

    #[test]
    fn every_flag_that_counts_tokens_takes_them_as_tables_write_them() {
        let mut counted = 0;
        for arg in Line::command().get_arguments() {
            let flag = arg.get_long().unwrap();
            let tokens = arg.get_value_names().is_some_and(|names| names[0] == "TOKENS") || flag.ends_with("tokens");
            if tokens {
                assert!(Line::try_parse_from(["kvprof", &format!("--{flag}"), "4k"]).is_ok(), "--{flag} 4k");
                counted += 1;
            }
        }
        assert!(counted >= 8, "{counted}");
    }
}
