//! Progress bars on a terminal; plain silence elsewhere.

use std::cell::RefCell;
use std::io::IsTerminal;

use indicatif::{ProgressBar, ProgressStyle};

use super::interrupt;
use crate::base::progress::Progress;
use crate::{Error, Result};

/// One bar at a time, with the time left; also where Ctrl-C is noticed.
pub struct Terminal {
    visible: bool,
    bar: RefCell<Option<ProgressBar>>,
}

impl Terminal {
    /// Bars are drawn on standard error, unless `quiet` or it is no terminal.
    pub fn new(quiet: bool) -> Self {
        Terminal { visible: !quiet && std::io::stderr().is_terminal(), bar: RefCell::new(None) }
    }
}

impl Progress for Terminal {
    fn start(&self, stage: &str, total: u64) {
        if self.visible {
            let bar = ProgressBar::new(total).with_message(stage.to_string());
            if let Ok(style) = ProgressStyle::with_template("{msg:<34} {bar:30} {percent:>3} %  {eta} left") {
                bar.set_style(style);
            }
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
