//! What a cache costs: prefill, decode, memory (the rules of [`crate::measure`]).

mod bandwidth;
mod energy;
mod follow_up;
mod generation;
mod memory;
mod times;
mod trace;

use std::time::Instant;

use self::bandwidth::{fill_bandwidth, step_bytes};
use self::energy::measure_energy;
use self::follow_up::measure_follow_up;
use self::generation::{Generation, random_prompt};
use self::memory::{Held, fill_memory, ledger};
use self::times::fill_times;
use self::trace::measure_kernels;
use super::contexts::most_in_sight;
use super::feed::{longer_than_model, why_unread};
use super::limits::OUTPUT_TOKENS;
use super::{Block, Context, Settings};
use crate::cache::KeyReads;
use crate::measure::clock::DeviceClock;
use crate::measure::memory::{DeviceCounters, MemoryMeter};
use crate::measure::run::{RunTimes, time_run};
use crate::measure::timeline;
use crate::measure::trace::keep_longest;
use crate::model::config::DecoderConfig;
use crate::model::step::Stepper;
use crate::model::{Subject, WeightsKind};
use crate::quant::{QuantSpec, Scheme};
use crate::schema::Measurement;
use crate::{Error, Result, device};

const MIB: f64 = (1u64 << 20) as f64;

/// Measures every context length × batch size; `keep` receives each as soon as it is complete.
///
/// What does not fit in memory is a row that says so, and the next one is measured.
pub fn run(
    context: &mut Context<'_>,
    done: &dyn Fn(usize, usize) -> bool,
    keep: &mut dyn FnMut(Block) -> Result<()>,
) -> Result<()> {
    each_place(context.settings, done, &mut |length, batch| measure(context, length, batch), keep)
}

/// Makes and keeps the row of every place (context length × batch size) that is not done yet.
fn each_place(
    settings: &Settings,
    done: &dyn Fn(usize, usize) -> bool,
    measure: &mut dyn FnMut(usize, usize) -> Result<Measurement>,
    keep: &mut dyn FnMut(Block) -> Result<()>,
) -> Result<()> {
    for &length in &settings.context_lengths {
        for &batch in &settings.batch_sizes {
            if done(length, batch) {
                continue;
            }
            let measurement = match measure(length, batch) {
                Err(Error::OutOfMemory(reason)) => Measurement::skipped(length, batch, reason),
                other => other?,
            };
            keep(Block::Profile(Box::new(measurement)))?;
        }
    }
    Ok(())
}

/// Why a model cannot be measured at a context of `length` tokens: it is longer than what the model was made for, or its output goes past
/// the positions that the model can place. `None` where it can.
pub fn too_long(config: &DecoderConfig, settings: &Settings, length: usize) -> Option<String> {
    let output = settings.decode_tokens;
    let context = format!("--context-lengths {length}");
    if length > config.max_positions {
        return Some(longer_than_model(&context, config.max_positions));
    }
    let most = config.usable_positions();
    (length + output > most).then(|| longer_than_model(&format!("{context} with --{OUTPUT_TOKENS} {output}"), most))
}

/// Refuses settings under which every context is [`too_long`].
///
/// # Errors
/// [`Error::Usage`] naming the first one.
pub fn check_lengths(config: &DecoderConfig, settings: &Settings) -> Result<()> {
    let reasons: Option<Vec<_>> =
        settings.context_lengths.iter().map(|&length| too_long(config, settings, length)).collect();
    match reasons.unwrap_or_default().into_iter().next() {
        Some(first) => Err(Error::usage(first)),
        None => Ok(()),
    }
}

fn measure(context: &Context<'_>, length: usize, batch: usize) -> Result<Measurement> {
    let (settings, spec, subject) = (context.settings, context.spec, context.subject);
    let started = Instant::now();
    let steps = settings.decode_tokens;
    let chunk = settings.prefill_chunk(length, batch, subject.config().layers);
    // What an earlier, larger measurement left in the pool must not count in this one, nor its rotary table.
    subject.decoder.prepare(length + steps)?;
    device::release_unused_memory(&subject.device)?;
    let idle_w = context.energy.idle_w();
    let mut watch = context.energy.watch();
    let mut cache = context.new_cache(spec, batch, length + steps, chunk)?;
    let bytes = ledger(cache.as_ref())?;

    let counters = DeviceCounters(&subject.device);
    let mut meter = MemoryMeter::new(&counters);
    let prompt = random_prompt(context, length, batch)?;
    let passes = settings.warmup_runs + settings.measure_runs + usize::from(settings.memory_timeline);
    context.progress.start(&format!("profile {} @ {length}×{batch}", spec.name), (passes * (length + steps)) as u64);
    let stepper = Stepper::new(&subject.decoder, context.attention, cache.as_ref(), settings.step_mode)?;
    let mut workload = Generation { context, cache: cache.as_mut(), prompt: &prompt, stepper, logits: None };
    let times = timed_runs(&mut workload, &mut meter, &mut || watch.look())?;
    // A model that has overflowed has gone wrong somewhere; random weights may, and cost what they cost.
    let overflow = match workload.cache.check_finite() {
        Err(error @ Error::NotFinite(_)) if subject.weights == WeightsKind::Dummy => Some(error.to_string()),
        other => other.map(|()| None)?,
    };
    let timeline =
        settings.memory_timeline.then(|| timeline::record(&subject.device, &mut workload, steps)).transpose()?;
    context.progress.finish();
    let kernel = workload.stepper.describe(workload.cache);
    tracing::info!("{} at {length}×{batch}, {}: {kernel}", spec.name, context.attention.name());

    let mut m = Measurement {
        context_len: length,
        batch_size: Some(batch),
        prefill_chunk: Some(chunk),
        decode_tokens: Some(steps),
        kv_bytes: Some(bytes),
        kv_cache_mb: Some(bytes.total_bytes as f64 / MIB),
        kv_cache_type: Some(cache_type(spec, subject)),
        attention_kernel: Some(kernel),
        step_mode: Some(workload.stepper.mode().name().into()),
        ..Default::default()
    };
    m.warnings.extend(overflow);
    m.warnings.extend(workload.stepper.fallback(workload.cache).map(|reason| {
        let backend = context.attention.name();
        format!("decode is not {backend}'s: {reason}, so each step dequantizes the cache and attends as sdpa does")
    }));
    fill_times(&mut m, &times, batch);
    fill_reads(&mut m, context, workload.cache.key_reads());
    fill_memory(&mut m, Held::new(subject, bytes.total_bytes, batch), &meter.finish(), timeline);
    let read = step_bytes(&mut workload)?;
    measure_energy(&mut m, &mut workload, idle_w)?;
    // After all that it could disturb, and before tracing, which could disturb it.
    if let Some(tokens) = settings.follow_up_tokens {
        measure_follow_up(&mut m, &mut workload, tokens, &mut || watch.look())?;
    }
    if settings.trace {
        measure_kernels(&mut m, &mut workload)?;
    }
    fill_bandwidth(&mut m, read, context.copy_gb_s);
    m.kernels.iter_mut().for_each(keep_longest);
    let (states, throttled) = watch.finish();
    m.warnings.extend(throttled);
    if let Some(energy) = &mut m.energy {
        energy.state = states;
    }
    m.ctx_elapsed_s = Some(started.elapsed().as_secs_f64());
    Ok(m)
}

/// Times the runs of `workload`, of which those that warm up are left out. `look` is called after each.
fn timed_runs(
    workload: &mut Generation<'_>,
    meter: &mut MemoryMeter<'_>,
    look: &mut dyn FnMut(),
) -> Result<Vec<RunTimes>> {
    let Context { settings, subject, .. } = workload.context;
    let clock = DeviceClock(&subject.device);
    let mut times = Vec::new();
    for run in 0..settings.warmup_runs + settings.measure_runs {
        let measured = time_run(&clock, workload, settings.decode_tokens, &mut [&mut *meter])?;
        look();
        if run >= settings.warmup_runs {
            times.push(measured);
        }
    }
    Ok(times)
}

/// Enters what attention read of the cache, and warns where that is not what was asked for.
fn fill_reads(m: &mut Measurement, context: &Context<'_>, reads: KeyReads) {
    let (spec, config) = (context.spec, context.subject.config());
    let (length, steps, limit) = (m.context_len, context.settings.decode_tokens, config.max_positions);
    if length + steps > limit {
        m.warnings
            .push(format!("{steps} tokens after {length} go past the {limit} positions that the model was made for"));
    }
    m.warnings.extend(out_of_sight(config, length));
    m.quantized_read_fraction = (reads.total > 0).then(|| reads.share());
    if spec.is_quantized() && reads.from_codes == 0 {
        let why = why_unread(spec, config);
        m.warnings.push(format!("no code was read, so that attention is that of an unquantized cache: {why}"));
    }
}

/// That no layer reads all of a context of `length` tokens, where that is so by the model's own sliding windows. It names no context, so
/// that it is told once of several.
fn out_of_sight(config: &DecoderConfig, length: usize) -> Option<String> {
    let most = most_in_sight(config, length)?;
    Some(format!(
        "by the model's own sliding window attention reads no more than the latest {most} tokens of the context, and the cache holds few \
         others; --sliding-window off measures attention to all of it"
    ))
}

/// Name of the cache in result files.
fn cache_type(spec: &QuantSpec, subject: &Subject) -> String {
    match spec.scheme {
        Scheme::None => format!("DenseCache ({})", subject.dtype.as_str().to_uppercase()),
        Scheme::Fp8 => "QuantizedCache (FP8)".into(),
        Scheme::Grouped { key, value, .. } if key.bits == value.bits => format!("QuantizedCache (INT{})", key.bits),
        Scheme::Grouped { key, value, .. } => format!("QuantizedCache (K INT{}, V INT{})", key.bits, value.bits),
    }
}

#[cfg(test)]
mod fake {
    use super::*;
    use crate::base::progress::Silent;
    use crate::bench::{Readings, References};
    use crate::measure::energy::EnergyMeter;
    use crate::measure::run::Workload;
    use crate::model::{LoadOptions, attention};
    use crate::schema::Benchmarks;

    /// What `look` finds where the built-in model, in f32 on the CPU, has a cache of `spec`.
    pub fn with_builtin<T>(
        spec: &str,
        settings: &Settings,
        energy: &EnergyMeter,
        look: impl FnOnce(&Context<'_>) -> T,
    ) -> T {
        let mut options = LoadOptions::new("builtin");
        (options.device, options.dtype) = ("cpu".parse().unwrap(), "f32".parse().unwrap());
        let subject = Subject::load(&options).unwrap();
        look(&Context {
            subject: &subject,
            spec: &spec.parse().unwrap(),
            attention: attention::new("sdpa").unwrap().as_ref(),
            settings,
            progress: &Silent,
            copy_gb_s: None,
            machine: None,
            energy,
            saved: &Benchmarks::default(),
            references: &mut References::default(),
            readings: &mut Readings::default(),
        })
    }

    /// What `look` finds of `batch` sequences that have read a prompt of `length` tokens, with room for as many steps as are asked for.
    pub fn after_prefill<T>(
        context: &Context<'_>,
        length: usize,
        batch: usize,
        look: impl FnOnce(&mut Generation<'_>) -> T,
    ) -> T {
        let settings = context.settings;
        let mut cache = context.new_cache(context.spec, batch, length + settings.decode_tokens, length).unwrap();
        let prompt = random_prompt(context, length, batch).unwrap();
        let decoder = &context.subject.decoder;
        let stepper = Stepper::new(decoder, context.attention, cache.as_ref(), settings.step_mode).unwrap();
        let mut workload = Generation { context, cache: cache.as_mut(), prompt: &prompt, stepper, logits: None };
        workload.prefill().unwrap();
        look(&mut workload)
    }
}

#[cfg(test)]
mod tests {
    use super::fake::with_builtin;
    use super::*;
    use crate::measure::energy::EnergyMeter;
    use crate::model::LoadOptions;

    /// What is kept of 1024, 4096 and 2048 tokens, of which the longest ends with `error`.
    fn rows(error: fn() -> Error) -> (Result<()>, Vec<Measurement>) {
        let settings = Settings { context_lengths: vec![1024, 4096, 2048], ..Default::default() };
        let mut measure = |context_len: usize, batch: usize| match context_len {
            4096 => Err(error()),
            _ => Ok(Measurement { context_len, batch_size: Some(batch), ..Default::default() }),
        };
        let mut rows = Vec::new();
        let mut keep = |block: Block| {
            if let Block::Profile(row) = block {
                rows.push(*row);
            }
            Ok(())
        };
        let outcome = each_place(&settings, &|_, _| false, &mut measure, &mut keep);
        (outcome, rows)
    }

    #[test]
    fn rule_9_out_of_memory_is_a_row_with_its_reason_and_the_next_one_is_measured() {
        let (outcome, rows) = rows(|| Error::OutOfMemory("4096 tokens do not fit".into()));
        assert!(outcome.is_ok());
        let kept: Vec<_> = rows.iter().map(|r| (r.context_len, r.skipped, r.skip_reason.as_deref())).collect();
        let expected = [(1024, None, None), (4096, Some(true), Some("4096 tokens do not fit")), (2048, None, None)];
        assert_eq!(kept, expected);
        assert_eq!((rows[1].decode_ms, rows[1].kv_cache_mb), (None, None), "what was not measured is null");
    }

    #[test]
    fn a_context_that_no_layer_sees_all_of_is_told_with_the_flag_that_shows_it() {
        let config = |windows: [Option<usize>; 4]| {
            let mut options = LoadOptions::new("builtin");
            options.device = "cpu".parse().unwrap();
            DecoderConfig { windows: windows.to_vec(), ..Subject::shape(&options).unwrap() }
        };
        let told = out_of_sight(&config([Some(4096); 4]), 32768).unwrap();
        assert!(told.contains("4096 tokens") && told.contains("--sliding-window off"), "{told}");
        assert_eq!(out_of_sight(&config([Some(4096); 4]), 32767), Some(told), "several contexts have one warning");
        assert_eq!(out_of_sight(&config([Some(4096); 4]), 4096), None);
        let mixed = [Some(4096), None, Some(4096), None];
        assert_eq!(out_of_sight(&config(mixed), 32768), None, "some layers see all of it");
    }

    #[test]
    fn rule_3_runs_that_warm_up_are_in_no_number() {
        let settings = Settings { warmup_runs: 2, measure_runs: 3, decode_tokens: 4, ..Default::default() };
        let energy = EnergyMeter::absent("a test measures none");
        let m = with_builtin("none", &settings, &energy, |context| measure(context, 32, 2)).unwrap();
        assert_eq!(m.prefill_runs_ms.unwrap().raw.len(), 3);
        assert_eq!((m.decode_runs_ms.unwrap().raw.len(), m.steps.unwrap().count), (3, 3 * 4));
    }

    #[test]
    fn an_error_that_is_no_result_is_no_row() {
        let (outcome, rows) = rows(|| Error::Interrupted);
        assert!(matches!(outcome, Err(Error::Interrupted)));
        assert_eq!(rows.len(), 1);
    }
}
