//! Energy of a phase: the device's counter across a window, sampled power where there is no counter (rule 7 of [`crate::measure`]).
//!
//! A window is the same work repeated until it is long enough for a counter that moves in steps of tens of milliseconds. Prefill
//! and decode have windows apart. Idle power is measured before, and what the window would have taken idle is subtracted for the
//! net figures. What cannot be measured has a reason and no number.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::clock::Clock;
use super::power::PowerMeter;
use super::run::Workload;
use super::sampler::{HostTime, Sampler, Time, integrate};
use crate::Result;
use crate::schema::{DeviceState, Energy, EnergyWindow};

/// Windows shorter than this are marked so.
pub const SHORTEST_S: f64 = 0.5;

/// How long idle power is measured, after a pause in which the device comes to rest.
const IDLE_S: f64 = 0.5;
const REST_S: f64 = 0.3;

/// How often a counter is looked at until it moves, and when that is given up.
const POLL_S: f64 = 0.001;
const STILL_S: f64 = 0.3;

/// A workload whose decode can be repeated without reading the prompt again.
pub trait Repeatable: Workload {
    /// Goes back to the end of the prompt. What the cache then holds is of the same size and place as after a prefill, but of no
    /// use as text: steps cost what they did and say nothing.
    ///
    /// # Errors
    /// Before the first prefill, or a failing device.
    fn rewind(&mut self) -> Result<()>;
}

/// What one pass of the workload is.
#[derive(Debug, Clone, Copy)]
pub struct Pass {
    /// Tokens that a prefill reads, of all sequences.
    pub prompt_tokens: u64,
    /// Steps of a decode.
    pub steps: usize,
    /// Tokens that a step generates: the sequences side by side.
    pub tokens_a_step: u64,
    /// Windows last at least so long.
    pub seconds: f64,
}

/// The energy instrument of a run: a meter, or why there is none.
pub struct EnergyMeter {
    meter: Result<Arc<dyn PowerMeter>, String>,
    time: Arc<dyn Time>,
    idle_before_load_w: Option<f64>,
}

/// What the instruments said of one window.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Reading {
    seconds: f64,
    counter_j: Option<f64>,
    sampled_j: Option<f64>,
    repeats: u64,
}

impl EnergyMeter {
    /// Takes the meter, or the reason why there is none, and measures idle power: to be called before the model is loaded.
    pub fn new(meter: Result<Arc<dyn PowerMeter>, String>) -> Self {
        Self::with_time(meter, Arc::new(HostTime::default()))
    }

    fn with_time(meter: Result<Arc<dyn PowerMeter>, String>, time: Arc<dyn Time>) -> Self {
        let mut energy = EnergyMeter { meter, time, idle_before_load_w: None };
        energy.idle_before_load_w = energy.idle_w();
        energy
    }

    /// No instrument, and why.
    pub fn absent(reason: impl Into<String>) -> Self {
        Self::new(Err(reason.into()))
    }

    /// Whether there is anything to measure with.
    pub fn works(&self) -> bool {
        self.meter.is_ok()
    }

    /// Version of the device's driver, where the meter knows it.
    pub fn driver_version(&self) -> Option<String> {
        self.meter.as_ref().ok()?.driver_version()
    }

    /// Power while nothing runs, watts; to be called when the device has nothing to do. Takes the better part of a second where
    /// there is a meter.
    pub fn idle_w(&self) -> Option<f64> {
        let meter = self.meter.as_ref().ok()?;
        self.time.sleep(REST_S);
        let reading = self.read(meter, None, || {
            self.time.sleep(IDLE_S);
            Ok(1)
        });
        let reading = reading.ok()?;
        // Over so short a time the samples are finer than the counter.
        Some(reading.sampled_j.or(reading.counter_j)? / reading.seconds)
    }

    /// Begins to watch the state of the device.
    pub fn watch(&self) -> Watch<'_> {
        let before = self.state();
        Watch { meter: self, seen: throttling(&before), before }
    }

    /// Measures prefill and decode of `workload`, each repeated for `pass.seconds`. `idle_w` is what [`idle_w`](Self::idle_w) said
    /// before.
    ///
    /// # Errors
    /// When the workload fails. An instrument that fails is a reason in the result.
    pub fn measure<C: Clock>(
        &self,
        clock: &C,
        workload: &mut dyn Repeatable,
        pass: Pass,
        idle_w: Option<f64>,
    ) -> Result<Energy> {
        let meter = match &self.meter {
            Ok(meter) => meter,
            Err(reason) => return Ok(Energy { reason: Some(reason.clone()), ..Default::default() }),
        };
        clock.synchronize()?;
        let prefill = self.repeat(meter, idle_w, pass.seconds, || {
            workload.prefill()?;
            clock.synchronize()
        })?;
        let decode = self.repeat(meter, idle_w, pass.seconds, || {
            workload.rewind()?;
            (0..pass.steps).try_for_each(|_| workload.step().map(drop))?;
            clock.synchronize()
        })?;
        let mut energy = Energy { idle_w, idle_before_load_w: self.idle_before_load_w, ..Default::default() };
        let by_counter = prefill.counter_j.is_some() && decode.counter_j.is_some();
        let by_samples = prefill.sampled_j.is_some() && decode.sampled_j.is_some();
        if !by_counter && !by_samples {
            let why = [meter.counter_j().err(), meter.power_w().err()].into_iter().flatten().collect::<Vec<_>>();
            energy.reason = Some(match why.is_empty() {
                true => "the energy counter did not move, and there are no power samples".into(),
                false => format!("neither energy counter nor power can be read: {}", why.join("; ")),
            });
            return Ok(energy);
        }
        energy.source = Some(if by_counter { meter.counter_name() } else { "samples" }.into());
        let window = |reading: &Reading, tokens| window(reading, by_counter, idle_w, tokens * reading.repeats);
        energy.prefill = window(&prefill, pass.prompt_tokens);
        energy.decode = window(&decode, pass.steps as u64 * pass.tokens_a_step);
        Ok(energy)
    }

    /// Reads across repetitions of `work` that together take at least `seconds`.
    fn repeat(
        &self,
        meter: &Arc<dyn PowerMeter>,
        idle_w: Option<f64>,
        seconds: f64,
        mut work: impl FnMut() -> Result<()>,
    ) -> Result<Reading> {
        self.read(meter, idle_w, || {
            let start = self.time.now_s();
            let mut repeats = 0;
            loop {
                work()?;
                repeats += 1;
                if self.time.now_s() - start >= seconds {
                    return Ok(repeats);
                }
            }
        })
    }

    /// Reads across `work`, which says how often it did its work.
    ///
    /// NVML's counter moves ten times a second: a window that begins and ends between two moves would be wrong by a tenth of
    /// a second of full power. So the counter is read as it moves, before the work and after it, and what the idle device took
    /// between is subtracted, if `idle_w` is known.
    fn read(
        &self,
        meter: &Arc<dyn PowerMeter>,
        idle_w: Option<f64>,
        work: impl FnOnce() -> Result<u64>,
    ) -> Result<Reading> {
        let counter = || match idle_w {
            Some(_) => self.counter_as_it_moves(meter),
            None => Some((self.time.now_s(), meter.counter_j().ok()?)),
        };
        let before = counter();
        let sampler = Sampler::start(meter.clone(), self.time.clone());
        let start = self.time.now_s();
        let repeats = work();
        let end = self.time.now_s();
        let samples = sampler.stop();
        let after = counter();
        let taken = before.zip(after).map(|((first_s, first_j), (last_s, last_j))| {
            last_j - first_j - idle_w.unwrap_or(0.0) * ((start - first_s) + (last_s - end))
        });
        Ok(Reading {
            repeats: repeats?,
            seconds: end - start,
            // A counter that stood still or went back (it wrapped, or the driver was loaded anew) has measured nothing.
            counter_j: taken.filter(|joules| *joules > 0.0),
            sampled_j: integrate(&samples, start, end).filter(|joules| *joules > 0.0),
        })
    }

    /// Waits until the counter moves, and says when and to what; a counter that does not is read as it stands.
    fn counter_as_it_moves(&self, meter: &Arc<dyn PowerMeter>) -> Option<(f64, f64)> {
        let (start, first) = (self.time.now_s(), meter.counter_j().ok()?);
        loop {
            self.time.sleep(POLL_S);
            let (now, joules) = (self.time.now_s(), meter.counter_j().ok()?);
            if joules != first || now - start > STILL_S {
                return Some((now, joules));
            }
        }
    }

    fn state(&self) -> Option<DeviceState> {
        self.meter.as_ref().ok().map(|meter| meter.state())
    }
}

/// What a window took; `None` when the instrument asked for saw nothing.
fn window(reading: &Reading, by_counter: bool, idle_w: Option<f64>, tokens: u64) -> Option<EnergyWindow> {
    let Reading { seconds, counter_j, sampled_j, repeats } = *reading;
    let gross_j = if by_counter { counter_j } else { sampled_j }?;
    Some(EnergyWindow {
        seconds,
        gross_j,
        net_j: idle_w.map(|idle| gross_j - idle * seconds),
        mean_w: gross_j / seconds,
        tokens,
        j_per_token: gross_j / tokens as f64,
        net_j_per_token: idle_w.map(|idle| (gross_j - idle * seconds) / tokens as f64),
        sampled_j: if by_counter { sampled_j } else { None },
        repeats,
        short: seconds < SHORTEST_S,
    })
}

/// The state of a device over a measurement.
pub struct Watch<'a> {
    meter: &'a EnergyMeter,
    before: Option<DeviceState>,
    seen: BTreeSet<String>,
}

impl Watch<'_> {
    /// Looks at the device now: to be called while it is still hot, right after work.
    pub fn look(&mut self) {
        self.seen.extend(throttling(&self.meter.state()));
    }

    /// The states before and after, and a warning where clocks were held down in between.
    pub fn finish(mut self) -> (BTreeMap<String, DeviceState>, Option<String>) {
        let after = self.meter.state();
        self.seen.extend(throttling(&after));
        let states = [("before", self.before), ("after", after)];
        let states = states.into_iter().filter_map(|(when, state)| Some((when.to_string(), state?))).collect();
        let reasons: Vec<String> = self.seen.into_iter().collect();
        let warning = (!reasons.is_empty())
            .then(|| format!("the device's clocks were held down during this measurement ({})", reasons.join(", ")));
        (states, warning)
    }
}

fn throttling(state: &Option<DeviceState>) -> BTreeSet<String> {
    state.iter().flat_map(|state| state.throttling.iter().flatten().cloned()).collect()
}

#[cfg(test)]
mod tests;
