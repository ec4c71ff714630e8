//! Memory over time: a thread that looks at the counters while a run works. Looking costs time, so that no such run is a timed one.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use candle_core::Device;

use super::process;
use super::run::Workload;
use crate::Result;
use crate::device;
use crate::schema::{MemorySample, MemoryTimeline};

/// Time between two looks.
const INTERVAL: Duration = Duration::from_millis(2);

/// Runs `workload` once, its prefill and `steps` steps, and looks at the memory of `device` all the while.
///
/// # Errors
/// As the workload, or when the counters cannot be read.
pub fn record(device: &Device, workload: &mut dyn Workload, steps: usize) -> Result<MemoryTimeline> {
    let began = Instant::now();
    let look = || Ok(sample(device)?.map(|sample| MemorySample { ms: began.elapsed().as_secs_f64() * 1e3, ..sample }));
    let (decode_began_ms, samples) = sampled(&look, || {
        workload.prefill()?;
        device::synchronize(device)?;
        let decode_began_ms = began.elapsed().as_secs_f64() * 1e3;
        for _ in 0..steps {
            workload.step()?;
        }
        device::synchronize(device)?;
        Ok(decode_began_ms)
    })?;
    Ok(MemoryTimeline { decode_began_ms, samples: without_repeats(samples) })
}

/// One look at the counters, without waiting for the device; `None` where nothing can be seen.
fn sample(device: &Device) -> Result<Option<MemorySample>> {
    let pool = device::memory_now(device)?.map(|memory| MemorySample {
        used_bytes: memory.used_bytes,
        reserved_bytes: Some(memory.reserved_bytes),
        device_used_bytes: Some(memory.device_used_bytes),
        ..Default::default()
    });
    let process = || process::resident_bytes().map(|used_bytes| MemorySample { used_bytes, ..Default::default() });
    Ok(pool.or_else(process))
}

/// Does `work` while a thread calls `look` again and again, the last time when the work is done.
fn sampled<T>(
    look: &(dyn Fn() -> Result<Option<MemorySample>> + Sync),
    work: impl FnOnce() -> Result<T>,
) -> Result<(T, Vec<MemorySample>)> {
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            let mut samples = Vec::new();
            loop {
                let last = done.load(Ordering::Acquire);
                samples.extend(look()?);
                if last {
                    return Ok(samples);
                }
                std::thread::park_timeout(INTERVAL);
            }
        });
        let outcome = work();
        done.store(true, Ordering::Release);
        thread.thread().unpark();
        let samples =
            thread.join().unwrap_or_else(|_| Err(crate::Error::Invalid("the thread that looks at memory died".into())));
        Ok((outcome?, samples?))
    })
}

/// Leaves out samples that agree with both neighbours.
fn without_repeats(samples: Vec<MemorySample>) -> Vec<MemorySample> {
    let same = |a: &MemorySample, b: &MemorySample| MemorySample { ms: b.ms, ..*a } == *b;
    let last = samples.len().saturating_sub(1);
    let needed =
        |&i: &usize| i == 0 || i == last || !(same(&samples[i - 1], &samples[i]) && same(&samples[i], &samples[i + 1]));
    (0..samples.len()).filter(needed).map(|i| samples[i]).collect()
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicU64;

    use super::*;

    #[test]
    fn a_plateau_is_two_samples() {
        let at = |ms: u32, used_bytes| MemorySample { ms: f64::from(ms), used_bytes, ..Default::default() };
        let samples = vec![at(0, 5), at(1, 5), at(2, 5), at(3, 9), at(4, 5), at(5, 5), at(6, 5)];
        let kept: Vec<_> = without_repeats(samples).iter().map(|s| (s.ms, s.used_bytes)).collect();
        assert_eq!(kept, [(0.0, 5), (2.0, 5), (3.0, 9), (4.0, 5), (6.0, 5)]);
        assert!(without_repeats(Vec::new()).is_empty());
    }

    #[test]
    fn what_work_takes_is_seen_while_and_after_it_works() {
        let used = AtomicU64::new(1);
        let look = || Ok(Some(MemorySample { used_bytes: used.load(Ordering::Relaxed), ..Default::default() }));
        let (answer, samples) = sampled(&look, || {
            std::thread::sleep(Duration::from_millis(50));
            used.store(2, Ordering::Relaxed);
            Ok(42)
        })
        .unwrap();
        let bytes: Vec<u64> = samples.iter().map(|s| s.used_bytes).collect();
        assert_eq!(answer, 42);
        assert_eq!((bytes.first(), bytes.last()), (Some(&1), Some(&2)));
        let failed = sampled(&look, || Err::<(), _>(crate::Error::usage("no")));
        assert!(failed.is_err(), "an error of the work is returned, and the thread ends");
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn a_cpu_shows_the_process() {
        struct Grabs(Vec<u8>);
        impl Workload for Grabs {
            fn prefill(&mut self) -> Result<()> {
                self.0 = vec![1; 64 << 20];
                Ok(())
            }
            fn step(&mut self) -> Result<bool> {
                std::thread::sleep(Duration::from_millis(5));
                Ok(false)
            }
        }
        let mut workload = Grabs(Vec::new());
        let timeline = record(&Device::Cpu, &mut workload, 4).unwrap();
        let used = |s: &MemorySample| s.used_bytes as usize;
        let most = timeline.samples.iter().map(used).max().unwrap();
        assert!(most >= 64 << 20 && timeline.samples.is_sorted_by(|a, b| a.ms <= b.ms), "{timeline:?}");
        assert!(timeline.samples.iter().any(|s| s.ms > timeline.decode_began_ms));
        assert_eq!(timeline.samples[0].reserved_bytes, None);
    }
}
