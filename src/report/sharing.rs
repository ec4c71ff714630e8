//! Which file's quality blocks speak for a cache.
//!
//! Cost and each benchmark may be measured at different times, into files of their own, and again by `kvprof patch`. Quality depends on
//! the model as it was loaded, the backend and the cache, not on how much a run generated: of several blocks for the same three, the
//! one measured last counts, for all their runs. A question set that was stopped half-way does not displace a whole one.

use serde_json::Value;

use super::study::Run;
use crate::schema::{Benchmarks, RunResult};

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

/// A quality block as it is handed from one file to another.
struct Shared {
    name: &'static str,
    present: fn(&Benchmarks) -> bool,
    whole: fn(&Benchmarks) -> bool,
    copy: fn(&Benchmarks, &mut Benchmarks),
    source: fn(&mut Sources) -> &mut Option<usize>,
}

const SHARED: [Shared; 5] = [
    Shared {
        name: "ppl",
        present: |b| b.perplexity.is_some() || b.perplexity_quantized.is_some(),
        whole: |_| true,
        copy: |from, to| {
            to.perplexity.clone_from(&from.perplexity);
            to.perplexity_quantized.clone_from(&from.perplexity_quantized);
        },
        source: |s| &mut s.ppl,
    },
    Shared {
        name: "kld",
        present: |b| b.kld.is_some(),
        whole: |_| true,
        copy: |from, to| to.kld.clone_from(&from.kld),
        source: |s| &mut s.kld,
    },
    Shared {
        name: "needle",
        present: |b| b.needle_in_haystack.is_some(),
        whole: |_| true,
        copy: |from, to| {
            to.needle_in_haystack.clone_from(&from.needle_in_haystack);
            to.needle_in_haystack_trials.clone_from(&from.needle_in_haystack_trials);
        },
        source: |s| &mut s.needle,
    },
    Shared {
        name: "mmlu",
        present: |b| b.mmlu.is_some(),
        whole: |b| b.mmlu.as_ref().is_some_and(|a| a.stopped_before().is_none()),
        copy: |from, to| to.mmlu.clone_from(&from.mmlu),
        source: |s| &mut s.mmlu,
    },
    Shared {
        name: "math",
        present: |b| b.math.is_some(),
        whole: |b| b.math.as_ref().is_some_and(|a| a.stopped_before().is_none()),
        copy: |from, to| to.math.clone_from(&from.math),
        source: |s| &mut s.math,
    },
];

/// Gives every run the newest quality blocks of its model, backend and cache; how many others they replace. `runs` are sorted by
/// these three first.
pub(super) fn share_blocks(runs: &mut [Run]) -> usize {
    let alike =
        |a: &Run, b: &Run| (&a.model, &a.result.attn_backend, &a.cache) == (&b.model, &b.result.attn_backend, &b.cache);
    let (mut start, mut replaced) = (0, 0);
    for same in runs.chunk_by_mut(alike) {
        for Shared { name, present, whole, copy, source } in &SHARED {
            let measured = (0..same.len()).filter(|&at| present(&same[at].result.benchmarks));
            // The file's name decides last, so that the choice never depends on the folder's order.
            let newest = measured.max_by_key(|&at| {
                let Run { result, file, .. } = &same[at];
                (whole(&result.benchmarks), measured_at(result, name).to_string(), file)
            });
            let Some(newest) = newest else { continue };
            let block = same[newest].result.benchmarks.clone();
            for (at, run) in same.iter_mut().enumerate() {
                if at != newest {
                    replaced += usize::from(present(&run.result.benchmarks));
                    copy(&block, &mut run.result.benchmarks);
                }
                *source(&mut run.sources) = Some(start + newest);
            }
        }
        start += same.len();
    }
    replaced
}

/// When the block that `completed` calls `block` was measured: when its file was last patched with it, else when the file was begun.
/// A patch that failed left the block as it was, and not complete.
pub(super) fn measured_at<'a>(result: &'a RunResult, block: &str) -> &'a str {
    let complete = result.completed.iter().any(|name| name == block);
    let patch = block.split_once('@').map_or(block, |(kind, _)| kind);
    let patches = result.extra.get("patched").and_then(Value::as_array).into_iter().flatten();
    let of_block = |note: &&Value| note["blocks"].as_array().is_some_and(|blocks| blocks.iter().any(|b| b == patch));
    let last = patches.filter(of_block).filter_map(|note| note["time"].as_str()).max();
    last.filter(|_| complete).unwrap_or(&result.timestamp)
}
