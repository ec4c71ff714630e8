//! What kernels can count on where they run.

use std::collections::HashMap;
use std::sync::{Mutex, OnceLock, PoisonError};

use candle_core::Result;
use candle_core::cuda_backend::{CudaDevice, WrapErr};
use cudarc::driver::sys::CUdevice_attribute as Attribute;

use super::kernels;

/// Which of the two forms of each image runs (build.rs): kernels of one name are sized for other devices in each.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Code {
    /// Machine code for compute capability 9.0.
    Hopper,
    /// What the driver makes of the PTX for 8.0, on any other device since.
    Portable,
}

impl Code {
    /// Shared memory of a multiprocessor that kernels are sized for: `kSharedOfMultiprocessor` of kernels/include/kvprof/shared.cuh.
    pub const fn shared_bytes(self) -> usize {
        match self {
            Code::Hopper => 227 * 1024,
            Code::Portable => 99 * 1024,
        }
    }
}

/// What a launch is chosen by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DeviceLimits {
    /// Streaming multiprocessors.
    pub multiprocessors: usize,
    /// Which form of the kernels the driver has loaded.
    pub code: Code,
}

impl DeviceLimits {
    /// Those of `device`; the driver is asked once.
    ///
    /// # Errors
    /// When the driver cannot be asked, or takes neither form of a kernel.
    pub fn of(device: &CudaDevice) -> Result<Self> {
        static KNOWN: OnceLock<Mutex<HashMap<usize, DeviceLimits>>> = OnceLock::new();
        let mut known = KNOWN.get_or_init(Mutex::default).lock().unwrap_or_else(PoisonError::into_inner);
        let stream = device.cuda_stream();
        let context = stream.context();
        // Contexts are never destroyed.
        let owner = std::sync::Arc::as_ptr(context) as usize;
        if let Some(limits) = known.get(&owner) {
            return Ok(*limits);
        }
        let multiprocessors = context.attribute(Attribute::CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT).w()? as usize;
        let limits = DeviceLimits { multiprocessors, code: kernels::code(context)? };
        known.insert(owner, limits);
        Ok(limits)
    }
}
