//! What cannot fit is not tried: its rows say so, and the plan goes on.

use std::path::Path;

use super::describe::{Described, empty_result};
use super::estimate::{Estimator, Shape, available_bytes, free_bytes, memory};
use super::plan::RunSpec;
use super::store::{Stored, profile_block};
use crate::Result;
use crate::bench;
use crate::model::Subject;

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
        None => Stored::create(folder, empty_result(spec, &settings, &Described::unloaded(shape)))?,
    };
    stored.result.warnings = vec![reason.to_string()];
    for &length in settings.context_lengths.iter().filter(|_| spec.profile) {
        for &batch in &settings.batch_sizes {
            // What was measured when there was more room stays.
            if !stored.result.completed.contains(&profile_block(length, batch)) {
                stored.skip(length, batch, reason.to_string())?;
            }
        }
    }
    stored.save()?;
    Ok(stored)
}

/// Adds a row for each context and batch of `profile` whose cache cannot fit beside the weights, and returns their blocks.
pub(super) fn skip_what_cannot_fit(
    subject: &Subject,
    spec: &RunSpec,
    settings: &bench::Settings,
    stored: &mut Stored,
) -> Result<Vec<String>> {
    let shape = Shape { config: subject.config().clone(), dtype: subject.dtype };
    let Some(free) = free_bytes(&subject.device) else { return Ok(Vec::new()) };
    let mut skipped = Vec::new();
    for &length in &settings.context_lengths {
        for &batch in &settings.batch_sizes {
            let block = profile_block(length, batch);
            if stored.result.completed.contains(&block) {
                continue;
            }
            if let Some(reason) = memory(&shape, spec, settings, length, batch).refusal(free, true) {
                stored.skip(length, batch, reason)?;
                skipped.push(block);
            }
        }
    }
    Ok(skipped)
}
