//! Time of a run, guessed from its shape and from what this machine does per second.
//!
//! The model: a decode step reads all weights and the whole cache once, at the rate of a large copy. Reading a prompt takes two
//! operations for each weight and token, and four for each channel of each pair of tokens that attend to each other, at the rate
//! of a large matrix product; a chunk of it takes at least as long as reading the weights and the cache once. `eager`, and `sdpa` over codes,
//! also write all that they attend to densely and read it again, at every step and for every chunk. Not in it: loading, downloads, quantizing, launches, sampling. Take it for the order of magnitude.

use std::time::Instant;

use candle_core::{DType, Device, Tensor};

use super::Shape;
use crate::bench::Settings;
use crate::bench::feed::CHUNK;
use crate::bench::needle::ANSWER_TOKENS;
use crate::device;
use crate::quant::QuantSpec;
use crate::{Error, Result, cache};

/// Tokens of one question with its choices, and of one problem: typical of MMLU and MATH.
const QUESTION_TOKENS: f64 = 130.0;
const PROBLEM_TOKENS: f64 = 120.0;
/// Scored tokens and window when all of a text is asked for, and the text's length is not known before it is read.
const WHOLE_TEXT: f64 = 300_000.0;

/// What a machine does in a second.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Speed {
    /// Bytes that a large copy moves, read plus written.
    pub bytes_per_s: f64,
    /// Operations of a large matrix product.
    pub operations_per_s: f64,
}

impl Speed {
    /// Measures both on `device`: a second on a CPU, less on a GPU.
    ///
    /// # Errors
    /// When the device has no room for it.
    pub fn measure(device: &Device, dtype: DType) -> Result<Self> {
        let bytes_per_s = device::copy_gb_per_s(device)? * 1e9;
        let size = if device.is_cpu() { 768 } else { 4096 };
        let matrix = Tensor::ones((size, size), dtype, device)?;
        let mut best = f64::INFINITY;
        for _ in 0..3 {
            device::synchronize(device)?;
            let start = Instant::now();
            let product = matrix.matmul(&matrix)?;
            device::synchronize(device)?;
            best = best.min(start.elapsed().as_secs_f64());
            drop(product);
        }
        if best <= 0.0 {
            return Err(Error::Invalid("a matrix product took no time".into()));
        }
        Ok(Speed { bytes_per_s, operations_per_s: 2.0 * (size as f64).powi(3) / best })
    }
}

/// A run's work on a machine.
pub struct Work<'a> {
    /// The model.
    pub shape: &'a Shape,
    /// The cache.
    pub quant: &'a QuantSpec,
    /// `--attn-backend`.
    pub backend: &'a str,
    /// With what depends on the model filled in.
    pub settings: &'a Settings,
    /// The machine.
    pub speed: Speed,
}

impl Work<'_> {
    /// Seconds of `profile`.
    pub fn profile(&self) -> f64 {
        let s = self.settings;
        let runs = (s.warmup_runs + s.measure_runs) as f64;
        let mut seconds = 0.0;
        for &length in &s.context_lengths {
            for &batch in &s.batch_sizes {
                let chunk = s.prefill_chunk(length, batch, self.shape.config.layers) as f64;
                let (length, batch) = (length as f64, batch as f64);
                let steps = s.decode_tokens as f64;
                let follow_up =
                    s.follow_up_tokens.map_or(0.0, |tokens| self.prompt(length, tokens as f64, batch, chunk));
                let once = self.prompt(0.0, length, batch, chunk) + steps * self.step(length + steps / 2.0, batch);
                seconds += runs * (once + follow_up);
            }
        }
        seconds
    }

    /// Seconds of a benchmark by its name, one pass through one cache; 0 for a name that is none.
    pub fn benchmark(&self, name: &str) -> f64 {
        let s = self.settings;
        let or_all = |count: usize, all: f64| if count == 0 { all } else { count as f64 };
        match name {
            // One pass gives both; whoever comes second finds its scores.
            "ppl" | "kld" => {
                let scored = or_all(s.ppl_tokens, WHOLE_TEXT);
                let window = s.window(self.shape.config.max_positions);
                let (window, burn_in) = (window as f64, s.burn_in(window, self.quant) as f64);
                let windows = (scored / (window - burn_in).max(1.0)).ceil();
                windows * self.reading(window.min(scored + burn_in), 1.0)
            }
            "needle" => {
                let each = |&length: &usize| {
                    let length = length as f64;
                    self.reading(length, 1.0) + ANSWER_TOKENS as f64 * self.step(length, 1.0)
                };
                let trials = (s.needle_depths.len() * s.needle_trials) as f64;
                trials * s.context_lengths.iter().map(each).sum::<f64>()
            }
            "mmlu" => {
                // What does not fit the model's context is left out.
                let most = self.shape.config.max_positions as f64;
                let prompt = (QUESTION_TOKENS * (s.mmlu_shots as f64 + 1.0)).min(most);
                or_all(s.mmlu_questions, 14_000.0) * self.reading(prompt, 1.0)
            }
            // Every answer at its longest: an upper bound.
            "math" => {
                let (problems, batch) = (or_all(s.math_problems, 500.0), s.batch_size.max(1) as f64);
                let answer = s.max_new_tokens as f64;
                let once =
                    self.reading(PROBLEM_TOKENS, batch) + answer * self.step(PROBLEM_TOKENS + answer / 2.0, batch);
                (problems / batch).ceil() * once
            }
            _ => 0.0,
        }
    }

    /// Seconds to write one token at `length` tokens of context.
    fn step(&self, length: f64, batch: f64) -> f64 {
        let cache = self.cache_bytes(self.quant, length, batch);
        // Densely it is as large as an unquantized cache; `sdpa` reads one of those where it lies.
        let copied = self.backend == "eager" || self.backend == "sdpa" && self.quant.is_quantized();
        let copy = if copied { 2.0 * self.cache_bytes(&QuantSpec::none(), length, batch) } else { 0.0 };
        (self.shape.weights_bytes() as f64 + cache + copy) / self.speed.bytes_per_s
    }

    /// Seconds to read `length` tokens as quality benchmarks do.
    fn reading(&self, length: f64, batch: f64) -> f64 {
        self.prompt(0.0, length, batch, CHUNK as f64)
    }

    /// Seconds to read `length` tokens after `held` others, `chunk` at a time.
    fn prompt(&self, held: f64, length: f64, batch: f64, chunk: f64) -> f64 {
        let config = &self.shape.config;
        let weights = 2.0 * config.parameters() as f64 * length * batch;
        // A token attends to those before it, as far back as its layer's window reaches: pairs of one head in all layers.
        let pairs_up_to = |length: f64| self.over_layers(length, |seen| seen * length - seen * seen / 2.0);
        let pairs = (pairs_up_to(held + length) - pairs_up_to(held)) * batch;
        let attention = 4.0 * pairs * (config.heads * config.head_dim) as f64;
        let computing = (weights + attention) / self.speed.operations_per_s;
        let chunks = (length / chunk).ceil();
        computing.max(chunks * self.step(held + length / 2.0, batch))
    }

    /// Bytes of a cache of `quant` that a step at `length` tokens reads: the ledger's without its scratch, of which a layer with a sliding window
    /// of its own reads no more than that.
    fn cache_bytes(&self, quant: &QuantSpec, length: f64, batch: f64) -> f64 {
        let config = &self.shape.config;
        // Past this caches grow in proportion, and sizes that no machine has would overflow the ledger's integers.
        let capacity = length.clamp(1.0, (1 << 20) as f64).round();
        let shape = config.cache_shape(1, capacity as usize, 64, self.shape.dtype, &Device::Cpu);
        let held = cache::predict(quant, &shape);
        let held = (held.total() - held.scratch) as f64;
        let share = match config.shared_window() {
            // Older tokens are not held.
            Some(_) => 1.0,
            None => self.over_layers(length, |seen| seen) / (config.layers as f64 * capacity),
        };
        held * share * batch
    }

    /// The sum over all layers of `of` the tokens that a token sees after `length` others.
    fn over_layers(&self, length: f64, of: impl Fn(f64) -> f64) -> f64 {
        let seen = |window: &Option<usize>| window.map_or(length, |window| length.min(window as f64));
        self.shape.config.windows.iter().map(|window| of(seen(window))).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::plan::ModelRequest;
    use super::super::Place;
    use super::*;

    fn shape() -> Shape {
        let request = ModelRequest {
            model: "builtin".into(),
            revision: None,
            dummy: false,
            dtype: "f32".into(),
            device: "cpu".into(),
            sliding_window: true,
        };
        Shape::of(&request, Place::Here, false).unwrap()
    }

    /// A machine on which only reading takes time.
    const READS: Speed = Speed { bytes_per_s: 1e6, operations_per_s: f64::INFINITY };

    #[test]
    fn decoding_reads_weights_and_cache_once_a_step() {
        let shape = shape();
        let settings = Settings { decode_tokens: 100, ..Settings::default() };
        let quant = QuantSpec::none();
        let work = Work { shape: &shape, quant: &quant, backend: "fused", settings: &settings, speed: READS };
        // 4 layers of 2 heads of 64 channels, keys and values in 4 bytes: 4096 bytes a token.
        let expected = (shape.weights_bytes() as f64 + 1000.0 * 4096.0) / 1e6;
        assert!((work.step(1000.0, 1.0) / expected - 1.0).abs() < 0.05, "{} {expected}", work.step(1000.0, 1.0));
        assert!(work.step(1000.0, 8.0) > work.step(1000.0, 1.0));
    }

    #[test]
    fn what_a_backend_dequantizes_in_each_step_is_written_and_read_again() {
        let (shape, settings) = (shape(), Settings::default());
        let bytes = |quant: &str, backend: &str| {
            let quant = quant.parse().unwrap();
            let work = Work { shape: &shape, quant: &quant, backend, settings: &settings, speed: READS };
            (work.step(1024.0, 2.0) * READS.bytes_per_s).round()
        };
        // 2 sequences of 1024 tokens of 4096 bytes, written and read.
        let copy = 2.0 * 2.0 * 1024.0 * 4096.0;
        assert_eq!(bytes("int4-hqq", "sdpa"), bytes("int4-hqq", "fused") + copy);
        assert_eq!(bytes("int4-hqq", "eager"), bytes("int4-hqq", "sdpa"));
        assert_eq!(bytes("none", "sdpa"), bytes("none", "fused"));
        assert_eq!(bytes("none", "eager"), bytes("none", "fused") + copy);
    }

    #[test]
    fn a_profile_reads_for_each_chunk_and_each_step_of_its_runs() {
        let (shape, quant) = (shape(), QuantSpec::none());
        let settings = Settings {
            context_lengths: vec![1024],
            decode_tokens: 128,
            warmup_runs: 1,
            measure_runs: 2,
            ..Settings::default()
        };
        let seconds =
            Work { shape: &shape, quant: &quant, backend: "fused", settings: &settings, speed: READS }.profile();
        // Four chunks of 256 tokens and 128 steps, each at half their length: 512 and 1024 + 64 tokens of 4096 bytes.
        let read = |tokens: f64| (shape.weights_bytes() as f64 + tokens * 4096.0) / 1e6;
        let expected = 3.0 * (4.0 * read(512.0) + 128.0 * read(1088.0));
        assert!((seconds / expected - 1.0).abs() < 1e-9, "{seconds} {expected}");
    }

    #[test]
    fn a_follow_up_prompt_is_read_after_its_context_in_each_run() {
        let (shape, quant) = (shape(), QuantSpec::none());
        let seconds = |follow_up_tokens: Option<usize>, speed: Speed| {
            let settings = Settings { context_lengths: vec![1024], follow_up_tokens, ..Settings::default() };
            Work { shape: &shape, quant: &quant, backend: "fused", settings: &settings, speed }.profile()
        };
        // 7 runs, each of one chunk of 128 tokens, half way at 1024 + 64.
        let more = seconds(Some(128), READS) - seconds(None, READS);
        let expected = 7.0 * (shape.weights_bytes() as f64 + 1088.0 * 4096.0) / 1e6;
        assert!((more / expected - 1.0).abs() < 1e-9, "{more} {expected}");
        let computes = Speed { bytes_per_s: f64::INFINITY, operations_per_s: 1e6 };
        // Each attends to all before it, in 4 layers of 4 heads of 64 channels.
        let operations = 128.0 * 2.0 * shape.config.parameters() as f64 + 4.0 * 4.0 * 256.0 * 128.0 * 1088.0;
        let more = seconds(Some(128), computes) - seconds(None, computes);
        assert!((more / (7.0 * operations / 1e6) - 1.0).abs() < 1e-9, "{more}");
    }

    #[test]
    fn a_batch_that_is_not_full_takes_as_long_as_one_that_is() {
        let (shape, quant) = (shape(), QuantSpec::none());
        let seconds = |math_problems: usize| {
            let settings = Settings { math_problems, batch_size: 2, ..Settings::default() };
            Work { shape: &shape, quant: &quant, backend: "fused", settings: &settings, speed: READS }.benchmark("math")
        };
        assert_eq!(seconds(5), seconds(6));
        assert!((seconds(6) / seconds(4) - 1.5).abs() < 1e-9);
    }

    #[test]
    fn layers_with_a_sliding_window_read_no_more_than_it_holds() {
        let (quant, settings) = (QuantSpec::none(), Settings::default());
        // Bytes of a step's cache and operations of a prompt's attention, at 1920 tokens.
        let work = |windows: [Option<usize>; 4]| {
            let mut shape = shape();
            shape.config.windows = windows.to_vec();
            let weights = shape.weights_bytes() as f64;
            let reads = Work { shape: &shape, quant: &quant, backend: "fused", settings: &settings, speed: READS };
            let bytes = reads.step(1920.0, 1.0) * READS.bytes_per_s - weights;
            let speed = Speed { bytes_per_s: f64::INFINITY, operations_per_s: 1.0 };
            let operations = Work { speed, ..reads }.prompt(0.0, 1920.0, 1.0, 512.0);
            (bytes.round(), operations - 2.0 * shape.config.parameters() as f64 * 1920.0)
        };
        let (bytes, operations) = work([None; 4]);
        // 4096 bytes a token in all layers, 2 heads of 64 channels for keys and for values in f32.
        assert_eq!(bytes, 1920.0 * 4096.0);
        let (half, fewer) = work([None, Some(480), None, Some(480)]);
        assert_eq!(half, (1920.0 + 480.0) / 2.0 * 4096.0);
        // Of the square's half a strip as wide as the window: 1 - 0.75² of it.
        assert_eq!(fewer / operations, (1.0 + 0.4375) / 2.0);
        let (short, _) = work([Some(448); 4]);
        assert!((448.0 * 4096.0..=(448.0 + 128.0) * 4096.0).contains(&short), "{short}");
    }

    #[test]
    fn more_work_takes_longer_and_smaller_caches_less() {
        let shape = shape();
        let settings = Settings { context_lengths: vec![1024], ..Settings::default() };
        let longer = Settings { context_lengths: vec![1024, 2048], ..Settings::default() };
        let (none, int4) = (QuantSpec::none(), "int4-hqq".parse::<QuantSpec>().unwrap());
        let speed = Speed { bytes_per_s: 1e9, operations_per_s: 1e9 };
        let seconds = |quant, settings| Work { shape: &shape, quant, backend: "fused", settings, speed }.profile();
        assert!(seconds(&none, &longer) > 2.0 * seconds(&none, &settings));
        let slow = Work { shape: &shape, quant: &int4, backend: "fused", settings: &settings, speed: READS };
        let dense = Work { quant: &none, ..slow };
        assert!(slow.step(2048.0, 1.0) < dense.step(2048.0, 1.0));
        for name in ["ppl", "kld", "needle", "mmlu", "math"] {
            assert!(dense.benchmark(name) > 0.0, "{name}");
        }
    }

    #[test]
    fn quality_is_estimated_by_the_benchmarks_own_settings() {
        let shape = shape();
        let seconds = |name: &str, quant: &str, settings: &Settings| {
            Work { shape: &shape, quant: &quant.parse().unwrap(), backend: "fused", settings, speed: READS }
                .benchmark(name)
        };
        let settings = Settings { ppl_tokens: 40_960, ..Settings::default() };
        // Windows of which more is not scored are more windows.
        assert!(seconds("ppl", "int4-hqq,residual=1024", &settings) > 1.5 * seconds("ppl", "int4-hqq", &settings));
        // More examples than fit the model's 2048 tokens are not read.
        let shots = |mmlu_shots| seconds("mmlu", "none", &Settings { mmlu_shots, ..Settings::default() });
        assert!(shots(5) > shots(0));
        assert_eq!(shots(500), shots(50));
    }

    #[test]
    fn this_machine_has_a_speed() {
        let speed = Speed::measure(&Device::Cpu, DType::F32).unwrap();
        assert!(speed.bytes_per_s > 1e8 && speed.operations_per_s > 1e8, "{speed:?}");
    }
}
