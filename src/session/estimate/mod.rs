//! What a run will need, before it runs: memory, to leave out what cannot fit, and time, to plan a sweep.
//!
//! Both are estimates. Weights and cache follow from the model's shape and are exact; what a forward pass holds besides, and
//! how long it takes, do not, and [`Memory`] and [`time`] say how they are guessed.

pub mod fit;
mod memory;
pub mod time;

use std::collections::{HashMap, HashSet};

use candle_core::DType;

use super::plan::{ModelRequest, RunSpec};
use crate::bench::feed::chunks;
use crate::bench::profile::too_long;
use crate::bench::{Settings, score_key};
use crate::model::{DecoderConfig, Subject};
use crate::{Error, Result};

pub use memory::{Memory, available_bytes, free_bytes, memory};
pub use time::Speed;

/// What a run will need.
#[derive(Debug, Clone, PartialEq)]
pub struct Estimate {
    /// At each context length and batch size.
    pub rows: Vec<Row>,
    /// Seconds of computing, where the machine's speed is known. Loading and downloads are not in it.
    pub seconds: Option<f64>,
}

/// Memory at one context length and batch size.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    /// Prompt length, tokens.
    pub context_len: usize,
    /// Sequences side by side.
    pub batch_size: usize,
    /// What it holds.
    pub memory: Memory,
    /// Why the model cannot be measured so far, where it cannot.
    pub too_long: Option<String>,
}

impl Estimate {
    /// The row that needs most of those that the model can be measured at.
    pub fn largest(&self) -> Option<&Row> {
        self.rows.iter().filter(|row| row.too_long.is_none()).max_by_key(|row| row.memory.total_bytes())
    }
}

/// Where the runs that are estimated will run.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Place {
    /// On the device of this machine that each run asks for.
    #[default]
    Here,
    /// On a GPU of another machine.
    OtherGpu,
}

/// A model without its weights.
#[derive(Debug, Clone)]
pub struct Shape {
    /// What its configuration says.
    pub config: DecoderConfig,
    /// Float type of weights, activations and cache, as the run will choose it.
    pub dtype: DType,
    /// Why the place does not serve it; `None` where it does.
    pub unserved: Option<String>,
}

impl Shape {
    /// The shape of a model, from its configuration alone, for a run on `place`. `progress` shows a bar where that is in a large file of the hub.
    ///
    /// # Errors
    /// As [`Subject::shape`].
    pub fn of(request: &ModelRequest, place: Place, progress: bool) -> Result<Self> {
        let options = request.options(progress)?;
        let config = Subject::shape(&options)?;
        let on_gpu = match place {
            Place::Here => options.device.open().is_ok_and(|device| device.is_cuda()),
            Place::OtherGpu => true,
        };
        let dtype = options.dtype.resolve_for(config.stored_dtype, on_gpu);
        let unserved = config.unserved_on_gpu().filter(|_| on_gpu);
        Ok(Shape { config, dtype, unserved })
    }

    /// Bytes of the weights.
    pub fn weights_bytes(&self) -> u64 {
        self.config.parameters().saturating_mul(self.dtype.size_in_bytes() as u64)
    }
}

/// Reads the shapes of models, each once, and estimates runs in the order of a plan.
#[derive(Default)]
pub struct Estimator {
    /// By model; what is not known, with the reason.
    shapes: HashMap<String, std::result::Result<Shape, String>>,
    /// Scores that an earlier run of the plan has measured.
    scored: HashSet<String>,
    place: Place,
    /// Whether downloads have bars.
    progress: bool,
    speed: Option<Speed>,
    /// Model, backend, chunks and benchmark of each reference that an earlier run of the plan has measured.
    referenced: HashSet<String>,
}

impl Estimator {
    /// For runs on `place`; times are estimated once its speed is known. `progress` is that of [`Shape::of`].
    pub fn new(place: Place, progress: bool) -> Self {
        Estimator { place, progress, ..Default::default() }
    }

    /// Estimates times too, for a machine of this speed.
    pub fn set_speed(&mut self, speed: Speed) {
        self.speed = Some(speed);
    }

    /// The shape of a model; `None` when its configuration cannot be had here (say, offline and not downloaded yet).
    pub fn shape(&mut self, request: &ModelRequest) -> Option<&Shape> {
        self.known(request).as_ref().ok()
    }

    /// Why the shape of a model is not known; `None` where it is.
    pub fn unknown(&mut self, request: &ModelRequest) -> Option<&str> {
        self.known(request).as_ref().err().map(String::as_str)
    }

    fn known(&mut self, request: &ModelRequest) -> &std::result::Result<Shape, String> {
        let key = format!("{request:?}");
        let (place, progress) = (self.place, self.progress);
        self.shapes.entry(key).or_insert_with(|| Shape::of(request, place, progress).map_err(|e| e.to_string()))
    }

    /// The need of `spec`; `None` when the model's shape is not known.
    ///
    /// # Errors
    /// When the settings cannot measure anything, the quantization does not fit the model, the place does not serve it, or it has no weights to
    /// measure.
    pub fn estimate(&mut self, spec: &RunSpec) -> Result<Option<Estimate>> {
        spec.settings.check(spec.profile)?;
        let options = spec.model.options(false)?;
        options.source()?;
        spec.benchmarks.iter().try_for_each(|name| options.weights.require_trained(name))?;
        let Some(shape) = self.shape(&spec.model).cloned() else { return Ok(None) };
        if let Some(reason) = shape.unserved {
            return Err(Error::usage(format!("{}: {reason}", spec.model.model)));
        }
        spec.kv_quant.validate(shape.config.head_dim, shape.config.layers)?;
        spec.check_default_context(&shape.config)?;
        let mut settings = spec.settings.for_model(&shape.config);
        let mut rows = Vec::new();
        for &context_len in &settings.context_lengths {
            for &batch_size in &settings.batch_sizes {
                let memory = memory(&shape, spec, &settings, context_len, batch_size);
                let too_long = too_long(&shape.config, &settings, context_len);
                rows.push(Row { context_len, batch_size, memory, too_long });
            }
        }
        let skipped = |length: usize| rows.iter().any(|row| row.context_len == length && row.too_long.is_some());
        settings.context_lengths.retain(|&length| !skipped(length));
        let seconds = self.speed.map(|speed| self.seconds(&shape, spec, &settings, speed));
        Ok(Some(Estimate { rows, seconds }))
    }

    fn seconds(&mut self, shape: &Shape, spec: &RunSpec, settings: &Settings, speed: Speed) -> f64 {
        let work = time::Work { shape, quant: &spec.kv_quant, backend: &spec.attn_backend, settings, speed };
        let profile = if spec.profile { work.profile() } else { 0.0 };
        let with_kld = spec.benchmarks.iter().any(|name| name == "kld");
        let quality = |name: &String| {
            let passes = match name.as_str() {
                // `kld` leaves the scores of both caches.
                "ppl" if with_kld => 0.0,
                // It reads the unquantized cache beside each quantized one.
                "kld" => 1.0 + f64::from(u8::from(spec.kv_quant.is_quantized())),
                // Otherwise the unquantized cache is measured once for all quantizations of a model and backend that are fed alike.
                _ => {
                    let chunks = chunks(&spec.kv_quant);
                    let first =
                        self.referenced.insert(format!("{:?} {} {chunks:?} {name}", spec.model, spec.attn_backend));
                    if first && spec.kv_quant.is_quantized() { 2.0 } else { 1.0 }
                }
            };
            passes * work.benchmark(name)
        };
        // What an earlier run scores alike is not measured again.
        let new = |name: &&String| {
            let key = score_key(name, &spec.attn_backend, &spec.kv_quant, settings);
            self.scored.insert(format!("{:?} {key}", spec.model))
        };
        profile + spec.benchmarks.iter().filter(new).map(quality).sum::<f64>()
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::super::sweep::Sweep;
    use super::*;

    /// Seconds of each run of the built-in model.
    fn seconds(quants: &str, benchmarks: &str) -> Vec<f64> {
        let text = format!("[[matrix]]\nkv-quants = [{quants}]\nbenchmarks = [{benchmarks}]\nprofile = false");
        let mut estimator = Estimator::new(Place::OtherGpu, false);
        estimator.set_speed(Speed { bytes_per_s: 1e9, operations_per_s: 1e9 });
        let runs = Sweep::parse(Path::new("sweep.toml"), &text).unwrap().plan().unwrap().runs;
        runs.iter().map(|run| estimator.estimate(run).unwrap().unwrap().seconds.unwrap()).collect()
    }

    #[test]
    fn a_divergence_reads_both_caches_each_time_and_leaves_a_perplexity_nothing_to_read() {
        let of = seconds("'none', 'int4-hqq', 'int4-kivi'", "'kld'");
        assert!((of[1] / of[2] - 1.0).abs() < 0.2, "the second quantization reads the unquantized cache again");
        assert!(of[1] > 1.5 * of[0], "{of:?}");
        assert_eq!(seconds("'none', 'int4-hqq'", "'ppl', 'kld'"), of[..2]);
        let ppl = seconds("'int8-hqq', 'int4-hqq'", "'ppl'");
        assert!(ppl[0] > 1.5 * ppl[1], "the first run reads the reference too: {ppl:?}");
    }

    #[test]
    fn a_run_of_heads_that_no_gpu_kernel_serves_is_refused_there_and_not_on_a_cpu() {
        let folder = tempfile::tempdir().unwrap();
        let config = folder.path().join("c.config.json");
        let of = |head_dim: usize, place: Place| {
            let shape = format!(
                r#"{{"model_type": "llama", "hidden_size": 64, "num_hidden_layers": 1, "num_attention_heads": 1, "vocab_size": 8,
                    "intermediate_size": 64, "max_position_embeddings": 4096, "head_dim": {head_dim}}}"#
            );
            std::fs::write(&config, shape).unwrap();
            let matrix =
                format!("[[matrix]]\nmodels = ['{0}']\nkv-quants = ['none']\n[model.'{0}']\n", config.display());
            let text = format!("{matrix}weights = 'dummy'\ndevice = 'cpu'");
            let run = Sweep::parse(Path::new("sweep.toml"), &text).unwrap().plan().unwrap().runs.remove(0);
            Estimator::new(place, false).estimate(&run).err().map(|error| error.to_string()).unwrap_or_default()
        };
        assert!(of(96, Place::OtherGpu).contains("heads have 96 channels"));
        assert_eq!((of(96, Place::Here), of(128, Place::OtherGpu)), (String::new(), String::new()));
    }

    #[test]
    fn a_score_that_an_earlier_run_has_takes_no_time() {
        let text = "[[matrix]]\nkv-quants = ['none', 'int4-hqq']\nbenchmarks = ['needle', 'math']\nprofile = false";
        let text = format!("{text}\noutput-tokens = [64, 128]");
        let runs = Sweep::parse(Path::new("sweep.toml"), &text).unwrap().plan().unwrap().runs;
        let mut estimator = Estimator::new(Place::OtherGpu, false);
        estimator.set_speed(Speed { bytes_per_s: 1e6, operations_per_s: f64::INFINITY });
        // A context of its own: the default leaves room for the output.
        let of = |mut run: RunSpec| {
            run.settings.context_lengths = vec![512];
            (run.kv_quant.is_quantized(), estimator.estimate(&run).unwrap().unwrap().seconds.unwrap() > 0.0)
        };
        let measured: Vec<_> = runs.into_iter().map(of).collect();
        assert_eq!(measured, [(false, true), (false, false), (true, true), (true, false)]);
    }
}
