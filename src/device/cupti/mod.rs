//! CUPTI: records of every kernel, copy and memset that a GPU runs. The library is loaded when a trace is asked for.
//!
//! Records arrive in buffers that the library asks for and hands back by callbacks, on threads of its own; what they say is
//! collected until [`Session::stop`]. Each call that launches a kernel calls back too, and is noted with the
//! [`Part`] of the model being computed: so a kernel is traced to what launched it. Kernels of a graph come from one call; they
//! are told apart by their order.

mod library;
pub mod records;

use std::alloc::{Layout, alloc, dealloc};
use std::cell::RefCell;
use std::ffi::c_void;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use self::library::Library;
use self::records::{Activity, CallRecord, KIND_CONCURRENT_KERNEL, KIND_MEMCPY, KIND_MEMSET};
use super::ranges::{Listener, Part};

/// `CUPTI_ACTIVITY_FLAG_FLUSH_FORCED`.
const FORCED: u32 = 1;

/// What is recorded.
const KINDS: [(u32, &str); 3] =
    [(KIND_CONCURRENT_KERNEL, "kernels"), (KIND_MEMCPY, "copies"), (KIND_MEMSET, "memsets")];

/// Calls that launch kernels, by CUPTI's numbers of domains and calls (cupti_driver_cbid.h, cupti_runtime_cbid.h).
const LAUNCHES: [(u32, &[u32]); 2] =
    [(1, &[307, 442, 477, 478, 652, 653]), (2, &[211, 214, 269, 270, 430, 431, 505, 506])];

/// Size of a buffer of records, and its alignment.
const BUFFER_BYTES: usize = 8 << 20;
const BUFFER_LAYOUT: Layout = match Layout::from_size_align(BUFFER_BYTES, 8) {
    Ok(layout) => layout,
    Err(_) => panic!("a buffer has a size"),
};

/// What arrived since the last session began.
static ARRIVED: Mutex<Vec<Activity>> = Mutex::new(Vec::new());

/// Launches since then: the call, and the part of the model.
static LAUNCHED: Mutex<Vec<(u32, Part)>> = Mutex::new(Vec::new());

/// [`Part::id`] of what is being computed; 0 for nothing known.
static CURRENT: AtomicU64 = AtomicU64::new(0);

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
        drop((take(&ARRIVED), take(&LAUNCHED)));
        // SAFETY: both callbacks have the types that CUPTI documents and live as long as the program.
        lib.check("registering buffers", unsafe { (lib.register)(provide_buffer, take_buffer) })?;
        let mut session = Session { lib, subscriber: std::ptr::null_mut() };
        for (kind, name) in KINDS {
            // SAFETY: a plain call; kinds are CUPTI's numbers.
            lib.check(&format!("tracing {name}"), unsafe { (lib.enable)(kind) })?;
        }
        session.watch_launches()?;
        Ok(session)
    }
}

/// Recording, from [`Cupti::start`] to [`stop`](Session::stop).
pub struct Session {
    lib: &'static Library,
    /// Null until launches are watched.
    subscriber: *mut c_void,
}

/// What was recorded.
#[derive(Debug, Default)]
pub struct Recording {
    /// In no particular order.
    pub activities: Vec<Activity>,
    /// Calls that launched kernels, each with the part of the model that was being computed.
    pub launches: Vec<(u32, Part)>,
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
        Correlate::default()
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
        Ok(Recording { activities: take(&ARRIVED), launches: take(&LAUNCHED), dropped })
    }

    /// Makes calls that launch kernels call back.
    fn watch_launches(&mut self) -> Result<(), String> {
        let lib = self.lib;
        // SAFETY: the callback has the type that CUPTI documents and needs no data; CUPTI writes one handle.
        let subscribed = unsafe { (lib.subscribe)(&raw mut self.subscriber, note_launch, std::ptr::null_mut()) };
        lib.check("watching launches (another profiler may be attached)", subscribed)?;
        for (domain, calls) in LAUNCHES {
            for (index, call) in calls.iter().enumerate() {
                // SAFETY: the handle is the subscriber's. A call that this version does not know is an error code.
                let result = unsafe { (lib.enable_callback)(1, self.subscriber, domain, *call) };
                // Every version knows the first of each domain.
                if index == 0 {
                    lib.check("watching launches", result)?;
                }
            }
        }
        Ok(())
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        // What cannot be switched off was not switched on.
        if !self.subscriber.is_null() {
            // SAFETY: the handle came from subscribing and is not used after this.
            let _ = unsafe { (self.lib.unsubscribe)(self.subscriber) };
        }
        for (kind, _) in KINDS {
            // SAFETY: a plain call.
            let _ = unsafe { (self.lib.disable)(kind) };
        }
    }
}

/// Keeps in mind which part of the model is being computed.
#[derive(Default)]
pub struct Correlate {
    open: RefCell<Vec<Part>>,
}

impl Listener for Correlate {
    fn enter(&self, part: Part) {
        self.open.borrow_mut().push(part);
        CURRENT.store(part.id(), Ordering::Relaxed);
    }

    fn leave(&self) {
        let mut open = self.open.borrow_mut();
        open.pop();
        CURRENT.store(open.last().map_or(0, |part| part.id()), Ordering::Relaxed);
    }
}

fn take<T>(from: &Mutex<Vec<T>>) -> Vec<T> {
    std::mem::take(&mut *from.lock().unwrap_or_else(PoisonError::into_inner))
}

/// Called by CUPTI when a call that launches a kernel begins and ends, on the thread that makes it.
unsafe extern "C" fn note_launch(_: *mut c_void, _: u32, _: u32, call: *const CallRecord) {
    // SAFETY: CUPTI gives the data of one call.
    let (site, correlation) = unsafe { ((*call).site, (*call).correlation) };
    if site == 0
        && let Some(part) = Part::from_id(CURRENT.load(Ordering::Relaxed))
    {
        LAUNCHED.lock().unwrap_or_else(PoisonError::into_inner).push((correlation, part));
    }
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
        ARRIVED.lock().unwrap_or_else(PoisonError::into_inner).append(&mut found);
    }
    // SAFETY: allocated in `provide_buffer` with this layout; CUPTI uses it no more.
    unsafe { dealloc(buffer, BUFFER_LAYOUT) };
}
