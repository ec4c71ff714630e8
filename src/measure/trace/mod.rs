//! Where the time of a run goes: every kernel of a GPU by CUPTI, or the ranges of the model's code by the host's clock, in eight
//! categories. Tracing slows a run, so it has a pass of its own (rule 2 of [`crate::measure`]).

pub mod categories;
pub mod chrome;
mod gpu;
mod host;
mod summary;

use std::rc::Rc;

use candle_core::Device;

use super::clock::Clock;
use super::phase::{Instrument, Phase};
use super::run::{RunTimes, Workload, time_run};
use crate::device::cupti::{Cupti, Session};
use crate::device::ranges::{self, Listening, Part};
use crate::schema::KernelTimes;
use crate::{Error, Result};

/// One piece of work: a kernel, a copy, or on the CPU a stretch of a range in which no inner range was open.
#[derive(Debug, Clone, PartialEq)]
pub struct Event {
    /// Name of the kernel or of the range.
    pub name: String,
    /// The part of the model that asked for it, if known.
    pub part: Option<Part>,
    /// Whether it moves or sets memory by the copy engines.
    pub copy: bool,
    /// Nanoseconds.
    pub start_ns: u64,
    /// Nanoseconds.
    pub end_ns: u64,
    /// 1; 0 for the continuation of a range after an inner one.
    pub count: u64,
}

/// A phase of the traced pass.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Span {
    /// Which.
    pub phase: Phase,
    /// Nanoseconds.
    pub start_ns: u64,
    /// Nanoseconds.
    pub end_ns: u64,
}

/// A traced pass.
#[derive(Debug, Default)]
pub struct Trace {
    /// `cupti` or `timers`.
    pub source: &'static str,
    /// In order of their start.
    pub events: Vec<Event>,
    /// The phases, in order.
    pub spans: Vec<Span>,
    /// What a reader should know.
    pub notes: Vec<String>,
}

impl Trace {
    /// The categories of each phase, and all kernels ([`keep_longest`] leaves those to be named). `untraced` is a run of the same work
    /// without a trace, its medians.
    pub fn kernel_times(&self, traced: &RunTimes, untraced: (Option<f64>, Option<f64>)) -> KernelTimes {
        let phase = |phase| self.spans.iter().find(|s| s.phase == phase).map(|span| summary::phase(&self.events, span));
        let slowdown = |traced: f64, untraced: Option<f64>| untraced.filter(|ms| *ms > 0.0).map(|ms| traced / ms);
        KernelTimes {
            source: self.source.into(),
            reason: None,
            prefill: phase(Phase::Prefill),
            decode: phase(Phase::Decode),
            traced_slowdown: slowdown(traced.decode_ms, untraced.1),
            traced_prefill_slowdown: slowdown(traced.prefill_ms, untraced.0),
            notes: self.notes.clone(),
        }
    }
}

/// Kernels of a phase named in a result.
const TOP: usize = 12;

/// Leaves the kernels that took longest in each phase, once nothing more is to be added up over all of them.
pub fn keep_longest(times: &mut KernelTimes) {
    times.prefill.iter_mut().chain(&mut times.decode).for_each(|phase| phase.top.truncate(TOP));
}

/// What records a pass.
pub struct Tracer {
    source: Source,
    _listening: Listening,
    spans: Vec<Span>,
}

enum Source {
    Cupti(Session),
    Timers(Rc<host::Timers>),
}

impl Tracer {
    /// Begins to record what `device` does. What replays kernels (a CUDA graph) is best made after this.
    ///
    /// # Errors
    /// Why it cannot be traced, for people: it becomes the reason in the result file.
    pub fn start(device: &Device) -> Result<Self, String> {
        let (source, listening) = if device.is_cuda() {
            let session = Cupti::load()?.start()?;
            let listening = ranges::listen(Rc::new(session.correlate()));
            (Source::Cupti(session), listening)
        } else {
            let timers = Rc::new(host::Timers::default());
            (Source::Timers(timers.clone()), ranges::listen(timers))
        };
        Ok(Tracer { source, _listening: listening, spans: Vec::new() })
    }

    /// Runs `workload` once as [`time_run`] does, recording its phases.
    ///
    /// # Errors
    /// As [`time_run`].
    pub fn run<C: Clock>(&mut self, clock: &C, workload: &mut dyn Workload, steps: usize) -> Result<RunTimes> {
        self.spans.clear();
        time_run(clock, workload, steps, &mut [self])
    }

    /// Ends recording. `replay` is what a graph that was replayed is made of: part and name of each of its kernels, in order.
    /// The device must be idle.
    ///
    /// # Errors
    /// Why there is no trace after all, for people.
    pub fn finish(self, replay: &[(Part, String)]) -> Result<Trace, String> {
        let Tracer { source, _listening, spans } = self;
        let mut trace = match source {
            Source::Cupti(session) => gpu::trace(session.stop()?, replay)?,
            Source::Timers(timers) => Trace { source: "timers", events: timers.events(), ..Default::default() },
        };
        trace.events.retain(|event| spans.iter().any(|span| (span.start_ns..span.end_ns).contains(&event.start_ns)));
        trace.events.sort_by_key(|event| (event.start_ns, event.end_ns));
        if trace.events.is_empty() {
            return Err("the trace holds nothing from the traced pass".into());
        }
        trace.spans = spans;
        Ok(trace)
    }

    fn now_ns(&self) -> Result<u64> {
        match &self.source {
            Source::Cupti(session) => session.now_ns().map_err(Error::Invalid),
            Source::Timers(timers) => Ok(timers.now_ns()),
        }
    }
}

impl Instrument for Tracer {
    fn begin(&mut self, phase: Phase) -> Result<()> {
        let now = self.now_ns()?;
        self.spans.push(Span { phase, start_ns: now, end_ns: u64::MAX });
        Ok(())
    }

    fn end(&mut self, _: Phase) -> Result<()> {
        let now = self.now_ns()?;
        if let Some(span) = self.spans.last_mut() {
            span.end_ns = now;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::measure::clock::DeviceClock;

    /// A model of ranges only.
    struct Ranges;

    impl Workload for Ranges {
        fn prefill(&mut self) -> Result<()> {
            let _range = ranges::enter(Part::Attention);
            Ok(())
        }

        fn step(&mut self) -> Result<bool> {
            let _outer = ranges::enter(Part::Ffn);
            let _inner = ranges::enter(Part::Norm);
            Ok(false)
        }
    }

    #[test]
    fn rule_2_timed_runs_are_not_traced_and_the_slowdown_of_the_traced_pass_is_told() {
        let clock = DeviceClock(&Device::Cpu);
        let timed = || time_run(&clock, &mut Ranges, 9, &mut []).unwrap();
        timed();
        let mut tracer = Tracer::start(&Device::Cpu).unwrap();
        tracer.run(&clock, &mut Ranges, 2).unwrap();
        timed();
        tracer.run(&clock, &mut Ranges, 4).unwrap();
        timed();
        let trace = tracer.finish(&[]).unwrap();
        timed();
        // Neither the timed runs nor the pass that warmed up, though ranges were heard all the time.
        let count = |name: &str| trace.events.iter().filter(|e| e.name == name).map(|e| e.count).sum::<u64>();
        assert_eq!((count("attention"), count("ffn"), count("norm")), (1, 4, 4));
        assert_eq!(trace.spans.iter().map(|s| s.phase).collect::<Vec<_>>(), [Phase::Prefill, Phase::Decode]);

        let traced = RunTimes { prefill_ms: 30.0, decode_ms: 12.0, ..Default::default() };
        let told = trace.kernel_times(&traced, (Some(20.0), Some(10.0)));
        assert_eq!((told.traced_prefill_slowdown, told.traced_slowdown), (Some(1.5), Some(1.2)));
        assert_eq!(trace.kernel_times(&traced, (None, None)).traced_slowdown, None);
    }

    #[test]
    fn a_trace_of_nothing_is_a_reason() {
        let tracer = Tracer::start(&Device::Cpu).unwrap();
        assert!(tracer.finish(&[]).unwrap_err().contains("nothing"));
    }
}
