//! Which part of the model is being computed: the model's code opens ranges, and a trace that runs learns of them.
//!
//! Without a trace a range costs a look at a thread-local. Work is given to a device from one thread, so ranges of a thread
//! nest; the innermost says where a piece of work belongs.

use std::cell::RefCell;
use std::rc::Rc;

/// A part of the model.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum Part {
    /// Projections to queries, keys and values, attention itself, the projection back.
    Attention,
    /// The MLP.
    Ffn,
    /// Normalization.
    Norm,
    /// Keeping keys and values: copies into the window.
    Cache,
    /// Blocks that leave the window become codes.
    Quantize,
    /// Codes become numbers again, in operations of their own.
    Dequantize,
    /// What is added to or rotated in the residual stream.
    Elementwise,
    /// Logits, and the choice of a token.
    Sampling,
    /// Rows of the embedding table.
    Embedding,
}

impl Part {
    /// All of them, by number.
    pub const ALL: [Part; 9] = [
        Part::Attention,
        Part::Ffn,
        Part::Norm,
        Part::Cache,
        Part::Quantize,
        Part::Dequantize,
        Part::Elementwise,
        Part::Sampling,
        Part::Embedding,
    ];

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Part::Attention => "attention",
            Part::Ffn => "ffn",
            Part::Norm => "norm",
            Part::Cache => "cache",
            Part::Quantize => "quantize",
            Part::Dequantize => "dequantize",
            Part::Elementwise => "elementwise",
            Part::Sampling => "sampling",
            Part::Embedding => "embedding",
        }
    }

    /// A number for it that is never 0.
    pub fn id(self) -> u64 {
        self as u64 + 1
    }

    /// The part with that number.
    pub fn from_id(id: u64) -> Option<Part> {
        Part::ALL.into_iter().find(|part| part.id() == id)
    }
}

/// Learns of ranges.
pub trait Listener {
    /// `part` begins, inside of what has begun before.
    fn enter(&self, part: Part);

    /// What began last ends.
    fn leave(&self);
}

thread_local! {
    static LISTENER: RefCell<Option<Rc<dyn Listener>>> = const { RefCell::new(None) };
}

/// An open range, which ends when this is dropped.
#[must_use = "a range ends when it is dropped"]
pub struct Range(Option<Rc<dyn Listener>>);

/// Opens a range.
pub fn enter(part: Part) -> Range {
    let listener = LISTENER.with_borrow(Clone::clone);
    if let Some(listener) = &listener {
        listener.enter(part);
    }
    Range(listener)
}

impl Drop for Range {
    fn drop(&mut self) {
        if let Some(listener) = &self.0 {
            listener.leave();
        }
    }
}

/// Makes `listener` learn of the ranges of this thread, until this is dropped.
#[must_use = "listening ends when this is dropped"]
pub struct Listening(());

/// Begins to listen; an earlier listener is told nothing more.
pub fn listen(listener: Rc<dyn Listener>) -> Listening {
    LISTENER.set(Some(listener));
    Listening(())
}

impl Drop for Listening {
    fn drop(&mut self) {
        LISTENER.set(None);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Default)]
    struct Log(RefCell<Vec<String>>);

    impl Listener for Log {
        fn enter(&self, part: Part) {
            self.0.borrow_mut().push(format!("+{}", part.name()));
        }
        fn leave(&self) {
            self.0.borrow_mut().push("-".into());
        }
    }

    #[test]
    fn ranges_nest_and_nobody_hears_of_those_opened_before_or_after() {
        let log = Rc::new(Log::default());
        let before = enter(Part::Ffn);
        let listening = listen(log.clone());
        {
            let _outer = enter(Part::Attention);
            let _inner = enter(Part::Cache);
        }
        drop(before);
        drop(listening);
        let _after = enter(Part::Norm);
        assert_eq!(log.0.take(), ["+attention", "+cache", "-", "-"]);
    }

    #[test]
    fn every_part_is_found_by_its_number() {
        for part in Part::ALL {
            assert_eq!(Part::from_id(part.id()), Some(part));
        }
        assert_eq!(Part::from_id(0), None);
    }
}
