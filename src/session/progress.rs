//! Progress bars on a terminal; plain silence elsewhere.

use std::cell::{Cell, RefCell};
use std::fmt::Write;
use std::io::IsTerminal;

use indicatif::{HumanDuration, ProgressBar, ProgressState, ProgressStyle};

use super::interrupt;
use crate::base::progress::Progress;
use crate::{Error, Result};

/// One bar at a time, with the time left; also where Ctrl-C is noticed.
pub struct Terminal {
    visible: bool,
    /// Which run it is, and of how many.
    run: Cell<(usize, usize)>,
    bar: RefCell<Option<ProgressBar>>,
}

impl Terminal {
    /// Bars are drawn on standard error, unless `quiet` or it is no terminal.
    pub fn new(quiet: bool) -> Self {
        let visible = !quiet && std::io::stderr().is_terminal();
        Terminal { visible, run: Cell::new((1, 1)), bar: RefCell::new(None) }
    }
}

impl Progress for Terminal {
    fn begin_run(&self, run: usize, of: usize) {
        self.run.set((run, of));
    }

    fn start(&self, stage: &str, total: u64) {
        if self.visible {
            let place = match self.run.get() {
                (_, 1) => String::new(),
                (run, of) => format!("{run}/{of} "),
            };
            let bar = ProgressBar::new(total).with_message(format!("{place}{stage}"));
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
