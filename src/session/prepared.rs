//! A run of a plan, checked as far as its names and settings tell.

use super::plan::RunSpec;
use crate::bench::{self, Benchmark, text};
use crate::model::attention::{self, Attention};
use crate::schema::concerns::concerns;
use crate::{Error, Result};

/// A run with its names resolved.
pub struct Prepared {
    /// What was asked for.
    pub spec: RunSpec,
    /// Its attention.
    pub(super) attention: Box<dyn Attention>,
    /// Its benchmarks, in the order in which they run.
    pub(super) benchmarks: Vec<Box<dyn Benchmark>>,
}

impl Prepared {
    /// Resolves the names of `spec`.
    ///
    /// # Errors
    /// When it names a backend or a benchmark that there is none of, or settings that cannot measure anything.
    pub fn new(spec: RunSpec) -> Result<Self> {
        spec.settings.check(spec.profile)?;
        if !spec.profile && spec.benchmarks.is_empty() {
            return Err(Error::usage("there is nothing to measure: the profile is left out and no benchmark is named"));
        }
        let named = |names: &[&str]| spec.benchmarks.iter().any(|name| names.contains(&name.as_str()));
        let haystack = spec.settings.needle_haystack.as_str();
        let texts = [
            concerns("ppl-data", &spec.benchmarks)
                .then(|| (text::default_name(&spec.settings, &spec.model.model), "--ppl-data")),
            (named(&["needle"]) && haystack != "filler").then_some((haystack, "--needle-haystack")),
        ];
        for (name, flag) in texts.iter().flatten() {
            text::check_name(name, flag)?;
        }
        let reads_data = named(&["mmlu", "math"]) || texts.iter().flatten().any(|(name, _)| text::is_data_set(name));
        if let Some(data) = spec.settings.data.as_deref().filter(|path| reads_data && !path.exists()) {
            return Err(Error::usage(format!("--data {}: no such file or folder", data.display())));
        }
        let (attention, benchmarks) = (attention::new(&spec.attn_backend)?, benchmarks(&spec.benchmarks)?);
        Ok(Prepared { spec, attention, benchmarks })
    }
}

/// The benchmarks of the given names, each once, in their fixed order.
fn benchmarks(names: &[String]) -> Result<Vec<Box<dyn Benchmark>>> {
    let all = bench::all();
    if let Some(unknown) = names.iter().find(|n| !all.iter().any(|b| b.name() == n.as_str())) {
        let known: Vec<_> = all.iter().map(|b| b.name()).collect();
        return Err(Error::usage(format!("unknown benchmark {unknown:?}; there are: {}", known.join(" "))));
    }
    Ok(all.into_iter().filter(|b| names.iter().any(|n| n == b.name())).collect())
}
