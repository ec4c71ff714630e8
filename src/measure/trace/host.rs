//! Ranges timed by the host's clock, for devices whose work the host does itself.

use std::cell::RefCell;
use std::time::Instant;

use super::Event;
use crate::device::ranges::{Listener, Part};

/// Times ranges: a stretch of time belongs to the innermost range open.
pub(super) struct Timers {
    start: Instant,
    state: RefCell<State>,
}

#[derive(Default)]
struct State {
    open: Vec<Part>,
    /// When the stretch under way began, and whether it is the first of its range.
    since: (u64, bool),
    events: Vec<Event>,
}

impl Default for Timers {
    fn default() -> Self {
        Timers { start: Instant::now(), state: RefCell::default() }
    }
}

impl State {
    /// Ends the stretch under way.
    fn cut(&mut self, now: u64) {
        let (start_ns, first) = self.since;
        if let Some(&part) = self.open.last()
            && (first || now > start_ns)
        {
            let name = part.name().to_string();
            let count = u64::from(first);
            self.events.push(Event { name, part: Some(part), copy: false, start_ns, end_ns: now, count });
        }
    }

    fn enter(&mut self, part: Part, now: u64) {
        self.cut(now);
        self.open.push(part);
        self.since = (now, true);
    }

    fn leave(&mut self, now: u64) {
        self.cut(now);
        self.open.pop();
        self.since = (now, false);
    }
}

impl Timers {
    /// Now, in nanoseconds since this was made.
    pub fn now_ns(&self) -> u64 {
        self.start.elapsed().as_nanos() as u64
    }

    /// What was recorded.
    pub fn events(&self) -> Vec<Event> {
        std::mem::take(&mut self.state.borrow_mut().events)
    }
}

impl Listener for Timers {
    fn enter(&self, part: Part) {
        self.state.borrow_mut().enter(part, self.now_ns());
    }

    fn leave(&self) {
        self.state.borrow_mut().leave(self.now_ns());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_of_an_inner_range_is_not_the_outers_and_a_range_counts_once() {
        let mut state = State::default();
        state.enter(Part::Attention, 100);
        state.enter(Part::Cache, 130);
        state.leave(150);
        state.leave(200);
        state.enter(Part::Ffn, 250);
        state.leave(300);
        let told: Vec<_> = state.events.iter().map(|e| (e.name.as_str(), e.start_ns, e.end_ns, e.count)).collect();
        assert_eq!(
            told,
            [("attention", 100, 130, 1), ("cache", 130, 150, 1), ("attention", 150, 200, 0), ("ffn", 250, 300, 1)]
        );
    }
}
