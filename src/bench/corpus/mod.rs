//! The text of the built-in model: an endless chronicle of invented villages, the same for a seed in every version.
//!
//! People have codes, letter boxes, birth years, houses, suppers and animals, told once and asked for much later, so
//! that predicting the text well needs what was read hundreds of tokens ago: what a damaged KV cache loses first.
//! Words and templates are data (`src/bench/builtin/language.json`); the order of the draws is specified at the head of
//! `tools/builtin_language.py`, which writes the training text. A test holds both to one fingerprint.

mod chapter;
mod language;

pub use language::Language;

use crate::Result;
use crate::base::rng::SplitMix64;

/// Seeds below this one made training text; from it on, no model has seen the text.
pub const FIRST_HELD_OUT_SEED: u64 = 1 << 32;

/// At least `characters` bytes of the chronicle of `seed`, in whole chapters joined by an empty line. A longer text of
/// the same seed begins with the shorter one.
///
/// # Errors
/// Only if the embedded language file is broken, which the tests exclude.
pub fn text(seed: u64, characters: usize) -> Result<String> {
    let language = Language::builtin()?;
    let mut rng = SplitMix64::new(seed);
    let mut text = chapter::write(&language, &mut rng);
    while text.len() < characters {
        text.push_str("\n\n");
        text.push_str(&chapter::write(&language, &mut rng));
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use sha2::{Digest, Sha256};

    use super::*;
    use crate::base::hex::hex;

    fn fingerprint(seed: u64) -> String {
        let language = Language::builtin().unwrap();
        let mut rng = SplitMix64::new(seed);
        let chapters: Vec<String> = (0..20).map(|_| chapter::write(&language, &mut rng)).collect();
        hex(&Sha256::digest(chapters.join("\n\n")))
    }

    #[test]
    fn a_seed_gives_the_text_that_the_training_script_gives() {
        // Printed by `python3 tools/builtin_language.py fingerprint`.
        let expected = [
            (0, "586f7b4af90c5522ff0295d770a3394f03fe01d07a400a3d96cf2e9af72d4e2f"),
            (1, "7d1303b065216755cec7352968055824cb8356f839ddbf2bbe8933f0e7e802da"),
            (FIRST_HELD_OUT_SEED, "7d578e7a488336a2b3fe9b337fac535690919b9f32daea19eb24c6e400f1b773"),
            (u64::MAX, "03f23aef996af5de76360471d6937f43a16072e47dad19dbbe2187c09a23fa3d"),
        ];
        for (seed, digest) in expected {
            assert_eq!(fingerprint(seed), digest, "seed {seed}");
        }
    }

    #[test]
    fn a_chapter_reads_as_written() {
        let text = text(FIRST_HELD_OUT_SEED, 1).unwrap();
        let beginning = "Long ago, on a warm Tuesday, there was a market in Ravenscar. Carl has a brown horse. Georg the \
                         baker has a small house in Foxley. Which animal has Carl? A brown horse.";
        assert_eq!(&text[..beginning.len()], beginning);
    }

    #[test]
    fn a_longer_text_begins_with_the_shorter_one() {
        let short = text(5, 1000).unwrap();
        let long = text(5, 50_000).unwrap();
        assert!(short.len() >= 1000 && long.len() >= 50_000);
        assert!(long.starts_with(&short));
    }

    #[test]
    fn codes_are_asked_for_long_after_they_were_told() {
        let text = text(9, 20_000).unwrap();
        let chapter = text.split("\n\n").next().unwrap();
        let told = "The special magic number for this experiment is ";
        let first = chapter.find(told).expect("each chapter has a magic number");
        let last = chapter.rfind(told).unwrap();
        assert!(last - first > 1000, "{first} to {last}");
        let number = |at: usize| &chapter[at + told.len()..at + told.len() + 4];
        assert_eq!(number(first), number(last));
    }
}
