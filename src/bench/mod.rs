//! Layer 5: what is measured. Each benchmark is a file or a folder of its own; adding one is described in CONTRIBUTING.md.

pub mod chat;
pub mod contexts;
pub mod corpus;
pub mod data;
pub mod divergence;
pub mod feed;
pub mod limits;
pub mod math;
pub mod mmlu;
pub mod needle;
pub mod pass;
pub mod perplexity;
pub mod prediction;
pub mod profile;
pub mod questions;
pub mod readings;
pub mod settings;
pub mod text;
pub mod windows;

use std::collections::HashMap;

use crate::base::progress::Progress;
use crate::cache::{self, CacheShape, KvCache};
use crate::measure::energy::EnergyMeter;
use crate::model::Subject;
use crate::model::attention::Attention;
use crate::quant::QuantSpec;
use crate::schema;
use crate::{Error, Result};
use data::Files;

pub use readings::Readings;
pub use settings::Settings;

/// What a benchmark may use.
pub struct Context<'a> {
    /// The model under test.
    pub subject: &'a Subject,
    /// The cache under test.
    pub spec: &'a QuantSpec,
    /// How attention reads it.
    pub attention: &'a dyn Attention,
    /// Settings of all benchmarks.
    pub settings: &'a Settings,
    /// Where progress goes.
    pub progress: &'a dyn Progress,
    /// Copy bandwidth of the device measured in this run, GB/s.
    pub copy_gb_s: Option<f64>,
    /// Name of this machine, where it has one.
    pub machine: Option<&'a str>,
    /// What measures energy, or why nothing does.
    pub energy: &'a EnergyMeter,
    /// Blocks that an earlier, stopped run of the same spec left: question sets go on from their items.
    pub saved: &'a schema::Benchmarks,
    /// What was scored, kept between the runs of one model so that it is measured once.
    pub references: &'a mut References,
    /// What benchmarks have read of texts and questions, kept likewise.
    pub readings: &'a mut Readings,
}

impl Context<'_> {
    /// An empty cache for `batch` sequences of up to `capacity` tokens, fed at most `max_chunk` at a time, and what the model needs to use
    /// all of it.
    ///
    /// # Errors
    /// As [`cache::new`], and as [`Decoder::prepare`](crate::model::Decoder::prepare).
    pub fn new_cache(
        &self,
        spec: &QuantSpec,
        batch: usize,
        capacity: usize,
        max_chunk: usize,
    ) -> Result<Box<dyn KvCache>> {
        self.subject.decoder.prepare(capacity)?;
        cache::new(spec.clone(), self.cache_shape(batch, capacity, max_chunk))
    }

    /// The shape such a cache has.
    pub fn cache_shape(&self, batch: usize, capacity: usize, max_chunk: usize) -> CacheShape {
        self.subject.config().cache_shape(batch, capacity, max_chunk, self.subject.dtype, &self.subject.device)
    }
}

/// Scores, those of the unquantized cache above all, by a key that names everything they depend on.
#[derive(Default)]
pub struct References {
    /// Whole blocks, of every cache.
    pub blocks: HashMap<String, Block>,
    /// Likelihoods of each scored token.
    pub scores: HashMap<String, pass::Scores>,
    /// Answers to questions.
    pub outcomes: HashMap<String, schema::Outcome>,
    /// Needle trials.
    pub needle: HashMap<String, Vec<schema::NeedleTrial>>,
}

/// What a benchmark adds to the result file.
#[derive(Debug, Clone)]
pub enum Block {
    /// One context length × batch size of `profile`.
    Profile(Box<schema::Measurement>),
    /// A score.
    Score {
        /// Its benchmark.
        name: &'static str,
        /// What the file has of it.
        blocks: Box<schema::Benchmarks>,
        /// Whether it is all of it: of a question set there is after each item what there is so far.
        complete: bool,
    },
}

/// What a score is asked of.
pub struct Request<'a> {
    /// The model under test.
    pub subject: &'a Subject,
    /// Settings of all benchmarks.
    pub settings: &'a Settings,
    /// The cache under test.
    pub quant: &'a QuantSpec,
}

/// A benchmark.
pub trait Benchmark {
    /// Its name on the command line and in result files.
    fn name(&self) -> &'static str;

    /// Changes when the meaning of its numbers changes.
    fn version(&self) -> u32;

    /// Whether its score says something about quality, which random weights cannot have.
    fn is_quality(&self) -> bool {
        true
    }

    /// Reads into `readings` what it will score, and so refuses what cannot be scored before anything is measured. Returns what whoever
    /// asked for the score is to be warned of.
    ///
    /// # Errors
    /// Says what to change.
    fn prepare(&self, request: &Request<'_>, readings: &mut Readings) -> Result<Option<String>>;

    /// The files that `--data` and the names of texts supply to it: what it measures depends on what they hold. Those that are missing or
    /// of the hub are not among them.
    fn local_files(&self, settings: &Settings, model: &str) -> Vec<Files>;

    /// Runs it, on what [`prepare`](Self::prepare) has read. `keep` receives each block as soon as it is complete, so that it can be saved.
    fn run(&self, context: &mut Context<'_>, keep: &mut dyn FnMut(Block) -> Result<()>) -> Result<()>;
}

/// The scores of `result` that are of another version of their benchmark than this one: its name, their version, and this one's.
pub fn outdated(result: &schema::RunResult) -> Vec<(&'static str, u32, u32)> {
    let current = all();
    let other = |(name, version): (&'static str, u32)| {
        let now = current.iter().find(|b| b.name() == name)?.version();
        (now != version).then_some((name, version, now))
    };
    schema::validate::versions(result).into_iter().filter_map(other).collect()
}

/// Names all that the score of a benchmark depends on beside the model: runs that differ in nothing of it (but in how much they generate, say)
/// have one score.
pub fn score_key(benchmark: &str, backend: &str, quant: &QuantSpec, settings: &Settings) -> String {
    format!("{benchmark} {backend} {} {}", quant.name, settings.concerning(benchmark))
}

/// Runs `benchmark`, unless an earlier run of the model has its score: then `keep` receives that.
///
/// # Errors
/// As [`Benchmark::run`].
pub fn score(
    benchmark: &dyn Benchmark,
    context: &mut Context<'_>,
    keep: &mut dyn FnMut(Block) -> Result<()>,
) -> Result<()> {
    let key = score_key(benchmark.name(), context.attention.name(), context.spec, context.settings);
    if let Some(block) = context.references.blocks.get(&key) {
        tracing::info!("{} {}: as an earlier run measured it", benchmark.name(), context.spec.name);
        return keep(block.clone());
    }
    let mut whole = None;
    benchmark.run(context, &mut |block| {
        // Of a question set there is a block after each item: a copy of all of them would be one of each item again and again.
        if !matches!(block, Block::Score { complete: false, .. }) {
            whole = Some(block.clone());
        }
        keep(block)
    })?;
    context.references.blocks.extend(whole.map(|block| (key, block)));
    Ok(())
}

/// All benchmarks that `--benchmarks` can name, in the order in which they run; `profile` runs by itself. `kld` comes
/// before `ppl`, which then has its scores already.
pub fn all() -> Vec<Box<dyn Benchmark>> {
    vec![
        Box::new(divergence::DivergenceBenchmark),
        Box::new(perplexity::PerplexityBenchmark),
        Box::new(needle::NeedleBenchmark),
        Box::new(mmlu::MmluBenchmark),
        Box::new(math::MathBenchmark),
    ]
}

/// What `--benchmarks` means: `all` is every benchmark and `none` is none; other names stay as they are.
///
/// # Errors
/// When `none` does not stand alone.
pub fn expand(names: &[String]) -> Result<Vec<String>> {
    if names.len() > 1 && names.iter().any(|name| name == "none") {
        return Err(Error::usage("--benchmarks none stands alone: it leaves out all of them"));
    }
    let one = |name: &String| match name.as_str() {
        "all" => all().iter().map(|b| b.name().to_string()).collect(),
        "none" => Vec::new(),
        _ => vec![name.clone()],
    };
    Ok(names.iter().flat_map(one).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_benchmark_has_its_blocks_in_a_file() {
        let mut names: Vec<_> = all().iter().map(|benchmark| benchmark.name()).collect();
        let mut known = schema::SCORES;
        names.sort_unstable();
        known.sort_unstable();
        assert_eq!(names, known);
    }

    #[test]
    fn a_score_depends_on_its_cache_backend_and_settings_and_on_no_others() {
        let key = |quant: &str, backend: &str, settings: &Settings| {
            score_key("needle", backend, &quant.parse().unwrap(), settings)
        };
        let default = Settings::default();
        let own = key("int4-hqq", "fused", &default);
        let others = Settings { decode_tokens: 7, measure_runs: 7, ppl_tokens: 7, batch_size: 7, ..default.clone() };
        assert_eq!(key("int4-hqq", "fused", &others), own);
        for other in [
            key("int4-hqq,residual=64", "fused", &default),
            key("int4-hqq", "eager", &default),
            key("int4-hqq", "fused", &Settings { context_lengths: vec![7], ..default.clone() }),
            score_key("mmlu", "fused", &"int4-hqq".parse().unwrap(), &default),
        ] {
            assert_ne!(other, own);
        }
    }
}
