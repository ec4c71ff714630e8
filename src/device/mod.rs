//! Layer 1: the machine. All `unsafe` lives here, but for the launching of kernels, which stands beside each operation.
//!
//! What this module offers exists in every build: on the CPU, and in a build without the feature `cuda`, a question about
//! a GPU is answered with `None`. [`open`] is the one door to a device: a GPU comes with a stream of its own, without candle's
//! event tracking (one thread, one stream), and with a memory pool that keeps what it has.

mod bandwidth;
mod clock;
#[cfg(feature = "cuda")]
mod context;
pub mod cupti;
mod info;
#[cfg(feature = "cuda")]
pub mod kernels;
#[cfg(feature = "cuda")]
mod limits;
pub mod matmul;
mod memory;
pub mod nvml;
pub mod ranges;
#[cfg(feature = "cuda")]
pub mod sequence;
pub mod signals;
#[cfg(feature = "cuda")]
pub mod tensor_map;

pub use bandwidth::copy_gb_per_s;
pub use clock::Mark;
pub use info::{GpuIdentity, GpuInfo};
#[cfg(feature = "cuda")]
pub use limits::DeviceLimits;
pub use memory::{Memory, memory, memory_now, release_unused_memory, reset_memory_peaks};

use candle_core::Device;

use crate::{Error, Result};

/// Opens the CPU (`None`) or a CUDA device by its number.
///
/// # Errors
/// [`Error::Usage`] when this build has no CUDA or the device does not exist.
pub fn open(gpu: Option<usize>) -> Result<Device> {
    match gpu {
        None => Ok(Device::Cpu),
        #[cfg(feature = "cuda")]
        Some(ordinal) => context::open(ordinal),
        #[cfg(not(feature = "cuda"))]
        Some(_) => {
            Err(Error::usage("this build of kvprof has no CUDA: build it with `--features cuda`, or use --device cpu"))
        }
    }
}

/// Number of CUDA devices that [`open`] can open; 0 in a build without CUDA.
///
/// # Errors
/// When the driver cannot be asked.
pub fn gpu_count() -> Result<usize> {
    #[cfg(feature = "cuda")]
    return context::count();
    #[cfg(not(feature = "cuda"))]
    Ok(0)
}

/// Waits until the device has done all it was given.
///
/// # Errors
/// When something it was given failed.
pub fn synchronize(device: &Device) -> Result<()> {
    device.synchronize().map_err(Error::from)
}

/// Ends the process without running what is registered for its end: handlers of CUDA among them, which would run beside a thread
/// that is still computing.
pub fn exit_at_once(code: i32) -> ! {
    // SAFETY: `_exit` takes any code, touches no memory of this process and does not return.
    unsafe { libc::_exit(code) }
}
