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

/// A benchmark whose blocks are handed from one file to another.
struct Shared {
    name: &'static str,
    scoring: scoring::Of,
    source: fn(&mut Sources) -> &mut Option<usize>,
}

const SHARED: [Shared; 5] = [
    Shared { name: "ppl", scoring: scoring::ppl, source: |s| &mut s.ppl },
    Shared { name: "kld", scoring: scoring::kld, source: |s| &mut s.kld },
    Shared { name: "needle", scoring: scoring::needle, source: |s| &mut s.needle },
    Shared { name: "mmlu", scoring: scoring::mmlu, source: |s| &mut s.mmlu },
    Shared { name: "math", scoring: scoring::math, source: |s| &mut s.math },
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
                other.result.benchmarks.copy_from(shared.name, &own.result.benchmarks);
                own.result.benchmarks.copy_from(shared.name, &Benchmarks::default());
                other.scored.insert(words);
            }
        }
    }
    for (at, run) in apart {
        if runs[at].result.is_empty() { runs[at] = run } else { runs.push(run) }
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
    let measured = runs.filter(|(_, run)| run.result.benchmarks.has(shared.name));
    // The file's name decides last, so that the choice never depends on the folder's order.
    let when = |(_, run): &(usize, &'a Run)| {
        let mut sets = run.result.benchmarks.question_sets();
        let stopped = sets.any(|(name, score)| name == shared.name && score.stopped_before().is_some());
        (!stopped, run.result.measured_at(shared.name).to_string(), &run.file)
    };
    measured.max_by_key(when).map(|(at, _)| at)
}

/// Gives every run the newest quality blocks of its model, backend and cache, scored on the same; how many others they replace. `runs`
/// are sorted by these first.
pub(super) fn share_blocks(runs: &mut [Run]) -> usize {
    let key = |run: &Run| (run.model.clone(), run.result.attn_backend.clone(), run.cache.clone(), run.scored.clone());
    let (mut start, mut replaced) = (0, 0);
    for same in runs.chunk_by_mut(|a, b| key(a) == key(b)) {
        for shared @ Shared { name, source, .. } in &SHARED {
            let Some(newest) = newest(shared, same.iter().enumerate()) else { continue };
            let block = same[newest].result.benchmarks.clone();
            for (at, run) in same.iter_mut().enumerate() {
                if at != newest {
                    replaced += usize::from(run.result.benchmarks.has(name));
                    run.result.benchmarks.copy_from(name, &block);
                }
                *source(&mut run.sources) = Some(start + newest);
            }
        }
        start += same.len();
    }
    replaced
}
