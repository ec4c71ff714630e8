//! What cannot fit is not tried, and what did not fit is not tried again before more memory is free than there was then: its rows say
//! so, and the plan goes on.

use std::path::Path;

use super::describe::{Described, empty_result};
use super::estimate::{Estimator, Shape, available_bytes, free_bytes, memory};
use super::plan::RunSpec;
use super::store::Stored;
use crate::Result;
use crate::bench;
use crate::bench::profile::too_long;
use crate::model::Subject;
use crate::schema::{Measurement, profile_block};

/// Why the weights of a model cannot be loaded here, with its shape; `None` where they may fit, or nothing is known.
pub(super) fn weights_refusal(spec: &RunSpec, shapes: &mut Estimator) -> Option<(Shape, String)> {
    let free = available_bytes(&spec.model)?;
    let shape = shapes.shape(&spec.model)?;
    let gib = |bytes: u64| bytes as f64 / (1u64 << 30) as f64;
    let weights = shape.weights_bytes();
    let reason = || {
        format!(
            "not tried for lack of memory: its weights take {:.1} GiB as {:?} and {:.1} GiB are free",
            gib(weights),
            shape.dtype,
            gib(free)
        )
    };
    (weights > free).then(|| (shape.clone(), reason()))
}

/// The file of a run whose model does not fit, `stored` or a new one in `folder`: every row that was not measured is skipped with the
/// reason.
pub(super) fn skip_all(
    spec: &RunSpec,
    stored: Option<Stored>,
    folder: &Path,
    shape: &Shape,
    reason: &str,
) -> Result<Stored> {
    let settings = spec.settings.for_model(&shape.config);
    let mut stored = match stored {
        Some(stored) => stored,
        None => Stored::create(folder, empty_result(spec, &settings, &Described::unloaded(shape))?)?,
    };
    stored.result.warnings = vec![reason.to_string()];
    let free = available_bytes(&spec.model);
    for &length in settings.context_lengths.iter().filter(|_| spec.profile) {
        for &batch in &settings.batch_sizes {
            // What was measured when there was more room stays.
            if !stored.has(&profile_block(length, batch)) {
                stored.skip(Measurement::skipped(length, batch, reason.to_string()), free)?;
            }
        }
    }
    stored.save()?;
    Ok(stored)
}

/// Adds a row for each context and batch of `profile` that is too long for the model or whose cache cannot fit beside the weights, and
/// returns their blocks, with those that did not fit before into no less than the `before_load` bytes that were free before the model was loaded.
pub(super) fn skip_what_cannot_fit(
    subject: &Subject,
    spec: &RunSpec,
    settings: &bench::Settings,
    stored: &mut Stored,
    before_load: Option<u64>,
) -> Result<Vec<String>> {
    let shape = Shape { config: subject.config().clone(), dtype: subject.dtype, unserved: None };
    let free = free_bytes(&subject.device);
    let mut skipped = Vec::new();
    for &length in &settings.context_lengths {
        for &batch in &settings.batch_sizes {
            let block = profile_block(length, batch);
            if stored.has(&block) {
                continue;
            }
            if let Some(reason) = too_long(&shape.config, settings, length) {
                stored.skip(Measurement::skipped(length, batch, reason), None)?;
                skipped.push(block);
                continue;
            }
            if stored.skipped(length, batch).is_some_and(|row| lacks_memory(row, before_load)) {
                skipped.push(block);
                continue;
            }
            let refusal = |free| memory(&shape, spec, settings, length, batch).refusal(free, true);
            if let Some(reason) = free.and_then(refusal) {
                stored.skip(Measurement::skipped(length, batch, reason), before_load)?;
                skipped.push(block);
            }
        }
    }
    Ok(skipped)
}

/// Whether the rows `missing` (context and batch) of a file were all skipped and would be again, `free` bytes being there before the
/// model is loaded.
pub(super) fn would_be_skipped_again(
    spec: &RunSpec,
    stored: &Stored,
    missing: &[(usize, usize)],
    shapes: &mut Estimator,
    free: Option<u64>,
) -> bool {
    let rows = missing.iter().map(|&(length, batch)| stored.skipped(length, batch)).collect::<Option<Vec<_>>>();
    let Some(rows) = rows.filter(|rows| !rows.is_empty()) else { return missing.is_empty() };
    let mut refused = |row: &Measurement| {
        let Some(shape) = shapes.shape(&spec.model) else { return false };
        let settings = spec.settings.for_model(&shape.config);
        let memory = || memory(shape, spec, &settings, row.context_len, row.batch());
        too_long(&shape.config, &settings, row.context_len).is_some()
            || free.is_some_and(|free| memory().refusal(free, false).is_some())
    };
    rows.into_iter().all(|row| lacks_memory(row, free) || refused(row))
}

/// Whether no more memory is `free` than when `row` was skipped for lack of it. A row that does not say how much that was is tried.
fn lacks_memory(row: &Measurement, free: Option<u64>) -> bool {
    matches!((row.free_bytes, free), (Some(then), Some(now)) if now <= then)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_is_tried_again_with_more_memory_and_where_nothing_is_known() {
        let row = |free_bytes| Measurement { free_bytes, ..Default::default() };
        assert!(lacks_memory(&row(Some(10)), Some(10)) && lacks_memory(&row(Some(10)), Some(9)));
        for (then, now) in [(Some(10), Some(11)), (None, Some(11)), (Some(10), None), (None, None)] {
            assert!(!lacks_memory(&row(then), now), "{then:?} {now:?}");
        }
    }
}
