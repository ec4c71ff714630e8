//! The tokens that an answer letter can be.

use crate::model::Tokenizer;
use crate::{Error, Result};

use super::LETTERS;

/// For each letter, the tokens that write it after `Answer:`, with and without a space before it.
pub struct Letters {
    tokens: [Vec<u32>; 4],
}

impl Letters {
    /// As `tokenizer` writes them.
    ///
    /// # Errors
    /// When neither way of writing is one token for every letter.
    pub fn of(tokenizer: &Tokenizer) -> Result<Self> {
        const STEM: &str = "Answer:";
        let stem = tokenizer.encode(STEM, false)?;
        let mut tokens: [Vec<u32>; 4] = Default::default();
        for space in [" ", ""] {
            let mut written = Vec::new();
            for letter in LETTERS {
                let ids = tokenizer.encode(&format!("{STEM}{space}{letter}"), false)?;
                match ids.strip_prefix(stem.as_slice()) {
                    Some([id]) => written.push(*id),
                    // The letter is several tokens, or melts into the stem: this way of writing cannot be scored.
                    _ => break,
                }
            }
            let distinct = (1..written.len()).all(|i| !written[..i].contains(&written[i]));
            if written.len() == LETTERS.len() && distinct {
                for (all, id) in tokens.iter_mut().zip(written) {
                    if !all.contains(&id) {
                        all.push(id);
                    }
                }
            }
        }
        if tokens[0].is_empty() {
            return Err(Error::usage(
                "mmlu: this tokenizer has no single tokens for the letters A to D; leave mmlu out",
            ));
        }
        Ok(Letters { tokens })
    }

    /// Log-probability of each letter, its ways of writing added up; `normalizer` is ln Σ exp(logits).
    pub fn log_probabilities(&self, logits: &[f32], normalizer: f32) -> [f64; 4] {
        self.tokens.each_ref().map(|ids| {
            let p: f64 = ids.iter().map(|id| f64::from(logits[*id as usize] - normalizer).exp()).sum();
            // The least positive number keeps the logarithm of what underflows finite, and NaN stays NaN.
            if p < f64::MIN_POSITIVE { f64::MIN_POSITIVE.ln() } else { p.ln() }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ways_of_writing_a_letter_add_up() {
        let letters = Letters { tokens: [vec![0, 4], vec![1], vec![2], vec![3]] };
        let logits = [1f32.ln(), 2f32.ln(), 3f32.ln(), 1f32.ln(), 3f32.ln()];
        let p = letters.log_probabilities(&logits, 10f32.ln());
        for (found, expected) in p.iter().zip([0.4f64, 0.2, 0.3, 0.1]) {
            assert!((found - expected.ln()).abs() < 1e-6, "{p:?}");
        }
    }

    #[test]
    fn impossible_letters_stay_finite_and_overflow_does_not_hide() {
        let letters = Letters { tokens: [vec![0], vec![1], vec![0], vec![0]] };
        let p = letters.log_probabilities(&[-1e30, f32::NAN], 0.0);
        assert!(p[0].is_finite() && p[1].is_nan(), "{p:?}");
    }
}
