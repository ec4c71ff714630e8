//! What of a run is there already.

use std::path::Path;

use serde_json::{Value, json};

use super::claim::Claim;
use super::describe::{Described, model_config};
use super::estimate::Estimator;
use super::identity::difference;
use super::plan::RunSpec;
use super::skip::would_be_skipped_again;
use super::store::Stored;
use crate::Result;
use crate::schema::{Environment, Hardware, ModelConfig, RunResult, profile_block};

/// What becomes of results that are already there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Existing {
    /// They stay; every run makes a new file.
    Keep,
    /// A run with a file is completed in it; a complete one is left alone.
    Resume,
}

/// Where a run begins.
#[allow(clippy::large_enum_variant, reason = "a run has one")]
pub(super) enum Start {
    /// Its file has all blocks.
    Complete(Box<Stored>),
    /// Another process has it.
    Claimed,
    /// It is to be run, into the file that is there.
    Go { stored: Option<Stored>, claim: Option<Claim> },
}

/// Where the run of `spec` begins. `here` describes the model that it would be measured with, as far as that is known: it is asked
/// only where there is a file, since the digest of large weights takes a while.
pub(super) fn start(
    spec: &RunSpec,
    folder: &Path,
    existing: Existing,
    shapes: &mut Estimator,
    free: impl FnOnce() -> Option<u64>,
    here: impl Fn(&mut Estimator) -> Option<ModelConfig>,
) -> Result<Start> {
    let hash = spec.hash();
    if existing == Existing::Keep {
        // A new file is made whoever measures the same; the claim, where it can be had, keeps others from resuming that file meanwhile.
        return Ok(Start::Go { stored: None, claim: Claim::take(folder, &hash)? });
    }
    let Some(claim) = Claim::take(folder, &hash)? else { return Ok(Start::Claimed) };
    let found = Stored::find(folder, &hash, |path, result| {
        let told = here(shapes).and_then(|here| difference(&result.model_config, &here, &spec.benchmarks));
        if let Some(told) = &told {
            tracing::warn!(
                "{} was measured with another {}: {told}; it is left as it is",
                path.display(),
                spec.model.model
            );
        }
        told.is_none()
    });
    if let Some(stored) = &found {
        let blocks = stored.result.completed.join(" ");
        tracing::info!(
            "{} is gone on with; it has {}",
            stored.path.display(),
            if blocks.is_empty() { "nothing yet" } else { &blocks }
        );
    }
    Ok(match found {
        Some(stored) if is_complete(spec, &stored, shapes, free) => Start::Complete(Box::new(stored)),
        stored => Start::Go { stored, claim: Some(claim) },
    })
}

/// Whether `folder` holds all of `spec` already, as far as that can be told without looking at weights: a plan is made before they are
/// read. `free` bytes are there before the model is loaded.
pub fn is_there(spec: &RunSpec, folder: &Path, shapes: &mut Estimator, free: Option<u64>) -> bool {
    let found = Stored::find(folder, &spec.hash(), |_, result| {
        let here = shapes.shape(&spec.model).map(|shape| model_config(&spec.model, &Described::unloaded(shape)));
        here.is_none_or(|here| difference(&result.model_config, &here, &spec.benchmarks).is_none())
    });
    found.is_some_and(|stored| is_complete(spec, &stored, shapes, || free))
}

/// A file that holds nothing measured yet is of this machine now; in another, a note says what went on here.
pub(super) fn note_where_it_goes_on(
    result: &mut RunResult,
    model_config: ModelConfig,
    environment: &Environment,
    hardware: &Hardware,
) {
    if result.completed.is_empty() {
        result.model_config = model_config;
        result.environment = environment.clone();
        result.hardware = hardware.clone();
    } else if (&result.environment, &result.hardware) != (environment, hardware) {
        let note = json!({
            "time": chrono::Local::now().format("%Y-%m-%dT%H:%M:%S").to_string(),
            "after": result.completed,
            "environment": environment,
            "hardware": hardware,
        });
        if let Value::Array(notes) = result.extra.entry("resumed").or_insert_with(|| json!([])) {
            notes.push(note);
        }
    }
}

/// Whether a file holds all blocks of its spec, as far as they can be had on this machine with the `free` bytes there are before the model
/// is loaded.
fn is_complete(spec: &RunSpec, stored: &Stored, shapes: &mut Estimator, free: impl FnOnce() -> Option<u64>) -> bool {
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
