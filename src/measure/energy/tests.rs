//! A fake NVML: every prefill and step takes a known time and energy, so that each figure is known beforehand.

use std::sync::Mutex;

use super::*;

const IDLE_W: f64 = 70.0;
const PREFILL: (f64, f64) = (0.2, 60.0);
const STEP: (f64, f64) = (0.004, 1.6);

/// A device: time, energy taken so far, and what power is drawn now.
struct Fake {
    state: Mutex<(f64, f64, f64)>,
    counter: bool,
    /// What the counter shows, and until when: it moves every so many seconds only.
    shown: Mutex<(f64, f64)>,
    counter_moves_every: f64,
    power: bool,
    /// The counter starts again from 0 above this.
    wraps_at: f64,
    throttling: Mutex<Vec<String>>,
}

impl Fake {
    fn new(counter: bool, power: bool) -> Arc<Self> {
        Arc::new(Fake {
            shown: Mutex::new((0.0, -1.0)),
            counter_moves_every: 0.0,
            state: Mutex::new((0.0, 0.0, IDLE_W)),
            counter,
            power,
            wraps_at: 1e9,
            throttling: Mutex::default(),
        })
    }

    fn work(&self, (seconds, joules): (f64, f64)) {
        let mut state = self.state.lock().unwrap();
        *state = (state.0 + seconds, state.1 + joules, joules / seconds);
    }
}

impl Time for Fake {
    fn now_s(&self) -> f64 {
        self.state.lock().unwrap().0
    }
    fn sleep(&self, seconds: f64) {
        self.work((seconds, IDLE_W * seconds));
    }
}

impl PowerMeter for Fake {
    fn counter_name(&self) -> &'static str {
        "counter"
    }
    fn counter_j(&self) -> Result<f64, String> {
        let (now, joules, watts) = *self.state.lock().unwrap();
        let mut shown = self.shown.lock().unwrap();
        if now >= shown.1 {
            // It shows what had been taken when it moved last, whenever it is read.
            let moved = if self.counter_moves_every > 0.0 {
                (now / self.counter_moves_every).floor() * self.counter_moves_every
            } else {
                now
            };
            *shown = (joules - watts * (now - moved), moved + self.counter_moves_every);
        }
        let joules = shown.0 % self.wraps_at;
        if self.counter { Ok(joules) } else { Err("no counter".into()) }
    }
    fn power_w(&self) -> Result<f64, String> {
        let watts = self.state.lock().unwrap().2;
        if self.power { Ok(watts) } else { Err("no power".into()) }
    }
    fn state(&self) -> DeviceState {
        DeviceState { throttling: Some(self.throttling.lock().unwrap().clone()), ..Default::default() }
    }
}

struct FakeClock;

impl Clock for FakeClock {
    type Mark = f64;
    fn mark(&self) -> Result<f64> {
        Ok(0.0)
    }
    fn synchronize(&self) -> Result<()> {
        Ok(())
    }
    fn ms(&self, start: &f64, end: &f64) -> Result<f64> {
        Ok(end - start)
    }
}

/// Counts what was asked of it.
struct Work {
    device: Arc<Fake>,
    prefills: u64,
    steps: u64,
    rewinds: u64,
}

impl Workload for Work {
    fn prefill(&mut self) -> Result<()> {
        self.prefills += 1;
        self.device.work(PREFILL);
        Ok(())
    }
    fn step(&mut self) -> Result<bool> {
        self.steps += 1;
        self.device.work(STEP);
        Ok(false)
    }
}

impl Repeatable for Work {
    fn rewind(&mut self) -> Result<()> {
        self.rewinds += 1;
        Ok(())
    }
}

const PASS: Pass = Pass { prompt_tokens: 1000, steps: 50, tokens_a_step: 2, seconds: 0.5 };

fn measure(device: &Arc<Fake>, pass: Pass) -> (Energy, Work) {
    let meter = EnergyMeter::with_time(Ok(device.clone()), device.clone());
    let idle = meter.idle_w();
    let mut work = Work { device: device.clone(), prefills: 0, steps: 0, rewinds: 0 };
    (meter.measure(&FakeClock, &mut work, pass, idle).unwrap(), work)
}

fn close(a: f64, b: f64) -> bool {
    (a - b).abs() < 1e-6 * b.abs()
}

#[test]
fn rule_7_the_counter_across_each_window_is_its_energy_prefill_and_decode_apart() {
    let (energy, work) = measure(&Fake::new(true, true), PASS);
    assert_eq!(energy.source.as_deref(), Some("counter"));
    let (prefill, decode) = (energy.prefill.unwrap(), energy.decode.unwrap());
    // Three prefills of 0.2 s and three decodes of 50 steps of 4 ms are the first to reach half a second.
    assert_eq!((work.prefills, work.steps, work.rewinds), (3, 150, 3));
    assert!(close(prefill.gross_j, 3.0 * PREFILL.1) && close(prefill.mean_w, 300.0), "{prefill:?}");
    assert!(close(decode.gross_j, 150.0 * STEP.1) && close(decode.mean_w, 400.0), "{decode:?}");
    assert!(close(decode.j_per_token, STEP.1 / 2.0) && close(prefill.j_per_token, PREFILL.1 / 1000.0));
    assert!(!prefill.short && !decode.short);
}

#[test]
fn a_counter_that_moves_ten_times_a_second_is_read_as_it_moves() {
    let mut device = Fake::new(true, true);
    Arc::get_mut(&mut device).unwrap().counter_moves_every = 0.1;
    let (energy, _) = measure(&device, Pass { seconds: 0.5, ..PASS });
    let (prefill, decode) = (energy.prefill.unwrap(), energy.decode.unwrap());
    assert!((prefill.mean_w - 300.0).abs() < 1.0 && (decode.mean_w - 400.0).abs() < 1.0, "{prefill:?} {decode:?}");
}

#[test]
fn joules_a_token_times_tokens_is_the_energy_of_the_window() {
    let (energy, _) = measure(&Fake::new(true, true), PASS);
    for window in [energy.prefill.unwrap(), energy.decode.unwrap()] {
        assert!(close(window.j_per_token * window.tokens as f64, window.gross_j), "{window:?}");
        assert!(close(window.mean_w * window.seconds, window.gross_j), "{window:?}");
        assert!(close(window.net_j_per_token.unwrap() * window.tokens as f64, window.net_j.unwrap()), "{window:?}");
    }
}

#[test]
fn rule_7_idle_power_is_measured_before_and_subtracted() {
    let (energy, _) = measure(&Fake::new(true, true), PASS);
    assert!(close(energy.idle_w.unwrap(), IDLE_W) && close(energy.idle_before_load_w.unwrap(), IDLE_W));
    let decode = energy.decode.unwrap();
    assert!(close(decode.net_j.unwrap(), decode.gross_j - IDLE_W * decode.seconds));
}

#[test]
fn rule_7_idle_power_is_that_of_samples_where_the_counter_is_too_coarse_for_it() {
    let mut device = Fake::new(true, true);
    // It moves every 0.4 s: once or twice in the half second that is measured.
    Arc::get_mut(&mut device).unwrap().counter_moves_every = 0.4;
    let meter = EnergyMeter::with_time(Ok(device.clone()), device.clone());
    let idle: Vec<f64> = (0..4).map(|_| meter.idle_w().unwrap()).collect();
    assert!(idle.iter().all(|watts| close(*watts, IDLE_W)), "{idle:?}");
}

#[test]
fn rule_7_without_a_counter_samples_of_power_take_its_place() {
    let (energy, _) = measure(&Fake::new(false, true), PASS);
    assert_eq!(energy.source.as_deref(), Some("samples"));
    let decode = energy.decode.unwrap();
    assert!((IDLE_W..=STEP.1 / STEP.0 + 1e-6).contains(&decode.mean_w) && decode.sampled_j.is_none(), "{decode:?}");
}

#[test]
fn a_counter_that_wraps_within_a_window_is_not_believed() {
    let mut device = Fake::new(true, true);
    // Idle before loading and before the context take 0.8 s each; the counter then wraps within the window of decode.
    let before = 2.0 * 0.8 * IDLE_W + 3.0 * PREFILL.1;
    Arc::get_mut(&mut device).unwrap().wraps_at = before + 149.5 * STEP.1;
    let (energy, _) = measure(&device, PASS);
    assert_eq!(energy.source.as_deref(), Some("samples"), "{energy:?}");
}

#[test]
fn rule_7_a_meter_that_tells_nothing_is_a_reason_and_never_a_zero() {
    let (energy, _) = measure(&Fake::new(false, false), PASS);
    assert_eq!((&energy.source, &energy.prefill, &energy.decode, energy.idle_w), (&None, &None, &None, None));
    assert!(energy.reason.unwrap().contains("no counter; no power"));
}

#[test]
fn rule_7_no_meter_is_a_reason_and_runs_nothing() {
    let device = Fake::new(true, true);
    let meter = EnergyMeter::with_time(Err("no NVML here".into()), device.clone());
    let mut work = Work { device, prefills: 0, steps: 0, rewinds: 0 };
    let energy = meter.measure(&FakeClock, &mut work, PASS, None).unwrap();
    assert_eq!(energy.reason.as_deref(), Some("no NVML here"));
    assert_eq!((energy.decode, work.prefills + work.steps, meter.idle_w()), (None, 0, None));
}

#[test]
fn rule_7_a_window_under_half_a_second_is_marked_short() {
    let (energy, _) = measure(&Fake::new(true, true), Pass { seconds: 0.3, ..PASS });
    let decode = energy.decode.unwrap();
    assert!(decode.short && close(decode.seconds, 0.4), "{decode:?}");
}

#[test]
fn rule_3_throttling_seen_between_runs_is_a_warning_though_it_was_over_at_the_end() {
    let device = Fake::new(true, true);
    let meter = EnergyMeter::with_time(Ok(device.clone()), device.clone());
    let mut watch = meter.watch();
    watch.look();
    device.throttling.lock().unwrap().push("power cap".into());
    watch.look();
    device.throttling.lock().unwrap().clear();
    let (states, warning) = watch.finish();
    assert!(warning.unwrap().contains("power cap"));
    assert_eq!(states.keys().collect::<Vec<_>>(), ["after", "before"]);
    assert_eq!(meter.watch().finish().1, None);
}
