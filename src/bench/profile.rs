//! What a cache costs: prefill, decode, memory (docs/MEASUREMENT.md).

use std::time::Instant;

use candle_core::Tensor;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::{Block, Context, Settings};
use crate::base::stats::{self, Summary};
use crate::cache::{self, CacheBytes, KvCache};
use crate::device;
use crate::measure::clock::DeviceClock;
use crate::measure::process;
use crate::measure::run::{RunTimes, Workload, time_run};
use crate::model::config::{DecoderConfig, Position};
use crate::model::step::Stepper;
use crate::model::{LogitsOf, Subject};
use crate::quant::{QuantSpec, Scheme};
use crate::schema::{KvBytes, Measurement, Memory, Steps};
use crate::{Error, Result};

const MIB: f64 = (1u64 << 20) as f64;

/// Measures every context length × batch size; `keep` receives each as soon as it is complete.
///
/// What does not fit in memory is a row that says so, and the next one is measured.
pub fn run(
    context: &mut Context<'_>,
    done: &dyn Fn(usize, usize) -> bool,
    keep: &mut dyn FnMut(Block) -> Result<()>,
) -> Result<()> {
    let settings = context.settings;
    for &length in &settings.context_lengths {
        for &batch in &settings.batch_sizes {
            if done(length, batch) {
                continue;
            }
            let measurement = match measure(context, length, batch) {
                Err(Error::OutOfMemory(reason)) => skipped(length, batch, reason),
                other => other?,
            };
            keep(Block::Profile(Box::new(measurement)))?;
        }
    }
    Ok(())
}

/// Refuses contexts that the model was not made for.
///
/// # Errors
/// [`Error::Usage`] naming the first one.
pub fn check_lengths(config: &DecoderConfig, settings: &Settings) -> Result<()> {
    let Settings { context_lengths, decode_tokens, .. } = settings;
    for &length in context_lengths {
        let last = length + if matches!(config.position, Position::Learned) { *decode_tokens } else { 0 };
        if length == 0 || last > config.max_positions {
            return Err(Error::usage(format!(
                "--context-lengths {length}{} is longer than the model allows ({} tokens)",
                if last > length { format!(" with {decode_tokens} decoded tokens") } else { String::new() },
                config.max_positions
            )));
        }
    }
    Ok(())
}

fn skipped(length: usize, batch: usize, reason: String) -> Measurement {
    Measurement {
        context_len: length,
        batch_size: Some(batch),
        skipped: Some(true),
        skip_reason: Some(reason),
        ..Default::default()
    }
}

/// A model reading one prompt into one cache, then writing.
struct Generation<'a> {
    context: &'a Context<'a>,
    cache: &'a mut dyn KvCache,
    /// `[B, context length]`.
    prompt: &'a Tensor,
    stepper: Stepper<'a>,
}

impl Workload for Generation<'_> {
    fn prefill(&mut self) -> Result<()> {
        self.cache.reset();
        let length = self.prompt.dim(1)?;
        let chunk = self.context.settings.prefill_chunk.min(length);
        let Context { subject, attention, progress, .. } = self.context;
        let mut at = 0;
        loop {
            let tokens = chunk.min(length - at);
            let input = self.prompt.narrow(1, at, tokens)?;
            let logits = subject.decoder.forward(&input, self.cache, *attention, LogitsOf::Last)?;
            progress.advance(tokens as u64)?;
            at += tokens;
            if at == length {
                return self.stepper.begin(&logits, self.cache);
            }
        }
    }

    fn step(&mut self) -> Result<bool> {
        let flush = self.cache.tokens_until_flush() == Some(1);
        self.stepper.step(self.cache)?;
        self.context.progress.advance(1)?;
        Ok(flush)
    }
}

fn measure(context: &Context<'_>, length: usize, batch: usize) -> Result<Measurement> {
    let (settings, spec, subject) = (context.settings, context.spec, context.subject);
    let started = Instant::now();
    let steps = settings.decode_tokens;
    let chunk = settings.prefill_chunk.min(length);
    // What an earlier, larger measurement left in the pool must not count in this one.
    device::release_unused_memory(&subject.device)?;
    let mut cache = context.new_cache(spec, batch, length + steps, chunk)?;
    let bytes = ledger(cache.as_ref())?;

    process::reset_peak_resident();
    device::reset_memory_peaks(&subject.device)?;
    let prompt = random_prompt(context, length, batch)?;
    let runs = settings.warmup_runs + settings.measure_runs;
    context.progress.start(&format!("profile {} @ {length}×{batch}", spec.name), (runs * (length + steps)) as u64);
    let clock = DeviceClock(&subject.device);
    let mut times = Vec::with_capacity(settings.measure_runs);
    let stepper = Stepper::new(&subject.decoder, context.attention, cache.as_ref(), settings.step_mode)?;
    let mut workload = Generation { context, cache: cache.as_mut(), prompt: &prompt, stepper };
    for run in 0..runs {
        let measured = time_run(&clock, &mut workload, steps)?;
        if run >= settings.warmup_runs {
            times.push(measured);
        }
    }
    context.progress.finish();
    let kernel = workload.stepper.describe(workload.cache);

    let mut m = Measurement {
        context_len: length,
        batch_size: Some(batch),
        decode_tokens: Some(steps),
        kv_bytes: Some(bytes),
        kv_cache_mb: Some(bytes.total_bytes as f64 / MIB),
        kv_cache_type: Some(cache_type(spec, subject)),
        attention_kernel: Some(kernel),
        vram_overflow: Some(false),
        ..Default::default()
    };
    fill_times(&mut m, &times, batch);
    let reads = cache.key_reads();
    m.quantized_read_fraction = (reads.total > 0).then(|| reads.from_codes as f64 / reads.total as f64);
    let memory = memory(subject, bytes.total_bytes)?;
    // On the CPU the process itself stands in for the device's memory.
    let peak = memory.pool_peak_bytes.or(memory.process_peak_bytes);
    m.vram_peak_mb = peak.map(|b| b as f64 / MIB);
    m.vram_reserved_mb = memory.pool_reserved_bytes.map(|b| b as f64 / MIB);
    m.memory = Some(memory);
    m.energy = Some(crate::schema::Energy {
        reason: Some("this version of kvprof reads no energy counter".into()),
        ..Default::default()
    });
    if let Some(median) = m.steps.as_ref().map(|s| s.median_ms) {
        let moved = subject.weight_bytes() + bytes.total_bytes;
        let rate = moved as f64 / (median * 1e6);
        m.step_bandwidth_gb_s = Some(rate);
        // A copy both reads and writes; decoding mostly reads: the share is of bytes moved per second, whichever way.
        m.step_bandwidth_share = context.copy_gb_s.map(|copy| rate / copy);
    }
    m.ctx_elapsed_s = Some(started.elapsed().as_secs_f64());
    Ok(m)
}

/// The cache's byte ledger; a difference between what the spec predicts and what was allocated is an error.
fn ledger(cache: &dyn KvCache) -> Result<KvBytes> {
    let (predicted, allocated) = (cache.predicted(), cache.allocated());
    if predicted != allocated {
        return Err(Error::Invalid(format!(
            "the cache ledger does not balance for {}: predicted {predicted:?}, allocated {allocated:?}; this is a defect of kvprof",
            cache.spec().name
        )));
    }
    let CacheBytes { codes, parameters, window, scratch } = allocated;
    Ok(KvBytes {
        codes_bytes: codes,
        parameters_bytes: parameters,
        window_bytes: window,
        scratch_bytes: scratch,
        total_bytes: allocated.total(),
        unquantized_bytes: cache::predict(&QuantSpec::none(), cache.shape()).total(),
    })
}

/// Memory at the peak of the runs just made.
fn memory(subject: &Subject, cache_bytes: u64) -> Result<Memory> {
    let weights_bytes = subject.weight_bytes();
    let gpu = device::memory(&subject.device)?;
    Ok(Memory {
        weights_bytes: Some(weights_bytes),
        cache_bytes: Some(cache_bytes),
        pool_peak_bytes: gpu.map(|m| m.used_peak_bytes),
        activations_bytes: gpu.map(|m| m.used_peak_bytes.saturating_sub(weights_bytes + cache_bytes)),
        framework_bytes: gpu.map(|m| m.device_used_bytes.saturating_sub(m.reserved_bytes)),
        pool_reserved_bytes: gpu.map(|m| m.reserved_peak_bytes),
        device_used_bytes: gpu.map(|m| m.device_used_bytes),
        process_peak_bytes: process::peak_resident_bytes(),
        ..Default::default()
    })
}

/// Seeded random tokens: cost does not depend on what they say.
fn random_prompt(context: &Context<'_>, length: usize, batch: usize) -> Result<Tensor> {
    let vocabulary = context.subject.config().vocab as u32;
    let mut rng = StdRng::seed_from_u64(context.settings.seed);
    let ids: Vec<u32> = (0..length * batch).map(|_| rng.random_range(0..vocabulary)).collect();
    Ok(Tensor::from_vec(ids, (batch, length), &context.subject.device)?)
}

fn cache_type(spec: &QuantSpec, subject: &Subject) -> String {
    match spec.scheme {
        Scheme::None => format!("DenseCache ({})", subject.dtype.as_str().to_uppercase()),
        Scheme::Fp8 => "QuantizedCache (FP8)".into(),
        Scheme::Grouped { key, value, .. } if key.bits == value.bits => format!("QuantizedCache (INT{})", key.bits),
        Scheme::Grouped { key, value, .. } => format!("QuantizedCache (K INT{}, V INT{})", key.bits, value.bits),
    }
}

fn fill_times(m: &mut Measurement, runs: &[RunTimes], batch: usize) {
    let prefill: Vec<f64> = runs.iter().map(|r| r.prefill_ms).collect();
    let decode: Vec<f64> = runs.iter().map(|r| r.decode_ms).collect();
    m.prefill_runs_ms = Summary::of(&prefill);
    m.decode_runs_ms = Summary::of(&decode);
    m.prefill_ms = m.prefill_runs_ms.as_ref().map(|s| s.median);
    m.decode_ms = m.decode_runs_ms.as_ref().map(|s| s.median);
    m.prefill_tokens_per_sec = m.prefill_ms.map(|ms| (m.context_len * batch) as f64 / ms * 1e3);
    let generated = (m.decode_tokens.unwrap_or(0) * batch) as f64;
    m.decode_tokens_per_sec = m.decode_ms.map(|ms| generated / ms * 1e3);
    for (what, summary) in [("prefill", &m.prefill_runs_ms), ("decode", &m.decode_runs_ms)] {
        let drift = summary.as_ref().map_or(0.0, Summary::drift);
        if drift.abs() > 0.05 {
            m.warnings.push(format!("{what} time drifted by {:+.1} % from the first to the last run", drift * 100.0));
        }
    }
    let steps: Vec<f64> = runs.iter().flat_map(|r| r.steps_ms.iter().copied()).collect();
    let flushes: Vec<f64> = runs
        .iter()
        .flat_map(|r| r.steps_ms.iter().zip(&r.flushes).filter(|(_, flush)| **flush).map(|(ms, _)| *ms))
        .collect();
    if let (Some(median_ms), Some(p99_ms)) = (stats::percentile(&steps, 50.0), stats::percentile(&steps, 99.0)) {
        m.steps = Some(Steps {
            median_ms,
            p99_ms,
            flush_mean_ms: stats::mean(&flushes),
            flushes: flushes.len(),
            count: steps.len(),
            ..Default::default()
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(prefill_ms: f64, steps_ms: &[f64], flush: usize) -> RunTimes {
        RunTimes {
            prefill_ms,
            decode_ms: steps_ms.iter().sum(),
            steps_ms: steps_ms.to_vec(),
            flushes: (0..steps_ms.len()).map(|i| i == flush).collect(),
        }
    }

    #[test]
    fn medians_throughput_and_flush_steps() {
        let mut m = Measurement { context_len: 100, decode_tokens: Some(3), ..Default::default() };
        fill_times(&mut m, &[run(50.0, &[1.0, 1.0, 4.0], 2), run(52.0, &[1.0, 1.0, 4.0], 2)], 2);
        assert_eq!(m.prefill_ms, Some(51.0));
        assert!((m.decode_tokens_per_sec.unwrap() - 1000.0).abs() < 1e-9);
        let steps = m.steps.unwrap();
        assert_eq!((steps.median_ms, steps.flush_mean_ms, steps.flushes), (1.0, Some(4.0), 2));
        assert!(m.warnings.is_empty());
    }

    #[test]
    fn drift_over_five_percent_is_a_warning() {
        let mut m = Measurement { context_len: 100, decode_tokens: Some(1), ..Default::default() };
        fill_times(&mut m, &[run(50.0, &[1.0], 9), run(60.0, &[1.0], 9)], 1);
        assert_eq!(m.warnings.len(), 1);
        assert!(m.warnings[0].starts_with("prefill time drifted by +20.0 %"), "{:?}", m.warnings);
    }
}
