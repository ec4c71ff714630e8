//! A loaded model and the runs that share it: prepares, measures, saves after every block.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::time::Instant;

use super::describe::{Described, empty_result, model_config};
use super::environment;
use super::estimate::available_bytes;
use super::plan::{ModelRequest, RunSpec};
use super::prepared::Prepared;
use super::resume::{Existing, note_where_it_goes_on};
use super::skip::skip_what_cannot_fit;
use super::store::Stored;
use crate::base::progress::Progress;
use crate::bench::{self, Block, Context, Readings, References, Settings};
use crate::device::cupti::Cupti;
use crate::measure::energy::EnergyMeter;
use crate::measure::power;
use crate::model::{LoadOptions, Subject};
use crate::schema::{Environment, Hardware, Machine, ModelConfig, profile_block};
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
    readings: Readings,
    /// What was warned of before anything was measured.
    told: HashSet<String>,
    energy: EnergyMeter,
    /// Memory that was free before the model was loaded.
    pub(super) free_bytes: Option<u64>,
}

impl Bench {
    /// Loads the model of `spec`, whose weights' digest may be known already, and looks at the machine.
    ///
    /// # Errors
    /// When the model cannot be had.
    pub fn load(spec: &RunSpec, weights_sha256: Option<String>, show_loading: bool) -> Result<Self> {
        let options = LoadOptions { weights_sha256, ..spec.model.options(show_loading)? };
        // Idle power is measured now, before a context and weights are on the device.
        let energy = EnergyMeter::new(power::open(options.device.gpu()));
        if spec.settings.trace && options.device.gpu().is_some() {
            // Better now than after the timed runs.
            Cupti::load().map_err(Error::Usage)?;
        }
        let free_bytes = available_bytes(&spec.model);
        let subject = Subject::load(&options)?;
        let name = subject.identity().weights.unwrap_or_else(|| "random".into());
        tracing::info!("{}: weights {name}, as {:?}", spec.model.model, subject.dtype);
        Ok(Bench {
            environment: environment::environment(&subject.device, &energy)?,
            hardware: environment::hardware(&subject.device)?,
            references: References::default(),
            readings: Readings::default(),
            told: HashSet::new(),
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
    pub(super) fn run(&mut self, run: &Prepared, stored: Option<Stored>, output: &Output<'_>, name: String) -> Outcome {
        let started = Instant::now();
        let stored = self.prepare(run, stored.as_ref()).and_then(|()| match stored {
            Some(stored) => Ok(stored),
            None => self.create(run, &output.folder),
        });
        let mut stored = match stored {
            Ok(stored) => stored,
            Err(error) => return Outcome { name, stored: None, error: Some(error) },
        };
        note_where_it_goes_on(
            &mut stored.result,
            self.model_config(&run.spec.model),
            &self.environment,
            &self.hardware,
        );
        stored.result.warnings.clear();
        let earlier = stored.result.combo_elapsed_s;
        let mut error = self.measure(run, &mut stored, output.progress).err();
        stored.result.combo_elapsed_s = earlier + started.elapsed().as_secs_f64();
        if matches!(error, Some(Error::Interrupted)) && stored.result.is_empty() {
            // Nothing to keep, and nothing that a report should find.
            let removed = std::fs::remove_file(&stored.path).map_err(|e| Error::io(&stored.path, e));
            return Outcome { name, stored: None, error: removed.err().or(error) };
        }
        stored.result.warnings.append(&mut stored.failed);
        if let Err(failed) = stored.save() {
            error.get_or_insert(failed);
        }
        Outcome { name, stored: Some(stored), error }
    }

    /// Makes the run's file.
    fn create(&self, run: &Prepared, folder: &Path) -> Result<Stored> {
        let settings = self.settings(&run.spec);
        let mut result = empty_result(&run.spec, &settings, &Described::loaded(&self.subject))?;
        result.environment = self.environment.clone();
        result.hardware = self.hardware.clone();
        Stored::create(folder, result)
    }

    /// Reads the data of the benchmarks that `stored` lacks, refuses what the model cannot be run with as asked, and warns, once, of
    /// what their scores are not.
    ///
    /// # Errors
    /// Says what to change.
    pub fn prepare(&mut self, run: &Prepared, stored: Option<&Stored>) -> Result<()> {
        let (spec, config) = (&run.spec, self.subject.config());
        spec.kv_quant.validate(config.head_dim, config.layers)?;
        spec.check_default_context(config)?;
        let settings = self.settings(spec);
        if spec.profile {
            bench::profile::check_lengths(config, &settings)?;
        }
        let missing = |name: &str| stored.is_none_or(|stored| !stored.has(name));
        for benchmark in run.benchmarks.iter().filter(|benchmark| missing(benchmark.name())) {
            if benchmark.is_quality() {
                self.subject.weights.require_trained(benchmark.name())?;
                self.subject.tokenizer()?;
            }
            let request = bench::Request { subject: &self.subject, settings: &settings, quant: &spec.kv_quant };
            let warning = benchmark.prepare(&request, &mut self.readings)?;
            // Two benchmarks of one text, and other runs of the cache, have the same to say.
            if let Some(warning) = warning.filter(|warning| self.told.insert(warning.clone())) {
                tracing::warn!("{warning}");
            }
        }
        Ok(())
    }

    /// Measures the blocks of a run that `stored` does not hold yet, and notes in it what failed. A context and batch whose cache cannot fit
    /// is a row that says so.
    ///
    /// # Errors
    /// The first failure; later benchmarks have been tried all the same.
    pub fn measure(&mut self, run: &Prepared, stored: &mut Stored, progress: &dyn Progress) -> Result<()> {
        self.measure_blocks(run, stored, progress).unwrap_or_else(|error| {
            stored.failed.push(error.to_string());
            Err(error)
        })
    }

    /// The outer result is what ended the run, the inner one the first benchmark that failed and cost the others nothing.
    fn measure_blocks(&mut self, run: &Prepared, stored: &mut Stored, progress: &dyn Progress) -> Result<Result<()>> {
        let spec = &run.spec;
        let settings = self.settings(spec);
        let saved = stored.result.benchmarks.clone();
        let machine = Machine::new(&self.environment, &self.hardware);
        let mut context = Context {
            saved: &saved,
            subject: &self.subject,
            spec: &spec.kv_quant,
            attention: run.attention.as_ref(),
            settings: &settings,
            progress,
            copy_gb_s: self.hardware.copy_bandwidth_gb_s,
            machine: machine.name(),
            energy: &self.energy,
            references: &mut self.references,
            readings: &mut self.readings,
        };
        if spec.profile {
            let mut done = skip_what_cannot_fit(&self.subject, spec, &settings, stored, self.free_bytes)?;
            done.extend(stored.result.completed.iter().filter(|block| stored.has(block)).cloned());
            let done = |length, batch| done.contains(&profile_block(length, batch));
            bench::profile::run(&mut context, &done, &mut |block| match block {
                Block::Profile(row) if row.is_skipped() => stored.skip(*row, self.free_bytes),
                block => stored.keep(block),
            })?;
        }
        // One benchmark that cannot be scored (a text too short, say) must not cost the others.
        let mut failed = None;
        for benchmark in &run.benchmarks {
            if stored.has(benchmark.name()) {
                continue;
            }
            match bench::score(benchmark.as_ref(), &mut context, &mut |block| stored.keep(block)) {
                Err(error) if matches!(error, Error::Interrupted) || error.is_out_of_space() => return Err(error),
                Err(error) => {
                    stored.fail(benchmark.name(), &error);
                    failed.get_or_insert(error);
                }
                Ok(()) => {}
            }
        }
        Ok(failed.map_or(Ok(()), Err))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::progress::Silent;
    use crate::session::sweep::Sweep;

    /// What a loaded model takes must not look like memory that its rows lack, nor a row be tried again for memory that loading took.
    #[cfg(target_os = "linux")]
    #[test]
    fn a_row_goes_by_the_memory_that_was_free_before_the_model_was_loaded() {
        let text = "[settings]\ncontext-lengths = [64]\nbatch-sizes = [1000000000]\n[[matrix]]\nkv-quants = ['none']\nbenchmarks = []";
        let plan = Sweep::parse(Path::new("sweep.toml"), text).unwrap().plan().unwrap();
        let run = Prepared::new(plan.runs[0].clone()).unwrap();
        let mut bench = Bench::load(&run.spec, None, false).unwrap();
        assert!(bench.free_bytes.is_some());

        let folder = tempfile::tempdir().unwrap();
        let output =
            Output { folder: folder.path().into(), existing: Existing::Resume, progress: &Silent, show_loading: false };
        let mut stored = None;
        // Less than there was then is no reason to try again, more is; what is free now decides whether it then fits.
        for (before_load, recorded) in [(1000, 1000), (999, 1000), (1001, 1001)] {
            bench.free_bytes = Some(before_load);
            let outcome = bench.run(&run, stored.take(), &output, "run".into());
            assert!(outcome.error.is_none(), "{:?}", outcome.error);
            let rows = &stored.insert(outcome.stored.unwrap()).result.measurements;
            assert!(rows[0].skip_reason.as_deref().unwrap().contains("for the cache alone"), "{rows:?}");
            assert_eq!((rows.len(), rows[0].free_bytes), (1, Some(recorded)));
        }
    }
}
