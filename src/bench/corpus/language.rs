//! The words and sentence templates of the built-in language, read from the embedded file.

use std::collections::HashMap;

use serde::Deserialize;

use crate::{Error, Result};

/// The file, also read by `tools/builtin_language.py`.
const FILE: &str = include_str!("../builtin/language.json");

/// Word lists by slot name; `{place}` in a template draws a word of the list `places`.
const SLOT_LISTS: [(&str, &str); 9] = [
    ("place", "places"),
    ("building", "buildings"),
    ("object", "objects"),
    ("colour", "colours"),
    ("animal", "animals"),
    ("food", "foods"),
    ("sky", "skies"),
    ("day", "days"),
    ("time", "times"),
];

/// A person's name and pronouns.
#[derive(Debug, Clone)]
pub struct Person {
    pub(super) name: String,
    pub(super) pronoun: &'static str,
    pub(super) possessive: &'static str,
}

/// What a slot in a template stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Slot {
    /// The fact's value.
    Value,
    /// The chapter's village.
    Village,
    /// The person spoken of.
    Name,
    /// "he" or "she".
    Pronoun,
    /// "his" or "her".
    Possessive,
    /// The person's job.
    Job,
    /// Another member of the cast.
    Other,
    /// A word of the list with this index.
    Word(usize),
}

/// A sentence with slots: each slot is preceded by a text, and a text ends it.
#[derive(Debug, Clone)]
pub(super) struct Template {
    pub(super) slots: Vec<(String, Slot)>,
    pub(super) end: String,
}

/// How a fact's value is drawn.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum ValueKind {
    /// Four digits from 1000 on.
    Number,
    /// 1000 to 1999.
    Year,
    /// A colour and an animal.
    Pet,
    /// Any village.
    Village,
    /// Any food.
    Food,
    /// Any place.
    Place,
}

/// A kind of fact: how likely it exists (percent), how it is told first and how it is repeated.
#[derive(Debug, Clone)]
pub(super) struct FactKind {
    pub(super) value: ValueKind,
    pub(super) chance: usize,
    pub(super) tell: Vec<Template>,
    pub(super) recall: Vec<Template>,
}

/// How often what happens; see the rules in `tools/builtin_language.py`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Rhythm {
    pub(super) people_least: usize,
    pub(super) people_range: usize,
    pub(super) sentences_least: usize,
    pub(super) sentences_range: usize,
    pub(super) of: usize,
    pub(super) new_fact: usize,
    pub(super) old_fact: usize,
    pub(super) meadow: usize,
    pub(super) paragraph_one_in: usize,
}

/// Words, templates and rhythm of the built-in language.
#[derive(Debug, Clone)]
pub struct Language {
    pub(super) people: Vec<Person>,
    pub(super) villages: Vec<String>,
    pub(super) jobs: Vec<String>,
    pub(super) words: Vec<Vec<String>>,
    pub(super) openings: Vec<Template>,
    pub(super) events: Vec<Template>,
    pub(super) person_facts: Vec<FactKind>,
    pub(super) chapter_facts: Vec<FactKind>,
    pub(super) rhythm: Rhythm,
    meadow: Vec<String>,
}

#[derive(Deserialize)]
struct RawFact {
    value: ValueKind,
    chance: usize,
    tell: Vec<String>,
    recall: Vec<String>,
}

#[derive(Deserialize)]
struct Raw {
    women: Vec<String>,
    men: Vec<String>,
    villages: Vec<String>,
    jobs: Vec<String>,
    meadow: Vec<String>,
    openings: Vec<String>,
    events: Vec<String>,
    person_facts: Vec<RawFact>,
    chapter_facts: Vec<RawFact>,
    rhythm: Rhythm,
    about: String,
    #[serde(flatten)]
    lists: HashMap<String, Vec<String>>,
}

impl Language {
    /// The language that the built-in model was trained on.
    ///
    /// # Errors
    /// Only if the embedded file is broken, which the tests exclude.
    pub fn builtin() -> Result<Self> {
        Self::parse(FILE).map_err(|message| Error::file("language.json", message))
    }

    /// The sentences that say nothing: filler of the needle benchmark, and in the chronicle now and then.
    pub fn meadow(&self) -> &[String] {
        &self.meadow
    }

    fn parse(text: &str) -> Result<Self, String> {
        let mut raw: Raw = serde_json::from_str(text).map_err(|error| error.to_string())?;
        if raw.about.is_empty() {
            return Err("`about` must say what the file is".into());
        }
        let mut words = Vec::new();
        for (_, list) in SLOT_LISTS {
            words.push(raw.lists.remove(list).filter(|words| !words.is_empty()).ok_or(format!("no list `{list}`"))?);
        }
        if let Some(unknown) = raw.lists.keys().next() {
            return Err(format!("`{unknown}` is no list of this language"));
        }
        let person = |pronoun, possessive| move |name| Person { name, pronoun, possessive };
        let people: Vec<Person> = raw
            .women
            .into_iter()
            .map(person("she", "her"))
            .chain(raw.men.into_iter().map(person("he", "his")))
            .collect();
        let rhythm = raw.rhythm;
        if rhythm.people_least < 2 || people.len() < rhythm.people_least + rhythm.people_range {
            return Err(format!("{} people are too few for the casts of `rhythm`", people.len()));
        }
        Ok(Language {
            people,
            villages: raw.villages,
            jobs: raw.jobs,
            words,
            openings: templates(raw.openings)?,
            events: templates(raw.events)?,
            person_facts: facts(raw.person_facts)?,
            chapter_facts: facts(raw.chapter_facts)?,
            rhythm,
            meadow: raw.meadow,
        })
    }

    /// The list behind the slot `name`, which must be one of `SLOT_LISTS`.
    pub(super) fn list(&self, name: &str) -> &[String] {
        SLOT_LISTS.iter().position(|(slot, _)| *slot == name).map_or(&[], |index| &self.words[index])
    }
}

fn facts(raw: Vec<RawFact>) -> Result<Vec<FactKind>, String> {
    raw.into_iter()
        .map(|fact| {
            Ok(FactKind {
                value: fact.value,
                chance: fact.chance,
                tell: templates(fact.tell)?,
                recall: templates(fact.recall)?,
            })
        })
        .collect()
}

fn templates(sentences: Vec<String>) -> Result<Vec<Template>, String> {
    if sentences.is_empty() {
        return Err("a list of templates is empty".into());
    }
    sentences.iter().map(|sentence| template(sentence)).collect()
}

/// Takes "A {colour} box." apart.
fn template(sentence: &str) -> Result<Template, String> {
    let (mut slots, mut rest) = (Vec::new(), sentence);
    while let Some((before, after)) = rest.split_once('{') {
        let (name, after) = after.split_once('}').ok_or(format!("an open brace in `{sentence}`"))?;
        let slot = match name {
            "value" => Slot::Value,
            "village" => Slot::Village,
            "p" => Slot::Name,
            "he" => Slot::Pronoun,
            "his" => Slot::Possessive,
            "job" => Slot::Job,
            "q" => Slot::Other,
            _ => {
                let index = SLOT_LISTS.iter().position(|(slot, _)| *slot == name);
                Slot::Word(index.ok_or(format!("an unknown slot `{name}` in `{sentence}`"))?)
            }
        };
        slots.push((before.to_string(), slot));
        rest = after;
    }
    Ok(Template { slots, end: rest.to_string() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_template_keeps_texts_and_slots_in_order() {
        let parsed = template("{p} found a {object}.").unwrap();
        assert_eq!(parsed.slots[0], (String::new(), Slot::Name));
        assert_eq!(parsed.slots[1], (" found a ".to_string(), Slot::Word(2)));
        assert_eq!(parsed.end, ".");
    }

    #[test]
    fn an_unknown_slot_is_named() {
        assert!(template("a {dragon}").unwrap_err().contains("dragon"));
    }

    #[test]
    fn an_unknown_list_is_named() {
        let with_extra = FILE.replacen("\"women\"", "\"dragons\": [\"Smok\"], \"women\"", 1);
        assert!(Language::parse(&with_extra).unwrap_err().contains("dragons"));
    }

    #[test]
    fn the_needle_filler_is_part_of_the_language() {
        let language = Language::builtin().unwrap();
        assert_eq!(
            language.meadow().join(" "),
            "The grass is green. The sky is blue. The sun is yellow. Here we go. There and back again."
        );
    }
}
