//! Energy of prefill and decode, in windows of their own after the timed runs.

use super::generation::Generation;
use crate::Result;
use crate::measure::clock::DeviceClock;
use crate::measure::energy::Pass;
use crate::schema::Measurement;

/// Measures the energy of `workload` and enters it, or the reason why there is none.
pub(super) fn measure_energy(m: &mut Measurement, workload: &mut Generation<'_>, idle_w: Option<f64>) -> Result<()> {
    let context = workload.context;
    let (sequences, length) = workload.prompt.dims2()?;
    let steps = context.settings.decode_tokens;
    let pass = Pass {
        prompt_tokens: (sequences * length) as u64,
        steps,
        tokens_a_step: sequences as u64,
        seconds: context.settings.energy_seconds,
    };
    let meter = context.energy;
    if meter.works() {
        context
            .progress
            .start(&format!("energy {} @ {length}×{sequences}", context.spec.name), (length + steps) as u64);
    }
    let energy = meter.measure(&DeviceClock(&context.subject.device), workload, pass, idle_w)?;
    context.progress.finish();
    if let Some(decode) = &energy.decode {
        m.avg_power_watts = Some(decode.mean_w);
        m.energy_mj_per_token = Some(decode.j_per_token * 1e3);
    }
    m.energy = Some(energy);
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::super::fake::{after_prefill, with_builtin};
    use super::*;
    use crate::bench::Settings;
    use crate::measure::energy::EnergyMeter;
    use crate::measure::power::PowerMeter;
    use crate::schema::DeviceState;

    /// Shows one joule more whenever it is read.
    #[derive(Default)]
    struct Rising(AtomicU32);

    impl PowerMeter for Rising {
        fn counter_name(&self) -> &'static str {
            "counter"
        }
        fn counter_j(&self) -> Result<f64, String> {
            Ok(f64::from(self.0.fetch_add(1, Ordering::Relaxed)))
        }
        fn power_w(&self) -> Result<f64, String> {
            Ok(100.0)
        }
        fn state(&self) -> DeviceState {
            DeviceState::default()
        }
    }

    #[test]
    fn rule_7_energy_is_that_of_the_tokens_of_all_sequences() {
        let settings = Settings { decode_tokens: 5, energy_seconds: 0.01, ..Default::default() };
        let meter = EnergyMeter::new(Ok(Arc::new(Rising::default())));
        let mut m = Measurement::default();
        with_builtin("none", &settings, &meter, |context| {
            after_prefill(context, 12, 3, |workload| measure_energy(&mut m, workload, None)).unwrap();
        });
        let energy = m.energy.unwrap();
        let (prefill, decode) = (energy.prefill.unwrap(), energy.decode.unwrap());
        assert_eq!((prefill.tokens, decode.tokens), (3 * 12 * prefill.repeats, 3 * 5 * decode.repeats));
        assert_eq!(m.energy_mj_per_token, Some(decode.gross_j / decode.tokens as f64 * 1e3));
    }
}
