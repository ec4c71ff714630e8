//! A follow-up prompt, as in a chat's next turn: the time to read further tokens at once after the row's prompt, which means reading, and
//! for quantized caches dequantizing, what the cache holds.

use candle_core::Tensor;

use super::generation::{Generation, random_tokens};
use super::times::drift_warning;
use crate::Result;
use crate::base::stats::Summary;
use crate::measure::clock::DeviceClock;
use crate::measure::run::{Workload, time_run};
use crate::model::attention::kernels_of;
use crate::schema::{FollowUp, Measurement};

/// Times the reading of `tokens` after the prompt of `workload`, repeated as the other times are, and enters it. `look` is called after
/// each run. The tokens lie where a decode writes its own, so that the cache is no larger for them.
pub(super) fn measure_follow_up(
    m: &mut Measurement,
    workload: &mut Generation<'_>,
    tokens: usize,
    look: &mut dyn FnMut(),
) -> Result<()> {
    let context = workload.context;
    let settings = context.settings;
    let (batch, length) = workload.prompt.dims2()?;
    // Others than the prompt's own.
    let prompt = random_tokens(context, settings.seed.wrapping_add(1), tokens, batch)?;
    let runs = settings.warmup_runs + settings.measure_runs;
    context.progress.start(&format!("follow-up {} @ {length}×{batch}", context.spec.name), (runs * tokens) as u64);
    let clock = DeviceClock(&context.subject.device);
    let mut times = Vec::new();
    for run in 0..runs {
        workload.cache.rewind(length);
        let measured = time_run(&clock, &mut Reading { workload: &mut *workload, prompt: &prompt }, 0, &mut [])?;
        look();
        if run >= settings.warmup_runs {
            times.push(measured.prefill_ms);
        }
    }
    context.progress.finish();
    m.follow_up = Summary::of(&times).map(|runs_ms| {
        m.warnings.extend(drift_warning("follow-up", &runs_ms));
        let ms = runs_ms.median;
        let last = match tokens % workload.chunk() {
            0 => workload.chunk(),
            rest => rest,
        };
        FollowUp {
            tokens,
            ms,
            tokens_per_sec: (tokens * batch) as f64 / ms * 1e3,
            attention_kernel: Some(kernels_of(
                context.attention,
                context.subject.config().heads,
                last,
                &*workload.cache,
            )),
            runs_ms,
        }
    });
    Ok(())
}

/// A prompt `[B, T]` read after what the cache holds.
struct Reading<'w, 'a> {
    workload: &'w mut Generation<'a>,
    prompt: &'w Tensor,
}

impl Workload for Reading<'_, '_> {
    fn prefill(&mut self) -> Result<()> {
        self.workload.read(self.prompt).map(drop)
    }

    fn step(&mut self) -> Result<bool> {
        self.workload.step()
    }
}

#[cfg(test)]
mod tests {
    use super::super::fake::{after_prefill, with_builtin};
    use super::super::measure;
    use super::*;
    use crate::bench::Settings;
    use crate::measure::energy::EnergyMeter;

    fn settings(follow_up_tokens: Option<usize>) -> Settings {
        Settings { warmup_runs: 1, measure_runs: 3, decode_tokens: 96, follow_up_tokens, ..Default::default() }
    }

    fn row(spec: &str, settings: &Settings) -> Measurement {
        let energy = EnergyMeter::absent("a test measures none");
        with_builtin(spec, settings, &energy, |context| measure(context, 320, 2)).unwrap()
    }

    #[test]
    fn a_follow_up_prompt_is_read_after_the_prompt_in_each_timed_run_and_rate_follows_from_time() {
        let m = row("int4-hqq", &settings(Some(96)));
        let follow_up = m.follow_up.unwrap();
        assert_eq!((follow_up.tokens, follow_up.runs_ms.raw.len()), (96, 3), "what warms up is in no number");
        assert_eq!(follow_up.ms, follow_up.runs_ms.median);
        assert!((follow_up.tokens_per_sec - 2.0 * 96.0 / follow_up.ms * 1e3).abs() < 1e-9);
        assert_eq!(follow_up.attention_kernel.as_deref(), Some("dequantize + dense online-softmax loop (CPU)"));
    }

    #[test]
    fn what_is_asked_beside_them_leaves_bytes_reads_and_counts_of_a_row_as_they_are() {
        let [with, without] = [Some(96), None].map(|tokens| row("int4-hqq", &settings(tokens)));
        assert_eq!(without.follow_up, None);
        assert_eq!(with.kv_bytes, without.kv_bytes);
        assert_eq!(with.quantized_read_fraction, without.quantized_read_fraction);
        let counts = |m: &Measurement| m.steps.as_ref().map(|steps| (steps.count, steps.flushes));
        assert_eq!(counts(&with), counts(&without));
        assert_eq!((with.prefill_chunk, with.decode_tokens), (without.prefill_chunk, without.decode_tokens));
    }

    #[test]
    fn every_run_reads_the_same_keys_those_of_the_prompt_among_them() {
        let energy = EnergyMeter::absent("a test measures none");
        let settings = settings(Some(96));
        with_builtin("none", &settings, &energy, |context| {
            after_prefill(context, 320, 2, |workload| {
                // A decode that came before, as it does in a row, is not what is read.
                (0..5).for_each(|_| assert!(!workload.step().unwrap()));
                let before = workload.cache.key_reads().total;
                let (mut m, mut looks) = (Measurement::default(), 0);
                measure_follow_up(&mut m, workload, 96, &mut || looks += 1).unwrap();
                let reads = (workload.cache.key_reads().total - before) / (4 * 4 * 2);
                // Of 4 layers, in each of 4 runs, for each of 2 sequences: token t sees 320 + t + 1.
                assert_eq!(reads, 96 * 320 + 96 * 97 / 2);
                assert_eq!((looks, workload.cache.len()), (4, 320 + 96));
            });
        });
    }
}
