//! Which file's quality blocks speak for a cache.
//!
//! Cost and each benchmark may be measured at different times, into files of their own, and again by `kvprof patch`. Quality depends on
//! the model as it was loaded, the backend and the cache, not on how much a run generated: of several blocks for the same three, the
//! one measured last counts, for all their runs. A question set that was stopped half-way does not displace a whole one, and a score
//! of something else (another text, other questions) replaces none: both are shown.

use std::collections::BTreeMap;

use super::run::{Run, Sources};
use super::scoring;
use crate::schema::Benchmarks;

/// A quality block as it is handed from one file to another.
struct Shared {
    name: &'static str,
    present: fn(&Benchmarks) -> bool,
    whole: fn(&Benchmarks) -> bool,
    scoring: scoring::Of,
    copy: fn(&Benchmarks, &mut Benchmarks),
    source: fn(&mut Sources) -> &mut Option<usize>,
}

const SHARED: [Shared; 5] = [
    Shared {
        name: "ppl",
        present: |b| b.perplexity.is_some() || b.perplexity_quantized.is_some(),
        whole: |_| true,
        scoring: scoring::ppl,
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
        scoring: scoring::kld,
        copy: |from, to| to.kld.clone_from(&from.kld),
        source: |s| &mut s.kld,
    },
    Shared {
        name: "needle",
        present: |b| b.needle_in_haystack.is_some(),
        whole: |_| true,
        scoring: scoring::needle,
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
        scoring: scoring::mmlu,
        copy: |from, to| to.mmlu.clone_from(&from.mmlu),
        source: |s| &mut s.mmlu,
    },
    Shared {
        name: "math",
        present: |b| b.math.is_some(),
        whole: |b| b.math.as_ref().is_some_and(|a| a.stopped_before().is_none()),
        scoring: scoring::math,
        copy: |from, to| to.math.clone_from(&from.math),
        source: |s| &mut s.math,
    },
];

/// Moves scores that were measured on something else than the newest of their cache (another text, other windows or questions) into runs of
/// their own, without rows: they are no repetition, which the newest would replace.
pub(super) fn set_apart(runs: &mut Vec<Run>) {
    let mut caches: BTreeMap<_, Vec<usize>> = BTreeMap::new();
    for (at, run) in runs.iter().enumerate() {
        let cache = (run.model.clone(), run.result.attn_backend.clone(), run.cache.clone());
        caches.entry(cache).or_default().push(at);
    }
    let mut apart: BTreeMap<usize, Run> = BTreeMap::new();
    for same in caches.values() {
        for shared in &SHARED {
            let newest = newest(shared, same.iter().map(|&at| (at, &runs[at])));
            let Some(aim) = newest.and_then(|at| (shared.scoring)(&runs[at].result)) else { continue };
            for &at in same {
                let scoring = (shared.scoring)(&runs[at].result);
                let Some(words) = scoring.and_then(|own| own.unlike(&aim)) else { continue };
                let own = &mut runs[at];
                let other = apart.entry(at).or_insert_with(|| without_content(own));
                (shared.copy)(&own.result.benchmarks, &mut other.result.benchmarks);
                (shared.copy)(&Benchmarks::default(), &mut own.result.benchmarks);
                other.scored.insert(words);
            }
        }
    }
    for (at, run) in apart {
        let empty = |run: &Run| !SHARED.iter().any(|shared| (shared.present)(&run.result.benchmarks));
        if runs[at].result.measurements.is_empty() && empty(&runs[at]) { runs[at] = run } else { runs.push(run) }
    }
}

/// `run` without rows and scores.
fn without_content(run: &Run) -> Run {
    let mut run = run.clone();
    (run.result.measurements, run.result.benchmarks) = Default::default();
    (run.setting, run.told) = Default::default();
    run
}

/// Which of `runs`, each with its number, has the block that counts: a whole one that was measured last.
fn newest<'a>(shared: &Shared, runs: impl Iterator<Item = (usize, &'a Run)>) -> Option<usize> {
    let measured = runs.filter(|(_, run)| (shared.present)(&run.result.benchmarks));
    // The file's name decides last, so that the choice never depends on the folder's order.
    let when = |(_, run): &(usize, &'a Run)| {
        let whole = (shared.whole)(&run.result.benchmarks);
        (whole, run.result.measured_at(shared.name).to_string(), &run.file)
    };
    measured.max_by_key(when).map(|(at, _)| at)
}

/// Gives every run the newest quality blocks of its model, backend and cache, scored on the same; how many others they replace. `runs`
/// are sorted by these first.
pub(super) fn share_blocks(runs: &mut [Run]) -> usize {
    let key = |run: &Run| (run.model.clone(), run.result.attn_backend.clone(), run.cache.clone(), run.scored.clone());
    let (mut start, mut replaced) = (0, 0);
    for same in runs.chunk_by_mut(|a, b| key(a) == key(b)) {
        for shared @ Shared { present, copy, source, .. } in &SHARED {
            let Some(newest) = newest(shared, same.iter().enumerate()) else { continue };
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
