//! Opening a CUDA device, and what it says of itself.

use std::sync::Arc;

use candle_core::Device;
use candle_core::cuda_backend::{CudaDevice, WrapErr};
use cudarc::driver::sys::{self, CUdevice_attribute as Attribute, CUmemPool_attribute};
use cudarc::driver::{CudaContext, result};

use super::memory::default_pool;
use super::{GpuIdentity, GpuInfo};
use crate::base::hex::hex;
use crate::{Error, Result};

/// Asks the driver about a device.
pub(super) fn ask(device: &CudaDevice) -> Result<GpuInfo> {
    let stream = device.cuda_stream();
    Ok(ask_context(stream.context()).w()?)
}

fn ask_context(context: &Arc<CudaContext>) -> Result<GpuInfo, result::DriverError> {
    let (major, minor) = context.compute_capability()?;
    let mut version = 0;
    // SAFETY: the driver writes one integer.
    unsafe { sys::cuDriverGetVersion(&raw mut version) }.result()?;
    Ok(GpuInfo {
        name: context.name()?,
        compute_capability: (major as u32, minor as u32),
        multiprocessors: context.attribute(Attribute::CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT)? as u32,
        total_bytes: context.total_mem()? as u64,
        driver_cuda_version: (version as u32 / 1000, version as u32 % 1000 / 10),
    })
}

/// Who CUDA device `ordinal` is. It is not opened: an open one takes more power than an idle one.
pub(super) fn identify(ordinal: usize) -> Result<GpuIdentity> {
    count()?;
    let device = result::device::get(ordinal as i32).w()?;
    let bytes = result::device::get_uuid(device).w()?.bytes;
    let digits = hex(&bytes.map(|byte| byte as u8));
    let parts = [&digits[..8], &digits[8..12], &digits[12..16], &digits[16..20], &digits[20..]];
    let ask = |attribute| {
        // SAFETY: the device came from the driver.
        unsafe { result::device::get_attribute(device, attribute) }.map(|value| value as u32)
    };
    let pci_bus = GpuIdentity::pci_bus(
        ask(Attribute::CU_DEVICE_ATTRIBUTE_PCI_DOMAIN_ID).w()?,
        ask(Attribute::CU_DEVICE_ATTRIBUTE_PCI_BUS_ID).w()?,
        ask(Attribute::CU_DEVICE_ATTRIBUTE_PCI_DEVICE_ID).w()?,
    );
    Ok(GpuIdentity { ordinal, uuid: format!("GPU-{}", parts.join("-")), pci_bus })
}

/// Number of CUDA devices.
pub(super) fn count() -> Result<usize> {
    let count = CudaContext::device_count().map_err(|error| {
        let why = error.error_string().map_or_else(|_| format!("{error:?}"), |why| why.to_string_lossy().into_owned());
        Error::usage(format!(
            "the CUDA driver finds no GPU to use ({why}): see that nvidia-smi does, or use --device cpu"
        ))
    })?;
    Ok(count as usize)
}

/// Opens a device with a stream of its own.
pub(super) fn open(ordinal: usize) -> Result<Device> {
    let count = count()?;
    if ordinal >= count {
        return Err(Error::usage(format!(
            "there is no CUDA device {ordinal}: {count} found, counted from 0; use one of them, or --device cpu"
        )));
    }
    let device = Device::new_cuda_with_stream(ordinal)?;
    let Device::Cuda(cuda) = &device else { return Err(Error::Invalid("candle opened another kind of device".into())) };
    // SAFETY: events order uses of a buffer on several streams; kvprof uses this one stream for everything, from one thread.
    unsafe { cuda.disable_event_tracking() };
    keep_pool_memory(cuda).w()?;
    Ok(device)
}

/// The pool of a device gives unused memory back at every synchronization unless told what to keep: keep everything, so that a
/// synchronized step does not pay for its allocations again.
fn keep_pool_memory(device: &CudaDevice) -> Result<(), result::DriverError> {
    let pool = default_pool(device.cuda_stream().context())?;
    let mut keep = u64::MAX;
    // SAFETY: the pool is the device's own; this attribute is a 64-bit integer.
    unsafe {
        result::mem_pool::set_attribute(
            pool,
            CUmemPool_attribute::CU_MEMPOOL_ATTR_RELEASE_THRESHOLD,
            (&raw mut keep).cast(),
        )
    }
}
