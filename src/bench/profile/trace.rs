//! The traced pass: one more run of the workload, after the timed ones.

use super::generation::Generation;
use crate::bench::Context;
use crate::measure::clock::DeviceClock;
use crate::measure::run::RunTimes;
use crate::measure::trace::{Trace, Tracer, chrome};
use crate::model::step::Stepper;
use crate::schema::{KernelTimes, Measurement};
use crate::{Error, Result, device};

/// Decode steps of the pass that warms up the tracer, where the cache has room for them.
const WARM_UP_STEPS: usize = 2;

/// Traces a run of `workload` and enters the time of each category, or why there is none. The medians of the timed runs must
/// be in `m` already.
pub(super) fn measure_kernels(m: &mut Measurement, workload: &mut Generation<'_>) -> Result<()> {
    let context = workload.context;
    let (sequences, length) = workload.prompt.dims2()?;
    let name = format!("{} {} @ {length}×{sequences}", context.spec.name, context.attention.name());
    let steps = context.settings.decode_tokens;
    let work = 2 * length + steps + WARM_UP_STEPS.min(steps);
    context.progress.start(&format!("trace {name}"), work as u64);
    let traced = match trace(workload) {
        Err(Error::Interrupted) => return Err(Error::Interrupted),
        // What the timed runs measured stands, whatever stops this one.
        other => other.unwrap_or_else(|error| Err(error.to_string())),
    };
    context.progress.finish();
    m.kernels = Some(match traced {
        Ok((trace, times)) => {
            if let Some(file) = &context.settings.trace_out
                && let Err(error) = chrome::add(file, &name, &trace)
            {
                m.warnings.push(format!("the trace was not written: {error}"));
            }
            trace.kernel_times(&times, (m.prefill_ms, m.decode_ms))
        }
        Err(reason) => {
            m.warnings.push(format!("kernels were not traced: {reason}"));
            KernelTimes { source: "none".into(), reason: Some(reason), ..Default::default() }
        }
    });
    Ok(())
}

/// The trace and the times of the traced run, or why there is none.
fn trace(workload: &mut Generation<'_>) -> Result<Result<(Trace, RunTimes), String>> {
    let Context { subject, attention, settings, .. } = workload.context;
    let clock = DeviceClock(&subject.device);
    let mut tracer = match Tracer::start(&subject.device) {
        Ok(tracer) => tracer,
        Err(reason) => return Ok(Err(reason)),
    };
    // A graph that was made before the tracer would not show its kernels.
    workload.stepper = Stepper::new(&subject.decoder, *attention, workload.cache, settings.step_mode)?;
    let steps = settings.decode_tokens;
    tracer.run(&clock, workload, WARM_UP_STEPS.min(steps))?;
    let times = tracer.run(&clock, workload, steps)?;
    device::synchronize(&subject.device)?;
    Ok(tracer.finish(&workload.stepper.replayed()).map(|trace| (trace, times)))
}
