//! Energy of prefill and decode, in windows of their own after the timed runs.

use super::generation::Generation;
use crate::Result;
use crate::bench::Context;
use crate::measure::clock::DeviceClock;
use crate::measure::energy::Pass;
use crate::schema::Measurement;

/// Measures the energy of `workload` and enters it, or the reason why there is none.
pub(super) fn measure_energy(
    m: &mut Measurement,
    context: &Context<'_>,
    workload: &mut Generation<'_>,
    idle_w: Option<f64>,
) -> Result<()> {
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
