//! The activity records of CUPTI that kvprof reads: their beginnings, as the library lays them out.
//!
//! Records grow at their end from version to version (`CUpti_ActivityKernel8` of CUDA 12.0 to `CUpti_ActivityKernel10` of 13.0,
//! `CUpti_ActivityMemcpy6`, `CUpti_ActivityMemset4`), so only the fields up to the last one needed are declared, and a record is
//! only ever read through a pointer that the library gave, never stepped over by size. Offsets are those of cupti_activity.h
//! (13.0) as a C compiler places them, asserted below.

use std::ffi::{CStr, c_char, c_void};
use std::mem::offset_of;

/// What a record is (`CUpti_ActivityKind`).
pub const KIND_MEMCPY: u32 = 1;
/// A memset.
pub const KIND_MEMSET: u32 = 2;
/// A kernel, traced without forcing kernels apart.
pub const KIND_CONCURRENT_KERNEL: u32 = 10;

/// The beginning of `CUpti_ActivityKernel8` and its successors.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct KernelRecord {
    kind: u32,
    caches: [u8; 2],
    registers: u16,
    partitioned_cache: [u32; 2],
    start: u64,
    end: u64,
    completed: u64,
    device: u32,
    context: u32,
    stream: u32,
    grid: [i32; 3],
    block: [i32; 3],
    static_shared: i32,
    dynamic_shared: i32,
    local_per_thread: u32,
    local_total: u32,
    correlation: u32,
    grid_id: i64,
    name: *const c_char,
    reserved: u64,
    queued: u64,
    submitted: u64,
    launch: [u8; 4],
    shared_executed: u32,
    graph_node: u64,
    shared_limit: u32,
    graph: u32,
}

const _: () = assert!(
    offset_of!(KernelRecord, start) == 16
        && offset_of!(KernelRecord, stream) == 48
        && offset_of!(KernelRecord, correlation) == 92
        && offset_of!(KernelRecord, name) == 104
        && offset_of!(KernelRecord, graph_node) == 144
        && offset_of!(KernelRecord, graph) == 156
);

/// The beginning of `CUpti_ActivityMemcpy6` and `CUpti_ActivityMemset4`, which agree so far.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct MemoryRecord {
    kind: u32,
    /// Direction of a copy, or the value set.
    what: u32,
    bytes: u64,
    start: u64,
    end: u64,
    device: u32,
    context: u32,
    stream: u32,
    correlation: u32,
}

const _: () = assert!(
    offset_of!(MemoryRecord, bytes) == 8
        && offset_of!(MemoryRecord, start) == 16
        && offset_of!(MemoryRecord, end) == 24
        && offset_of!(MemoryRecord, correlation) == 44
);

/// The beginning of `CUpti_CallbackData`: a call of the driver or the runtime.
#[repr(C)]
pub struct CallRecord {
    /// 0 as the call begins, 1 as it ends.
    pub site: u32,
    function: *const c_char,
    parameters: *const c_void,
    returned: *const c_void,
    symbol: *const c_char,
    context: *const c_void,
    context_id: u32,
    data: *const u64,
    /// What the records of the kernels launched by this call name.
    pub correlation: u32,
}

const _: () = assert!(offset_of!(CallRecord, site) == 0 && offset_of!(CallRecord, correlation) == 64);

/// What a record says.
#[derive(Debug, Clone, PartialEq)]
pub enum Activity {
    /// A kernel ran.
    Kernel {
        /// Its name, mangled if it has C++ linkage.
        name: String,
        /// Nanoseconds.
        start: u64,
        /// Nanoseconds.
        end: u64,
        /// The call that launched it.
        correlation: u32,
        /// The graph it is part of; 0 for none.
        graph: u32,
        /// Its node there.
        graph_node: u64,
    },
    /// Bytes were copied or set.
    Memory {
        /// Whether they were copied.
        copy: bool,
        /// How many.
        bytes: u64,
        /// Nanoseconds.
        start: u64,
        /// Nanoseconds.
        end: u64,
        /// The call that asked for it.
        correlation: u32,
    },
    /// Anything else, by its kind.
    Other(u32),
}

/// Reads the record at `record`.
///
/// # Safety
/// `record` must point to a whole activity record of a CUPTI of CUDA 12.0 or newer, and the name in a kernel's record must be
/// null or a string.
pub unsafe fn read(record: *const u8) -> Activity {
    // SAFETY: every record begins with its kind; the caller vouches for the record.
    let kind = unsafe { record.cast::<u32>().read_unaligned() };
    match kind {
        KIND_CONCURRENT_KERNEL => {
            // SAFETY: the kind says that it is a kernel's record, which is at least as long as the prefix declared here.
            let kernel = unsafe { record.cast::<KernelRecord>().read_unaligned() };
            let name = if kernel.name.is_null() {
                String::new()
            } else {
                // SAFETY: the caller vouches for the string.
                unsafe { CStr::from_ptr(kernel.name) }.to_string_lossy().into_owned()
            };
            let KernelRecord { start, end, correlation, graph, graph_node, .. } = kernel;
            Activity::Kernel { name, start, end, correlation, graph, graph_node }
        }
        KIND_MEMCPY | KIND_MEMSET => {
            // SAFETY: as above, for a copy or a memset.
            let memory = unsafe { record.cast::<MemoryRecord>().read_unaligned() };
            let MemoryRecord { bytes, start, end, correlation, .. } = memory;
            Activity::Memory { copy: kind == KIND_MEMCPY, bytes, start, end, correlation }
        }
        other => Activity::Other(other),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A record of `size` bytes with these little-endian fields at their offsets, the rest filled with a poison.
    fn record(size: usize, fields: &[(usize, &[u8])]) -> Vec<u8> {
        let mut bytes = vec![0xa5; size];
        for (offset, value) in fields {
            bytes[*offset..offset + value.len()].copy_from_slice(value);
        }
        bytes
    }

    #[test]
    fn a_kernel_is_read_from_the_offsets_of_the_header() {
        let name = c"kvprof_qkv_f16_b1";
        let address = name.as_ptr() as usize as u64;
        let bytes = record(
            216,
            &[
                (0, &KIND_CONCURRENT_KERNEL.to_le_bytes()),
                (16, &1_000u64.to_le_bytes()),
                (24, &1_500u64.to_le_bytes()),
                (92, &7u32.to_le_bytes()),
                (104, &address.to_le_bytes()),
                (144, &(3u64 << 32 | 9).to_le_bytes()),
                (156, &3u32.to_le_bytes()),
            ],
        );
        // SAFETY: a whole record with a valid name.
        let activity = unsafe { read(bytes.as_ptr()) };
        assert_eq!(
            activity,
            Activity::Kernel {
                name: "kvprof_qkv_f16_b1".into(),
                start: 1_000,
                end: 1_500,
                correlation: 7,
                graph: 3,
                graph_node: 3 << 32 | 9,
            }
        );
    }

    #[test]
    fn copies_and_memsets_are_read_from_the_offsets_of_the_header() {
        let fields: [(usize, &[u8]); 4] = [
            (8, &4096u64.to_le_bytes()),
            (16, &10u64.to_le_bytes()),
            (24, &30u64.to_le_bytes()),
            (44, &5u32.to_le_bytes()),
        ];
        for (kind, size, copy) in [(KIND_MEMCPY, 96, true), (KIND_MEMSET, 88, false)] {
            let mut bytes = record(size, &fields);
            bytes[..4].copy_from_slice(&kind.to_le_bytes());
            // SAFETY: a whole record.
            let activity = unsafe { read(bytes.as_ptr()) };
            assert_eq!(activity, Activity::Memory { copy, bytes: 4096, start: 10, end: 30, correlation: 5 });
        }
        let bytes = record(40, &[(0, &4u32.to_le_bytes())]);
        // SAFETY: a whole record.
        assert_eq!(unsafe { read(bytes.as_ptr()) }, Activity::Other(4));
    }
}
