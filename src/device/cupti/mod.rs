//! CUPTI: records of every kernel, copy and memset that a GPU runs. The library is loaded when a trace is asked for.
//!
//! Records arrive in buffers that the library asks for and hands back by callbacks, on threads of its own; what they say is
//! collected until [`Session::stop`]. A call made while an id is pushed leaves a record of the two, which is how a kernel is
//! traced to the [`Part`](super::ranges::Part) of the model that launched it. Kernels of a graph come from one call; they are
//! told apart by their order.

mod library;
pub mod records;

use std::alloc::{Layout, alloc, dealloc};
use std::ffi::c_void;
use std::sync::{Mutex, PoisonError};

use self::library::Library;
use self::records::{
    Activity, KIND_CONCURRENT_KERNEL, KIND_DRIVER, KIND_EXTERNAL_CORRELATION, KIND_MEMCPY, KIND_MEMSET, KIND_RUNTIME,
};
use super::ranges::{Listener, Part};

/// `CUPTI_EXTERNAL_CORRELATION_KIND_CUSTOM0`.
const CUSTOM0: u32 = 3;
/// `CUPTI_ACTIVITY_FLAG_FLUSH_FORCED`.
const FORCED: u32 = 1;

/// What is recorded.
const KINDS: [(u32, &str); 4] = [
    (KIND_CONCURRENT_KERNEL, "kernels"),
    (KIND_MEMCPY, "copies"),
    (KIND_MEMSET, "memsets"),
    (KIND_EXTERNAL_CORRELATION, "correlations"),
];

/// Calls that launch kernels, by CUPTI's numbers (cupti_driver_cbid.h, cupti_runtime_cbid.h). A record of each call would cost
/// a traced run more than the kernels' records do, and only these launch something to be correlated.
const DRIVER_LAUNCHES: [u32; 6] = [307, 442, 477, 478, 652, 653];
const RUNTIME_LAUNCHES: [u32; 8] = [211, 214, 269, 270, 430, 431, 505, 506];

/// Size of a buffer of records, and its alignment.
const BUFFER_BYTES: usize = 8 << 20;
const BUFFER_LAYOUT: Layout = match Layout::from_size_align(BUFFER_BYTES, 8) {
    Ok(layout) => layout,
    Err(_) => panic!("a buffer has a size"),
};

/// What arrived since the last session began.
static ARRIVED: Mutex<Vec<Activity>> = Mutex::new(Vec::new());

/// The loaded library.
#[derive(Clone, Copy)]
pub struct Cupti(&'static Library);

impl Cupti {
    /// Loads the library; later calls find it loaded.
    ///
    /// # Errors
    /// Where it was looked for, or what it lacks, for people.
    pub fn load() -> Result<Self, String> {
        Ok(Cupti(library::loaded()?))
    }

    /// The version of its interface, such as 130001.
    pub fn version(&self) -> u32 {
        self.0.version
    }

    /// Begins to record. Kernels and graphs are best made ready after this.
    ///
    /// # Errors
    /// What CUPTI refused: a driver may keep tracing to administrators (`NVreg_RestrictProfilingToAdminUsers`), another profiler
    /// may be attached.
    pub fn start(&self) -> Result<Session, String> {
        let lib = self.0;
        arrived(std::mem::take);
        // SAFETY: both callbacks have the types that CUPTI documents and live as long as the program.
        lib.check("registering buffers", unsafe { (lib.register)(provide_buffer, take_buffer) })?;
        let session = Session { lib };
        for (kind, name) in KINDS {
            // SAFETY: a plain call; kinds are CUPTI's numbers.
            lib.check(&format!("tracing {name}"), unsafe { (lib.enable)(kind) })?;
        }
        session.trace_launches(true)?;
        Ok(session)
    }
}

/// Recording, from [`Cupti::start`] to [`stop`](Session::stop).
pub struct Session {
    lib: &'static Library,
}

/// What was recorded.
#[derive(Debug, Default)]
pub struct Recording {
    /// In no particular order.
    pub activities: Vec<Activity>,
    /// Records that CUPTI had no room for.
    pub dropped: usize,
}

impl Session {
    /// Now, in nanoseconds of the clock that records are stamped by.
    ///
    /// # Errors
    /// When CUPTI has no clock.
    pub fn now_ns(&self) -> Result<u64, String> {
        let mut now = 0;
        // SAFETY: CUPTI writes one integer.
        self.lib.check("reading the clock", unsafe { (self.lib.timestamp)(&raw mut now) })?;
        Ok(now)
    }

    /// What to listen with, so that launches are traced to parts of the model.
    pub fn correlate(&self) -> Correlate {
        Correlate(self.lib)
    }

    /// Ends recording and returns all of it. The device must have been synchronized.
    ///
    /// # Errors
    /// When CUPTI will not give up its buffers.
    pub fn stop(self) -> Result<Recording, String> {
        // SAFETY: plain calls; the count is one integer that CUPTI writes.
        self.lib.check("flushing", unsafe { (self.lib.flush_all)(FORCED) })?;
        let mut dropped = 0;
        // SAFETY: as above; no context means the records of all.
        self.lib.check("counting dropped records", unsafe {
            (self.lib.dropped)(std::ptr::null_mut(), 0, &raw mut dropped)
        })?;
        Ok(Recording { activities: arrived(std::mem::take), dropped })
    }

    /// Makes calls that launch kernels leave records, or no longer. A library without the finer switch records all calls.
    fn trace_launches(&self, on: bool) -> Result<(), String> {
        let Some((driver, runtime)) = self.lib.enable_calls else {
            return [KIND_DRIVER, KIND_RUNTIME].into_iter().try_for_each(|kind| {
                // SAFETY: a plain call.
                let result = unsafe { if on { (self.lib.enable)(kind) } else { (self.lib.disable)(kind) } };
                self.lib.check("tracing launches", result)
            });
        };
        let calls = DRIVER_LAUNCHES.map(|id| (driver, id)).into_iter().chain(RUNTIME_LAUNCHES.map(|id| (runtime, id)));
        for (enable, id) in calls {
            // SAFETY: a plain call; a number that this version does not know is an error code, and nothing is lost by it.
            let result = unsafe { enable(id, u8::from(on)) };
            if id == DRIVER_LAUNCHES[0] || id == RUNTIME_LAUNCHES[0] {
                self.lib.check("tracing launches", result)?;
            }
        }
        Ok(())
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        // What cannot be switched off was not switched on.
        let _ = self.trace_launches(false);
        for (kind, _) in KINDS {
            // SAFETY: a plain call.
            let _ = unsafe { (self.lib.disable)(kind) };
        }
    }
}

/// Tells CUPTI which part of the model is being launched.
pub struct Correlate(&'static Library);

impl Listener for Correlate {
    fn enter(&self, part: Part) {
        // SAFETY: a plain call that notes a number for this thread.
        let _ = unsafe { (self.0.push)(CUSTOM0, part.id()) };
    }

    fn leave(&self) {
        let mut last = 0;
        // SAFETY: CUPTI writes one integer.
        let _ = unsafe { (self.0.pop)(CUSTOM0, &raw mut last) };
    }
}

fn arrived<T>(with: impl FnOnce(&mut Vec<Activity>) -> T) -> T {
    with(&mut ARRIVED.lock().unwrap_or_else(PoisonError::into_inner))
}

/// Called by CUPTI when it needs room for records.
unsafe extern "C" fn provide_buffer(buffer: *mut *mut u8, bytes: *mut usize, most_records: *mut usize) {
    // SAFETY: the layout has a size. Null, when there is no memory, makes CUPTI drop records, which it counts. CUPTI gives three
    // places to write to.
    unsafe {
        let memory = alloc(BUFFER_LAYOUT);
        *buffer = memory;
        *bytes = if memory.is_null() { 0 } else { BUFFER_BYTES };
        *most_records = 0;
    }
}

/// Called by CUPTI when a buffer is full or flushed.
unsafe extern "C" fn take_buffer(_: *mut c_void, _: u32, buffer: *mut u8, _: usize, valid: usize) {
    if buffer.is_null() {
        return;
    }
    if let Ok(lib) = library::loaded() {
        let mut record: *mut u8 = std::ptr::null_mut();
        let mut found = Vec::new();
        // SAFETY: the buffer came from `provide_buffer` and CUPTI filled `valid` bytes of it; it steps from record to record,
        // and each is read where it says that one is. Names live as long as their kernels' modules.
        unsafe {
            while valid > 0 && (lib.next_record)(buffer, valid, &raw mut record) == 0 {
                match records::read(record) {
                    Activity::Other(_) => {}
                    activity => found.push(activity),
                }
            }
        }
        arrived(|all| all.append(&mut found));
    }
    // SAFETY: allocated in `provide_buffer` with this layout; CUPTI uses it no more.
    unsafe { dealloc(buffer, BUFFER_LAYOUT) };
}
