//! Runs a plan: loads each model once, and goes on where one run fails.

use std::cell::OnceCell;

use super::bench::Bench;
pub use super::bench::{Outcome, Output};
use super::describe::{Described, model_config};
use super::estimate::{Estimator, Place, Shape, available_bytes};
use super::interrupt;
use super::plan::RunSpec;
use super::prepared::Prepared;
use super::progress::tell_end;
pub use super::resume::Existing;
use super::resume::{Start, start};
use super::skip::{skip_all, weights_refusal};
use super::store::Stored;
use crate::model::{Identity, Subject};
use crate::{Error, Result};

/// Refuses a plan that names what there is not, before anything is loaded.
///
/// # Errors
/// As [`Prepared::new`].
pub fn check(specs: &[RunSpec]) -> Result<()> {
    specs.iter().cloned().try_for_each(|spec| Prepared::new(spec).map(drop))
}

/// Runs `specs` in order, which brings the runs of one model together. A failed run does not stop the others; Ctrl-C does.
///
/// # Errors
/// When a name in the plan is unknown: nothing has been measured then.
pub fn run(specs: &[RunSpec], output: &Output<'_>) -> Result<Vec<Outcome>> {
    let runs = specs.iter().cloned().map(Prepared::new).collect::<Result<Vec<_>>>()?;
    let mut outcomes = Vec::new();
    let mut shapes = Estimator::new(Place::Here, output.show_loading);
    let numbered: Vec<(usize, &Prepared)> = (1..).zip(&runs).collect();
    for group in numbered.chunk_by(|(_, a), (_, b)| a.spec.model == b.spec.model) {
        run_model(group, runs.len(), output, &mut shapes, &mut outcomes);
        if is_over(&outcomes) {
            break;
        }
    }
    Ok(outcomes)
}

/// Runs the specs of one model, which stand at these numbers in a plan of `planned`.
fn run_model(
    runs: &[(usize, &Prepared)],
    planned: usize,
    output: &Output<'_>,
    shapes: &mut Estimator,
    outcomes: &mut Vec<Outcome>,
) {
    let mut model = ModelRuns { output, shapes, bench: None, no_room: None, identity: OnceCell::new() };
    for (number, run) in runs {
        let spec = &run.spec;
        let name = format!("{} {} {}", spec.model.model, spec.attn_backend, spec.kv_quant.name);
        output.progress.begin_run(*number, planned, &name);
        match model.run(run, name) {
            Ok(outcome) => {
                tell_end(output.progress, outcome.stored.as_ref(), outcome.error.as_ref());
                outcomes.push(outcome);
            }
            Err(error) => {
                // Every run of a model that cannot be loaded fails for the same reason: said once.
                outcomes.push(Outcome { name: spec.model.model.clone(), stored: None, error: Some(error) });
                return;
            }
        }
        if is_over(outcomes) {
            return;
        }
    }
}

/// Whether nothing more is to be run: after Ctrl-C, and where results could not be kept.
fn is_over(outcomes: &[Outcome]) -> bool {
    let full = |outcome: &Outcome| outcome.error.as_ref().is_some_and(Error::is_out_of_space);
    interrupt::requested() || outcomes.last().is_some_and(full)
}

/// The runs of one model: what is known of it before it is loaded, which a run that is complete or cannot fit does without, and the model.
struct ModelRuns<'a> {
    output: &'a Output<'a>,
    shapes: &'a mut Estimator,
    bench: Option<Bench>,
    /// Why the model could not be loaded for lack of memory, once that was tried.
    no_room: Option<String>,
    /// What names its weights and its tokenizer, once that was asked for.
    identity: OnceCell<Identity>,
}

impl ModelRuns<'_> {
    /// Makes one run, or leaves it where it is complete or another process has it.
    ///
    /// # Errors
    /// When the model cannot be loaded, for a reason that all of its runs share.
    fn run(&mut self, run: &Prepared, name: String) -> Result<Outcome> {
        let spec = &run.spec;
        // The claim is held until the run has ended.
        let (stored, _claim) = match self.start(spec) {
            Ok(Start::Go { stored, claim }) => (stored, claim),
            Ok(Start::Complete(stored)) => return Ok(Outcome { name, stored: Some(*stored), error: None }),
            Ok(Start::Claimed) => return Ok(Outcome { name, stored: None, error: None }),
            Err(error) => return Ok(Outcome { name, stored: None, error: Some(error) }),
        };
        if let Some((shape, reason)) = self.too_large(spec) {
            return Ok(self.skip(spec, stored, &shape, reason, name));
        }
        let bench = match &mut self.bench {
            Some(bench) => bench,
            None => {
                let weights_sha256 = self.identity.get().and_then(|known| known.weights.clone());
                match Bench::load(spec, weights_sha256, self.output.show_loading) {
                    Ok(bench) => self.bench.insert(bench),
                    Err(Error::OutOfMemory(reason)) => {
                        let shape = self.shapes.shape(&spec.model).cloned();
                        let Some(shape) = shape else { return Err(Error::OutOfMemory(reason)) };
                        let reason = self.no_room.insert(format!("the model could not be loaded: {reason}")).clone();
                        return Ok(self.skip(spec, stored, &shape, reason, name));
                    }
                    Err(error) => return Err(error),
                }
            }
        };
        Ok(bench.run(run, stored, self.output, name))
    }

    /// Where the run of `spec` begins.
    fn start(&mut self, spec: &RunSpec) -> Result<Start> {
        let ModelRuns { output, shapes, bench, identity, .. } = self;
        // A model that is loaded takes memory which its own runs do not lack.
        let free = || bench.as_ref().map_or_else(|| available_bytes(&spec.model), |bench| bench.free_bytes);
        let here = |shapes: &mut Estimator| match &*bench {
            Some(bench) => Some(bench.model_config(&spec.model)),
            // Where it cannot be had, loading says why.
            None => shapes.shape(&spec.model).map(|shape| {
                let of = || Subject::identity_of(&spec.model.options(false)?);
                let identity = identity.get_or_init(|| of().unwrap_or_default()).clone();
                model_config(&spec.model, &Described::unloaded(shape).identified(identity))
            }),
        };
        start(spec, &output.folder, output.existing, shapes, free, here)
    }

    /// Why the model, with its shape, is not to be loaded for `spec`, if it is not.
    fn too_large(&mut self, spec: &RunSpec) -> Option<(Shape, String)> {
        match (&self.bench, &self.no_room) {
            (Some(_), _) => None,
            (None, Some(reason)) => Some((self.shapes.shape(&spec.model)?.clone(), reason.clone())),
            (None, None) => weights_refusal(spec, self.shapes),
        }
    }

    /// How a run ended that was not tried: a row that says why it is empty is a result; a benchmark that was asked for and is not there is
    /// a failure.
    fn skip(&self, spec: &RunSpec, stored: Option<Stored>, shape: &Shape, reason: String, name: String) -> Outcome {
        match skip_all(spec, stored, &self.output.folder, shape, &reason) {
            Ok(stored) => {
                let error = (!spec.benchmarks.is_empty()).then_some(Error::OutOfMemory(reason));
                Outcome { name, stored: Some(stored), error }
            }
            Err(error) => Outcome { name, stored: None, error: Some(error) },
        }
    }
}
