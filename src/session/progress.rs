//! Progress bars on a terminal; elsewhere a line for each run that begins and ends.

use std::cell::RefCell;
use std::fmt::Write;
use std::io::IsTerminal;
use std::time::Instant;

use indicatif::{HumanDuration, ProgressBar, ProgressState, ProgressStyle};

use super::interrupt;
use super::store::Stored;
use crate::base::message::tell;
use crate::base::progress::Progress;
use crate::{Error, Result};

/// One bar at a time, with the time left, or a line where a run begins and ends; also where Ctrl-C is noticed.
pub struct Terminal {
    form: Form,
    run: RefCell<Run>,
    bar: RefCell<Option<ProgressBar>>,
}

/// How progress is shown.
#[derive(PartialEq, Eq)]
enum Form {
    Bars,
    Lines,
    Nothing,
}

/// The run that is under way.
struct Run {
    number: usize,
    of: usize,
    name: String,
    began: Instant,
    /// Whether one of its stages began.
    measuring: bool,
}

impl Run {
    /// Which run it is, where there are several.
    fn place(&self) -> String {
        if self.of == 1 { String::new() } else { format!("{}/{} ", self.number, self.of) }
    }
}

impl Terminal {
    /// Bars are drawn on standard error, or lines written where it is no terminal; neither where `quiet`.
    pub fn new(quiet: bool) -> Self {
        let form = match (quiet, std::io::stderr().is_terminal()) {
            (true, _) => Form::Nothing,
            (false, true) => Form::Bars,
            (false, false) => Form::Lines,
        };
        let run = Run { number: 1, of: 1, name: String::new(), began: Instant::now(), measuring: false };
        Terminal { form, run: RefCell::new(run), bar: RefCell::new(None) }
    }
}

impl Progress for Terminal {
    fn begin_run(&self, number: usize, of: usize, name: &str) {
        let run = Run { number, of, name: name.into(), began: Instant::now(), measuring: false };
        self.run.replace(run);
    }

    fn end_run(&self, how: &str) {
        let run = self.run.borrow();
        if self.form == Form::Lines {
            let time = HumanDuration(run.began.elapsed());
            let time = if run.measuring { format!(" after {time}") } else { String::new() };
            tell!("{}{}: {how}{time}", run.place(), run.name);
        }
    }

    fn start(&self, stage: &str, total: u64) {
        let mut run = self.run.borrow_mut();
        let first = !std::mem::replace(&mut run.measuring, true);
        // What is refused never comes here, and has one line that says why.
        if self.form == Form::Lines && first {
            tell!("{}{}: measuring", run.place(), run.name);
        }
        if self.form == Form::Bars {
            let bar = ProgressBar::new(total).with_message(format!("{}{stage}", run.place()));
            if let Ok(style) = ProgressStyle::with_template("{msg:<34} {wide_bar} {percent:>3} %  {left}") {
                bar.set_style(style.with_key("left", time_left));
            }
            // The first unit may take minutes: a long prompt on a CPU is one.
            bar.tick();
            self.bar.replace(Some(bar));
        }
    }

    fn advance(&self, units: u64) -> Result<()> {
        if let Some(bar) = &*self.bar.borrow() {
            bar.inc(units);
        }
        if interrupt::requested() {
            self.finish();
            return Err(Error::Interrupted);
        }
        Ok(())
    }

    fn finish(&self) {
        if let Some(bar) = self.bar.take() {
            bar.finish_and_clear();
        }
    }
}

/// Nothing is known of the time that is left before something was done.
fn time_left(state: &ProgressState, out: &mut dyn Write) {
    if state.pos() > 0 {
        // What a bar cannot show is not worth an error.
        let _ = write!(out, "{:#} left", HumanDuration(state.eta()));
    }
}

/// Tells how a run ended. One that was refused has nothing to tell here: why is said at the end, once for all runs of one reason.
pub(super) fn tell_end(progress: &dyn Progress, stored: Option<&Stored>, error: Option<&Error>) {
    let measured = stored.is_some_and(|stored| !stored.measured.is_empty());
    match error {
        None if measured => progress.end_run("done"),
        None if stored.is_some() => progress.end_run("was complete"),
        None => progress.end_run("left to another process"),
        Some(error) if measured => progress.end_run(&error.to_string()),
        Some(_) => {}
    }
}
