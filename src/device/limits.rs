//! What kernels can count on where they run.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use candle_core::Result;
use candle_core::cuda_backend::{CudaDevice, WrapErr};
use cudarc::driver::sys::CUdevice_attribute as Attribute;

use super::kernels::Code;

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
        let owner = Arc::as_ptr(context) as usize;
        if let Some(limits) = known.get(&owner) {
            return Ok(*limits);
        }
        let multiprocessors = context.attribute(Attribute::CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT).w()? as usize;
        let limits = DeviceLimits { multiprocessors, code: Code::of(context)? };
        known.insert(owner, limits);
        Ok(limits)
    }
}
