//! Achieved bandwidth: bytes that a decode step had to move over its time (rule 10 of [`crate::measure`]).

use super::generation::Generation;
use crate::Result;
use crate::measure::energy::Repeatable;
use crate::schema::Measurement;

/// Bytes that a decode step must read, however it is computed.
#[derive(Debug, Clone, Copy)]
pub(super) struct StepBytes {
    /// Weights: all but tables of which it reads a row.
    pub weights: u64,
    /// Keys and values that tokens see half way through the decode: codes, parameters and window.
    pub cache: u64,
}

/// What the steps of `workload` read, whose decode has just ended; leaves it at the end of its prompt.
///
/// # Errors
/// As [`Repeatable::rewind`].
pub(super) fn step_bytes(workload: &mut Generation<'_>) -> Result<StepBytes> {
    let at_end = workload.cache.read_bytes();
    workload.rewind()?;
    let at_start = workload.cache.read_bytes();
    Ok(StepBytes { weights: workload.context.subject.decoder.step_weight_bytes(), cache: (at_start + at_end) / 2 })
}

/// Enters the rates of a median step and, where kernels were traced, of decode attention by itself; and their shares of the rate
/// `copy_gb_s` of a copy measured in the same run. Above it there is no share: the copy goes through memory, and small models are read
/// from a cache in front of it.
pub(super) fn fill_bandwidth(m: &mut Measurement, bytes: StepBytes, copy_gb_s: Option<f64>) {
    let (step_ms, attention_ms) = (m.steps.as_ref().map(|steps| steps.median_ms), attention_ms_a_step(m));
    let warnings = &mut m.warnings;
    // A copy both reads and writes; decoding mostly reads: the share is of bytes moved per second, whichever way.
    let mut rates = |what: &str, bytes: u64, ms: Option<f64>| {
        let rate = ms.filter(|ms| *ms > 0.0).map(|ms| bytes as f64 / (ms * 1e6));
        let share = rate.zip(copy_gb_s).map(|(rate, copy)| rate / copy);
        if share.is_some_and(|share| share > 1.0) {
            warnings.push(format!(
                "{what}_bandwidth_share is left out: {what}_bandwidth_gb_s is above the rate of a copy through memory, as where the \
                 device's cache serves what is read"
            ));
        }
        (rate, share.filter(|share| *share <= 1.0))
    };
    (m.step_bandwidth_gb_s, m.step_bandwidth_share) = rates("step", bytes.weights + bytes.cache, step_ms);
    (m.attention_bandwidth_gb_s, m.attention_bandwidth_share) = rates("attention", bytes.cache, attention_ms);
}

/// Time in a traced step of the kernels that attention is said to be, all of them being named still. The category of the same name also
/// holds projections, and where attention is made of common operations, none of them is its own.
fn attention_ms_a_step(m: &Measurement) -> Option<f64> {
    let kernels = m.kernels.as_ref().filter(|kernels| kernels.source != "timers")?;
    let (attention, decode) = (m.attention_kernel.as_ref()?, kernels.decode.as_ref()?);
    let named = |name: &str| attention.split(|c: char| !c.is_alphanumeric() && c != '_').any(|word| word == name);
    // Where keys are cut in parts, flash attention is two kernels, of which the first gives its name.
    let said = |name: &str| named(name) || name.starts_with("prefill_merge_") && attention.contains("prefill_");
    let own: f64 = decode.top.iter().filter(|(name, ..)| said(name)).map(|(_, ms, _)| ms).sum();
    Some(own / m.decode_tokens.filter(|tokens| *tokens > 0)? as f64)
}

#[cfg(test)]
mod tests {
    use super::super::fake::{after_prefill, with_builtin};
    use super::*;
    use crate::bench::Settings;
    use crate::measure::energy::EnergyMeter;
    use crate::measure::run::Workload;
    use crate::measure::trace::keep_longest;
    use crate::schema::{KernelTimes, PhaseKernels, Steps};

    #[test]
    fn rule_10_bandwidth_is_bytes_that_had_to_move_over_the_time_and_a_share_of_a_copy() {
        let steps = |median_ms| Some(Steps { median_ms, ..Default::default() });
        let mut m = Measurement { steps: steps(4.0), ..Default::default() };
        // 12 GB in 4 ms are 3000 GB/s.
        fill_bandwidth(&mut m, StepBytes { weights: 11_000_000_000, cache: 1_000_000_000 }, Some(4000.0));
        assert_eq!((m.step_bandwidth_gb_s, m.step_bandwidth_share), (Some(3000.0), Some(0.75)));
        let mut unknown = Measurement { steps: steps(4.0), ..Default::default() };
        fill_bandwidth(&mut unknown, StepBytes { weights: 4_000_000, cache: 0 }, None);
        assert_eq!((unknown.step_bandwidth_gb_s, unknown.step_bandwidth_share), (Some(1.0), None));
        assert_eq!(unknown.attention_bandwidth_gb_s, None, "nothing was traced");
        let mut untimed = Measurement::default();
        fill_bandwidth(&mut untimed, StepBytes { weights: 1, cache: 1 }, Some(1.0));
        assert_eq!(untimed.step_bandwidth_gb_s, None);
    }

    #[test]
    fn rule_10_a_step_reads_the_cache_as_it_is_half_way_through_the_decode() {
        let settings = Settings { decode_tokens: 10, ..Default::default() };
        let energy = EnergyMeter::absent("a test measures none");
        let bytes = |steps: usize| {
            with_builtin("none", &settings, &energy, |context| {
                after_prefill(context, 20, 2, |workload| {
                    for _ in 0..steps {
                        workload.step().unwrap();
                    }
                    let bytes = step_bytes(workload).unwrap();
                    assert_eq!(workload.cache.len(), 20, "it is left where its prompt ends");
                    bytes.cache
                })
            })
        };
        // Of 4 layers, 2 sequences and 2 heads, K and V of 64 channels in f32.
        let token = 4 * 2 * 2 * 2 * 64 * 4;
        assert_eq!((bytes(0), bytes(10)), (20 * token, 25 * token));
    }

    #[test]
    fn rule_10_a_rate_above_that_of_a_copy_is_no_share_of_it_and_the_row_says_why() {
        let mut m = Measurement { steps: Some(Steps { median_ms: 1.0, ..Default::default() }), ..Default::default() };
        // 12 MB in 1 ms are 12 GB/s.
        let small = StepBytes { weights: 11_000_000, cache: 1_000_000 };
        fill_bandwidth(&mut m, small, Some(12.0));
        assert_eq!((m.step_bandwidth_share, m.warnings.len()), (Some(1.0), 0));
        fill_bandwidth(&mut m, small, Some(10.0));
        assert_eq!((m.step_bandwidth_gb_s, m.step_bandwidth_share), (Some(12.0), None));
        assert!(m.warnings[0].contains("step_bandwidth_share"), "{:?}", m.warnings);
        assert_eq!(m.warnings.len(), 1, "attention was not timed");
    }

    #[test]
    fn rule_10_attention_has_a_rate_of_its_own_where_kernels_were_traced() {
        let kernel = |name: &str, ms| (name.to_string(), ms, 10);
        // Attention may be made of several, of which some are short.
        let others = (0..20).map(|i| kernel(&format!("other_{i}"), 30.0));
        let of_attention = [kernel("decode_int4_d128", 19.0), kernel("combine", 1.0)];
        let decode = PhaseKernels { top: others.chain(of_attention).collect(), ..Default::default() };
        let mut m = Measurement {
            decode_tokens: Some(10),
            attention_kernel: Some("decode_int4_d128, combine; step: 199 kernels, one CUDA graph".into()),
            kernels: Some(KernelTimes { decode: Some(decode), ..Default::default() }),
            ..Default::default()
        };
        // 4 GB in 20/10 ms.
        fill_bandwidth(&mut m, StepBytes { weights: 7, cache: 4_000_000_000 }, Some(4000.0));
        assert_eq!((m.attention_bandwidth_gb_s, m.attention_bandwidth_share), (Some(2000.0), Some(0.5)));
        m.kernels.iter_mut().for_each(keep_longest);
        assert_eq!(m.kernels.as_ref().unwrap().decode.as_ref().unwrap().top.len(), 12, "a file names the longest");
        // What joins the parts of flash attention is not in the name that attention has.
        let flash = [kernel("prefill_bf16_d128", 6.0), kernel("prefill_merge_bf16_d128", 2.0), kernel("combine", 1.0)];
        let decode = PhaseKernels { top: flash.into(), ..Default::default() };
        m.attention_kernel = Some("dequantize_bf16_d128 + prefill_bf16_d128".into());
        m.kernels = Some(KernelTimes { decode: Some(decode), ..Default::default() });
        fill_bandwidth(&mut m, StepBytes { weights: 7, cache: 4_000_000_000 }, None);
        assert_eq!(m.attention_bandwidth_gb_s, Some(5000.0));
        m.attention_kernel = Some("matmul and softmax".into());
        fill_bandwidth(&mut m, StepBytes { weights: 7, cache: 4_000_000_000 }, Some(4000.0));
        assert_eq!(m.attention_bandwidth_gb_s, None);
    }
}
