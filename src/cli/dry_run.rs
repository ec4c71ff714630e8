//! `kvprof sweep --dry-run`: the plan, and an estimate of what it needs.

use std::fmt::Write;
use std::path::Path;

use candle_core::Device;

use crate::report::terminal::{self, TerminalTable, absent};
use crate::session::estimate::{Estimate, Estimator, Place, Speed, available_bytes};
use crate::session::plan::RunSpec;
use crate::session::resume::is_there;
use crate::{Error, Result};

const GIB: f64 = (1u64 << 30) as f64;

/// The machine that is asked about; what is not given is that of this machine.
pub struct Machine {
    /// Bytes free on a GPU elsewhere.
    pub memory: Option<u64>,
    /// GB/s (10^9) that a large copy moves.
    pub bandwidth: Option<f64>,
    /// 10^12 operations a second in a large matrix product.
    pub tflops: Option<f64>,
}

/// A plan in words.
pub struct Description {
    /// The plan as a table, the runs that would be refused, the rows that would be skipped, and what the estimate is made of.
    pub text: String,
    /// Runs that would be refused.
    pub refused: usize,
}

/// Describes a plan. A run that is impossible is said to be, as the sweep would say it before it goes on with the others; one that `done`
/// holds, a folder of results, needs nothing.
///
/// # Errors
/// When this machine has no room to measure its speed.
pub fn describe(runs: &[RunSpec], machine: &Machine, done: Option<&Path>) -> Result<Description> {
    let elsewhere = machine.memory.is_some() || machine.bandwidth.is_some() || machine.tflops.is_some();
    let mut estimator = Estimator::new(if elsewhere { Place::OtherGpu } else { Place::Here }, true);
    let speed = match runs.iter().find(|run| estimator.shape(&run.model).is_some()) {
        Some(run) => Some(speed(machine, run)?),
        None => None,
    };
    if let Some(speed) = speed {
        estimator.set_speed(speed);
    }
    let heads = [
        "#",
        "model",
        "backend",
        "KV cache",
        "contexts",
        "batch",
        "output",
        "benchmarks",
        "weights GiB",
        "cache GiB",
        "work GiB",
        "time",
        "fits",
    ];
    let mut table = TerminalTable::new(heads, 1);
    let mut skipped = Vec::new();
    let (mut seconds, mut free_bytes, mut refused, mut complete) = (0.0, None, 0, 0);
    let mut unknown: Vec<String> = Vec::new();
    for (at, run) in runs.iter().enumerate() {
        let free = machine.memory.or_else(|| available_bytes(&run.model));
        let is_done = done.is_some_and(|folder| is_there(run, folder, &mut estimator, free));
        complete += usize::from(is_done);
        let (estimate, refusal) = match is_done {
            true => (None, None),
            false => match estimator.estimate(run) {
                Ok(estimate) => (estimate, None),
                Err(error) => (None, Some(error)),
            },
        };
        if let Some(error) = &refusal {
            refused += 1;
            skipped.push(format!("#{} is refused: {error}", at + 1));
        }
        if refusal.is_none()
            && let Some(reason) = estimator.unknown(&run.model)
        {
            unknown.push(format!("nothing is known of {}: {reason}", run.model.model));
            unknown.dedup();
        }
        free_bytes = free_bytes.or(free);
        let joined = |list: &[usize]| list.iter().map(usize::to_string).collect::<Vec<_>>().join(" ");
        let contexts = match run.settings.context_lengths.as_slice() {
            [] => "default".to_string(),
            lengths => joined(lengths),
        };
        let largest = estimate.as_ref().and_then(Estimate::largest).map(|row| row.memory);
        let no_number = || if is_done { absent() } else { "unknown".into() };
        let gib = |bytes: Option<u64>| bytes.map_or_else(no_number, |b| format!("{:.2}", b as f64 / GIB));
        let time = estimate.as_ref().and_then(|e| e.seconds);
        seconds += time.unwrap_or(0.0);
        table.add_row([
            (at + 1).to_string(),
            run.model.model.clone(),
            run.attn_backend.clone(),
            run.kv_quant.name.clone(),
            contexts,
            joined(&run.settings.batch_sizes),
            run.settings.decode_tokens.to_string(),
            run.benchmarks.join(" "),
            gib(largest.map(|m| m.weights_bytes)),
            gib(largest.map(|m| m.cache_bytes)),
            gib(largest.map(|m| m.workspace_bytes)),
            time.map_or_else(no_number, duration),
            match refusal {
                Some(_) => "refused".into(),
                None if is_done => "complete".into(),
                None => fits(at + 1, estimate.as_ref(), free, &mut skipped),
            },
        ]);
    }
    let mut text = format!("{}\n", table.within(terminal::width()));
    for line in skipped.iter().chain(&unknown) {
        let _ = writeln!(text, "{line}");
    }
    if let Some(folder) = done.filter(|_| complete > 0) {
        let _ = writeln!(
            text,
            "{complete} of {} runs are complete in {} and need nothing (whether with these weights is seen when the sweep runs)",
            runs.len(),
            folder.display()
        );
    }
    if let Some(free) = free_bytes {
        let place = if machine.memory.is_some() { "are given" } else { "are free here" };
        let _ = writeln!(text, "{:.1} GiB {place}", free as f64 / GIB);
    }
    if let Some(speed) = speed.filter(|_| complete < runs.len()) {
        let _ = writeln!(
            text,
            "about {} of computing in all: an estimate from bytes read and operations done at {:.0} GB/s and {:.2} TFLOP/s{}; \
             loading and downloads are not in it, nor the passes of energy, traces and timelines",
            duration(seconds),
            speed.bytes_per_s / 1e9,
            speed.operations_per_s / 1e12,
            match (machine.bandwidth, machine.tflops) {
                (Some(_), Some(_)) => " as given",
                (None, None) => " as measured now",
                _ => ", one given and one measured here",
            },
        );
    }
    Ok(Description { text, refused })
}

/// The speed as far as it is given; the rest is measured on the device of `run`.
fn speed(machine: &Machine, run: &RunSpec) -> Result<Speed> {
    let given = |value: Option<f64>, flag: &str, unit: f64| match value {
        Some(value) if value.is_finite() && value > 0.0 => Ok(Some(value * unit)),
        Some(value) => Err(Error::usage(format!("--{flag} {value} must be above 0"))),
        None => Ok(None),
    };
    let bytes = given(machine.bandwidth, "bandwidth", 1e9)?;
    let operations = given(machine.tflops, "tflops", 1e12)?;
    if let (Some(bytes_per_s), Some(operations_per_s)) = (bytes, operations) {
        return Ok(Speed { bytes_per_s, operations_per_s });
    }
    let options = run.model.options(false)?;
    let device = options.device.open().unwrap_or(Device::Cpu);
    let measured = Speed::measure(&device, options.dtype.resolve(None, &device))?;
    Ok(Speed {
        bytes_per_s: bytes.unwrap_or(measured.bytes_per_s),
        operations_per_s: operations.unwrap_or(measured.operations_per_s),
    })
}

/// Whether a run fits; each row that does not adds a line to `skipped`.
fn fits(number: usize, estimate: Option<&Estimate>, free: Option<u64>, skipped: &mut Vec<String>) -> String {
    let (Some(estimate), Some(free)) = (estimate, free) else { return "unknown".into() };
    let mut missing = 0;
    for row in &estimate.rows {
        if let Some(reason) = row.too_long.clone().or_else(|| row.memory.refusal(free, false)) {
            missing += 1;
            skipped.push(format!("#{number} at {} tokens × {} is skipped: {reason}", row.context_len, row.batch_size));
        }
    }
    match missing {
        0 if estimate.largest().is_some_and(|row| row.memory.total_bytes() > free) => "tight".into(),
        0 => "yes".into(),
        all if all == estimate.rows.len() => "no".into(),
        some => format!("{} of {}", estimate.rows.len() - some, estimate.rows.len()),
    }
}

/// A time as a person would say it.
fn duration(seconds: f64) -> String {
    match seconds {
        s if s < 1.0 => "1 s".into(),
        s if s < 90.0 => format!("{s:.0} s"),
        s if s < 5400.0 => format!("{:.0} min", s / 60.0),
        s if s < 1e6 => format!("{:.1} h", s / 3600.0),
        s => format!("{:.0} days", s / 86400.0),
    }
}
