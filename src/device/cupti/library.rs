//! Finding libcupti and its functions.

use std::ffi::{CStr, c_char, c_void};
use std::sync::OnceLock;

use libloading::Library as Shared;

use super::records::CallRecord;

/// Names under which the library is looked for, in the folders that the dynamic linker searches.
const NAMES: [&str; 5] = [
    "libcupti.so.13",
    "libcupti.so.12",
    "libcupti.so",
    "/usr/local/cuda/extras/CUPTI/lib64/libcupti.so",
    "/usr/local/cuda/lib64/libcupti.so",
];

/// The oldest interface whose records begin as `records` declares: CUDA 12.0.
const OLDEST_VERSION: u32 = 18;

pub(super) type ProvideBuffer = unsafe extern "C" fn(*mut *mut u8, *mut usize, *mut usize);
pub(super) type TakeBuffer = unsafe extern "C" fn(*mut c_void, u32, *mut u8, usize, usize);
type OfKind = unsafe extern "C" fn(u32) -> u32;
pub(super) type OnCall = unsafe extern "C" fn(*mut c_void, u32, u32, *const CallRecord);

/// The functions in use. Each answers 0, or the number of an error.
pub(super) struct Library {
    pub version: u32,
    pub register: unsafe extern "C" fn(ProvideBuffer, TakeBuffer) -> u32,
    pub enable: OfKind,
    pub disable: OfKind,
    pub flush_all: OfKind,
    pub next_record: unsafe extern "C" fn(*mut u8, usize, *mut *mut u8) -> u32,
    pub dropped: unsafe extern "C" fn(*mut c_void, u32, *mut usize) -> u32,
    pub timestamp: unsafe extern "C" fn(*mut u64) -> u32,
    pub subscribe: unsafe extern "C" fn(*mut *mut c_void, OnCall, *mut c_void) -> u32,
    pub unsubscribe: unsafe extern "C" fn(*mut c_void) -> u32,
    pub enable_callback: unsafe extern "C" fn(u32, *mut c_void, u32, u32) -> u32,
    describe: unsafe extern "C" fn(u32, *mut *const c_char) -> u32,
}

impl Library {
    /// An error for people where `result` is one.
    pub fn check(&self, doing: &str, result: u32) -> Result<(), String> {
        if result == 0 {
            return Ok(());
        }
        let mut text: *const c_char = std::ptr::null();
        // SAFETY: CUPTI writes the address of a constant string, or nothing.
        let name = unsafe {
            let known = (self.describe)(result, &raw mut text) == 0 && !text.is_null();
            if known { CStr::from_ptr(text).to_string_lossy().into_owned() } else { "an unknown error".into() }
        };
        Err(format!("CUPTI (interface {}) answered {name} ({result}) when {doing}", self.version))
    }

    fn open() -> Result<Self, String> {
        let mut failures = Vec::new();
        for name in NAMES {
            // SAFETY: loading CUPTI runs its initializers, which a process may do once at any time.
            match unsafe { Shared::new(name) } {
                Ok(shared) => return Self::of(shared).map_err(|e| format!("{name}: {e}")),
                Err(error) => failures.push(format!("{name}: {error}")),
            }
        }
        Err(format!(
            "a kernel trace needs libcupti, which comes with the CUDA toolkit and with the Python package nvidia-cuda-cupti; \
             put its folder into LD_LIBRARY_PATH ({})",
            failures.join("; ")
        ))
    }

    fn of(shared: Shared) -> Result<Self, String> {
        // Functions and buffers are in use until the process ends: the library is never unloaded.
        let shared: &'static Shared = Box::leak(Box::new(shared));
        macro_rules! function {
            ($name:literal) => {
                // SAFETY: the field that takes it has the type that cupti_activity.h declares for that name.
                *unsafe { shared.get($name) }.map_err(|e| e.to_string())?
            };
        }
        let version_of: unsafe extern "C" fn(*mut u32) -> u32 = function!(b"cuptiGetVersion\0");
        let mut version = 0;
        // SAFETY: CUPTI writes one integer.
        let answer = unsafe { version_of(&raw mut version) };
        if answer != 0 || version < OLDEST_VERSION {
            return Err(format!("CUPTI of CUDA 12.0 or newer is needed, this is interface {version}"));
        }
        Ok(Library {
            version,
            register: function!(b"cuptiActivityRegisterCallbacks\0"),
            enable: function!(b"cuptiActivityEnable\0"),
            disable: function!(b"cuptiActivityDisable\0"),
            flush_all: function!(b"cuptiActivityFlushAll\0"),
            next_record: function!(b"cuptiActivityGetNextRecord\0"),
            dropped: function!(b"cuptiActivityGetNumDroppedRecords\0"),
            timestamp: function!(b"cuptiGetTimestamp\0"),
            subscribe: function!(b"cuptiSubscribe\0"),
            unsubscribe: function!(b"cuptiUnsubscribe\0"),
            enable_callback: function!(b"cuptiEnableCallback\0"),
            describe: function!(b"cuptiGetResultString\0"),
        })
    }
}

/// The library, loaded at the first call.
pub(super) fn loaded() -> Result<&'static Library, String> {
    static LIBRARY: OnceLock<Result<Library, String>> = OnceLock::new();
    LIBRARY.get_or_init(Library::open).as_ref().map_err(Clone::clone)
}
