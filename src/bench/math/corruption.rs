//! Telling broken text from a wrong answer: a cache that quantization has destroyed loops or writes debris long before an
//! answer parser notices.

use std::collections::HashSet;
use std::hash::Hash;
use std::sync::LazyLock;

use regex::Regex;

use crate::schema::TextHealth;

/// Words in a repeated phrase.
const PHRASE: usize = 4;
/// Tokens in a repeated run: as many as a phrase or a formula has, so that tables and steps of one form are no loops.
const RUN: usize = 16;
/// Texts of fewer tokens are too short to judge.
const LEAST_TOKENS: usize = 32;
/// Text is corrupted from this share of repeated phrases or runs on. Worked mathematics repeats its phrases to about 0.3 and its runs to 0.4, where
/// nearly every character is a token to 0.6.
const REPETITION_LIMIT: f64 = 0.6;
/// Text is corrupted from this share of non-words on. Worked mathematics stays under 0.05.
const NON_WORD_LIMIT: f64 = 0.25;

/// Judges a text, of these `tokens`, by how much of it repeats and how much of it is no word.
///
/// `repetition` is the share of four-piece phrases, or of runs of sixteen tokens if that is more, that occurred before: tokens tell of loops that
/// have no spaces or nothing else. A piece is what whitespace separates, and a run of one character that is five or longer counts as that many
/// pieces, so that "!!!!!!!!" is a loop. `non_words` is the share of letter runs that no natural language writes: replacement characters,
/// capitals inside a word, mixed scripts, five letters without a vowel or more than 24 letters. A long text that shows nothing is corrupted
/// whatever its tokens are.
pub fn examine(text: &str, tokens: &[u32]) -> TextHealth {
    let repetition = repeated(&pieces(text), PHRASE).max(repeated(tokens, RUN));

    let prose = without_commands(text);
    let (mut words, mut odd) = (0usize, 0usize);
    for run in prose.split(|c: char| !(c.is_alphabetic() || c == '\u{fffd}' || c == '\'')) {
        if run.chars().count() >= 2 || run.contains('\u{fffd}') {
            words += 1;
            odd += usize::from(!is_word(run));
        }
    }
    let non_words = if words == 0 { 0.0 } else { odd as f64 / words as f64 };
    let broken = repetition >= REPETITION_LIMIT || non_words >= NON_WORD_LIMIT || text.trim().is_empty();
    TextHealth { repetition, non_words, corrupted: tokens.len() >= LEAST_TOKENS && broken }
}

/// The share of stretches of `length` items that occurred before.
fn repeated<T: Eq + Hash>(items: &[T], length: usize) -> f64 {
    let all = items.windows(length).len();
    let distinct = items.windows(length).collect::<HashSet<_>>().len();
    if all == 0 { 0.0 } else { 1.0 - distinct as f64 / all as f64 }
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
    use crate::model::source::BUILTIN;
    use crate::model::{LoadOptions, Subject, Tokenizer};

    const SOLUTION: &str = r"We have that $r = \sqrt{0^2 + 3^2} = 3.$ Also, if we draw the line connecting the origin and $(0,3),$ this
        line makes an angle of $\frac{\pi}{2}$ with the positive $x$-axis. Therefore, the polar coordinates are
        $\boxed{\left( 3, \frac{\pi}{2} \right)}.$ The product $xyzt$ and triangle $ABCDE$ are not held against it.";

    fn tokenizer() -> Tokenizer {
        Subject::load(&LoadOptions::new(BUILTIN)).unwrap().tokenizer().unwrap().clone()
    }

    fn examined(text: &str) -> TextHealth {
        examine(text, &tokenizer().encode(text, false).unwrap())
    }

    #[test]
    fn a_worked_solution_is_healthy() {
        let health = examined(SOLUTION);
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
            "1.".repeat(100),
            "x=1,y=2,".repeat(40),
            "\n".repeat(200),
            " ".repeat(200),
            "的了".repeat(100),
            format!("{SOLUTION}{}", r"\frac{1}{2}".repeat(200)),
            debris.to_string(),
            debris.replace(' ', ""),
        ] {
            assert!(examined(&text).corrupted, "{text}: {:?}", examined(&text));
        }
    }

    #[test]
    fn tokens_that_show_nothing_are_corrupted() {
        let tokens: Vec<u32> = (0..200).collect();
        assert!(examine(" \n ", &tokens).corrupted && examine("", &tokens).corrupted);
        assert!(!examine(SOLUTION, &tokens).corrupted);
    }

    #[test]
    fn short_texts_are_not_judged() {
        for text in ["5 5 5 5 5 5", r"\boxed{5}", "", "\n\n"] {
            assert!(!examined(text).corrupted, "{text}");
        }
        assert_eq!(examined("").repetition, 0.0);
    }
}
