//! Points in time, as the device passes them.

use std::time::Instant;

use candle_core::Device;

use crate::Result;

/// A point in the work of a device: on a GPU an event between two pieces of work, on the CPU a reading of the clock.
#[derive(Debug)]
pub struct Mark(Point);

#[derive(Debug)]
enum Point {
    Host(Instant),
    #[cfg(feature = "cuda")]
    Gpu(cudarc::driver::CudaEvent),
}

impl Mark {
    /// Marks the end of the work given to the device so far, without waiting for it.
    ///
    /// # Errors
    /// When the driver refuses.
    pub fn set(device: &Device) -> Result<Self> {
        #[cfg(feature = "cuda")]
        if let Device::Cuda(cuda) = device {
            use candle_core::cuda_backend::WrapErr;
            use cudarc::driver::sys::CUevent_flags;
            // Without flags cudarc makes events that cannot be timed.
            let event = cuda.cuda_stream().record_event(Some(CUevent_flags::CU_EVENT_DEFAULT)).w()?;
            return Ok(Mark(Point::Gpu(event)));
        }
        let _ = device;
        Ok(Mark(Point::Host(Instant::now())))
    }

    /// Milliseconds from this mark to `later`, which it waits for.
    ///
    /// # Errors
    /// [`crate::Error::Invalid`] when the marks are of two devices; when work between them failed.
    pub fn ms_until(&self, later: &Mark) -> Result<f64> {
        match (&self.0, &later.0) {
            (Point::Host(start), Point::Host(end)) => Ok(end.duration_since(*start).as_secs_f64() * 1e3),
            #[cfg(feature = "cuda")]
            (Point::Gpu(start), Point::Gpu(end)) => {
                use candle_core::cuda_backend::WrapErr;
                end.synchronize().w()?;
                Ok(f64::from(start.elapsed_ms(end).w()?))
            }
            #[cfg(feature = "cuda")]
            _ => Err(crate::Error::Invalid("two marks of different devices have no time between them".into())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_on_the_cpu_measure_the_time_between_them() {
        let start = Mark::set(&Device::Cpu).unwrap();
        std::thread::sleep(std::time::Duration::from_millis(20));
        let end = Mark::set(&Device::Cpu).unwrap();
        let ms = start.ms_until(&end).unwrap();
        assert!((20.0..2000.0).contains(&ms), "{ms} ms");
    }
}
