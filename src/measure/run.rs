//! Timing one run: prefill, then decode step by step (rules 1 and 4 of [`crate::measure`]).

use super::clock::Clock;
use super::phase::{Instrument, Phase};
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

/// Runs `workload` once: its prefill and `steps` decode steps, watched by `instruments`.
///
/// # Errors
/// The first error of the workload, the clock or an instrument.
pub fn time_run<C: Clock>(
    clock: &C,
    workload: &mut dyn Workload,
    steps: usize,
    instruments: &mut [&mut dyn Instrument],
) -> Result<RunTimes> {
    clock.synchronize()?;
    each(instruments, |i| i.begin(Phase::Prefill))?;
    let start = clock.mark()?;
    workload.prefill()?;
    let end = clock.mark()?;
    // The decode clock must not start before the last of the prefill has run.
    clock.synchronize()?;
    each(instruments, |i| i.end(Phase::Prefill))?;
    let prefill_ms = clock.ms(&start, &end)?;

    each(instruments, |i| i.begin(Phase::Decode))?;
    let mut marks = Vec::with_capacity(steps + 1);
    let mut flushes = Vec::with_capacity(steps);
    marks.push(clock.mark()?);
    for _ in 0..steps {
        flushes.push(workload.step()?);
        marks.push(clock.mark()?);
    }
    clock.synchronize()?;
    each(instruments, |i| i.end(Phase::Decode))?;
    let steps_ms = marks.windows(2).map(|pair| clock.ms(&pair[0], &pair[1])).collect::<Result<Vec<_>>>()?;
    let decode_ms = clock.ms(&marks[0], &marks[steps])?;
    Ok(RunTimes { prefill_ms, decode_ms, steps_ms, flushes })
}

fn each(instruments: &mut [&mut dyn Instrument], tell: impl Fn(&mut dyn Instrument) -> Result<()>) -> Result<()> {
    instruments.iter_mut().try_for_each(|instrument| tell(&mut **instrument))
}

#[cfg(test)]
mod tests {
    use std::cell::{Cell, RefCell};
    use std::rc::Rc;

    use super::*;

    /// A device that works through a queue while the host runs ahead: giving it work takes the host no time. A mark lies where
    /// the queue is when the device reaches it: not before the host sets it, and not before the work given earlier is done.
    #[derive(Clone, Default)]
    struct FakeDevice {
        host_ms: Rc<Cell<f64>>,
        busy_until_ms: Rc<Cell<f64>>,
    }

    impl FakeDevice {
        fn give_work(&self, ms: f64) {
            self.busy_until_ms.set(self.busy_until_ms.get().max(self.host_ms.get()) + ms);
        }
    }

    impl Clock for FakeDevice {
        type Mark = f64;
        fn mark(&self) -> Result<f64> {
            Ok(self.busy_until_ms.get().max(self.host_ms.get()))
        }
        fn synchronize(&self) -> Result<()> {
            self.host_ms.set(self.host_ms.get().max(self.busy_until_ms.get()));
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
            self.device.give_work(self.prefill_ms);
            Ok(())
        }
        fn step(&mut self) -> Result<bool> {
            let flush = self.step == 2;
            self.step += 1;
            self.device.give_work(if flush { 5.0 } else { 1.0 });
            Ok(flush)
        }
    }

    /// Notes when it was called, by the host's clock, and dawdles each time.
    struct Slow {
        device: FakeDevice,
        calls: RefCell<Vec<(Phase, &'static str, f64)>>,
    }

    impl Slow {
        fn note(&self, phase: Phase, what: &'static str) -> Result<()> {
            let idle = self.device.busy_until_ms.get() <= self.device.host_ms.get();
            assert!(idle, "{what} of {phase:?} while the device works");
            self.calls.borrow_mut().push((phase, what, self.device.host_ms.get()));
            self.device.host_ms.set(self.device.host_ms.get() + 100.0);
            Ok(())
        }
    }

    impl Instrument for Slow {
        fn begin(&mut self, phase: Phase) -> Result<()> {
            self.note(phase, "begin")
        }
        fn end(&mut self, phase: Phase) -> Result<()> {
            self.note(phase, "end")
        }
    }

    fn run(prefill_ms: f64) -> RunTimes {
        let device = FakeDevice::default();
        time_run(&device, &mut FakeModel { device: device.clone(), prefill_ms, step: 0 }, 4, &mut []).unwrap()
    }

    #[test]
    fn rule_1_a_slow_prefill_does_not_change_decode_time() {
        let (fast, slow) = (run(10.0), run(10_000.0));
        assert_eq!((fast.prefill_ms, slow.prefill_ms), (10.0, 10_000.0));
        assert_eq!(fast.decode_ms, slow.decode_ms);
        assert_eq!(fast.steps_ms, slow.steps_ms);
        assert_eq!(fast.decode_ms, 8.0);
    }

    #[test]
    fn rule_1_instruments_are_in_no_time_and_see_an_idle_device() {
        let device = FakeDevice::default();
        let mut slow = Slow { device: device.clone(), calls: RefCell::default() };
        let mut model = FakeModel { device: device.clone(), prefill_ms: 50.0, step: 0 };
        let times = time_run(&device, &mut model, 4, &mut [&mut slow]).unwrap();
        assert_eq!((times.prefill_ms, times.decode_ms), (50.0, 8.0));
        let order: Vec<_> = slow.calls.borrow().iter().map(|(phase, what, _)| (*phase, *what)).collect();
        assert_eq!(
            order,
            [(Phase::Prefill, "begin"), (Phase::Prefill, "end"), (Phase::Decode, "begin"), (Phase::Decode, "end")]
        );
    }

    #[test]
    fn rule_4_a_flush_step_shows_by_itself() {
        let times = run(10.0);
        assert_eq!(times.steps_ms, [1.0, 1.0, 5.0, 1.0]);
        assert_eq!(times.flushes, [false, false, true, false]);
        assert_eq!(times.decode_ms, 8.0);
    }
}
