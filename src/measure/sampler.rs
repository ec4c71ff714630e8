//! Power sampled by a thread while work runs, and the energy under the samples.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use super::power::PowerMeter;

/// Time between two samples.
const INTERVAL: Duration = Duration::from_millis(10);

/// Where moments come from, so that tests need not wait.
pub trait Time: Send + Sync {
    /// Seconds since some fixed moment.
    fn now_s(&self) -> f64;

    /// Waits.
    fn sleep(&self, seconds: f64);
}

/// The clock of this machine.
pub struct HostTime(std::time::Instant);

impl Default for HostTime {
    fn default() -> Self {
        HostTime(std::time::Instant::now())
    }
}

impl Time for HostTime {
    fn now_s(&self) -> f64 {
        self.0.elapsed().as_secs_f64()
    }

    fn sleep(&self, seconds: f64) {
        std::thread::sleep(Duration::from_secs_f64(seconds));
    }
}

/// Power at a moment.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Sample {
    /// Seconds, by the sampler's [`Time`].
    pub at_s: f64,
    /// Watts.
    pub watts: f64,
}

/// A thread that reads power every 10 ms.
pub struct Sampler {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Vec<Sample>>,
}

impl Sampler {
    /// Starts reading. A meter that cannot tell power gives no samples.
    pub fn start(meter: Arc<dyn PowerMeter>, time: Arc<dyn Time>) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let asked = stop.clone();
        let thread = std::thread::spawn(move || {
            let mut samples = Vec::new();
            while let Ok(watts) = meter.power_w() {
                samples.push(Sample { at_s: time.now_s(), watts });
                if asked.load(Ordering::Acquire) {
                    break;
                }
                std::thread::park_timeout(INTERVAL);
            }
            samples
        });
        Sampler { stop, thread }
    }

    /// Takes a last sample and returns all, in order.
    pub fn stop(self) -> Vec<Sample> {
        self.stop.store(true, Ordering::Release);
        self.thread.thread().unpark();
        self.thread.join().unwrap_or_default()
    }
}

/// Joules between two moments by the trapezoid rule; before the first and after the last sample power stays what it was there.
/// `None` without samples.
pub fn integrate(samples: &[Sample], from_s: f64, to_s: f64) -> Option<f64> {
    let (first, last) = (samples.first()?, samples.last()?);
    let ends = [Sample { at_s: from_s.min(first.at_s), ..*first }, Sample { at_s: to_s.max(last.at_s), ..*last }];
    let all: Vec<Sample> = [ends[0]].into_iter().chain(samples.iter().copied()).chain([ends[1]]).collect();
    let joules = all.windows(2).map(|pair| {
        let (a, b) = (pair[0], pair[1]);
        let (start, end) = (a.at_s.max(from_s), b.at_s.min(to_s));
        if end <= start {
            return 0.0;
        }
        let at = |moment: f64| a.watts + (b.watts - a.watts) * (moment - a.at_s) / (b.at_s - a.at_s);
        (at(start) + at(end)) / 2.0 * (end - start)
    });
    Some(joules.sum())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ramp() -> Vec<Sample> {
        // 100 W at 1 s, rising by 100 W each second.
        (1..5).map(|s| Sample { at_s: f64::from(s), watts: 100.0 * f64::from(s) }).collect()
    }

    #[test]
    fn a_ramp_has_the_area_of_a_trapezoid() {
        assert_eq!(integrate(&ramp(), 1.0, 4.0), Some(750.0));
        assert_eq!(integrate(&ramp(), 1.5, 3.5), Some(500.0));
    }

    #[test]
    fn power_outside_the_samples_stays_what_it_was_at_the_ends() {
        assert_eq!(integrate(&ramp(), 0.0, 1.0), Some(100.0));
        assert_eq!(integrate(&ramp(), 0.0, 5.0), Some(100.0 + 750.0 + 400.0));
        assert_eq!(integrate(&ramp()[..1], 3.0, 5.0), Some(200.0));
        assert_eq!(integrate(&[], 0.0, 1.0), None);
    }
}
