//! Quality beyond perplexity and needle: distribution divergence and question sets.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::{DataSource, Flags, Paired};

/// How far the quantized cache's next-token distributions lie from the unquantized cache's, over the scored tokens of the
/// perplexity pass. KL(reference ‖ quantized), nats.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Kld {
    /// Tokens scored.
    pub tokens: usize,
    /// Mean divergence.
    pub mean: f64,
    /// Standard error of `mean`, from the means of `blocks` of the text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub standard_error: Option<f64>,
    /// Blocks of equal length that the scored tokens were cut into for standard errors and intervals, since neighbouring tokens are alike.
    /// Absent in older files, which took tokens as independent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub blocks: Option<usize>,
    /// Median.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub median: Option<f64>,
    /// 90th percentile.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub p90: Option<f64>,
    /// 99th percentile.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub p99: Option<f64>,
    /// 99.9th percentile.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub p999: Option<f64>,
    /// Largest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max: Option<f64>,
    /// Root mean square change of the true token's probability, 0…1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rms_delta_p: Option<f64>,
    /// Share of positions at which both caches rank the same token first, 0…1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub top1_agreement: Option<f64>,
    /// 95 % intervals.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub intervals: Option<KldIntervals>,
    /// The same by position in the window, in order of position.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub by_position: Vec<KldBin>,
    /// Mean divergence of each section of the text, nats, in order: the scored tokens cut into sections of equal length (to a token), as
    /// many as there are tokens but at most 128. Runs of the same tokens are paired by them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub by_section: Vec<f64>,
    /// `streaming` or `two-phase`, as for the perplexity of the same pass.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub protocol: Option<String>,
    /// Window, tokens.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub window: Option<usize>,
    /// Tokens of each window that are not scored.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub burn_in: Option<usize>,
    /// Share of the quantized cache's key reads that came from codes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub quantized_read_fraction: Option<f64>,
    /// Version of the benchmark's meaning.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<u32>,
    /// The text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub data: Option<DataSource>,
    /// Wall time, seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub elapsed_s: Option<f64>,
    /// Settings that it was measured with, by the names of their flags, where `kvprof patch` did; without them, those of the file's
    /// `config`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub settings: Option<Flags>,
    /// Fields not known here.
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}

/// 95 % intervals of a [`Kld`], from blocks of the text: Student's for means, by order statistics for percentiles, Wilson's for the share.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct KldIntervals {
    /// Of `mean`.
    pub mean: (f64, f64),
    /// Of `median`.
    pub median: (f64, f64),
    /// Of `p90`.
    pub p90: (f64, f64),
    /// Of `p99`.
    pub p99: (f64, f64),
    /// Of `rms_delta_p`.
    pub rms_delta_p: (f64, f64),
    /// Of `top1_agreement`.
    pub top1_agreement: (f64, f64),
}

/// Divergence over the positions `from..to` of the window.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct KldBin {
    /// First position.
    pub from: usize,
    /// Past the last position.
    pub to: usize,
    /// Tokens scored in the bin.
    pub tokens: usize,
    /// Mean divergence, nats.
    pub mean: f64,
    /// Standard error of `mean`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub standard_error: Option<f64>,
    /// Median, nats.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub median: Option<f64>,
    /// 90th percentile, nats; older files do not have it, nor `p999` and `max`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub p90: Option<f64>,
    /// 99th percentile, nats.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub p99: Option<f64>,
    /// 99.9th percentile, nats: of fewer than a thousand tokens, it lies between the two largest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub p999: Option<f64>,
    /// Largest, nats.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max: Option<f64>,
    /// Root mean square change of the true token's probability, 0…1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rms_delta_p: Option<f64>,
    /// Share of positions at which both caches rank the same token first, 0…1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub top1_agreement: Option<f64>,
}

/// Score of a question set (MMLU, MATH).
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Accuracy {
    /// Questions asked.
    pub questions: usize,
    /// Questions that the run set out to ask: more than `questions` where it was stopped.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub planned: Option<usize>,
    /// Answered correctly.
    pub correct: usize,
    /// `correct / questions`.
    pub accuracy: f64,
    /// Its interval, and its pairs with the unquantized cache's answers.
    #[serde(flatten)]
    pub paired: Paired,
    /// Answers that could not be read (counted as wrong).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unparsed: Option<usize>,
    /// Correct answers of the unquantized cache to the same questions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reference_correct: Option<usize>,
    /// The reference's answers that could not be read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reference_unparsed: Option<usize>,
    /// Generated texts that repeat themselves or are no words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub corrupted: Option<usize>,
    /// The reference's corrupted texts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reference_corrupted: Option<usize>,
    /// Texts that ended at `max_new_tokens`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub truncated: Option<usize>,
    /// Texts that differ from the reference's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub diverged: Option<usize>,
    /// Median over the diverged texts of the first token that differs, counted from 0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub median_divergence: Option<f64>,
    /// By subject.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub by_subject: BTreeMap<String, SubjectScore>,
    /// Seed that the questions were drawn with; absent where all there are were asked, and in older files.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seed: Option<u64>,
    /// Examples shown before each question.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shots: Option<usize>,
    /// Longest generated answer, tokens.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_new_tokens: Option<usize>,
    /// How questions were put: `chat` (the model's template), `plain`, `few-shot`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prompt: Option<String>,
    /// Hash of the questions asked and how; items are resumed only where it is the same.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub plan: Option<String>,
    /// Each question's outcome, in the order asked.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub items: Vec<QuestionItem>,
    /// How many of the questions each machine answered, in the order asked: several where a stopped run went on on another one. Older
    /// files do not say.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub answered_on: Vec<AnsweredOn>,
    /// Share of key reads that came from codes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub quantized_read_fraction: Option<f64>,
    /// Version of the benchmark's meaning.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<u32>,
    /// The questions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub data: Option<DataSource>,
    /// Wall time, seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub elapsed_s: Option<f64>,
    /// Settings that it was measured with, by the names of their flags, where `kvprof patch` did; without them, those of the file's
    /// `config`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub settings: Option<Flags>,
    /// Fields not known here.
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}

impl Accuracy {
    /// How many questions were to be asked, where the run was stopped before the last.
    pub fn stopped_before(&self) -> Option<usize> {
        self.planned.filter(|planned| self.questions < *planned)
    }
}

/// Questions that one machine answered.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct AnsweredOn {
    /// Name of its card, else of its processor; `null` where that is not known.
    pub machine: Option<String>,
    /// How many.
    pub questions: usize,
}

/// Score of one subject of a question set.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct SubjectScore {
    /// Questions asked.
    pub questions: usize,
    /// Answered correctly.
    pub correct: usize,
    /// Answered correctly by the unquantized cache.
    pub reference_correct: usize,
}

/// One question, answered through the cache under test and through the unquantized one.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct QuestionItem {
    /// Name in its data set: `subject/row`, or what the data set calls it.
    pub id: String,
    /// Subject.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subject: Option<String>,
    /// The right answer.
    pub expected: String,
    /// Tokens of the prompt.
    pub prompt_tokens: usize,
    /// Examples in the prompt, where they are fewer than `shots` because more would not fit the model's context.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shots: Option<usize>,
    /// Through the cache under test.
    pub outcome: Outcome,
    /// Through the unquantized cache; absent when that is the cache under test.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reference: Option<Outcome>,
    /// First generated token that differs from the reference's, counted from 0; absent where none does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub diverges_at: Option<usize>,
}

/// What one cache made of a question.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Outcome {
    /// The answer read from it; `null` when there is none.
    pub answer: Option<String>,
    /// Whether it is right.
    pub correct: bool,
    /// Log-probability of each choice, nats.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub log_probabilities: Vec<f64>,
    /// What was generated.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub text: Option<String>,
    /// How many tokens that is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub generated_tokens: Option<usize>,
    /// Those tokens, while the run lasts; a file has the text.
    #[serde(skip)]
    pub tokens: Vec<u32>,
    /// Whether it ended at the token limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub truncated: Option<bool>,
    /// Whether it is text at all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub health: Option<TextHealth>,
    /// (query token, key token) pairs whose key came from a code.
    pub key_reads_from_codes: u64,
    /// All such pairs.
    pub key_reads: u64,
}

/// Signs that a text is broken.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct TextHealth {
    /// Share of phrases that occurred before in the text, 0…1.
    pub repetition: f64,
    /// Share of words that no language has, 0…1.
    pub non_words: f64,
    /// Whether either is beyond what working text reaches.
    pub corrupted: bool,
}
