//! Layer 2: instruments that know nothing of models.
//!
//! The rules that keep a number honest, each of which answers a mistake in published measurements and has tests named after it
//! (`rule_1_…`):
//!
//! 1. Decode time holds decode only: its clock starts when the prompt is done on the device ([`run`]).
//! 2. Timed runs are not traced; a traced pass says how much it was slowed ([`trace`]).
//! 3. Warm-up, then repeats; all are kept, and drift or throttling is a warning ([`run`], [`energy`]).
//! 4. Steps are timed one by one, so that those in which a block is quantized show ([`run`]).
//! 5. The cache's bytes are a ledger, predicted and equal to what was allocated (`cache`).
//! 6. Peak memory by phase and by owner, beside the device's own count ([`memory`]).
//! 7. Energy by the device's counter, by samples where there is none; prefill and decode apart; never 0 for not measured ([`energy`]).
//! 8. What ran is recorded: kernel, dtype, driver, clocks, revision, seed, command line (`session::environment`).
//! 9. Failure is a result: what does not fit is a row with its reason (`bench::profile`, `session::runner`).
//! 10. Achieved bandwidth: bytes that had to move over the time, as a share of a copy timed in the same run (`bench::profile`).

pub mod clock;
pub mod energy;
pub mod memory;
pub mod phase;
pub mod power;
pub mod process;
pub mod rapl;
pub mod run;
pub mod sampler;
pub mod timeline;
pub mod trace;
