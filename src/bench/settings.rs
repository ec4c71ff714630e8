//! Settings of all benchmarks, with their defaults.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::feed::first_predicted_from_codes;
use crate::base::number::{length_list, some_token_count, token_count};
use crate::model::DecoderConfig;
use crate::model::step::StepMode;
use crate::quant::QuantSpec;
use crate::schema::concerns::concerns;
use crate::{Error, Result};

/// Settings of all benchmarks; each is a flag of `kvprof run` and a key of a configuration file.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct Settings {
    /// Prompt lengths in tokens, for `profile` and `needle`; empty: 1024, or as much as the model allows.
    #[serde(deserialize_with = "length_list")]
    pub context_lengths: Vec<usize>,
    /// Sequences side by side, for `profile`.
    pub batch_sizes: Vec<usize>,
    /// Steps in a timed decode: `output-tokens` in a configuration file; result files have it by its older name.
    #[serde(alias = "output-tokens", deserialize_with = "token_count")]
    pub decode_tokens: usize,
    /// Tokens of a prompt that `profile` reads after each context's own, timed apart; none by default. The cache holds them where a decode
    /// writes, so that they are no more than `decode_tokens`.
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "some_token_count")]
    pub follow_up_tokens: Option<usize>,
    /// Untimed runs.
    pub warmup_runs: usize,
    /// Timed runs.
    pub measure_runs: usize,
    /// Prompt tokens of a sequence computed together in `profile`; quality benchmarks feed 64. Default: 4096 for one sequence, 2048 for
    /// several side by side, whose activations take as much memory as many times the tokens; less for few layers
    /// ([`prefill_chunk`](Settings::prefill_chunk)).
    #[serde(deserialize_with = "some_token_count")]
    pub prefill_chunk: Option<usize>,
    /// Whether `profile` makes one more run, not timed, to record memory over time.
    pub memory_timeline: bool,
    /// How decode steps are made in `profile`, on a GPU.
    pub step_mode: StepMode,
    /// Whether `profile` also traces a run of its own.
    #[serde(skip_serializing_if = "is_false")]
    pub trace: bool,
    /// Where traces go as they are, for a viewer. It is no part of the experiment.
    #[serde(skip)]
    pub trace_out: Option<PathBuf>,
    /// Shortest window of energy, seconds; prefill and decode are repeated until it is filled.
    pub energy_seconds: f64,
    /// Text of `ppl`: `builtin`, `wikitext2`, `pg19` or a file.
    pub ppl_data: Option<String>,
    /// Window of `ppl`, tokens; the default is [`window`](Settings::window)'s.
    #[serde(deserialize_with = "some_token_count")]
    pub ppl_window: Option<usize>,
    /// Tokens of each window that are read but not scored; the default is [`burn_in`](Settings::burn_in)'s.
    #[serde(deserialize_with = "some_token_count")]
    pub ppl_burn_in: Option<usize>,
    /// Tokens scored; 0: the whole text.
    #[serde(deserialize_with = "token_count")]
    pub ppl_tokens: usize,
    /// How windows are fed.
    pub ppl_protocol: Protocol,
    /// Windows read side by side. Default: 1 on a CPU, up to 16 on a GPU.
    pub ppl_batch: Option<usize>,
    /// Depths at which a needle is hidden, 0…1.
    pub needle_depths: Vec<f64>,
    /// Needles at each context and depth; the first is 7492, the others are drawn.
    pub needle_trials: usize,
    /// What is hidden.
    pub needle_kind: NeedleKind,
    /// Where it is hidden: `filler`, or a text as `ppl_data` names it.
    pub needle_haystack: String,
    /// Questions of `mmlu`, spread over its subjects; 0: all.
    pub mmlu_questions: usize,
    /// Examples shown before each question of `mmlu`.
    pub mmlu_shots: usize,
    /// Problems of `math`; 0: all.
    pub math_problems: usize,
    /// Longest answer that `math` generates, tokens.
    #[serde(deserialize_with = "token_count")]
    pub max_new_tokens: usize,
    /// Answers that `math` generates side by side.
    pub batch_size: usize,
    /// Local folder or file with the data, instead of the hub.
    pub data: Option<PathBuf>,
    /// Seed of everything random.
    pub seed: u64,
}

/// What is not asked for does not change the hash of an experiment.
fn is_false(value: &bool) -> bool {
    !value
}

impl Default for Settings {
    fn default() -> Self {
        Settings {
            context_lengths: Vec::new(),
            batch_sizes: vec![1],
            decode_tokens: 128,
            follow_up_tokens: None,
            warmup_runs: 2,
            measure_runs: 5,
            prefill_chunk: None,
            memory_timeline: false,
            step_mode: StepMode::default(),
            trace: false,
            trace_out: None,
            energy_seconds: 1.0,
            ppl_data: None,
            ppl_window: None,
            ppl_burn_in: None,
            ppl_tokens: 4096,
            ppl_protocol: Protocol::Streaming,
            ppl_batch: None,
            needle_depths: vec![0.1, 0.25, 0.5, 0.75, 0.9],
            needle_trials: 1,
            needle_kind: NeedleKind::Number,
            needle_haystack: "filler".into(),
            mmlu_questions: 200,
            mmlu_shots: 5,
            math_problems: 100,
            max_new_tokens: 512,
            batch_size: 1,
            data: None,
            seed: 42,
        }
    }
}

impl Settings {
    /// Tokens of a prompt of `length` that `profile` computes together, of each of `batch` sequences, by a model of so many `layers`. The
    /// cache stages a chunk of one layer; where there are few layers that would weigh, so by default it is at most a sixteenth
    /// of what all of them hold unquantized.
    pub fn prefill_chunk(&self, length: usize, batch: usize, layers: usize) -> usize {
        let most = if batch == 1 { 4096 } else { 2048 };
        let light = (length * layers / 16).max(64);
        self.prefill_chunk.unwrap_or(most.min(light)).min(length)
    }

    /// Tokens of a full window of `ppl` and `kld`, by default the smaller of 4096 and the model's `limit`.
    pub fn window(&self, limit: usize) -> usize {
        self.ppl_window.unwrap_or(limit.min(4096))
    }

    /// Tokens of such a window that are read but not scored, at least 1: nothing predicts a window's first token. By default
    /// [`default_burn_in`] of `quant` alone; a plan of several quantizations sets that of all (`session/plan.rs`).
    pub fn burn_in(&self, window: usize, quant: &QuantSpec) -> usize {
        match self.ppl_protocol {
            Protocol::Streaming => self.ppl_burn_in.unwrap_or_else(|| default_burn_in([quant])).max(1),
            // The first token of the scored half is predicted by the last of the other, in another pass.
            Protocol::TwoPhase => window / 2 + 1,
        }
    }

    /// Those that have an effect on `block`, as text: what was read of data under equal ones is the same.
    pub fn concerning(&self, block: &str) -> String {
        match serde_json::to_value(self) {
            Ok(Value::Object(mut all)) => {
                all.retain(|flag, _| concerns(flag, &[block]));
                Value::Object(all).to_string()
            }
            // A path that is no UTF-8 has no JSON: then all of them count.
            _ => format!("{self:?}"),
        }
    }

    /// These settings with what depends on the model filled in.
    pub fn for_model(&self, config: &DecoderConfig) -> Settings {
        let mut settings = self.clone();
        // What is named twice is measured once: a trial that is repeated as it was tells nothing new.
        drop_repeated(&mut settings.context_lengths);
        drop_repeated(&mut settings.batch_sizes);
        drop_repeated(&mut settings.needle_depths);
        if settings.context_lengths.is_empty() {
            let room = config.max_positions.saturating_sub(self.decode_tokens);
            settings.context_lengths = vec![room.clamp(1, 1024)];
        }
        settings
    }
}

/// Tokens of a window that are read but not scored where nothing else is asked for: 256, or as many as precede the first token that
/// each of `quants` predicts from codes if those are more. With fewer, tokens would be scored whose prediction never read a code.
pub fn default_burn_in<'a>(quants: impl IntoIterator<Item = &'a QuantSpec>) -> usize {
    let quantized = quants.into_iter().filter(|quant| quant.is_quantized());
    quantized.map(first_predicted_from_codes).fold(256, usize::max)
}

fn drop_repeated<T: PartialEq + Copy>(list: &mut Vec<T>) {
    let mut seen = Vec::with_capacity(list.len());
    list.retain(|value| {
        !seen.contains(value) && {
            seen.push(*value);
            true
        }
    });
}

/// `--ppl-protocol`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Protocol {
    /// Windows side by side in the text, fed in chunks of 64; every token after the burn-in is scored.
    #[default]
    Streaming,
    /// Windows that overlap by half; the overlap fills the cache, then the rest is fed in one pass and scored.
    TwoPhase,
}

impl Protocol {
    /// As on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Protocol::Streaming => "streaming",
            Protocol::TwoPhase => "two-phase",
        }
    }
}

impl std::str::FromStr for Protocol {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self> {
        match name {
            "streaming" => Ok(Protocol::Streaming),
            "two-phase" => Ok(Protocol::TwoPhase),
            _ => Err(Error::usage("there are streaming and two-phase")),
        }
    }
}

/// `--needle-kind`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum NeedleKind {
    /// A number of four digits.
    #[default]
    Number,
    /// A password of two words.
    Words,
    /// One of four numbers, each told of another city: the right one must be found among its like.
    MultiKey,
}

impl NeedleKind {
    /// As on the command line.
    pub fn name(self) -> &'static str {
        match self {
            NeedleKind::Number => "number",
            NeedleKind::Words => "words",
            NeedleKind::MultiKey => "multi-key",
        }
    }
}

impl std::str::FromStr for NeedleKind {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self> {
        [NeedleKind::Number, NeedleKind::Words, NeedleKind::MultiKey]
            .into_iter()
            .find(|kind| kind.name() == name)
            .ok_or_else(|| Error::usage("there are number, words and multi-key"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schema::concerns::{RECORDED_IF_ASKED_FOR, blocks_of};

    #[test]
    fn a_default_burn_in_reaches_the_first_token_predicted_from_codes_however_short_the_window() {
        let burn_in = |settings: &Settings, window, quant: &str| settings.burn_in(window, &quant.parse().unwrap());
        let default = Settings::default();
        assert_eq!((default.window(2048), default.window(1 << 17)), (2048, 4096));
        assert_eq!(burn_in(&default, 4096, "none"), 256);
        assert_eq!(burn_in(&default, 4096, "int4-hqq"), 256);
        assert_eq!(burn_in(&default, 4096, "int4-hqq,residual=191"), 256);
        // The token that follows the first block reads it, and predicts the one after itself.
        assert_eq!(burn_in(&default, 4096, "int4-hqq,residual=192"), 192 + 64 + 1);
        assert_eq!(burn_in(&default, 4096, "int4-hqq,residual=512"), 512 + 64 + 1);
        assert_eq!(burn_in(&default, 300, "int4-hqq,residual=256"), 256 + 64 + 1);
        assert_eq!(burn_in(&Settings { ppl_burn_in: Some(100), ..Settings::default() }, 128, "int4-hqq"), 100);
        assert_eq!(burn_in(&Settings { ppl_protocol: Protocol::TwoPhase, ..default }, 512, "int4-hqq"), 257);
    }

    #[test]
    fn a_chunk_is_a_sixteenth_of_what_the_layers_hold_within_its_bounds() {
        let chunk = |length, batch, layers| Settings::default().prefill_chunk(length, batch, layers);
        assert_eq!((chunk(1024, 1, 4), chunk(1600, 2, 28)), (256, 1600), "1600·28/16 is more than the prompt");
        assert_eq!((chunk(16384, 1, 32), chunk(16384, 2, 32)), (4096, 2048));
        assert_eq!((chunk(100, 1, 2), chunk(40, 1, 2)), (64, 40));
        assert_eq!(Settings { prefill_chunk: Some(7), ..Settings::default() }.prefill_chunk(1024, 1, 4), 7);
    }

    #[test]
    fn a_default_context_is_1024_tokens_or_what_the_output_leaves_of_the_model() {
        let lengths = |max_positions: usize, decode_tokens: usize| {
            let text = format!(
                r#"{{"model_type": "llama", "hidden_size": 64, "num_hidden_layers": 1, "num_attention_heads": 1, "vocab_size": 8,
                    "intermediate_size": 64, "max_position_embeddings": {max_positions}}}"#
            );
            let (config, _) = crate::model::families::read_config(std::path::Path::new("c.json"), &text).unwrap();
            Settings { decode_tokens, ..Settings::default() }.for_model(&config).context_lengths
        };
        assert_eq!((lengths(8192, 128), lengths(1152, 128), lengths(600, 128)), (vec![1024], vec![1024], vec![472]));
    }

    #[test]
    fn output_tokens_have_one_name_in_configuration_files_and_their_old_one_is_read() {
        let read = |text: &str| toml::from_str::<Settings>(text).unwrap().decode_tokens;
        assert_eq!((read("output-tokens = 7"), read("decode-tokens = 8")), (7, 8));
        assert!(toml::from_str::<Settings>("output-tokens = 7\ndecode-tokens = 8").is_err());
    }

    #[test]
    fn what_is_not_asked_for_leaves_the_hash_of_older_files_as_it_was() {
        let keys = |settings: &Settings| serde_json::to_value(settings).unwrap().as_object().unwrap().clone();
        let asked = keys(&Settings { trace: true, follow_up_tokens: Some(64), ..Settings::default() });
        assert_eq!(asked["follow-up-tokens"], 64);
        let usual = keys(&Settings::default());
        let unsaid: Vec<&String> = asked.keys().filter(|key| !usual.contains_key(*key)).collect();
        assert_eq!(unsaid, RECORDED_IF_ASKED_FOR, "schema::concerns knows them");
    }

    #[test]
    fn only_settings_that_concern_a_block_tell_its_data_apart() {
        let of = |settings: &Settings| settings.concerning("mmlu");
        let default = Settings::default();
        let other = Settings { decode_tokens: 7, ppl_tokens: 7, context_lengths: vec![7], ..default.clone() };
        assert_eq!(of(&default), of(&other));
        for other in [
            Settings { mmlu_shots: 7, ..default.clone() },
            Settings { data: Some("elsewhere".into()), ..default.clone() },
            Settings { seed: 7, ..default.clone() },
        ] {
            assert_ne!(of(&default), of(&other), "{other:?}");
        }
    }

    #[test]
    fn every_setting_is_known_to_concern_some_blocks_or_none() {
        let all =
            serde_json::to_value(Settings { trace: true, follow_up_tokens: Some(1), ..Settings::default() }).unwrap();
        let unknown: Vec<&String> = all.as_object().unwrap().keys().filter(|flag| blocks_of(flag).is_none()).collect();
        assert!(unknown.is_empty(), "name them in schema::concerns: {unknown:?}");
    }

    #[test]
    fn protocols_and_kinds_are_known_by_name() {
        assert_eq!("two-phase".parse::<Protocol>().unwrap(), Protocol::TwoPhase);
        assert!("three-phase".parse::<Protocol>().unwrap_err().to_string().contains("streaming"));
        assert_eq!("multi-key".parse::<NeedleKind>().unwrap(), NeedleKind::MultiKey);
        assert!("haystack".parse::<NeedleKind>().unwrap_err().to_string().contains("words"));
    }
}
