//! Whether the user asked for the work to stop.

use std::sync::atomic::{AtomicBool, Ordering};

static REQUESTED: AtomicBool = AtomicBool::new(false);

/// Asks for it; whether that was asked for before.
pub fn request() -> bool {
    REQUESTED.swap(true, Ordering::SeqCst)
}

/// Whether it was asked for.
pub fn requested() -> bool {
    REQUESTED.load(Ordering::SeqCst)
}
