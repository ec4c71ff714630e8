//! Memory of a GPU, counted twice: by the pool that tensors come from, and by the device itself.

use candle_core::Device;

use crate::Result;

/// Bytes of GPU memory. The pool serves tensors only; the device also holds the context, code, libraries and other programs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Memory {
    /// In tensors now.
    pub used_bytes: u64,
    /// The most in tensors since the last [`reset_memory_peaks`].
    pub used_peak_bytes: u64,
    /// Held by the pool now, whether in tensors or not.
    pub reserved_bytes: u64,
    /// The most held by the pool since the last [`reset_memory_peaks`].
    pub reserved_peak_bytes: u64,
    /// In use on the device, by anyone.
    pub device_used_bytes: u64,
    /// Of the device.
    pub device_total_bytes: u64,
}

/// Reads the counters, once the device has done what it was given; `None` for the CPU.
///
/// # Errors
/// When the driver cannot be asked, or work given earlier failed.
pub fn memory(device: &Device) -> Result<Option<Memory>> {
    super::synchronize(device)?;
    memory_now(device)
}

/// Reads the counters without waiting: what is in tensors then counts from when the host asked for it. From any thread.
///
/// # Errors
/// When the driver cannot be asked.
pub fn memory_now(device: &Device) -> Result<Option<Memory>> {
    #[cfg(feature = "cuda")]
    if let Device::Cuda(cuda) = device {
        return Ok(Some(cuda::read(cuda)?));
    }
    let _ = device;
    Ok(None)
}

/// Lets the peaks start again from what is used and held now.
///
/// # Errors
/// When the driver cannot be asked.
pub fn reset_memory_peaks(device: &Device) -> Result<()> {
    #[cfg(feature = "cuda")]
    if let Device::Cuda(cuda) = device {
        cuda::reset_peaks(cuda)?;
    }
    let _ = device;
    Ok(())
}

/// Gives what the pool holds without need back to the device, and what the C library's allocator holds so to the system, so that the
/// next run starts from the same memory as the first.
///
/// # Errors
/// When the driver cannot be asked.
pub fn release_unused_memory(device: &Device) -> Result<()> {
    #[cfg(feature = "cuda")]
    if let Device::Cuda(cuda) = device {
        cuda::trim(cuda)?;
    }
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    if device.is_cpu() {
        // SAFETY: it looks for pages that the allocator has free, under the allocator's own locks.
        unsafe { libc::malloc_trim(0) };
    }
    let _ = device;
    Ok(())
}

#[cfg(feature = "cuda")]
pub(super) use cuda::default_pool;

#[cfg(feature = "cuda")]
mod cuda {
    use std::sync::Arc;

    use candle_core::cuda_backend::{CudaDevice, WrapErr};
    use cudarc::driver::sys::{CUmemPool_attribute as Attribute, CUmemoryPool};
    use cudarc::driver::{CudaContext, DriverError, result};

    use super::Memory;
    use crate::Result;

    /// The pool that stream-ordered allocations of a device come from.
    pub(in crate::device) fn default_pool(context: &Arc<CudaContext>) -> Result<CUmemoryPool, DriverError> {
        context.bind_to_thread()?;
        // SAFETY: the device handle comes from a live context.
        unsafe { result::device::get_mem_pool(context.cu_device()) }
    }

    pub(super) fn read(device: &CudaDevice) -> Result<Memory> {
        let stream = device.cuda_stream();
        // This also makes the context current in the calling thread.
        let pool = default_pool(stream.context()).w()?;
        let counter = |attribute| {
            let mut bytes = 0u64;
            // SAFETY: the pool is the device's own; each of these attributes is a 64-bit integer.
            unsafe { result::mem_pool::get_attribute(pool, attribute, (&raw mut bytes).cast()) }.map(|()| bytes)
        };
        let (free, total) = stream.context().mem_get_info().w()?;
        Ok(Memory {
            used_bytes: counter(Attribute::CU_MEMPOOL_ATTR_USED_MEM_CURRENT).w()?,
            used_peak_bytes: counter(Attribute::CU_MEMPOOL_ATTR_USED_MEM_HIGH).w()?,
            reserved_bytes: counter(Attribute::CU_MEMPOOL_ATTR_RESERVED_MEM_CURRENT).w()?,
            reserved_peak_bytes: counter(Attribute::CU_MEMPOOL_ATTR_RESERVED_MEM_HIGH).w()?,
            device_used_bytes: (total - free) as u64,
            device_total_bytes: total as u64,
        })
    }

    pub(super) fn reset_peaks(device: &CudaDevice) -> Result<()> {
        let stream = device.cuda_stream();
        stream.synchronize().w()?;
        let pool = default_pool(stream.context()).w()?;
        for attribute in [Attribute::CU_MEMPOOL_ATTR_USED_MEM_HIGH, Attribute::CU_MEMPOOL_ATTR_RESERVED_MEM_HIGH] {
            let mut zero = 0u64;
            // SAFETY: as in `read`; zero is the one value these attributes take, and it means "start again from now".
            unsafe { result::mem_pool::set_attribute(pool, attribute, (&raw mut zero).cast()) }.w()?;
        }
        Ok(())
    }

    pub(super) fn trim(device: &CudaDevice) -> Result<()> {
        let stream = device.cuda_stream();
        stream.synchronize().w()?;
        let pool = default_pool(stream.context()).w()?;
        // SAFETY: the pool is the device's own; memory in use is not touched.
        Ok(unsafe { result::mem_pool::trim_to(pool, 0) }.w()?)
    }
}
