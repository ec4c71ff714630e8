//! What the memory of a device can move at best: the yardstick of every GB/s.

use candle_core::{DType, Device, Tensor};

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
/// # Errors
/// When the device has no room for twice the buffer.
pub fn copy_gb_per_s(device: &Device) -> Result<f64> {
    let bytes = if device.is_cpu() { CPU_BYTES } else { GPU_BYTES };
    let source = Tensor::zeros(bytes, DType::U8, device)?;
    let mut rates = Vec::with_capacity(REPEATS);
    for repeat in 0..=REPEATS {
        synchronize(device)?;
        let start = Mark::set(device)?;
        let copy = source.copy()?;
        let end = Mark::set(device)?;
        let seconds = start.ms_until(&end)? / 1e3;
        drop(copy);
        // The first copy also pays for its memory.
        if repeat > 0 {
            rates.push(2.0 * bytes as f64 / seconds / 1e9);
        }
    }
    stats::median(&rates).ok_or_else(|| Error::Invalid("no copy was timed".into()))
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
