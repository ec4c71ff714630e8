//! What the memory of a device can move at best: the yardstick of every GB/s.

use std::time::Instant;

use candle_core::{DType, Device, Tensor};
use rayon::prelude::*;

use super::{Mark, synchronize};
use crate::base::stats;
use crate::{Error, Result};

/// Times a copy is repeated.
const REPEATS: usize = 9;

/// Bytes of the copied buffer: far past any cache.
const GPU_BYTES: usize = 1 << 30;
const CPU_BYTES: usize = 1 << 27;

/// Bandwidth of a copy within the memory of `device` in GB/s (10⁹ bytes), bytes read plus bytes written; the median of a few.
///
/// On a CPU by all threads at once, between buffers that were written before: memory fresh from the system would be
/// measured with the time that handing out its pages takes, which is several times that of the copy.
///
/// # Errors
/// When the device has no room for twice the buffer.
pub fn copy_gb_per_s(device: &Device) -> Result<f64> {
    let rates = if device.is_cpu() { cpu_rates() } else { gpu_rates(device)? };
    stats::median(&rates).ok_or_else(|| Error::Invalid("no copy was timed".into()))
}

fn gpu_rates(device: &Device) -> Result<Vec<f64>> {
    let source = Tensor::zeros(GPU_BYTES, DType::U8, device)?;
    let mut rates = Vec::with_capacity(REPEATS);
    for repeat in 0..=REPEATS {
        synchronize(device)?;
        let start = Mark::set(device)?;
        let copy = source.copy()?;
        let end = Mark::set(device)?;
        let seconds = start.ms_until(&end)? / 1e3;
        drop(copy);
        // The first copy also takes its memory from the driver; the pool then hands out the same again.
        if repeat > 0 {
            rates.push(gb_per_s(GPU_BYTES, seconds));
        }
    }
    Ok(rates)
}

fn cpu_rates() -> Vec<f64> {
    // Ones: pages of zeros may all be one page until they are written.
    let (source, mut target) = (vec![1u8; CPU_BYTES], vec![1u8; CPU_BYTES]);
    let part = CPU_BYTES.div_ceil(rayon::current_num_threads());
    let mut copy = || {
        let start = Instant::now();
        target.par_chunks_mut(part).zip(source.par_chunks(part)).for_each(|(to, from)| to.copy_from_slice(from));
        gb_per_s(CPU_BYTES, start.elapsed().as_secs_f64())
    };
    (0..REPEATS).map(|_| copy()).collect()
}

fn gb_per_s(copied_bytes: usize, seconds: f64) -> f64 {
    2.0 * copied_bytes as f64 / seconds / 1e9
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn copying_on_this_machine_has_a_plausible_rate() {
        let rate = copy_gb_per_s(&Device::Cpu).unwrap();
        assert!((0.1..5000.0).contains(&rate), "{rate} GB/s");
    }
}
