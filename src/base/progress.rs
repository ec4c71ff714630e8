//! How long work reports on itself, and learns that it should stop.

use super::error::Result;

/// Where a long stage reports its progress. Implementations may draw a bar, or nothing.
pub trait Progress {
    /// The stages that follow are of run `run`, counted from 1, of `of`, which people know by `name`.
    fn begin_run(&self, _run: usize, _of: usize, _name: &str) {}

    /// That run has ended: `how`, in words.
    fn end_run(&self, _how: &str) {}

    /// Begins a stage of `total` units of work.
    fn start(&self, stage: &str, total: u64);

    /// Counts `units` as done.
    ///
    /// # Errors
    /// [`Error::Interrupted`](super::error::Error::Interrupted) once the user has pressed Ctrl-C: the stage stops at the next unit.
    fn advance(&self, units: u64) -> Result<()>;

    /// Ends the stage.
    fn finish(&self);
}

/// Reports to nobody and is never interrupted.
pub struct Silent;

impl Progress for Silent {
    fn start(&self, _stage: &str, _total: u64) {}
    fn advance(&self, _units: u64) -> Result<()> {
        Ok(())
    }
    fn finish(&self) {}
}
