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
    use std::path::Path;

    use super::*;

    /// Letters of a tokenizer that knows the words of `vocab`, spaces before them included; all others are one token, 0.
    fn of(vocab: &str) -> Result<Letters> {
        let json = format!(
            r#"{{"version": "1.0",
                "pre_tokenizer": {{"type": "Split", "pattern": {{"Regex": "Answer:| ?[A-D]"}}, "behavior": "Isolated", "invert": false}},
                "model": {{"type": "WordLevel", "vocab": {{"<unk>": 0, "Answer:": 1, {vocab}}}, "unk_token": "<unk>"}}}}"#
        );
        Letters::of(&Tokenizer::from_json(Path::new("tokenizer.json"), json.as_bytes()).unwrap())
    }

    #[test]
    fn a_letter_is_its_token_with_a_space_and_without_where_the_four_differ() {
        let (spaced, bare) = (r#"" A": 2, " B": 3, " C": 4, " D": 5"#, r#""A": 6, "B": 7, "C": 8, "D": 9"#);
        assert_eq!(of(&format!("{spaced}, {bare}")).unwrap().tokens, [[2, 6], [3, 7], [4, 8], [5, 9]]);
        // The others are all of them <unk>, which tells nothing apart.
        assert_eq!(of(spaced).unwrap().tokens, [[2], [3], [4], [5]]);
        assert_eq!(of(bare).unwrap().tokens, [[6], [7], [8], [9]]);
        assert!(of(r#""x": 2"#).err().unwrap().to_string().contains("no single tokens for the letters"));
    }

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
