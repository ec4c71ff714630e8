//! What of a run is there already.

use super::estimate::Estimator;
use super::plan::RunSpec;
use super::skip::would_be_skipped_again;
use super::store::{Stored, profile_block};

/// Whether a file holds all blocks of its spec, as far as they can be had on this machine with the `free` bytes there are before the model
/// is loaded.
pub(super) fn is_complete(
    spec: &RunSpec,
    stored: &Stored,
    shapes: &mut Estimator,
    free: impl FnOnce() -> Option<u64>,
) -> bool {
    let benchmarks = spec.benchmarks.iter().all(|b| stored.has(b));
    if !benchmarks || !spec.profile {
        return benchmarks;
    }
    let settings = &spec.settings;
    // The default length depends on the model, and is the one that the file records.
    let recorded: Vec<usize> = stored.result.measurements.iter().take(1).map(|m| m.context_len).collect();
    let lengths = if settings.context_lengths.is_empty() { &recorded } else { &settings.context_lengths };
    let missing: Vec<(usize, usize)> = lengths
        .iter()
        .flat_map(|&l| settings.batch_sizes.iter().map(move |&b| (l, b)))
        .filter(|&(l, b)| !stored.has(&profile_block(l, b)))
        .collect();
    !lengths.is_empty() && would_be_skipped_again(spec, stored, &missing, shapes, free())
}
