//! Memory by phase: what the pool and the device count in prefill and in decode, and whether a run leaves something behind
//! (rule 6 of [`crate::measure`]).

use candle_core::Device;

use super::phase::{Instrument, Phase};
use super::process;
use crate::Result;
use crate::device::{self, Memory};

/// Counters of a device's memory.
pub trait MemoryCounters {
    /// Reads them once the device is idle; `None` where there are none.
    ///
    /// # Errors
    /// When the driver cannot be asked.
    fn read(&self) -> Result<Option<Memory>>;

    /// Lets the peaks start again from what is used and held now.
    ///
    /// # Errors
    /// When the driver cannot be asked.
    fn restart_peaks(&self) -> Result<()>;
}

/// The counters of a GPU; a CPU has none.
pub struct DeviceCounters<'a>(pub &'a Device);

impl MemoryCounters for DeviceCounters<'_> {
    fn read(&self) -> Result<Option<Memory>> {
        device::memory(self.0)
    }

    fn restart_peaks(&self) -> Result<()> {
        device::reset_memory_peaks(self.0)
    }
}

/// The instrument. It belongs to the repeated runs of one measurement.
pub struct MemoryMeter<'a> {
    counters: &'a dyn MemoryCounters,
    seen: MemoryUse,
}

/// The largest values of all runs watched, bytes.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct MemoryUse {
    /// Of the GPU; `None` on a CPU.
    pub pool: Option<PoolUse>,
    /// Most memory of this process in prefill, in host memory; `None` where the system does not tell.
    pub process_prefill_bytes: Option<u64>,
    /// The same in decode.
    pub process_decode_bytes: Option<u64>,
}

/// What the pool and the device counted.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct PoolUse {
    /// Most in tensors during prefill: what was there before included.
    pub prefill_peak_bytes: u64,
    /// The same during decode.
    pub decode_peak_bytes: u64,
    /// Most held by the pool.
    pub reserved_peak_bytes: u64,
    /// On the device but not in the pool: context, code, libraries, other programs.
    pub framework_bytes: u64,
    /// The device's own count when the pool held most.
    pub device_peak_bytes: u64,
    /// In tensors after each run.
    pub left_bytes: Vec<u64>,
    /// Whether some of the pool lay outside the device.
    pub spilled: bool,
}

impl PoolUse {
    /// Most in tensors.
    pub fn peak_bytes(&self) -> u64 {
        self.prefill_peak_bytes.max(self.decode_peak_bytes)
    }

    /// Held by the pool at its peak beyond what tensors ever needed.
    pub fn fragmentation_bytes(&self) -> u64 {
        self.reserved_peak_bytes.saturating_sub(self.peak_bytes())
    }

    /// What the runs after the first left in tensors; `None` for fewer than two runs. A run that frees what it made leaves nothing.
    pub fn leaked_bytes(&self) -> Option<u64> {
        match self.left_bytes.as_slice() {
            [first, .., last] => Some(last.saturating_sub(*first)),
            _ => None,
        }
    }

    fn add(&mut self, phase: Phase, memory: &Memory) {
        let peak = match phase {
            Phase::Prefill => &mut self.prefill_peak_bytes,
            Phase::Decode => &mut self.decode_peak_bytes,
        };
        *peak = (*peak).max(memory.used_peak_bytes);
        self.reserved_peak_bytes = self.reserved_peak_bytes.max(memory.reserved_peak_bytes);
        let framework = memory.device_used_bytes.saturating_sub(memory.reserved_bytes);
        self.framework_bytes = self.framework_bytes.max(framework);
        // What the pool has given back since its peak was on the device then.
        let given_back = memory.reserved_peak_bytes.saturating_sub(memory.reserved_bytes);
        self.device_peak_bytes = self.device_peak_bytes.max(memory.device_used_bytes + given_back);
        // A driver that moves memory to the host leaves the pool with more than the device has, or says is in use.
        self.spilled |= memory.reserved_bytes > memory.device_used_bytes.min(memory.device_total_bytes);
        if phase == Phase::Decode {
            self.left_bytes.push(memory.used_bytes);
        }
    }
}

impl<'a> MemoryMeter<'a> {
    /// Watches through `counters`.
    pub fn new(counters: &'a dyn MemoryCounters) -> Self {
        MemoryMeter { counters, seen: MemoryUse::default() }
    }

    /// What was seen.
    pub fn finish(self) -> MemoryUse {
        self.seen
    }
}

impl Instrument for MemoryMeter<'_> {
    fn begin(&mut self, _phase: Phase) -> Result<()> {
        process::reset_peak_resident();
        self.counters.restart_peaks()
    }

    fn end(&mut self, phase: Phase) -> Result<()> {
        let process = match phase {
            Phase::Prefill => &mut self.seen.process_prefill_bytes,
            Phase::Decode => &mut self.seen.process_decode_bytes,
        };
        *process = (*process).max(process::peak_resident_bytes());
        if let Some(memory) = self.counters.read()? {
            self.seen.pool.get_or_insert_default().add(phase, &memory);
        }
        Ok(())
    }
}

/// A pool for tests: blocks are held in whole pages, and freed pages stay with the pool.
#[cfg(test)]
pub(crate) mod fake {
    use std::cell::Cell;

    use super::*;

    pub struct FakePool {
        pub memory: Cell<Memory>,
        pub page_bytes: u64,
    }

    impl FakePool {
        /// A device of `total_bytes`, of which `framework_bytes` are taken before any tensor is.
        pub fn new(total_bytes: u64, framework_bytes: u64) -> Self {
            let memory = Memory {
                used_bytes: 0,
                used_peak_bytes: 0,
                reserved_bytes: 0,
                reserved_peak_bytes: 0,
                device_used_bytes: framework_bytes,
                device_total_bytes: total_bytes,
            };
            FakePool { memory: Cell::new(memory), page_bytes: 1 }
        }

        pub fn allocate(&self, bytes: u64) {
            let mut m = self.memory.get();
            m.used_bytes += bytes;
            m.used_peak_bytes = m.used_peak_bytes.max(m.used_bytes);
            let held = m.used_bytes.next_multiple_of(self.page_bytes).max(m.reserved_bytes);
            m.device_used_bytes = (m.device_used_bytes + held - m.reserved_bytes).min(m.device_total_bytes);
            m.reserved_bytes = held;
            m.reserved_peak_bytes = m.reserved_peak_bytes.max(held);
            self.memory.set(m);
        }

        pub fn free(&self, bytes: u64) {
            let mut m = self.memory.get();
            m.used_bytes -= bytes;
            self.memory.set(m);
        }
    }

    impl MemoryCounters for FakePool {
        fn read(&self) -> Result<Option<Memory>> {
            Ok(Some(self.memory.get()))
        }

        fn restart_peaks(&self) -> Result<()> {
            let m = self.memory.get();
            self.memory.set(Memory { used_peak_bytes: m.used_bytes, reserved_peak_bytes: m.reserved_bytes, ..m });
            Ok(())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::fake::FakePool;
    use super::*;
    use crate::measure::clock::Clock;
    use crate::measure::run::{Workload, time_run};

    const RESIDENT: u64 = 15_000;
    const PREFILL: u64 = 900;
    const STEP: u64 = 40;
    const NOTHING: Memory = Memory {
        used_bytes: 0,
        used_peak_bytes: 0,
        reserved_bytes: 0,
        reserved_peak_bytes: 0,
        device_used_bytes: 0,
        device_total_bytes: 0,
    };

    struct NoTime;

    impl Clock for NoTime {
        type Mark = ();
        fn mark(&self) -> Result<()> {
            Ok(())
        }
        fn synchronize(&self) -> Result<()> {
            Ok(())
        }
        fn ms(&self, _: &(), _: &()) -> Result<f64> {
            Ok(0.0)
        }
    }

    /// Takes memory and gives it back, but for `leak` bytes a step.
    struct Model<'a> {
        pool: &'a FakePool,
        leak: u64,
    }

    impl Workload for Model<'_> {
        fn prefill(&mut self) -> Result<()> {
            self.pool.allocate(PREFILL);
            self.pool.free(PREFILL);
            Ok(())
        }
        fn step(&mut self) -> Result<bool> {
            self.pool.allocate(STEP);
            self.pool.free(STEP - self.leak);
            Ok(false)
        }
    }

    fn watch(pool: &FakePool, leak: u64) -> PoolUse {
        pool.allocate(RESIDENT);
        let mut meter = MemoryMeter::new(pool);
        for _ in 0..3 {
            time_run(&NoTime, &mut Model { pool, leak }, 10, &mut [&mut meter]).unwrap();
        }
        meter.finish().pool.unwrap()
    }

    #[test]
    fn rule_6_each_phase_has_its_own_peak() {
        let seen = watch(&FakePool::new(80_000, 500), 0);
        assert_eq!((seen.prefill_peak_bytes, seen.decode_peak_bytes), (RESIDENT + PREFILL, RESIDENT + STEP));
        assert_eq!((seen.framework_bytes, seen.device_peak_bytes), (500, 500 + RESIDENT + PREFILL));
        assert_eq!((seen.leaked_bytes(), seen.spilled), (Some(0), false));
    }

    #[test]
    fn what_runs_leave_behind_is_a_leak() {
        let seen = watch(&FakePool::new(80_000, 500), 1);
        // Ten steps of each of the two runs after the first.
        assert_eq!(seen.leaked_bytes(), Some(20));
        assert_eq!(PoolUse { left_bytes: vec![7], ..Default::default() }.leaked_bytes(), None);
    }

    #[test]
    fn pages_that_no_tensor_needs_are_fragmentation() {
        let pool = FakePool { page_bytes: 4096, ..FakePool::new(80_000, 500) };
        let seen = watch(&pool, 0);
        assert_eq!(seen.reserved_peak_bytes, 16_384);
        assert_eq!(seen.fragmentation_bytes(), 16_384 - RESIDENT - PREFILL);
        assert_eq!(seen.device_peak_bytes, 16_384 + 500);
    }

    #[test]
    fn a_pool_larger_than_the_device_has_spilled() {
        assert!(watch(&FakePool::new(15_500, 500), 0).spilled);
    }

    #[test]
    fn a_pool_that_holds_more_than_the_device_counts_has_spilled_though_the_device_has_room() {
        let spilled = |device_used_bytes| {
            let mut seen = PoolUse::default();
            let memory = Memory { reserved_bytes: 100, device_used_bytes, device_total_bytes: 1000, ..NOTHING };
            seen.add(Phase::Decode, &memory);
            seen.spilled
        };
        assert_eq!((spilled(99), spilled(100)), (true, false));
    }

    #[test]
    fn what_the_pool_gave_back_counts_at_its_peak() {
        let mut seen = PoolUse::default();
        let memory = Memory {
            used_bytes: 10,
            used_peak_bytes: 90,
            reserved_bytes: 20,
            reserved_peak_bytes: 100,
            device_used_bytes: 50,
            device_total_bytes: 1000,
        };
        seen.add(Phase::Prefill, &memory);
        assert_eq!((seen.device_peak_bytes, seen.framework_bytes), (130, 30));
    }

    #[test]
    fn a_cpu_has_peaks_of_the_process_only() {
        let counters = DeviceCounters(&Device::Cpu);
        let mut meter = MemoryMeter::new(&counters);
        meter.begin(Phase::Prefill).unwrap();
        meter.end(Phase::Prefill).unwrap();
        let seen = meter.finish();
        assert_eq!((seen.pool, seen.process_decode_bytes), (None, None));
        assert_eq!(seen.process_prefill_bytes.is_some(), cfg!(target_os = "linux"));
    }
}
