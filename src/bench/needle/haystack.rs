//! Prompts that hide something among much else.

use std::collections::BTreeMap;
use std::rc::Rc;

use crate::base::rng::SplitMix64;
use crate::bench::feed::{begin_of_text, longer_than_model};
use crate::bench::readings::Readings;
use crate::bench::settings::Settings;
use crate::bench::text::Text;
use crate::model::{Subject, Tokenizer};
use crate::schema::DataSource;
use crate::{Error, Result};

use super::ANSWER_TOKENS;
use super::hidden::Hidden;

const FILLER: [&str; 5] =
    ["The grass is green.", "The sky is blue.", "The sun is yellow.", "Here we go.", "There and back again."];

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
    /// When every context is longer than the model or too short for the needle, or the text cannot be read or is too short.
    pub fn of(subject: &Subject, settings: &Settings, readings: &mut Readings) -> Result<Rc<Self>> {
        readings.get(settings.concerning("needle"), || Haystacks::read(subject, settings))
    }

    fn read(subject: &Subject, settings: &Settings) -> Result<Self> {
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
        if let Some(text) = &hay.source {
            tracing::info!("needles are hidden in {} of {}", text.name, text.sha256);
        }
        Ok(Haystacks { haystacks, skipped, source: hay.source })
    }
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
    let mut fixed = added(tokenizer, &hidden.sentence())? + added(tokenizer, &hidden.question)? + begin.iter().len();
    for distractor in &hidden.distractors {
        fixed += added(tokenizer, distractor)?;
    }
    Ok(length.saturating_sub(ANSWER_TOKENS + fixed))
}

/// Tokens that `sentence` adds to a text that it goes on in, its leading space included. By itself it may have one more: SentencePiece puts a
/// space before every text.
fn added(tokenizer: &Tokenizer, sentence: &str) -> Result<usize> {
    let before = FILLER[0];
    let both = tokenizer.encode(&format!("{before} {sentence}"), false)?;
    Ok(both.len().saturating_sub(tokenizer.encode(before, false)?.len()))
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
            let cost = added(tokenizer, &sentence)?;
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
        // The first word has no space before it and may so be of more tokens than were counted.
        loop {
            let prompt = self.prompt(hidden, depth, &hay)?;
            if prompt.len() + ANSWER_TOKENS <= length || hay.pop().is_none() {
                return Ok(prompt);
            }
        }
    }

    /// Token ids of all of `hay` with the needle at `depth`, the distractors and the question.
    fn prompt(&self, hidden: &Hidden, depth: f64, hay: &[&str]) -> Result<Vec<u32>> {
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
        let mut sentences = hay.to_vec();
        for (at, text) in inserts {
            sentences.insert(at.min(sentences.len()), text);
        }
        let text = format!("{} {}", sentences.join(" "), hidden.question);
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
    use std::path::Path;

    use super::*;
    use crate::bench::settings::NeedleKind;
    use crate::model::{LoadOptions, WeightsKind};

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

    /// A model of one layer with a tokenizer that takes what `pattern` finds as one token each, after `normalizer`.
    fn subject(folder: &Path, normalizer: &str, pattern: &str) -> Subject {
        let config = r#"{"model_type": "llama", "hidden_size": 64, "num_hidden_layers": 1, "num_attention_heads": 1, "vocab_size": 8,
            "intermediate_size": 64, "max_position_embeddings": 4096, "rms_norm_eps": 1e-5}"#;
        let tokenizer = format!(
            r#"{{"version": "1.0", "normalizer": {normalizer},
                "pre_tokenizer": {{"type": "Split", "pattern": {{"Regex": "{pattern}"}}, "behavior": "Isolated", "invert": false}},
                "model": {{"type": "WordLevel", "vocab": {{"<unk>": 0}}, "unk_token": "<unk>"}}}}"#
        );
        std::fs::write(folder.join("config.json"), config).unwrap();
        std::fs::write(folder.join("tokenizer.json"), tokenizer).unwrap();
        let mut options = LoadOptions::new(folder.to_str().unwrap());
        (options.weights, options.device) = (WeightsKind::Dummy, "cpu".parse().unwrap());
        Subject::load(&options).unwrap()
    }

    #[test]
    fn prompts_are_as_long_as_whole_sentences_allow_and_never_longer() {
        let folder = tempfile::tempdir().unwrap();
        let sentencepiece = r#"{"type": "Sequence", "normalizers": [{"type": "Prepend", "prepend": "\u2581"},
            {"type": "Replace", "pattern": {"String": " "}, "content": "\u2581"}]}"#;
        // A word with the space before it; without one, each letter.
        let spaced = " [^ ]+|[^ ]";
        for (normalizer, pattern, most_spare) in [(sentencepiece, "\u{2581}[^\u{2581}]*", 3), ("null", spaced, 6)] {
            let subject = subject(folder.path(), normalizer, pattern);
            for needle_kind in [NeedleKind::Number, NeedleKind::Words, NeedleKind::MultiKey] {
                let settings = Settings {
                    needle_kind,
                    needle_depths: vec![0.0, 0.5, 1.0],
                    context_lengths: (200..210).chain([2000]).collect(),
                    ..Settings::default()
                };
                for haystack in Haystacks::read(&subject, &settings).unwrap().haystacks {
                    let (length, context) = (haystack.prompt.len() + ANSWER_TOKENS, haystack.context);
                    assert!((context - most_spare..=context).contains(&length), "{length} of {context}: {normalizer}");
                }
            }
        }
    }

    #[test]
    fn a_needle_is_as_deep_as_asked_for_and_its_distractors_are_spread_evenly() {
        let subject = Subject::load(&LoadOptions::new("builtin")).unwrap();
        let tokenizer = subject.tokenizer().unwrap();
        let sentences: Vec<String> = (0..10).map(|i| format!("h{i}.")).collect();
        let sentences: Vec<&str> = sentences.iter().map(String::as_str).collect();
        let hay = Hay { tokenizer, begin: None, sentences: Vec::new(), source: None };
        let text = |distractors: &[&str], depth| {
            let distractors = distractors.iter().map(ToString::to_string).collect();
            let hidden = Hidden { answer: "7".into(), question: "It is".into(), distractors };
            tokenizer.decode(&hay.prompt(&hidden, depth, &sentences).unwrap()).unwrap()
        };
        // After 0, 2.5 and 10 of 10 sentences, a half being rounded up.
        assert_eq!(text(&[], 0.0), "It is 7. h0. h1. h2. h3. h4. h5. h6. h7. h8. h9. It is");
        assert_eq!(text(&[], 0.25), "h0. h1. h2. It is 7. h3. h4. h5. h6. h7. h8. h9. It is");
        assert_eq!(text(&[], 1.0), "h0. h1. h2. h3. h4. h5. h6. h7. h8. h9. It is 7. It is");
        // The distractors after 1.7, 5 and 8.3.
        let spread = "h0. It is 7. h1. a. h2. h3. h4. b. h5. h6. h7. c. h8. h9. It is";
        assert_eq!(text(&["a.", "b.", "c."], 0.1), spread);
    }
}
