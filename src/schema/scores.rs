//! Quality blocks by what they have in common: whoever goes through all of them goes through these.

use super::{Accuracy, Benchmarks, DataSource, Flags};

/// The benchmarks that blocks are of, as `completed` names them.
pub const SCORES: [&str; 5] = ["ppl", "kld", "needle", "mmlu", "math"];

/// What every quality block records.
#[derive(Debug, Clone, Copy)]
pub struct Common<'a> {
    /// Its benchmark, one of [`SCORES`].
    pub name: &'static str,
    /// Its field in the file.
    pub field: &'static str,
    /// Version of the benchmark's meaning.
    pub version: Option<u32>,
    /// What was read.
    pub data: Option<&'a DataSource>,
    /// Settings that a patch measured it with.
    pub settings: Option<&'a Flags>,
}

impl Benchmarks {
    /// The blocks that are there, in the order of their benchmarks.
    pub fn each(&self) -> impl Iterator<Item = Common<'_>> {
        macro_rules! block {
            ($name:literal, $field:ident) => {
                self.$field.as_ref().map(|block| Common {
                    name: $name,
                    field: stringify!($field),
                    version: block.version,
                    data: block.data.as_ref(),
                    settings: block.settings.as_ref(),
                })
            };
        }
        let blocks = [
            block!("ppl", perplexity),
            block!("ppl", perplexity_quantized),
            block!("kld", kld),
            block!("needle", needle_in_haystack),
            block!("mmlu", mmlu),
            block!("math", math),
        ];
        blocks.into_iter().flatten()
    }

    /// The scores that are made of questions.
    pub fn question_sets(&self) -> impl Iterator<Item = (&'static str, &Accuracy)> {
        let sets = [("mmlu", &self.mmlu), ("math", &self.math)];
        sets.into_iter().filter_map(|(name, score)| Some((name, score.as_ref()?)))
    }

    /// Whether a block of the benchmark called `name` is there.
    pub fn has(&self, name: &str) -> bool {
        self.each().any(|block| block.name == name)
    }

    /// Makes the blocks of the benchmark called `name` those of `other`, which may have none.
    pub fn copy_from(&mut self, name: &str, other: &Benchmarks) {
        match name {
            "ppl" => {
                self.perplexity.clone_from(&other.perplexity);
                self.perplexity_quantized.clone_from(&other.perplexity_quantized);
            }
            "kld" => self.kld.clone_from(&other.kld),
            "needle" => {
                self.needle_in_haystack.clone_from(&other.needle_in_haystack);
                self.needle_in_haystack_trials.clone_from(&other.needle_in_haystack_trials);
            }
            "mmlu" => self.mmlu.clone_from(&other.mmlu),
            "math" => self.math.clone_from(&other.math),
            _ => {}
        }
    }

    /// Notes in every block with which settings it was measured.
    pub fn set_settings(&mut self, settings: Option<&Flags>) {
        macro_rules! set {
            ($($field:ident)*) => {
                $(if let Some(block) = &mut self.$field {
                    block.settings = settings.cloned();
                })*
            };
        }
        set!(perplexity perplexity_quantized kld needle_in_haystack mmlu math);
    }
}
