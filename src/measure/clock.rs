//! The clock that times work on a device: marks in its stream of work, or the host's clock for the CPU.

use candle_core::Device;

use crate::Result;
use crate::device::{self, Mark};

/// Something that can mark moments of the work it watches, and tell the time between two of them.
pub trait Clock {
    /// A moment.
    type Mark;

    /// Marks the moment at which all work issued so far is done, without waiting for it.
    fn mark(&self) -> Result<Self::Mark>;

    /// Waits until all work issued so far is done.
    fn synchronize(&self) -> Result<()>;

    /// Milliseconds from `start` to `end`.
    fn ms(&self, start: &Self::Mark, end: &Self::Mark) -> Result<f64>;
}

/// The clock of a device: CUDA events on a GPU.
pub struct DeviceClock<'a>(pub &'a Device);

impl Clock for DeviceClock<'_> {
    type Mark = Mark;

    fn mark(&self) -> Result<Mark> {
        Mark::set(self.0)
    }

    fn synchronize(&self) -> Result<()> {
        device::synchronize(self.0)
    }

    fn ms(&self, start: &Mark, end: &Mark) -> Result<f64> {
        start.ms_until(end)
    }
}
