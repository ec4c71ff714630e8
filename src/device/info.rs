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
    /// The newest CUDA version the driver speaks, major and minor.
    pub driver_cuda_version: (u32, u32),
}

/// Which GPU it is, among all of the machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GpuIdentity {
    /// Its number here; CUDA and NVML number differently.
    pub ordinal: usize,
    /// `GPU-…`, or `MIG-…` for a slice of one.
    pub uuid: String,
    /// `domain:bus:device` in hexadecimal.
    pub pci_bus: String,
}

impl GpuIdentity {
    /// Asks the driver about CUDA device `ordinal`, without opening it; `None` in a build without CUDA.
    ///
    /// # Errors
    /// When there is no such device.
    pub fn of(ordinal: usize) -> Result<Option<Self>> {
        #[cfg(feature = "cuda")]
        return super::context::identify(ordinal).map(Some);
        #[cfg(not(feature = "cuda"))]
        {
            let _ = ordinal;
            Ok(None)
        }
    }

    /// How a place on the PCI bus is written.
    pub fn pci_bus(domain: u32, bus: u32, device: u32) -> String {
        format!("{domain:08x}:{bus:02x}:{device:02x}")
    }
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
