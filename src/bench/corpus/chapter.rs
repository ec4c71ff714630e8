//! One chapter of the chronicle. The order of the draws is part of the language: it must stay that of
//! `tools/builtin_language.py`.

use super::language::{FactKind, Language, Person, Slot, Template, ValueKind};
use crate::base::rng::SplitMix64;

/// A member of the cast.
struct Member<'a> {
    person: &'a Person,
    job: &'a String,
}

/// A fact that exists in this chapter. `owner` is a place in the cast; `None` for the chapter's own facts.
struct Fact<'a> {
    owner: Option<usize>,
    kind: &'a FactKind,
    value: String,
}

/// Writes a chapter; `rng` moves on.
pub(super) fn write(language: &Language, rng: &mut SplitMix64) -> String {
    let rhythm = &language.rhythm;
    let village = rng.pick(&language.villages);
    let cast = cast(language, rng);
    let mut untold = facts(language, cast.len(), rng);
    let mut told: Vec<Fact> = Vec::new();
    let teller = Teller { language, village, cast };

    let sentences = rhythm.sentences_least + rng.below(rhythm.sentences_range);
    let old_below = rhythm.new_fact + rhythm.old_fact;
    let meadow_below = old_below + rhythm.meadow;
    let opening = rng.pick(&language.openings);
    let mut text = teller.expand(opening, 0, "", rng);
    for _ in 0..sentences {
        text.push(if rng.below(rhythm.paragraph_one_in) == 0 { '\n' } else { ' ' });
        let turn = rng.below(rhythm.of);
        if turn < rhythm.new_fact && !untold.is_empty() {
            let fact = untold.remove(rng.below(untold.len()));
            text.push_str(&teller.speak(&fact, &fact.kind.tell, rng));
            told.push(fact);
        } else if turn < old_below && !told.is_empty() {
            // One of the half that has not been heard for longest, so that the question comes late.
            let fact = told.remove(rng.below(told.len().div_ceil(2)));
            text.push_str(&teller.speak(&fact, &fact.kind.recall, rng));
            told.push(fact);
        } else if (old_below..meadow_below).contains(&turn) {
            text.push_str(&language.meadow().join(" "));
        } else {
            let person = rng.below(teller.cast.len());
            let event = rng.pick(&language.events);
            text.push_str(&teller.expand(event, person, "", rng));
        }
    }
    text
}

fn cast<'a>(language: &'a Language, rng: &mut SplitMix64) -> Vec<Member<'a>> {
    let size = language.rhythm.people_least + rng.below(language.rhythm.people_range);
    let mut cast: Vec<Member> = Vec::with_capacity(size);
    while cast.len() < size {
        let person = rng.pick(&language.people);
        if cast.iter().all(|member| !std::ptr::eq(member.person, person)) {
            cast.push(Member { person, job: rng.pick(&language.jobs) });
        }
    }
    cast
}

fn facts<'a>(language: &'a Language, people: usize, rng: &mut SplitMix64) -> Vec<Fact<'a>> {
    let mut facts = Vec::new();
    let owners = (0..people).map(|person| (Some(person), &language.person_facts));
    for (owner, kinds) in owners.chain([(None, &language.chapter_facts)]) {
        for kind in kinds {
            if rng.below(100) < kind.chance {
                facts.push(Fact { owner, kind, value: value(language, kind.value, rng) });
            }
        }
    }
    facts
}

fn value(language: &Language, kind: ValueKind, rng: &mut SplitMix64) -> String {
    match kind {
        ValueKind::Number => (1000 + rng.below(9000)).to_string(),
        ValueKind::Year => (1000 + rng.below(1000)).to_string(),
        ValueKind::Pet => {
            let colour = rng.pick(language.list("colour"));
            let animal = rng.pick(language.list("animal"));
            format!("{colour} {animal}")
        }
        ValueKind::Village => rng.pick(&language.villages).clone(),
        ValueKind::Food => rng.pick(language.list("food")).clone(),
        ValueKind::Place => rng.pick(language.list("place")).clone(),
    }
}

/// What the sentences of a chapter share.
struct Teller<'a> {
    language: &'a Language,
    village: &'a String,
    cast: Vec<Member<'a>>,
}

impl Teller<'_> {
    /// A fact in one of the manners `templates`.
    fn speak(&self, fact: &Fact, templates: &[Template], rng: &mut SplitMix64) -> String {
        let person = match fact.owner {
            Some(owner) => owner,
            None => rng.below(self.cast.len()),
        };
        let template = rng.pick(templates);
        self.expand(template, person, &fact.value, rng)
    }

    /// Fills the slots from left to right.
    fn expand(&self, template: &Template, person: usize, value: &str, rng: &mut SplitMix64) -> String {
        let Member { person: who, job } = &self.cast[person];
        let mut text = String::new();
        for (before, slot) in &template.slots {
            text.push_str(before);
            text.push_str(match slot {
                Slot::Value => value,
                Slot::Village => self.village,
                Slot::Name => &who.name,
                Slot::Pronoun => who.pronoun,
                Slot::Possessive => who.possessive,
                Slot::Job => job,
                Slot::Other => {
                    let other = rng.below(self.cast.len() - 1);
                    &self.cast[other + usize::from(other >= person)].person.name
                }
                Slot::Word(list) => rng.pick::<String>(&self.language.words[*list]),
            });
        }
        text.push_str(&template.end);
        text
    }
}
