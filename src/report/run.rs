//! A run as reports see it.

use std::collections::BTreeSet;
use std::path::PathBuf;

use super::quality::Quality;
use super::setting::Setting;
use crate::schema::RunResult;

/// A result file, or the part of one that was measured alike, and what follows from it.
#[derive(Debug, Clone)]
pub struct Run {
    /// The file.
    pub file: PathBuf,
    /// Its content; its quality blocks are the newest of the same model, backend and cache, whichever file they were measured into.
    pub result: RunResult,
    /// Which files its quality blocks are from.
    pub sources: Sources,
    /// The model's name for people: without its owner and its version suffix, as long as that is unambiguous.
    pub model: String,
    /// The cache's name for people: `int4-hqq-kivi`, `FP16`; of a file of 2.0 `INT4-KIVI`.
    pub cache: String,
    /// What its rows were measured with: all of them with the same. Nothing for a run without rows.
    pub setting: Setting,
    /// The parts of it that runs of the same model differ in.
    pub told: Setting,
    /// What its scores were measured on, in words, where newer scores of the same cache were measured on something else.
    pub scored: BTreeSet<String>,
    /// Quality, with the reference it is held against.
    pub quality: Quality,
}

impl Run {
    /// Whether the cache is quantized.
    pub fn quantized(&self) -> bool {
        self.result.kv_quant.enabled
    }

    /// Key of the runs that may be compared as caches: the same model, loaded alike, on the same backend, measured with the same settings.
    pub fn subject(&self) -> (&str, &str, &Setting, &BTreeSet<String>) {
        (&self.model, &self.result.attn_backend, &self.told, &self.scored)
    }

    /// Key of the runs that may be compared by their scores, which do not depend on what costs were measured with.
    pub fn scored_as(&self) -> (&str, &str, &BTreeSet<String>) {
        (&self.model, &self.result.attn_backend, &self.scored)
    }
}

/// The run of [`Study::runs`](super::study::Study::runs) that each quality block was read from.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Sources {
    /// Perplexity, its reference included.
    pub ppl: Option<usize>,
    /// Divergence.
    pub kld: Option<usize>,
    /// Needle, its trials included.
    pub needle: Option<usize>,
    /// MMLU.
    pub mmlu: Option<usize>,
    /// MATH.
    pub math: Option<usize>,
}
