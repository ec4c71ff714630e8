//! What ran: software, hardware, command line (rule 8 of [`crate::measure`]).

use candle_core::{Device, DeviceLocation};

use crate::device;
use crate::measure::energy::EnergyMeter;
use crate::measure::process;
use crate::schema::{Environment, Hardware};
use crate::{Error, Result};

const MIB: f64 = (1u64 << 20) as f64;

/// Git revision of this binary, `+` behind it where the tree had changes; `None` when it was built outside a checkout.
pub fn git_revision() -> Option<&'static str> {
    option_env!("KVPROF_GIT_REVISION").filter(|revision| !revision.is_empty())
}

/// The environment of this process, for a run on `device`, of whose driver `energy` knows the version.
///
/// # Errors
/// When the driver cannot be asked.
pub fn environment(device: &Device, energy: &EnergyMeter) -> Result<Environment> {
    let gpu = device::GpuInfo::of(device)?;
    Ok(Environment {
        kvprof_version: Some(env!("CARGO_PKG_VERSION").into()),
        git_revision: git_revision().map(Into::into),
        cuda_version: gpu.as_ref().map(|g| format!("{}.{}", g.driver_cuda_version.0, g.driver_cuda_version.1)),
        driver_version: energy.driver_version(),
        gpu_name: gpu.as_ref().map(|g| g.name.clone()),
        gpu_vram_gb: gpu.as_ref().map(|g| (g.total_bytes as f64 / 1e8).round() / 10.0),
        compute_capability: gpu.as_ref().map(|g| format!("{}.{}", g.compute_capability.0, g.compute_capability.1)),
        cpu: process::cpu_description(),
        command_line: Some(std::env::args_os().map(|argument| argument.to_string_lossy().into_owned()).collect()),
        ..Default::default()
    })
}

/// The card of `device`, as the result file records it, with the copy bandwidth measured now.
///
/// # Errors
/// When the driver cannot be asked.
pub fn hardware(device: &Device) -> Result<Hardware> {
    let gpu = device::GpuInfo::of(device)?;
    Ok(Hardware {
        vram_total_mb: gpu.as_ref().map(|g| g.total_bytes as f64 / MIB),
        gpu_name: gpu.map(|g| g.name),
        device: Some(match device.location() {
            DeviceLocation::Cpu => "cpu".into(),
            DeviceLocation::Cuda { gpu_id } => format!("cuda:{gpu_id}"),
            DeviceLocation::Metal { gpu_id } => format!("metal:{gpu_id}"),
        }),
        copy_bandwidth_gb_s: match device::copy_gb_per_s(device) {
            Ok(rate) => Some(rate),
            // Beside the weights there is no room for the copy: shares of it are unknown, the rest is not.
            Err(Error::OutOfMemory(_)) => None,
            Err(error) => return Err(error),
        },
        ..Default::default()
    })
}
