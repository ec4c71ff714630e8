//! What a GPU says of itself.

use candle_core::Device;

use crate::Result;

/// What the driver says of a GPU.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GpuInfo {
    /// Its name, such as `NVIDIA H200`.
    pub name: String,
    /// Compute capability, major and minor.
    pub compute_capability: (u32, u32),
    /// Streaming multiprocessors.
    pub multiprocessors: u32,
    /// Memory of the device.
    pub total_bytes: u64,
    /// Second-level cache.
    pub l2_bytes: u64,
    /// The newest CUDA version the driver speaks, major and minor.
    pub driver_cuda_version: (u32, u32),
}

impl GpuInfo {
    /// Asks the driver; `None` for the CPU.
    ///
    /// # Errors
    /// When the driver cannot be asked.
    pub fn of(device: &Device) -> Result<Option<Self>> {
        #[cfg(feature = "cuda")]
        if let Device::Cuda(cuda) = device {
            return Ok(Some(super::context::ask(cuda)?));
        }
        let _ = device;
        Ok(None)
    }
}
