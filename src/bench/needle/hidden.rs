//! What is hidden in a haystack and asked for: a number, two words, or one number of several.

use crate::base::rng::SplitMix64;
use crate::bench::settings::NeedleKind;

const NUMBER_PROMPT: &str = "The special magic number for this experiment is";
const WORDS_PROMPT: &str = "The secret password for this experiment is";
/// The number of every first trial, as the published studies use it.
const FIRST_NUMBER: usize = 7492;
const FIRST_WORDS: [&str; 12] = [
    "amber", "silver", "crimson", "quiet", "hollow", "golden", "frozen", "rapid", "velvet", "copper", "distant",
    "gentle",
];
const SECOND_WORDS: [&str; 12] = [
    "falcon", "harbor", "lantern", "meadow", "compass", "orchard", "thunder", "violin", "anchor", "glacier", "tunnel",
    "candle",
];
const CITIES: [&str; 12] =
    ["Lisbon", "Oslo", "Nairobi", "Quito", "Hanoi", "Dublin", "Lima", "Athens", "Cairo", "Prague", "Tunis", "Seoul"];
/// Numbers told in a multi-key haystack.
const KEYS: usize = 4;

/// What is hidden and asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hidden {
    /// What must appear in the answer.
    pub answer: String,
    /// The end of the prompt.
    pub question: String,
    /// Sentences of the same kind with other answers.
    pub distractors: Vec<String>,
}

impl Hidden {
    /// The `trial`-th needle of a kind.
    pub fn draw(kind: NeedleKind, trial: usize, rng: &mut SplitMix64) -> Self {
        match kind {
            NeedleKind::Number => {
                let number = if trial == 0 { FIRST_NUMBER } else { number(rng) };
                Hidden { answer: number.to_string(), question: NUMBER_PROMPT.into(), distractors: Vec::new() }
            }
            NeedleKind::Words => {
                let answer = format!("{} {}", rng.pick(&FIRST_WORDS), rng.pick(&SECOND_WORDS));
                Hidden { answer, question: WORDS_PROMPT.into(), distractors: Vec::new() }
            }
            NeedleKind::MultiKey => {
                let mut cities = CITIES;
                rng.shuffle(&mut cities);
                let mut numbers: Vec<usize> = Vec::new();
                while numbers.len() < KEYS {
                    let number = number(rng);
                    if !numbers.contains(&number) {
                        numbers.push(number);
                    }
                }
                let question = |city: &str| format!("The special magic number for {city} is");
                let told: Vec<String> =
                    cities.iter().zip(&numbers).map(|(city, number)| format!("{} {number}.", question(city))).collect();
                Hidden {
                    answer: numbers[0].to_string(),
                    question: question(cities[0]),
                    distractors: told[1..].to_vec(),
                }
            }
        }
    }

    /// Whether `text` says the answer, whatever its case.
    pub fn is_said_in(&self, text: &str) -> bool {
        text.to_lowercase().contains(&self.answer.to_lowercase())
    }

    /// What says it in the haystack.
    pub fn sentence(&self) -> String {
        format!("{} {}.", self.question, self.answer)
    }
}

fn number(rng: &mut SplitMix64) -> usize {
    1000 + rng.below(9000)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_counts_whatever_its_case_and_whatever_surrounds_it() {
        let hidden = Hidden { answer: "amber falcon".into(), question: String::new(), distractors: Vec::new() };
        for (text, said) in [
            (" amber falcon.", true),
            ("It is: Amber Falcon, of course", true),
            ("amber  falcon", false),
            ("amber", false),
            ("", false),
        ] {
            assert_eq!(hidden.is_said_in(text), said, "{text:?}");
        }
    }

    #[test]
    fn needles_are_seeded_and_their_distractors_differ() {
        let draw = |kind, seed| Hidden::draw(kind, 1, &mut SplitMix64::new(seed));
        for kind in [NeedleKind::Number, NeedleKind::Words, NeedleKind::MultiKey] {
            assert_eq!(draw(kind, 1), draw(kind, 1));
            assert_ne!(draw(kind, 1), draw(kind, 2));
        }
        let hidden = draw(NeedleKind::MultiKey, 3);
        assert_eq!(hidden.distractors.len(), KEYS - 1);
        assert!(hidden.distractors.iter().all(|d| !d.contains(&hidden.answer) && !d.starts_with(&hidden.question)));
        assert_eq!(Hidden::draw(NeedleKind::Number, 0, &mut SplitMix64::new(9)).answer, "7492");
    }
}
