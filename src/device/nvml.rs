//! What NVML says of one GPU: energy, power, clocks, temperature. The library is loaded when it is first asked for.

use nvml_wrapper::bitmasks::device::ThrottleReasons;
use nvml_wrapper::enum_wrappers::device::{Clock, TemperatureSensor};
use nvml_wrapper::enums::device::SampleValue;
use nvml_wrapper::error::NvmlError;
use nvml_wrapper::structs::device::FieldId;
use nvml_wrapper::{Device, Nvml};

use super::GpuIdentity;

/// `NVML_FI_DEV_POWER_INSTANT`: power now. The plain reading is a mean over the last second on Ampere and newer.
const POWER_INSTANT: FieldId = FieldId(186);

/// Reasons for lower clocks that are not an idle or a chosen state.
const THROTTLING: [(ThrottleReasons, &str); 5] = [
    (ThrottleReasons::SW_POWER_CAP, "power cap"),
    (ThrottleReasons::HW_SLOWDOWN, "hardware slowdown"),
    (ThrottleReasons::SW_THERMAL_SLOWDOWN, "thermal slowdown by software"),
    (ThrottleReasons::HW_THERMAL_SLOWDOWN, "thermal slowdown by hardware"),
    (ThrottleReasons::HW_POWER_BRAKE_SLOWDOWN, "power brake"),
];

/// One GPU as NVML sees it.
pub struct NvmlGpu {
    nvml: Nvml,
    index: u32,
}

impl NvmlGpu {
    /// Loads NVML and finds the GPU of that identity, whatever its number there.
    ///
    /// # Errors
    /// Why there is no NVML, or no such GPU in it, for people.
    pub fn open(identity: &GpuIdentity) -> Result<Self, String> {
        let nvml = Nvml::init().map_err(|e| format!("NVML cannot be used: {e}"))?;
        let count = nvml.device_count().map_err(|e| format!("NVML lists no GPUs: {e}"))?;
        let known: Vec<GpuIdentity> =
            (0..count).filter_map(|index| identify(&nvml.device_by_index(index).ok()?, index)).collect();
        let index = find(&known, identity)
            .ok_or_else(|| format!("NVML knows {count} GPUs, but not {} at {}", identity.uuid, identity.pci_bus))?;
        Ok(NvmlGpu { nvml, index })
    }

    /// Version of the driver.
    pub fn driver_version(&self) -> Option<String> {
        self.nvml.sys_driver_version().ok()
    }

    /// Millijoules taken since the driver was loaded.
    ///
    /// # Errors
    /// Why it cannot be read: not supported before Volta, or not permitted.
    pub fn energy_mj(&self) -> Result<u64, String> {
        self.ask(|device| device.total_energy_consumption())
    }

    /// Power now, milliwatts; where the driver has no such reading its mean over the last second.
    ///
    /// # Errors
    /// Why it cannot be read.
    pub fn power_mw(&self) -> Result<u64, String> {
        let instant = self.ask(|device| device.field_values_for(&[POWER_INSTANT])).ok().and_then(|mut values| {
            match values.pop()?.ok()?.value.ok()? {
                SampleValue::U32(mw) => Some(u64::from(mw)),
                SampleValue::U64(mw) => Some(mw),
                SampleValue::I64(mw) => u64::try_from(mw).ok(),
                SampleValue::F64(_) => None,
            }
        });
        match instant {
            Some(mw) if mw > 0 => Ok(mw),
            _ => self.ask(|device| device.power_usage()).map(u64::from),
        }
    }

    /// Clock of the multiprocessors, MHz.
    pub fn sm_clock_mhz(&self) -> Option<u32> {
        self.ask(|device| device.clock_info(Clock::SM)).ok()
    }

    /// Clock of the memory, MHz.
    pub fn memory_clock_mhz(&self) -> Option<u32> {
        self.ask(|device| device.clock_info(Clock::Memory)).ok()
    }

    /// Temperature of the chip, degrees Celsius.
    pub fn temperature_c(&self) -> Option<u32> {
        self.ask(|device| device.temperature(TemperatureSensor::Gpu)).ok()
    }

    /// Power limit in force, milliwatts.
    pub fn power_limit_mw(&self) -> Option<u32> {
        self.ask(|device| device.enforced_power_limit()).ok()
    }

    /// What holds the clocks down now; empty for nothing, `None` where the driver does not say.
    pub fn throttling(&self) -> Option<Vec<String>> {
        let reasons = self.ask(|device| device.current_throttle_reasons()).ok()?;
        Some(THROTTLING.iter().filter(|(bit, _)| reasons.contains(*bit)).map(|(_, name)| (*name).to_string()).collect())
    }

    fn ask<T>(&self, question: impl Fn(&Device<'_>) -> Result<T, NvmlError>) -> Result<T, String> {
        let device = self.nvml.device_by_index(self.index).map_err(|e| e.to_string())?;
        question(&device).map_err(|e| e.to_string())
    }
}

/// Who the GPU with NVML's number `index` is.
fn identify(device: &Device<'_>, index: u32) -> Option<GpuIdentity> {
    let pci = device.pci_info().ok();
    Some(GpuIdentity {
        ordinal: index as usize,
        uuid: device.uuid().unwrap_or_default(),
        pci_bus: pci.map_or_else(String::new, |p| GpuIdentity::pci_bus(p.domain, p.bus, p.device)),
    })
}

/// NVML's number of the GPU `wanted`. CUDA_VISIBLE_DEVICES hides and reorders what CUDA numbers, so numbers say nothing.
fn find(known: &[GpuIdentity], wanted: &GpuIdentity) -> Option<u32> {
    let same = |a: &str, b: &str| !a.is_empty() && a.eq_ignore_ascii_case(b);
    let by_uuid = known.iter().find(|gpu| same(&gpu.uuid, &wanted.uuid));
    // A slice of a GPU (MIG) has an identity of its own, but the bus of the whole.
    let found = by_uuid.or_else(|| known.iter().find(|gpu| same(&gpu.pci_bus, &wanted.pci_bus)))?;
    u32::try_from(found.ordinal).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gpu(ordinal: usize, uuid: &str, bus: u32) -> GpuIdentity {
        GpuIdentity { ordinal, uuid: uuid.into(), pci_bus: GpuIdentity::pci_bus(0, bus, 0) }
    }

    #[test]
    fn the_gpu_in_use_is_found_by_what_it_is_not_by_its_number() {
        let known = [gpu(0, "GPU-aa", 0x1b), gpu(1, "GPU-bb", 0x43)];
        assert_eq!(find(&known, &gpu(0, "gpu-BB", 0x43)), Some(1));
        assert_eq!(find(&known, &gpu(0, "MIG-cc", 0x43)), Some(1));
        assert_eq!(find(&known, &gpu(0, "GPU-cc", 0x44)), None);
        assert_eq!(find(&[gpu(0, "", 1)], &gpu(0, "", 2)), None);
    }
}
