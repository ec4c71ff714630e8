//! What tells the power and energy of a device, and in what state the device is.

use std::path::Path;
use std::sync::Arc;

use super::rapl::{POWERCAP, Rapl};
use crate::device::GpuIdentity;
use crate::device::nvml::NvmlGpu;
use crate::schema::DeviceState;

/// An instrument that reads power or energy of one device. It is asked from a thread of its own while work runs.
pub trait PowerMeter: Send + Sync {
    /// What result files call its counter: `counter` for NVML's, `rapl` for a CPU's.
    fn counter_name(&self) -> &'static str;

    /// Joules taken since some fixed moment.
    ///
    /// # Errors
    /// Why there is no such counter, for people.
    fn counter_j(&self) -> Result<f64, String>;

    /// Power now, watts.
    ///
    /// # Errors
    /// Why it cannot be read, for people.
    fn power_w(&self) -> Result<f64, String>;

    /// Clocks, temperature and what holds the clocks down.
    fn state(&self) -> DeviceState;

    /// Version of the device's driver, where it has one.
    fn driver_version(&self) -> Option<String> {
        None
    }
}

/// The instrument of the GPU that CUDA numbers so, or of the CPU (`None`).
///
/// # Errors
/// Why there is none, for people: it becomes the reason in the result file.
pub fn open(gpu: Option<usize>) -> Result<Arc<dyn PowerMeter>, String> {
    let Some(ordinal) = gpu else { return Ok(Arc::new(Rapl::open(Path::new(POWERCAP))?)) };
    let identity = GpuIdentity::of(ordinal).map_err(|e| e.to_string())?;
    let identity = identity.ok_or("this build of kvprof has no CUDA")?;
    Ok(Arc::new(NvmlGpu::open(&identity)?))
}

impl PowerMeter for NvmlGpu {
    fn counter_name(&self) -> &'static str {
        "counter"
    }

    fn counter_j(&self) -> Result<f64, String> {
        Ok(self.energy_mj()? as f64 / 1e3)
    }

    fn power_w(&self) -> Result<f64, String> {
        Ok(self.power_mw()? as f64 / 1e3)
    }

    fn state(&self) -> DeviceState {
        DeviceState {
            sm_clock_mhz: self.sm_clock_mhz(),
            memory_clock_mhz: self.memory_clock_mhz(),
            temperature_c: self.temperature_c(),
            power_limit_w: self.power_limit_mw().map(|mw| f64::from(mw) / 1e3),
            throttling: self.throttling(),
        }
    }

    fn driver_version(&self) -> Option<String> {
        NvmlGpu::driver_version(self)
    }
}

impl PowerMeter for Rapl {
    fn counter_name(&self) -> &'static str {
        "rapl"
    }

    fn counter_j(&self) -> Result<f64, String> {
        self.joules()
    }

    fn power_w(&self) -> Result<f64, String> {
        self.watts()
    }

    fn state(&self) -> DeviceState {
        DeviceState::default()
    }
}
