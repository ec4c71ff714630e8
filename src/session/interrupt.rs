//! Ctrl-C: the first stops the work at its next unit with everything finished on disk, the second ends the process.

use crate::base::interrupt::request;
pub use crate::base::interrupt::requested;
use crate::base::message::tell;
use crate::device::{self, signals};

/// What a person who waits must know: for what, and whether to end the wait costs anything.
const FIRST: &str = "
interrupted: ends once the step that is being computed is done (on a CPU a chunk of a long prompt can take minutes).
Finished blocks and answered questions are in their files already; of the block in progress nothing else is kept.
Ctrl-C again ends at once: it loses no more, but shows no results.";

/// Starts listening. Later calls change nothing.
pub fn listen() {
    signals::keep_ignored(|| {
        // The only failure is a handler that is already set, which then stays in charge.
        let _ = ctrlc::set_handler(|| {
            if request() {
                // Not `exit`: its handlers (CUDA has some) would run beside the thread that is still computing.
                device::exit_at_once(EXIT_CODE);
            }
            tell!("{FIRST}");
        });
    });
}

/// Exit code of an interrupted process, as shells expect it.
pub const EXIT_CODE: i32 = 130;
