//! From result files to tables, figures and pages: what `aggregate`, `compare` and `report` promise.

#![allow(clippy::unwrap_used, reason = "a test that panics fails, as it should")]

#[path = "report/aggregate.rs"]
mod aggregate;
#[path = "report/browser.rs"]
mod browser;
#[path = "report/compare.rs"]
mod compare;
#[path = "report/formats.rs"]
mod formats;
#[path = "report/machines.rs"]
mod machines;
#[path = "report/numbers.rs"]
mod numbers;
#[path = "report/pairing.rs"]
mod pairing;
#[path = "report/report.rs"]
mod report;
#[path = "support/results.rs"]
mod results;
#[path = "report/scoring.rs"]
mod scoring;
#[path = "report/settings.rs"]
mod settings;
#[path = "report/sharing.rs"]
mod sharing;
#[path = "report/thesis.rs"]
mod thesis;
#[path = "support/thesis_data.rs"]
mod thesis_data;
#[path = "report/validate.rs"]
mod validate;

use assert_cmd::Command;

/// The binary under test.
fn kvprof() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_kvprof"));
    command.env_remove("KVPROF_TEST_DATA");
    command
}

/// Standard error of a run, as text.
fn stderr(output: &std::process::Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}
