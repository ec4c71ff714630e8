//! Runs a plan: loads each model once, measures, saves after every block, and goes on where one run fails.

use std::path::{Path, PathBuf};
use std::time::Instant;

use super::claim::Claim;
use super::describe::empty_result;
use super::plan::RunSpec;
use super::store::{Stored, profile_block};
use super::{environment, interrupt};
use crate::base::progress::Progress;
use crate::bench::{self, Benchmark, Context, References};
use crate::device::cupti::Cupti;
use crate::measure::energy::EnergyMeter;
use crate::measure::power;
use crate::model::Subject;
use crate::model::attention::{self, Attention};
use crate::schema::{Environment, Hardware};
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
}

/// The names of a run, resolved.
struct Prepared {
    attention: Box<dyn Attention>,
    benchmarks: Vec<Box<dyn Benchmark>>,
}

/// Runs `specs` in order, which brings the runs of one model together. A failed run does not stop the others; Ctrl-C does.
///
/// # Errors
/// When a name in the plan is unknown: nothing has been measured then.
pub fn run(specs: &[RunSpec], output: &Output<'_>) -> Result<Vec<Outcome>> {
    for spec in specs {
        Prepared::new(spec)?;
    }
    let mut outcomes = Vec::new();
    for group in specs.chunk_by(|a, b| a.model == b.model) {
        run_model(group, output, &mut outcomes);
        if interrupt::requested() {
            break;
        }
    }
    Ok(outcomes)
}

/// Runs the specs of one model.
fn run_model(specs: &[RunSpec], output: &Output<'_>, outcomes: &mut Vec<Outcome>) {
    let mut bench: Option<Bench> = None;
    for spec in specs {
        let name = format!("{} {} {}", spec.model.model, spec.attn_backend, spec.kv_quant.name);
        let outcome = match resumable(spec, output) {
            Ok(Start::Complete(stored)) => Outcome { name, stored: Some(*stored), error: None },
            Ok(Start::Claimed) => Outcome { name, stored: None, error: None },
            Ok(Start::Go { stored, claim }) => {
                let outcome = match loaded(&mut bench, spec, output.show_loading) {
                    Ok(bench) => bench.run(spec, stored, output, name),
                    Err(error) => {
                        // Every run of a model that cannot be loaded fails for the same reason: said once.
                        outcomes.push(Outcome { name: spec.model.model.clone(), stored: None, error: Some(error) });
                        return;
                    }
                };
                drop(claim);
                outcome
            }
            Err(error) => Outcome { name, stored: None, error: Some(error) },
        };
        outcomes.push(outcome);
        if interrupt::requested() {
            return;
        }
    }
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

fn resumable(spec: &RunSpec, output: &Output<'_>) -> Result<Start> {
    if output.existing == Existing::Keep {
        return Ok(Start::Go { stored: None, claim: None });
    }
    let hash = spec.hash();
    let Some(claim) = Claim::take(&output.folder, &hash)? else { return Ok(Start::Claimed) };
    Ok(match Stored::find(&output.folder, &hash) {
        Some(stored) if is_complete(spec, &stored) => Start::Complete(Box::new(stored)),
        stored => Start::Go { stored, claim: Some(claim) },
    })
}

/// Whether a file holds all blocks of its spec.
fn is_complete(spec: &RunSpec, stored: &Stored) -> bool {
    let has = |block: &str| stored.result.completed.iter().any(|c| c == block);
    let settings = &spec.settings;
    let profiled = match settings.context_lengths.as_slice() {
        // The default length depends on the model; there is one.
        [] => {
            stored.result.completed.iter().filter(|c| c.starts_with("profile@")).count() >= settings.batch_sizes.len()
        }
        lengths => lengths.iter().all(|&l| settings.batch_sizes.iter().all(|&b| has(&profile_block(l, b)))),
    };
    (profiled || !spec.profile) && spec.benchmarks.iter().all(|b| has(b))
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
        let subject = Subject::load(&options)?;
        Ok(Bench {
            environment: environment::environment(&subject.device, &energy)?,
            hardware: environment::hardware(&subject.device)?,
            references: References::default(),
            energy,
            subject,
        })
    }

    /// Runs one spec, into `stored` or a new file.
    fn run(&mut self, spec: &RunSpec, stored: Option<Stored>, output: &Output<'_>, name: String) -> Outcome {
        let started = Instant::now();
        let stored = match stored {
            Some(stored) => Ok(stored),
            None => self.create(spec, &output.folder),
        };
        let mut stored = match stored {
            Ok(stored) => stored,
            Err(error) => return Outcome { name, stored: None, error: Some(error) },
        };
        stored.result.warnings.clear();
        let earlier = stored.result.combo_elapsed_s;
        let mut error = self.measure(spec, &mut stored, output.progress).err();
        stored.result.combo_elapsed_s = earlier + started.elapsed().as_secs_f64();
        if let Some(error) = &error {
            stored.result.warnings.push(error.to_string());
        }
        if let Err(failed) = stored.save() {
            error.get_or_insert(failed);
        }
        Outcome { name, stored: Some(stored), error }
    }

    /// Checks that the model can be run as `spec` says, and makes its file.
    fn create(&self, spec: &RunSpec, folder: &Path) -> Result<Stored> {
        self.check(spec)?;
        let settings = spec.settings.for_model(self.subject.config());
        let mut result = empty_result(spec, &settings, &self.subject);
        result.environment = self.environment.clone();
        result.hardware = self.hardware.clone();
        Stored::create(folder, result)
    }

    fn check(&self, spec: &RunSpec) -> Result<()> {
        let config = self.subject.config();
        spec.kv_quant.validate(config.head_dim, config.layers)?;
        bench::profile::check_lengths(config, &spec.settings.for_model(config))?;
        if let Some(quality) = Prepared::new(spec)?.benchmarks.iter().find(|b| b.is_quality()) {
            self.subject.require_trained(quality.name())?;
        }
        Ok(())
    }

    /// Measures the blocks of `spec` that `stored` does not hold yet.
    ///
    /// # Errors
    /// The first failure; later benchmarks have been tried all the same.
    pub fn measure(&mut self, spec: &RunSpec, stored: &mut Stored, progress: &dyn Progress) -> Result<()> {
        self.check(spec)?;
        let prepared = Prepared::new(spec)?;
        let settings = spec.settings.for_model(self.subject.config());
        let saved = stored.result.benchmarks.clone();
        let mut context = Context {
            saved: &saved,
            subject: &self.subject,
            spec: &spec.kv_quant,
            attention: prepared.attention.as_ref(),
            settings: &settings,
            progress,
            copy_gb_s: self.hardware.copy_bandwidth_gb_s,
            energy: &self.energy,
            references: &mut self.references,
        };
        if spec.profile {
            let completed = stored.result.completed.clone();
            let done = |length, batch| completed.contains(&profile_block(length, batch));
            bench::profile::run(&mut context, &done, &mut |block| stored.keep(block))?;
        }
        // One benchmark that cannot be scored (a text too short, say) must not cost the others.
        let mut failed = None;
        for benchmark in prepared.benchmarks {
            if stored.result.completed.iter().any(|c| c == benchmark.name()) {
                continue;
            }
            match benchmark.run(&mut context, &mut |block| stored.keep(block)) {
                Err(Error::Interrupted) => return Err(Error::Interrupted),
                Err(error) => {
                    failed.get_or_insert(error);
                }
                Ok(()) => {}
            }
        }
        failed.map_or(Ok(()), Err)
    }
}

impl Prepared {
    fn new(spec: &RunSpec) -> Result<Self> {
        Ok(Prepared { attention: attention::new(&spec.attn_backend)?, benchmarks: benchmarks(&spec.benchmarks)? })
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
