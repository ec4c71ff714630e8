//! Timing one run: prefill, then decode step by step (docs/MEASUREMENT.md rules 1 and 4).

use super::clock::Clock;
use crate::Result;

/// What is being timed.
pub trait Workload {
    /// Reads the prompt, up to the logits of its last token.
    fn prefill(&mut self) -> Result<()>;

    /// Generates one token for each sequence. `true` when a block of the cache was quantized in this step.
    fn step(&mut self) -> Result<bool>;
}

/// Times of one run, in milliseconds.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct RunTimes {
    /// From the prompt to the last token's logits.
    pub prefill_ms: f64,
    /// All steps together; starts only after prefill has ended on the device.
    pub decode_ms: f64,
    /// Each step.
    pub steps_ms: Vec<f64>,
    /// Whether a block was quantized in that step.
    pub flushes: Vec<bool>,
}

/// Runs `workload` once: its prefill and `steps` decode steps.
pub fn time_run<C: Clock>(clock: &C, workload: &mut dyn Workload, steps: usize) -> Result<RunTimes> {
    clock.synchronize()?;
    let start = clock.mark()?;
    workload.prefill()?;
    let end = clock.mark()?;
    // The decode clock must not start before the last of the prefill has run.
    clock.synchronize()?;
    let prefill_ms = clock.ms(&start, &end)?;

    let mut marks = Vec::with_capacity(steps + 1);
    let mut flushes = Vec::with_capacity(steps);
    marks.push(clock.mark()?);
    for _ in 0..steps {
        flushes.push(workload.step()?);
        marks.push(clock.mark()?);
    }
    clock.synchronize()?;
    let steps_ms = marks.windows(2).map(|pair| clock.ms(&pair[0], &pair[1])).collect::<Result<Vec<_>>>()?;
    let decode_ms = clock.ms(&marks[0], &marks[steps])?;
    Ok(RunTimes { prefill_ms, decode_ms, steps_ms, flushes })
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::rc::Rc;

    use super::*;

    /// A device that works through a queue: `mark` lies at the end of the queued work, as a CUDA event does.
    #[derive(Clone, Default)]
    struct FakeDevice {
        queued_until: Rc<Cell<f64>>,
    }

    impl Clock for FakeDevice {
        type Mark = f64;
        fn mark(&self) -> Result<f64> {
            Ok(self.queued_until.get())
        }
        fn synchronize(&self) -> Result<()> {
            Ok(())
        }
        fn ms(&self, start: &f64, end: &f64) -> Result<f64> {
            Ok(end - start)
        }
    }

    struct FakeModel {
        device: FakeDevice,
        prefill_ms: f64,
        step: usize,
    }

    impl Workload for FakeModel {
        fn prefill(&mut self) -> Result<()> {
            self.device.queued_until.set(self.device.queued_until.get() + self.prefill_ms);
            Ok(())
        }
        fn step(&mut self) -> Result<bool> {
            let flush = self.step == 2;
            self.step += 1;
            let cost = if flush { 5.0 } else { 1.0 };
            self.device.queued_until.set(self.device.queued_until.get() + cost);
            Ok(flush)
        }
    }

    fn run(prefill_ms: f64) -> RunTimes {
        let device = FakeDevice::default();
        time_run(&device, &mut FakeModel { device: device.clone(), prefill_ms, step: 0 }, 4).unwrap()
    }

    #[test]
    fn a_slow_prefill_does_not_change_decode_time() {
        let (fast, slow) = (run(10.0), run(10_000.0));
        assert_eq!(slow.prefill_ms, 10_000.0);
        assert_eq!(fast.decode_ms, slow.decode_ms);
        assert_eq!(fast.steps_ms, slow.steps_ms);
    }

    #[test]
    fn a_flush_step_shows_by_itself() {
        let times = run(10.0);
        assert_eq!(times.steps_ms, [1.0, 1.0, 5.0, 1.0]);
        assert_eq!(times.flushes, [false, false, true, false]);
        assert_eq!(times.decode_ms, 8.0);
    }
}
