//! Runs a plan: loads each model once, measures, saves after every block, and goes on where one run fails.

use std::path::{Path, PathBuf};
use std::time::Instant;

use serde_json::{Value, json};

use super::claim::Claim;
use super::describe::{Described, empty_result, model_config};
use super::estimate::{Estimator, available_bytes};
use super::plan::{ModelRequest, RunSpec};
use super::prepared::Prepared;
use super::resume::is_complete;
use super::skip::{skip_all, skip_what_cannot_fit, weights_refusal};
use super::store::{Stored, profile_block};
use super::{environment, interrupt};
use crate::base::progress::Progress;
use crate::bench::{self, Block, Context, References, Settings};
use crate::device::cupti::Cupti;
use crate::measure::energy::EnergyMeter;
use crate::measure::power;
use crate::model::Subject;
use crate::schema::{Environment, Hardware, ModelConfig};
use crate::{Error, Result};

/// How one run of a plan ended.
pub struct Outcome {
    /// Name of the run, for people.
    pub name: String,
    /// The result file; `None` when nothing could be written, or another process has the run.
    pub stored: Option<Stored>,
    /// What failed, if anything.
    pub error: Option<Error>,
}

/// What becomes of results that are already there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Existing {
    /// They stay; every run makes a new file.
    Keep,
    /// A run with a file is completed in it; a complete one is left alone.
    Resume,
}

/// Where results go, and how.
pub struct Output<'a> {
    /// The folder.
    pub folder: PathBuf,
    /// What becomes of results that are already there.
    pub existing: Existing,
    /// Where progress goes.
    pub progress: &'a dyn Progress,
    /// Whether loading shows a bar of its own.
    pub show_loading: bool,
}

/// A loaded model and what its runs share.
pub struct Bench {
    subject: Subject,
    environment: Environment,
    hardware: Hardware,
    references: References,
    energy: EnergyMeter,
    /// Memory that was free before the model was loaded.
    free_bytes: Option<u64>,
}

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
    let mut shapes = Estimator::default();
    for group in runs.chunk_by(|a, b| a.spec.model == b.spec.model) {
        run_model(group, output, &mut shapes, &mut outcomes);
        if is_over(&outcomes) {
            break;
        }
    }
    Ok(outcomes)
}

/// Runs the specs of one model.
fn run_model(runs: &[Prepared], output: &Output<'_>, shapes: &mut Estimator, outcomes: &mut Vec<Outcome>) {
    let mut bench: Option<Bench> = None;
    // Why the model could not be loaded for lack of memory, once that was tried.
    let mut no_room: Option<String> = None;
    for run in runs {
        let spec = &run.spec;
        let name = format!("{} {} {}", spec.model.model, spec.attn_backend, spec.kv_quant.name);
        // A model that is loaded takes memory which its own runs do not lack.
        let free = || bench.as_ref().map_or_else(|| available_bytes(&spec.model), |bench| bench.free_bytes);
        let outcome = match resumable(spec, output, shapes, free) {
            Ok(Start::Complete(stored)) => Outcome { name, stored: Some(*stored), error: None },
            Ok(Start::Claimed) => Outcome { name, stored: None, error: None },
            Ok(Start::Go { stored, claim }) => {
                let too_large = match (&bench, &no_room) {
                    (Some(_), _) => None,
                    (None, Some(reason)) => shapes.shape(&spec.model).map(|shape| (shape.clone(), reason.clone())),
                    (None, None) => weights_refusal(spec, shapes),
                };
                let outcome = match too_large {
                    Some((shape, reason)) => {
                        skipped(name, spec, skip_all(spec, stored, &output.folder, &shape, &reason), reason)
                    }
                    None => match loaded(&mut bench, spec, output.show_loading) {
                        Ok(bench) => bench.run(run, stored, output, name),
                        Err(Error::OutOfMemory(reason)) if shapes.shape(&spec.model).is_some() => {
                            let reason = no_room.insert(format!("the model could not be loaded: {reason}")).clone();
                            match shapes.shape(&spec.model).cloned() {
                                Some(shape) => {
                                    skipped(name, spec, skip_all(spec, stored, &output.folder, &shape, &reason), reason)
                                }
                                None => Outcome { name, stored: None, error: Some(Error::OutOfMemory(reason)) },
                            }
                        }
                        Err(error) => {
                            // Every run of a model that cannot be loaded fails for the same reason: said once.
                            outcomes.push(Outcome { name: spec.model.model.clone(), stored: None, error: Some(error) });
                            return;
                        }
                    },
                };
                drop(claim);
                outcome
            }
            Err(error) => Outcome { name, stored: None, error: Some(error) },
        };
        outcomes.push(outcome);
        if is_over(outcomes) {
            return;
        }
    }
}

/// How a run ended that was not tried: a row that says why it is empty is a result; a benchmark that was asked for and is not there is
/// a failure.
fn skipped(name: String, spec: &RunSpec, stored: Result<Stored>, reason: String) -> Outcome {
    match stored {
        Ok(stored) => {
            let error = (!spec.benchmarks.is_empty()).then_some(Error::OutOfMemory(reason));
            Outcome { name, stored: Some(stored), error }
        }
        Err(error) => Outcome { name, stored: None, error: Some(error) },
    }
}

/// Whether nothing more is to be run: after Ctrl-C, and where results could not be kept.
fn is_over(outcomes: &[Outcome]) -> bool {
    let full = |outcome: &Outcome| outcome.error.as_ref().is_some_and(Error::is_out_of_space);
    interrupt::requested() || outcomes.last().is_some_and(full)
}

/// Where a run begins.
#[allow(clippy::large_enum_variant, reason = "a run has one")]
enum Start {
    /// Its file has all blocks.
    Complete(Box<Stored>),
    /// Another process has it.
    Claimed,
    /// It is to be run, into the file that is there.
    Go { stored: Option<Stored>, claim: Option<Claim> },
}

fn resumable(
    spec: &RunSpec,
    output: &Output<'_>,
    shapes: &mut Estimator,
    free: impl FnOnce() -> Option<u64>,
) -> Result<Start> {
    let hash = spec.hash();
    if output.existing == Existing::Keep {
        // A new file is made whoever measures the same; the claim, where it can be had, keeps others from resuming that file meanwhile.
        return Ok(Start::Go { stored: None, claim: Claim::take(&output.folder, &hash)? });
    }
    let Some(claim) = Claim::take(&output.folder, &hash)? else { return Ok(Start::Claimed) };
    Ok(match Stored::find(&output.folder, &hash) {
        Some(stored) if is_complete(spec, &stored, shapes, free) => Start::Complete(Box::new(stored)),
        stored => Start::Go { stored, claim: Some(claim) },
    })
}

fn loaded<'b>(bench: &'b mut Option<Bench>, spec: &RunSpec, show_loading: bool) -> Result<&'b mut Bench> {
    match bench {
        Some(bench) => Ok(bench),
        None => Ok(bench.insert(Bench::load(spec, show_loading)?)),
    }
}

impl Bench {
    /// Loads the model of `spec` and looks at the machine.
    ///
    /// # Errors
    /// When the model cannot be had.
    pub fn load(spec: &RunSpec, show_loading: bool) -> Result<Self> {
        let options = spec.model.options(show_loading)?;
        // Idle power is measured now, before a context and weights are on the device.
        let energy = EnergyMeter::new(power::open(options.device.gpu()));
        if spec.settings.trace && options.device.gpu().is_some() {
            // Better now than after the timed runs.
            Cupti::load().map_err(Error::Usage)?;
        }
        let free_bytes = available_bytes(&spec.model);
        let subject = Subject::load(&options)?;
        Ok(Bench {
            environment: environment::environment(&subject.device, &energy)?,
            hardware: environment::hardware(&subject.device)?,
            references: References::default(),
            energy,
            free_bytes,
            subject,
        })
    }

    /// Software and hardware around its runs.
    pub fn environment(&self) -> &Environment {
        &self.environment
    }

    /// The device of its runs.
    pub fn hardware(&self) -> &Hardware {
        &self.hardware
    }

    /// What its runs' files say of the model that `request` asked for.
    pub fn model_config(&self, request: &ModelRequest) -> ModelConfig {
        model_config(request, &Described::loaded(&self.subject))
    }

    /// The settings of `spec` with what depends on the model filled in.
    pub fn settings(&self, spec: &RunSpec) -> Settings {
        spec.settings.for_model(self.subject.config())
    }

    /// Makes one run, into `stored` or a new file.
    fn run(&mut self, run: &Prepared, stored: Option<Stored>, output: &Output<'_>, name: String) -> Outcome {
        let started = Instant::now();
        let stored = match stored {
            Some(stored) => Ok(stored),
            None => self.create(run, &output.folder),
        };
        let mut stored = match stored {
            Ok(stored) => stored,
            Err(error) => return Outcome { name, stored: None, error: Some(error) },
        };
        self.tell_of_resuming(run, &mut stored);
        stored.result.warnings.clear();
        let earlier = stored.result.combo_elapsed_s;
        let mut error = self.measure(run, &mut stored, output.progress).err();
        stored.result.combo_elapsed_s = earlier + started.elapsed().as_secs_f64();
        if let Some(error) = &error {
            stored.result.warnings.push(error.to_string());
        }
        if let Err(failed) = stored.save() {
            error.get_or_insert(failed);
        }
        Outcome { name, stored: Some(stored), error }
    }

    /// Checks that the model can be run as asked, and makes the run's file.
    fn create(&self, run: &Prepared, folder: &Path) -> Result<Stored> {
        self.check(run)?;
        let settings = self.settings(&run.spec);
        let mut result = empty_result(&run.spec, &settings, &Described::loaded(&self.subject));
        result.environment = self.environment.clone();
        result.hardware = self.hardware.clone();
        Stored::create(folder, result)
    }

    /// A file that holds nothing measured yet is of this machine now; in another, a note says what went on here.
    fn tell_of_resuming(&self, run: &Prepared, stored: &mut Stored) {
        let result = &mut stored.result;
        if result.completed.is_empty() {
            result.model_config = self.model_config(&run.spec.model);
            result.environment = self.environment.clone();
            result.hardware = self.hardware.clone();
        } else if (&result.environment, &result.hardware) != (&self.environment, &self.hardware) {
            let note = json!({
                "time": chrono::Local::now().format("%Y-%m-%dT%H:%M:%S").to_string(),
                "after": result.completed,
                "environment": self.environment,
                "hardware": self.hardware,
            });
            if let Value::Array(notes) = result.extra.entry("resumed").or_insert_with(|| json!([])) {
                notes.push(note);
            }
        }
    }

    fn check(&self, run: &Prepared) -> Result<()> {
        let (spec, config) = (&run.spec, self.subject.config());
        spec.kv_quant.validate(config.head_dim, config.layers)?;
        let settings = self.settings(spec);
        if spec.profile || spec.benchmarks.iter().any(|name| name == "needle") {
            bench::profile::check_lengths(config, &settings)?;
        }
        for benchmark in &run.benchmarks {
            if benchmark.is_quality() {
                self.subject.require_trained(benchmark.name())?;
                self.subject.tokenizer()?;
            }
            benchmark.check(&self.subject, &settings, &spec.kv_quant)?;
        }
        Ok(())
    }

    /// Measures the blocks of a run that `stored` does not hold yet. A context and batch whose cache cannot fit is a row that says so.
    ///
    /// # Errors
    /// The first failure; later benchmarks have been tried all the same.
    pub fn measure(&mut self, run: &Prepared, stored: &mut Stored, progress: &dyn Progress) -> Result<()> {
        self.check(run)?;
        let spec = &run.spec;
        let settings = self.settings(spec);
        let saved = stored.result.benchmarks.clone();
        let mut context = Context {
            saved: &saved,
            subject: &self.subject,
            spec: &spec.kv_quant,
            attention: run.attention.as_ref(),
            settings: &settings,
            progress,
            copy_gb_s: self.hardware.copy_bandwidth_gb_s,
            energy: &self.energy,
            references: &mut self.references,
        };
        if spec.profile {
            let mut done = skip_what_cannot_fit(&self.subject, spec, &settings, stored, self.free_bytes)?;
            done.extend(stored.result.completed.iter().filter(|block| stored.has(block)).cloned());
            let done = |length, batch| done.contains(&profile_block(length, batch));
            bench::profile::run(&mut context, &done, &mut |block| match block {
                Block::Profile(row) if row.skipped == Some(true) => {
                    let reason = row.skip_reason.unwrap_or_default();
                    stored.skip(row.context_len, row.batch_size.unwrap_or(1), reason, self.free_bytes)
                }
                block => stored.keep(block),
            })?;
        }
        // One benchmark that cannot be scored (a text too short, say) must not cost the others.
        let mut failed = None;
        for benchmark in &run.benchmarks {
            if stored.has(benchmark.name()) {
                continue;
            }
            match benchmark.run(&mut context, &mut |block| stored.keep(block)) {
                Err(error) if matches!(error, Error::Interrupted) || error.is_out_of_space() => return Err(error),
                Err(error) => {
                    failed.get_or_insert(error);
                }
                Ok(()) => {}
            }
        }
        failed.map_or(Ok(()), Err)
    }
}
