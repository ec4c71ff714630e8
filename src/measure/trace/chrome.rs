//! Traces as files that chrome://tracing and ui.perfetto.dev open: an array of events, one process for each traced pass.

use std::collections::HashSet;
use std::fs::File;
use std::io::{BufWriter, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, OnceLock, PoisonError};

use serde_json::{Value, json};

use super::categories::classify;
use super::{Event, Trace};
use crate::measure::phase::Phase;
use crate::{Error, Result};

const END: &[u8] = b"\n]\n";

/// Whether a trace can be written to `path`; what is there stays until there is one.
///
/// # Errors
/// When it cannot.
pub fn check(path: &Path) -> Result<()> {
    let there = path.exists();
    File::options().append(true).create(true).open(path).map_err(|e| Error::io(path, e))?;
    if !there {
        std::fs::remove_file(path).map_err(|e| Error::io(path, e))?;
    }
    Ok(())
}

/// Adds a traced pass to the file at `path`, whose first pass in this process takes the place of what was there.
///
/// # Errors
/// As [`append`].
pub fn add(path: &Path, name: &str, trace: &Trace) -> Result<()> {
    static BEGUN: OnceLock<Mutex<HashSet<PathBuf>>> = OnceLock::new();
    let mut begun = BEGUN.get_or_init(Mutex::default).lock().unwrap_or_else(PoisonError::into_inner);
    if begun.insert(path.to_path_buf()) {
        create(path)?;
    }
    append(path, name, trace)
}

/// Makes an empty trace file, in the place of an older one.
fn create(path: &Path) -> Result<()> {
    std::fs::write(path, b"[\n]\n").map_err(|e| Error::io(path, e))
}

/// Adds a traced pass called `name` to a file of [`create`]. After each pass the file is whole, after one that there was no room
/// for too: it then holds the passes before.
///
/// # Errors
/// When the file cannot be written, or is not one.
fn append(path: &Path, name: &str, trace: &Trace) -> Result<()> {
    let write = || -> std::io::Result<()> {
        let mut file = File::options().read(true).write(true).open(path)?;
        let mut text = Vec::new();
        file.read_to_end(&mut text)?;
        let Some(body) = text.strip_suffix(END) else {
            return Err(std::io::Error::other("this is no trace file of kvprof"));
        };
        let process = body.windows(PROCESS.len()).filter(|w| *w == PROCESS.as_bytes()).count() + 1;
        file.seek(SeekFrom::Start(body.len() as u64))?;
        let mut out = BufWriter::new(&file);
        let mut separator = if body == b"[" { "\n" } else { ",\n" };
        let mut pass = || -> std::io::Result<()> {
            for event in events(process, name, trace) {
                out.write_all(separator.as_bytes())?;
                serde_json::to_writer(&mut out, &event)?;
                separator = ",\n";
            }
            out.write_all(END)?;
            out.flush()
        };
        let written = pass();
        if written.is_err() {
            // What waits in the buffer would be written when it is dropped.
            drop(out.into_parts());
            file.set_len(body.len() as u64)?;
            file.seek(SeekFrom::Start(body.len() as u64))?;
            file.write_all(END)?;
        }
        written
    };
    write().map_err(|e| Error::io(path, e))
}

/// What the first event of each pass begins with.
const PROCESS: &str = "{\"name\":\"process_name\"";

/// First rows of a pass; kernels have as many more as run at once.
const ROWS: [&str; 2] = ["phases", "copies"];

fn events<'a>(process: usize, name: &'a str, trace: &'a Trace) -> impl Iterator<Item = Value> + 'a {
    let zero = trace.spans.first().map_or(0, |span| span.start_ns);
    let us = move |ns: u64| ns.saturating_sub(zero) as f64 / 1e3;
    let rows = rows(&trace.events);
    let kernel_rows = rows.iter().max().map_or(0, |last| last + 1).saturating_sub(ROWS.len());
    let names = std::iter::once(json!({"name": "process_name", "ph": "M", "pid": process, "args": {"name": name}}));
    let row_names = ROWS.into_iter().chain(std::iter::repeat_n("kernels", kernel_rows)).enumerate();
    let row_names = row_names.map(move |(row, name)| {
        json!({"name": "thread_name", "ph": "M", "pid": process, "tid": row, "args": {"name": name}})
    });
    let phases = trace.spans.iter().map(move |span| {
        let name = match span.phase {
            Phase::Prefill => "prefill",
            Phase::Decode => "decode",
        };
        json!({
            "name": name, "ph": "X", "pid": process, "tid": 0,
            "ts": us(span.start_ns), "dur": us(span.end_ns) - us(span.start_ns),
        })
    });
    let work = trace.events.iter().zip(rows).map(move |(event, row)| {
        let class = classify(event);
        json!({
            "name": event.name, "cat": class.category.name(), "ph": "X", "pid": process, "tid": row,
            "ts": us(event.start_ns), "dur": us(event.end_ns) - us(event.start_ns),
            "args": {"part": event.part.map(|part| part.name())},
        })
    });
    names.chain(row_names).chain(phases).chain(work)
}

/// The row of each event. A kernel may begin before the one before it has ended, and viewers cannot show two such in a row.
fn rows(events: &[Event]) -> Vec<usize> {
    let mut free_from: Vec<u64> = Vec::new();
    let row = |event: &Event| {
        if event.copy {
            return 1;
        }
        let free = free_from.iter().position(|end| *end <= event.start_ns).unwrap_or(free_from.len());
        if free == free_from.len() {
            free_from.push(0);
        }
        free_from[free] = event.end_ns;
        ROWS.len() + free
    };
    events.iter().map(row).collect()
}

#[cfg(test)]
mod tests {
    use super::super::Span;
    use super::*;
    use crate::device::ranges::Part;

    #[test]
    fn every_pass_is_a_process_of_a_file_that_is_whole_after_each() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("trace.json");
        let event = Event {
            name: "kvprof_qkv_f16_b1".into(),
            part: Some(Part::Attention),
            copy: false,
            start_ns: 3_500,
            end_ns: 5_000,
            count: 1,
        };
        let spans = vec![Span { phase: Phase::Decode, start_ns: 1_000, end_ns: 9_000 }];
        let trace = Trace { source: "cupti", events: vec![event], spans, notes: Vec::new() };
        create(&path).unwrap();
        for pass in 1..=3 {
            append(&path, "int4-hqq @ 4096", &trace).unwrap();
            let text = std::fs::read_to_string(&path).unwrap();
            let events: Vec<Value> = serde_json::from_str(&text).unwrap();
            let kernels: Vec<&Value> = events.iter().filter(|e| e["cat"] == "attention").collect();
            assert_eq!(kernels.len(), pass);
            let last = kernels[pass - 1];
            assert_eq!((&last["pid"], &last["ts"], &last["dur"]), (&json!(pass), &json!(2.5), &json!(1.5)));
            assert_eq!(last["args"]["part"], "attention");
        }
    }

    #[test]
    fn kernels_that_overlap_are_shown_in_rows_of_their_own() {
        let event = |start_ns, end_ns, copy| Event { name: "k".into(), part: None, copy, start_ns, end_ns, count: 1 };
        let events =
            [event(0, 10, false), event(5, 20, false), event(6, 7, true), event(10, 15, false), event(11, 30, false)];
        assert_eq!(rows(&events), [2, 3, 1, 2, 4]);
    }

    #[test]
    fn a_file_of_something_else_is_left_alone() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "notes").unwrap();
        assert!(append(file.path(), "x", &Trace::default()).unwrap_err().to_string().contains("no trace file"));
        assert_eq!(std::fs::read_to_string(file.path()).unwrap(), "notes");
    }
}
