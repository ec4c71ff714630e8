//! Telling broken text from a wrong answer: a cache that quantization has destroyed loops or writes debris long before an
//! answer parser notices.

use std::collections::HashSet;
use std::sync::LazyLock;

use regex::Regex;

use crate::schema::TextHealth;

/// Words in a repeated phrase.
const PHRASE: usize = 4;
/// Texts of fewer pieces are too short to judge.
const LEAST_PIECES: usize = 16;
/// Text is corrupted from this share of repeated phrases on. Worked mathematics repeats itself to about 0.3.
const REPETITION_LIMIT: f64 = 0.6;
/// Text is corrupted from this share of non-words on. Worked mathematics stays under 0.05.
const NON_WORD_LIMIT: f64 = 0.25;

/// Judges a text by how much of it repeats and how much of it is no word.
///
/// `repetition` is the share of four-piece phrases that occurred before; a piece is what whitespace separates, and a run of
/// one character that is five or longer counts as that many pieces, so that "!!!!!!!!" is a loop. `non_words` is the share of
/// letter runs that no natural language writes: replacement characters, capitals inside a word, mixed scripts, five letters
/// without a vowel or more than 24 letters.
pub fn examine(text: &str) -> TextHealth {
    let pieces = pieces(text);
    let phrases = pieces.windows(PHRASE).count();
    let distinct: HashSet<&[&str]> = pieces.windows(PHRASE).collect();
    let repetition = if phrases == 0 { 0.0 } else { 1.0 - distinct.len() as f64 / phrases as f64 };

    let prose = without_commands(text);
    let (mut words, mut odd) = (0usize, 0usize);
    for run in prose.split(|c: char| !(c.is_alphabetic() || c == '\u{fffd}' || c == '\'')) {
        if run.chars().count() >= 2 || run.contains('\u{fffd}') {
            words += 1;
            odd += usize::from(!is_word(run));
        }
    }
    let non_words = if words == 0 { 0.0 } else { odd as f64 / words as f64 };
    let long_enough = pieces.len() >= LEAST_PIECES;
    TextHealth {
        repetition,
        non_words,
        corrupted: long_enough && (repetition >= REPETITION_LIMIT || non_words >= NON_WORD_LIMIT),
    }
}

fn pieces(text: &str) -> Vec<&str> {
    let mut pieces = Vec::new();
    for word in text.split_whitespace() {
        let first = word.chars().next().unwrap_or(' ');
        if word.chars().count() >= 5 && word.chars().all(|c| c == first) {
            pieces.extend(word.split_inclusive(first));
        } else {
            pieces.push(word);
        }
    }
    pieces
}

/// The text without TeX commands, environments' names and web addresses, whose letters are not words.
fn without_commands(text: &str) -> String {
    static COMMAND: LazyLock<Option<Regex>> =
        LazyLock::new(|| Regex::new(r"\\(begin|end)\{[a-z*]+\}|\\[A-Za-z]+|https?://\S+|\[asy\](?s:.*?)\[/asy\]").ok());
    match COMMAND.as_ref() {
        Some(command) => command.replace_all(text, " ").into_owned(),
        None => text.to_string(),
    }
}

fn is_word(run: &str) -> bool {
    if run.contains('\u{fffd}') {
        return false;
    }
    let letters: Vec<char> = run.chars().filter(|c| c.is_alphabetic()).collect();
    let latin = letters.iter().filter(|c| is_latin(**c)).count();
    if letters.len() > 24 || (latin > 0 && latin < letters.len()) {
        return false;
    }
    let capital_inside = letters.windows(2).any(|pair| pair[0].is_lowercase() && pair[1].is_uppercase());
    // Products of variables are short and have no vowel: they are not held against a text.
    let unpronounceable =
        latin >= 5 && !letters.iter().any(|c| has_vowel(*c)) && !letters.iter().all(|c| c.is_uppercase());
    !capital_inside && !unpronounceable
}

fn is_latin(c: char) -> bool {
    matches!(c, 'a'..='z' | 'A'..='Z' | '\u{c0}'..='\u{24f}')
}

fn has_vowel(c: char) -> bool {
    matches!(c.to_ascii_lowercase(), 'a' | 'e' | 'i' | 'o' | 'u' | 'y') || matches!(c, '\u{c0}'..='\u{24f}')
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOLUTION: &str = r"We have that $r = \sqrt{0^2 + 3^2} = 3.$ Also, if we draw the line connecting the origin and $(0,3),$ this
        line makes an angle of $\frac{\pi}{2}$ with the positive $x$-axis. Therefore, the polar coordinates are
        $\boxed{\left( 3, \frac{\pi}{2} \right)}.$ The product $xyzt$ and triangle $ABCDE$ are not held against it.";

    #[test]
    fn a_worked_solution_is_healthy() {
        let health = examine(SOLUTION);
        assert!(!health.corrupted && health.repetition < 0.1 && health.non_words < 0.05, "{health:?}");
    }

    #[test]
    fn loops_and_debris_are_corrupted() {
        let debris = "getElement 这是the zxcvbn \u{fffd}\u{fffd} dmgHtn pqrstv orUnder wnLklk the of brrgghh \
                      fooBar grthsdx qwrtpl kindOf \u{fffd} mnbvcx hello";
        for text in [
            "!".repeat(200),
            "the answer is ".repeat(30),
            "and then we add 1 to get 2 and ".repeat(20),
            "0 ".repeat(100),
            debris.to_string(),
        ] {
            assert!(examine(&text).corrupted, "{text}: {:?}", examine(&text));
        }
    }

    #[test]
    fn short_texts_are_not_judged() {
        assert!(!examine("5 5 5 5 5 5").corrupted);
        assert!(!examine("").corrupted);
        assert_eq!(examine("").repetition, 0.0);
    }
}
