//! The parts of a run, and what watches them.

use crate::Result;

/// A part of a run that is measured by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// Reading the prompt, up to the logits of its last token.
    Prefill,
    /// All timed steps.
    Decode,
}

/// Something that watches the phases of a run beside the clock. It is called while the device is idle, before a phase's first mark
/// and after its last, so that what it does is in no time.
pub trait Instrument {
    /// The phase is about to begin.
    ///
    /// # Errors
    /// When the instrument fails; the run ends.
    fn begin(&mut self, phase: Phase) -> Result<()>;

    /// All work of the phase is done.
    ///
    /// # Errors
    /// When the instrument fails; the run ends.
    fn end(&mut self, phase: Phase) -> Result<()>;
}
