//! Ctrl-C: the first stops the work at its next unit with everything finished on disk, the second ends the process.

use std::sync::atomic::{AtomicBool, Ordering};

use crate::base::message::tell;
use crate::device;

static INTERRUPTED: AtomicBool = AtomicBool::new(false);

/// Starts listening. Later calls change nothing.
pub fn listen() {
    // The only failure is a handler that is already set, which then stays in charge.
    let _ = ctrlc::set_handler(|| {
        if INTERRUPTED.swap(true, Ordering::SeqCst) {
            // Not `exit`: its handlers (CUDA has some) would run beside the thread that is still computing.
            device::exit_at_once(EXIT_CODE);
        }
        tell!("\ninterrupted: stopping at the next step; finished blocks are saved (press again to end at once)");
    });
}

/// Exit code of an interrupted process, as shells expect it.
pub const EXIT_CODE: i32 = 130;

/// Whether Ctrl-C was pressed.
pub fn requested() -> bool {
    INTERRUPTED.load(Ordering::SeqCst)
}
