//! Prompts that hide something among much else.

use std::collections::BTreeMap;

use crate::base::rng::SplitMix64;
use crate::bench::feed::{begin_of_text, longer_than_model};
use crate::bench::settings::{NeedleKind, Settings};
use crate::bench::text::Text;
use crate::model::{Subject, Tokenizer};
use crate::schema::DataSource;
use crate::{Error, Result};

use super::ANSWER_TOKENS;

const FILLER: [&str; 5] =
    ["The grass is green.", "The sky is blue.", "The sun is yellow.", "Here we go.", "There and back again."];
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
    question: String,
    /// Sentences of the same kind with other answers.
    distractors: Vec<String>,
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

    fn sentence(&self) -> String {
        format!("{} {}.", self.question, self.answer)
    }
}

fn number(rng: &mut SplitMix64) -> usize {
    1000 + rng.below(9000)
}

/// One prompt with something hidden in it.
pub struct Haystack {
    /// Length asked for, tokens.
    pub context: usize,
    /// Where the needle lies, 0…1.
    pub depth: f64,
    /// Trial at this context and depth.
    pub trial: usize,
    /// What is hidden.
    pub hidden: Hidden,
    /// Token ids.
    pub prompt: Vec<u32>,
}

/// All prompts that settings ask for.
pub struct Haystacks {
    /// Contexts × depths × trials.
    pub haystacks: Vec<Haystack>,
    /// Contexts that there are no prompts for, each with the reason.
    pub skipped: BTreeMap<String, String>,
    /// The text that they are made of, where it is not filler.
    pub source: Option<DataSource>,
}

impl Haystacks {
    /// The prompts that `settings` ask for.
    ///
    /// # Errors
    /// As [`check`].
    pub fn plan(subject: &Subject, settings: &Settings) -> Result<Self> {
        let needles = needles(settings);
        let (lengths, skipped) = lengths(subject, settings, &needles)?;
        let hay = Hay::of(subject, settings, &lengths)?;
        let mut haystacks = Vec::new();
        for &length in &lengths {
            for &depth in &settings.needle_depths {
                for (trial, hidden) in needles.iter().enumerate() {
                    let prompt = hay.hide(hidden, depth, length)?;
                    haystacks.push(Haystack { context: length, depth, trial, hidden: hidden.clone(), prompt });
                }
            }
        }
        Ok(Haystacks { haystacks, skipped, source: hay.source })
    }
}

/// Refuses settings that no prompt can be made for; the longest context that there is one for, answer included.
///
/// # Errors
/// When every context is longer than the model or too short for the needle, or the text cannot be read or is too short.
pub fn check(subject: &Subject, settings: &Settings) -> Result<usize> {
    let (lengths, _) = lengths(subject, settings, &needles(settings))?;
    Hay::of(subject, settings, &lengths)?;
    Ok(lengths.into_iter().max().unwrap_or(0))
}

/// The contexts that prompts can be made for, and why there are none for the others.
fn lengths(
    subject: &Subject,
    settings: &Settings,
    needles: &[Hidden],
) -> Result<(Vec<usize>, BTreeMap<String, String>)> {
    let limit = subject.config().max_positions;
    let (tokenizer, begin) = (subject.tokenizer()?, begin_of_text(subject)?);
    let (mut possible, mut skipped) = (Vec::new(), BTreeMap::new());
    for &length in &settings.context_lengths {
        let mut reason = (length > limit).then(|| longer_than_model(&format!("--context-lengths {length}"), limit));
        for hidden in needles.iter().take_while(|_| length <= limit) {
            if room(tokenizer, begin, hidden, length)? == 0 {
                reason = Some(format!(
                    "needle: a context of {length} tokens has no room for what is hidden, the question and {ANSWER_TOKENS} tokens of \
                     answer"
                ));
                break;
            }
        }
        match reason {
            Some(reason) => drop(skipped.insert(length.to_string(), reason)),
            None => possible.push(length),
        }
    }
    match skipped.values().next() {
        Some(reason) if possible.is_empty() => Err(Error::usage(reason.clone())),
        _ => Ok((possible, skipped)),
    }
}

/// What the trials hide.
fn needles(settings: &Settings) -> Vec<Hidden> {
    let mut rng = SplitMix64::new(settings.seed);
    (0..settings.needle_trials.max(1)).map(|trial| Hidden::draw(settings.needle_kind, trial, &mut rng)).collect()
}

/// Tokens of hay in a prompt that is `length` tokens long with its answer; 0 where there is no room for any.
fn room(tokenizer: &Tokenizer, begin: Option<u32>, hidden: &Hidden, length: usize) -> Result<usize> {
    let count = |text: &str| -> Result<usize> { Ok(tokenizer.encode(&format!(" {text}"), false)?.len()) };
    let mut fixed = count(&hidden.sentence())? + count(&hidden.question)? + begin.iter().len();
    for distractor in &hidden.distractors {
        fixed += count(distractor)?;
    }
    Ok(length.saturating_sub(ANSWER_TOKENS + fixed))
}

/// Sentences to hide things among, with what each adds to a prompt.
struct Hay<'a> {
    tokenizer: &'a Tokenizer,
    begin: Option<u32>,
    sentences: Vec<(String, usize)>,
    /// The text that they are of; `None` for filler, which may be repeated to fill a context.
    source: Option<DataSource>,
}

impl<'a> Hay<'a> {
    /// Enough for contexts of these `lengths`, as `--needle-haystack` says.
    fn of(subject: &'a Subject, settings: &Settings, lengths: &[usize]) -> Result<Self> {
        let longest = lengths.iter().copied().max().unwrap_or(0);
        let tokenizer = subject.tokenizer()?;
        let begin = begin_of_text(subject)?;
        let name = settings.needle_haystack.as_str();
        let (texts, source) = match name {
            "filler" => (FILLER.map(String::from).to_vec(), None),
            _ => book(name, settings, longest).map(|(sentences, source)| (sentences, Some(source)))?,
        };
        let endless = source.is_none();
        let mut sentences = Vec::new();
        let mut tokens = 0;
        for sentence in texts {
            // In the middle of a text: what it adds, its leading space included.
            let cost = tokenizer.encode(&format!(" {sentence}"), false)?.len();
            tokens += cost;
            sentences.push((sentence, cost));
            if tokens > longest && !endless {
                break;
            }
        }
        if !endless && tokens <= longest {
            return Err(Error::usage(format!(
                "--needle-haystack {name} has only {tokens} tokens, a context of {longest} needs more; give a longer text"
            )));
        }
        Ok(Hay { tokenizer, begin, sentences, source })
    }

    /// Token ids of hay with the needle at `depth` and the question at the end: together with the answer as close to `length`
    /// tokens as whole sentences allow. Distractors are spread evenly.
    fn hide(&self, hidden: &Hidden, depth: f64, length: usize) -> Result<Vec<u32>> {
        let room = room(self.tokenizer, self.begin, hidden, length)?;
        let mut used = 0;
        let mut hay: Vec<&str> = Vec::new();
        let most = if self.source.is_none() { usize::MAX } else { self.sentences.len() };
        let sentences = self.sentences.iter().cycle().take(most);
        for (sentence, cost) in sentences.take_while(|(_, cost)| (*cost).max(1) <= room) {
            if used + cost.max(&1) > room {
                break;
            }
            used += cost.max(&1);
            hay.push(sentence);
        }
        let sentence = hidden.sentence();
        let place = |share: f64| (share * hay.len() as f64).round() as usize;
        let others = hidden.distractors.len() as f64;
        let mut inserts: Vec<(usize, &str)> = hidden
            .distractors
            .iter()
            .enumerate()
            .map(|(i, d)| (place((i as f64 + 0.5) / others), d.as_str()))
            .collect();
        inserts.push((place(depth), &sentence));
        // From the back, so that earlier places stay where they are.
        inserts.sort_by_key(|(at, _)| std::cmp::Reverse(*at));
        for (at, text) in inserts {
            hay.insert(at.min(hay.len()), text);
        }
        let text = format!("{} {}", hay.join(" "), hidden.question);
        Ok(self.begin.into_iter().chain(self.tokenizer.encode(&text, false)?).collect())
    }
}

/// The first sentences of a text, each on one line, enough for `longest` tokens by any tokenizer in use.
fn book(name: &str, settings: &Settings, longest: usize) -> Result<(Vec<String>, DataSource)> {
    let text = Text::named(name, settings, longest)?;
    let mut sentences = Vec::new();
    let mut bytes = 0;
    for sentence in sentences_of(text.documents()) {
        bytes += sentence.len();
        sentences.push(sentence);
        // No tokenizer in use has tokens of sixteen bytes on average.
        if bytes > longest.saturating_mul(16) {
            break;
        }
    }
    Ok((sentences, text.source))
}

/// Sentences of prose, white space made single. What ends without a full stop goes with what follows.
fn sentences_of(documents: &[String]) -> impl Iterator<Item = String> {
    documents.iter().flat_map(|document| {
        let mut rest = document.split_whitespace().peekable();
        std::iter::from_fn(move || {
            let mut words: Vec<&str> = Vec::new();
            for word in rest.by_ref() {
                words.push(word);
                let ends = word.trim_end_matches(['"', '\'', ')', '\u{201d}', '\u{2019}']).ends_with(['.', '!', '?']);
                if (ends && words.len() >= 3) || words.len() >= 60 {
                    break;
                }
            }
            (!words.is_empty()).then(|| words.join(" "))
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sentences_keep_every_word() {
        let book =
            ["Call me Ishmael. Some years\nago, never mind\n\nhow long! \u{201c}Why not?\u{201d} said he".to_string()];
        let sentences: Vec<String> = sentences_of(&book).collect();
        assert_eq!(
            sentences,
            ["Call me Ishmael.", "Some years ago, never mind how long!", "\u{201c}Why not?\u{201d} said he"]
        );
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
