//! Which tokens of a text `ppl` and `kld` score, and in what portions they are fed.

use serde::{Deserialize, Serialize};

use super::Context;
use super::feed::{CHUNK, begin_of_text, next_chunk};
use super::text::Text;
use crate::cache::KvCache;
use crate::{Error, Result};

/// `--ppl-protocol`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Protocol {
    /// Windows side by side in the text, fed in chunks of 64; every token after the burn-in is scored.
    #[default]
    Streaming,
    /// Windows that overlap by half; the overlap fills the cache, then the rest is fed in one pass and scored.
    TwoPhase,
}

impl Protocol {
    /// As on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Protocol::Streaming => "streaming",
            Protocol::TwoPhase => "two-phase",
        }
    }
}

impl std::str::FromStr for Protocol {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self> {
        match name {
            "streaming" => Ok(Protocol::Streaming),
            "two-phase" => Ok(Protocol::TwoPhase),
            _ => Err(Error::usage(format!("--ppl-protocol {name}: there are streaming and two-phase"))),
        }
    }
}

/// Windows over a text and the tokens of them that are scored.
pub struct Plan {
    /// How windows are fed.
    pub protocol: Protocol,
    /// Tokens of a full window.
    pub window: usize,
    /// Tokens of each window that are read but not scored.
    pub burn_in: usize,
    /// Token ids, one window each; the last of a document may be shorter.
    pub windows: Vec<Vec<u32>>,
    /// Tokens that all windows together score.
    pub scored: usize,
    /// Names all that the scores depend on, the cache aside.
    pub key: String,
    /// The text.
    pub source: crate::schema::DataSource,
}

impl Plan {
    /// The plan that the settings ask for.
    ///
    /// # Errors
    /// When the window does not fit the model, or nothing would be scored: says what to change.
    pub fn new(context: &Context<'_>) -> Result<Self> {
        let settings = context.settings;
        let limit = context.subject.config().max_positions;
        let window = settings.ppl_window.unwrap_or(limit.min(4096));
        if window > limit {
            return Err(Error::usage(format!("--ppl-window {window} is longer than the model allows ({limit} tokens)")));
        }
        let protocol = settings.ppl_protocol;
        let burn_in = burn_in(context, window)?;
        let wanted = if settings.ppl_tokens == 0 { usize::MAX } else { settings.ppl_tokens };
        let begin = begin_of_text(context.subject)?;
        let room = window - begin.iter().len();
        let stride = match protocol {
            Protocol::Streaming => room,
            Protocol::TwoPhase => room - window / 2,
        };

        let tokens = wanted.div_ceil(window - burn_in).saturating_mul(window);
        let text = Text::load(settings, context.subject, tokens)?;
        let mut windows = Vec::new();
        let mut scored = 0;
        for document in text.tokens(context.subject, tokens)? {
            for start in (0..document.len()).step_by(stride) {
                let end = document.len().min(start + room);
                let mut ids: Vec<u32> = begin.into_iter().chain(document[start..end].iter().copied()).collect();
                ids.truncate((wanted - scored).saturating_add(burn_in));
                if ids.len() <= burn_in {
                    break;
                }
                scored += ids.len() - burn_in;
                windows.push(ids);
            }
        }
        if scored == 0 {
            return Err(Error::usage(format!(
                "the text {} is not longer than the {burn_in} tokens of a window that are not scored; lower --ppl-burn-in or \
                 --ppl-window, or give a longer text",
                text.source.name
            )));
        }
        let key = format!(
            "{}|{}|{window}|{burn_in}|{scored}|{}",
            text.source.sha256,
            protocol.name(),
            context.attention.name()
        );
        Ok(Plan { protocol, window, burn_in, windows, scored, key, source: text.source })
    }

    /// Most tokens fed in one pass.
    pub fn max_chunk(&self) -> usize {
        match self.protocol {
            Protocol::Streaming => CHUNK.min(self.window),
            Protocol::TwoPhase => CHUNK.max(self.window - self.window / 2),
        }
    }

    /// Tokens of the next pass over a window of `length` of which `at` were fed, the same for all `caches`.
    pub fn next_chunk(&self, caches: &[Box<dyn KvCache>], at: usize, length: usize) -> usize {
        let exact = |left: usize| caches.iter().map(|cache| next_chunk(cache.as_ref(), left)).min().unwrap_or(left);
        let half = self.window / 2;
        match self.protocol {
            Protocol::TwoPhase if at >= half => length - at,
            Protocol::TwoPhase => exact((half - at).min(length - at)),
            Protocol::Streaming => exact(length - at),
        }
    }

    /// Windows in groups of equal length, of at most `most` each, by index.
    pub fn batches(&self, most: usize) -> Vec<Vec<usize>> {
        let mut batches: Vec<Vec<usize>> = Vec::new();
        for (index, window) in self.windows.iter().enumerate() {
            match batches.last_mut() {
                Some(batch) if batch.len() < most.max(1) && self.windows[batch[0]].len() == window.len() => batch.push(index),
                _ => batches.push(vec![index]),
            }
        }
        batches
    }
}

/// Tokens of a window that are not scored.
fn burn_in(context: &Context<'_>, window: usize) -> Result<usize> {
    let settings = context.settings;
    if settings.ppl_protocol == Protocol::TwoPhase {
        if settings.ppl_burn_in.is_some() {
            return Err(Error::usage("--ppl-burn-in is for --ppl-protocol streaming; two-phase leaves half a window unscored"));
        }
        // The first token of the scored half is predicted by the last of the other, in another pass.
        return if window >= 4 { Ok(window / 2 + 1) } else { Err(Error::usage("--ppl-window must be at least 4 tokens")) };
    }
    // All quantizations of a run must score the same tokens, so that this one's window counts only where it is longer than
    // the default.
    let least = context.spec.residual + context.spec.block_tokens();
    let burn_in = settings.ppl_burn_in.unwrap_or(least.max(256).min(window / 2)).max(1);
    if burn_in + 1 >= window {
        return Err(Error::usage(format!("--ppl-burn-in {burn_in} leaves no token of a window of {window} to score")));
    }
    Ok(burn_in)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(lengths: &[usize]) -> Plan {
        Plan {
            protocol: Protocol::Streaming,
            window: 8,
            burn_in: 2,
            windows: lengths.iter().map(|n| vec![0; *n]).collect(),
            scored: 0,
            key: String::new(),
            source: Default::default(),
        }
    }

    #[test]
    fn only_windows_of_one_length_are_fed_side_by_side() {
        assert_eq!(plan(&[8, 8, 8, 5]).batches(2), [vec![0, 1], vec![2], vec![3]]);
        assert_eq!(plan(&[8, 5, 8]).batches(4), [vec![0], vec![1], vec![2]]);
    }

    #[test]
    fn protocols_are_known_by_name() {
        assert_eq!("two-phase".parse::<Protocol>().unwrap(), Protocol::TwoPhase);
        assert!("three-phase".parse::<Protocol>().unwrap_err().to_string().contains("streaming"));
    }
}
