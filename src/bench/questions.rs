//! Question sets: each question asked of the unquantized and of the tested cache, saved, and never asked twice.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::Instant;

use sha2::{Digest, Sha256};

use super::feed::{chunks, require_quantized_reads};
use super::{Block, Context};
use crate::Result;
use crate::base::hex::hex;
use crate::base::stats::{self, PairTable};
use crate::cache::KeyReads;
use crate::quant::QuantSpec;
use crate::schema::{Accuracy, AnsweredOn, Benchmarks, Outcome, Paired, QuestionItem, SubjectScore};

/// One question, ready to be put.
pub struct Asked {
    /// Name in its data set.
    pub id: String,
    /// Subject.
    pub subject: Option<String>,
    /// The right answer.
    pub expected: String,
    /// Token ids of the prompt.
    pub prompt: Vec<u32>,
    /// Examples in it, where they are fewer than asked for.
    pub shots: Option<usize>,
}

/// Brings questions of similar length together, which are to be put `batch` at a time: a batch reads on as long as its longest prompt does. The
/// batches stay in the order of their first questions, so that a set which is stopped is not one of short questions.
pub fn side_by_side(asked: Vec<Asked>, batch: usize) -> Vec<Asked> {
    let mut by_length: Vec<(usize, Asked)> = asked.into_iter().enumerate().collect();
    by_length.sort_by_key(|(_, question)| question.prompt.len());
    let mut batches: Vec<Vec<(usize, Asked)>> = Vec::new();
    for question in by_length {
        match batches.last_mut() {
            Some(last) if last.len() < batch => last.push(question),
            _ => batches.push(vec![question]),
        }
    }
    // One that is not full comes last.
    batches.sort_by_key(|questions| (questions.len() < batch, questions.iter().map(|(at, _)| *at).min()));
    batches.into_iter().flatten().map(|(_, question)| question).collect()
}

/// A question set and how it is answered.
pub struct QuestionSet<'a> {
    /// `mmlu` or `math`.
    pub name: &'static str,
    /// Version of the benchmark.
    pub version: u32,
    /// The questions, in the order in which they are asked.
    pub questions: &'a [Asked],
    /// What the score says beside its numbers: data, shots, lengths.
    pub about: Accuracy,
    /// Questions put side by side; they are saved together.
    pub batch: usize,
    /// The score where a file has it.
    pub blocks: fn(Accuracy) -> Benchmarks,
    /// Puts questions, side by side, to a cache of the given spec.
    #[allow(clippy::type_complexity)]
    pub ask: &'a dyn Fn(&Context<'_>, &QuantSpec, &[&Asked]) -> Result<Vec<Outcome>>,
}

impl QuestionSet<'_> {
    /// Asks what has not been asked yet, keeping the items after each, and keeps the whole score at the end.
    ///
    /// # Errors
    /// When a question cannot be asked, or no answer of a quantized cache read a code: then no score is kept.
    pub fn run(
        &self,
        context: &mut Context<'_>,
        saved: Option<&Accuracy>,
        keep: &mut dyn FnMut(Block) -> Result<()>,
    ) -> Result<()> {
        let started = Instant::now();
        let plan = self.plan(context);
        if let Some(data) = &self.about.data {
            tracing::info!("{}: {} questions of {}, {}", self.name, self.questions.len(), data.name, data.sha256);
        }
        let mut items = self.resumed(&plan, saved);
        let (earlier, kept, machine) = (saved.map_or(&[][..], |s| &s.answered_on), items.len(), context.machine);
        let before = if items.is_empty() { 0.0 } else { saved.and_then(|s| s.elapsed_s).unwrap_or(0.0) };
        let elapsed = || before + started.elapsed().as_secs_f64();
        let block = |items: &[QuestionItem], complete| {
            let answered_on = answered_on(earlier, kept, machine, items.len());
            self.block(&plan, items, answered_on, elapsed(), complete)
        };

        context.progress.start(&format!("{} {}", self.name, context.spec.name), self.questions.len() as u64);
        context.progress.advance(items.len() as u64)?;
        for questions in self.questions[items.len()..].chunks(self.batch.max(1)) {
            items.extend(self.answer(context, &plan, &questions.iter().collect::<Vec<_>>())?);
            context.progress.advance(questions.len() as u64)?;
            // A score that has not read a code yet is none: it must not be found in a file.
            let complete = items.len() == self.questions.len();
            if !complete && (!context.spec.is_quantized() || reads(&items).from_codes > 0) {
                keep(block(&items, false))?;
            }
        }
        context.progress.finish();
        require_quantized_reads(context, self.name, reads(&items))?;
        keep(block(&items, true))
    }

    /// Hash of the questions and of all that the answers depend on beside the cache.
    fn plan(&self, context: &Context<'_>) -> String {
        let mut hasher = Sha256::new();
        hasher.update(format!(
            "{} {} {:?} {}",
            self.name,
            self.version,
            self.about.max_new_tokens,
            context.attention.name()
        ));
        for question in self.questions {
            hasher.update(format!("\n{} {} {:?}", question.id, question.expected, question.prompt));
        }
        hex(&hasher.finalize()[..8])
    }

    /// The items of an earlier run that was stopped, as far as they are the first of these questions. Whoever asks for a
    /// complete score again wants it measured again.
    fn resumed(&self, plan: &str, saved: Option<&Accuracy>) -> Vec<QuestionItem> {
        let unfinished = |s: &&Accuracy| s.plan.as_deref() == Some(plan) && s.items.len() < self.questions.len();
        let Some(saved) = saved.filter(unfinished) else { return Vec::new() };
        let same = saved.items.iter().zip(self.questions).take_while(|(item, question)| item.id == question.id);
        let mut items: Vec<QuestionItem> = same.map(|(item, _)| item.clone()).collect();
        // Batches are the same as without the stop, so that rounding is.
        items.truncate(items.len() - items.len() % self.batch.max(1));
        items
    }

    fn answer(&self, context: &mut Context<'_>, plan: &str, questions: &[&Asked]) -> Result<Vec<QuestionItem>> {
        // The prompt too: an id that a file gives twice is no name.
        let chunks = chunks(context.spec);
        let key = |question: &&Asked| format!("{plan}/{chunks:?}/{}/{:016x}", question.id, hash_of(&question.prompt));
        let keys: Vec<String> = questions.iter().map(key).collect();
        let known = |key: &String| context.references.outcomes.get(key).cloned();
        let references = match keys.iter().map(known).collect::<Option<Vec<Outcome>>>() {
            Some(known) => known,
            None => {
                let outcomes = (self.ask)(context, &QuantSpec::none(), questions)?;
                context.references.outcomes.extend(keys.into_iter().zip(outcomes.iter().cloned()));
                outcomes
            }
        };
        let quantized = context.spec.is_quantized();
        let outcomes = if quantized { (self.ask)(context, context.spec, questions)? } else { references.clone() };
        let items =
            questions.iter().zip(outcomes).zip(references).map(|((question, outcome), reference)| QuestionItem {
                id: question.id.clone(),
                subject: question.subject.clone(),
                expected: question.expected.clone(),
                prompt_tokens: question.prompt.len(),
                shots: question.shots,
                diverges_at: divergence(&outcome.tokens, &reference.tokens),
                outcome,
                reference: quantized.then_some(reference),
            });
        Ok(items.collect())
    }

    fn block(
        &self,
        plan: &str,
        items: &[QuestionItem],
        answered_on: Vec<AnsweredOn>,
        elapsed_s: f64,
        complete: bool,
    ) -> Block {
        let mut score = summarize(items, &self.about);
        score.answered_on = answered_on;
        score.version = Some(self.version);
        score.plan = Some(plan.into());
        score.planned = Some(self.questions.len());
        score.elapsed_s = Some(elapsed_s);
        score.quantized_read_fraction = Some(reads(items).share());
        score.items = items.to_vec();
        Block::Score { name: self.name, blocks: Box::new((self.blocks)(score)), complete }
    }
}

/// Which machines answered `asked` questions: the first `kept` of them as `earlier` says, which may tell of more, or, in an older file, of
/// none; the others `here`.
fn answered_on(earlier: &[AnsweredOn], kept: usize, here: Option<&str>, asked: usize) -> Vec<AnsweredOn> {
    let mut parts: Vec<AnsweredOn> = Vec::new();
    let mut add = |machine: Option<&str>, questions: usize| match parts.last_mut() {
        _ if questions == 0 => {}
        Some(last) if last.machine.as_deref() == machine => last.questions += questions,
        _ => parts.push(AnsweredOn { machine: machine.map(Into::into), questions }),
    };
    let mut left = kept;
    for part in earlier {
        let questions = part.questions.min(left);
        add(part.machine.as_deref(), questions);
        left -= questions;
    }
    add(None, left);
    add(here, asked - kept);
    parts
}

/// First token at which two texts differ; one that ends where the other goes on differs there.
fn divergence(tokens: &[u32], reference: &[u32]) -> Option<usize> {
    let common = tokens.iter().zip(reference).take_while(|(a, b)| a == b).count();
    (common < tokens.len().max(reference.len())).then_some(common)
}

fn reads(items: &[QuestionItem]) -> KeyReads {
    let of =
        |item: &QuestionItem| KeyReads { from_codes: item.outcome.key_reads_from_codes, total: item.outcome.key_reads };
    items.iter().map(of).sum()
}

fn summarize(items: &[QuestionItem], about: &Accuracy) -> Accuracy {
    let reference = |item: &QuestionItem| item.reference.clone().unwrap_or_else(|| item.outcome.clone());
    let pairs: Vec<(Outcome, Outcome)> = items.iter().map(|item| (item.outcome.clone(), reference(item))).collect();
    let count = |test: &dyn Fn(&(Outcome, Outcome)) -> bool| Some(pairs.iter().filter(|pair| test(pair)).count());
    let table = PairTable::of(pairs.iter().map(|(tested, reference)| (tested.correct, reference.correct)));
    let mut score = Accuracy {
        questions: table.items(),
        correct: table.successes(),
        accuracy: table.rate(),
        paired: Paired::from(&table),
        reference_correct: Some(table.reference_successes()),
        unparsed: count(&|(tested, _)| tested.answer.is_none()),
        reference_unparsed: count(&|(_, reference)| reference.answer.is_none()),
        by_subject: by_subject(items),
        data: about.data.clone(),
        seed: about.seed,
        shots: about.shots,
        max_new_tokens: about.max_new_tokens,
        prompt: about.prompt.clone(),
        ..Default::default()
    };
    if about.max_new_tokens.is_some() {
        let corrupted = |outcome: &Outcome| outcome.health.is_some_and(|h| h.corrupted);
        let divergences: Vec<f64> = items.iter().filter_map(|item| item.diverges_at.map(|at| at as f64)).collect();
        score.corrupted = count(&|(tested, _)| corrupted(tested));
        score.reference_corrupted = count(&|(_, reference)| corrupted(reference));
        score.truncated = count(&|(tested, _)| tested.truncated == Some(true));
        score.diverged = Some(divergences.len());
        score.median_divergence = stats::median(&divergences);
    }
    score
}

fn by_subject(items: &[QuestionItem]) -> BTreeMap<String, SubjectScore> {
    let mut subjects: BTreeMap<String, SubjectScore> = BTreeMap::new();
    for item in items {
        let Some(subject) = &item.subject else { continue };
        let score = subjects.entry(subject.clone()).or_default();
        score.questions += 1;
        score.correct += usize::from(item.outcome.correct);
        score.reference_correct += usize::from(item.reference.as_ref().unwrap_or(&item.outcome).correct);
    }
    subjects
}

fn hash_of(prompt: &[u32]) -> u64 {
    let mut hasher = DefaultHasher::new();
    prompt.hash(&mut hasher);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_machine_is_told_with_what_it_answered() {
        let of = |parts: &[AnsweredOn]| -> Vec<(String, usize)> {
            parts.iter().map(|part| (part.machine.clone().unwrap_or_default(), part.questions)).collect()
        };
        let first = answered_on(&[], 0, Some("A"), 5);
        assert_eq!(of(&first), [("A".into(), 5)]);
        assert_eq!(of(&answered_on(&first, 5, Some("A"), 9)), [("A".into(), 9)]);
        // Of what was saved, a whole batch is kept.
        let both = answered_on(&first, 4, Some("B"), 9);
        assert_eq!(of(&both), [("A".into(), 4), ("B".into(), 5)]);
        assert_eq!(of(&answered_on(&both, 4, Some("C"), 6)), [("A".into(), 4), ("C".into(), 2)]);
        assert_eq!(of(&answered_on(&[], 4, Some("B"), 6)), [(String::new(), 4), ("B".into(), 2)], "an older file");
    }

    #[test]
    fn questions_of_similar_length_are_put_together_and_the_batches_in_their_own_order() {
        let lengths = [50, 3, 40, 2, 51, 41, 99];
        let of = |batch: usize| -> Vec<usize> {
            let asked = lengths.map(|length| Asked {
                id: length.to_string(),
                subject: None,
                expected: String::new(),
                prompt: vec![0; length],
                shots: None,
            });
            side_by_side(asked.into(), batch).iter().map(|question| question.prompt.len()).collect()
        };
        assert_eq!(of(1), lengths);
        // 50 was the first question, 3 the second; 99 is left over.
        assert_eq!(of(2), [50, 51, 2, 3, 40, 41, 99]);
        assert_eq!(of(100), [2, 3, 40, 41, 50, 51, 99]);
    }

    #[test]
    fn of_an_unfinished_set_whole_batches_of_the_same_questions_are_kept() {
        let ids = ["a", "b", "c", "d", "e"];
        let questions = ids.map(|id| Asked {
            id: id.into(),
            subject: None,
            expected: String::new(),
            prompt: Vec::new(),
            shots: None,
        });
        let kept = |batch: usize, saved: &[&str], plan: &str| {
            let set = QuestionSet {
                name: "math",
                version: 1,
                questions: &questions,
                blocks: |_| Benchmarks::default(),
                about: Accuracy::default(),
                batch,
                ask: &|_, _, _| Ok(Vec::new()),
            };
            let item = |id: &&str| QuestionItem { id: id.to_string(), ..Default::default() };
            let saved =
                Accuracy { plan: Some(plan.into()), items: saved.iter().map(item).collect(), ..Default::default() };
            set.resumed("as now", Some(&saved)).len()
        };
        assert_eq!(
            (kept(1, &ids[..4], "as now"), kept(2, &ids[..4], "as now"), kept(3, &ids[..4], "as now")),
            (4, 4, 3)
        );
        assert_eq!(kept(1, &["a", "b", "x", "d"], "as now"), 2);
        assert_eq!(kept(1, &ids[..4], "otherwise"), 0);
        assert_eq!(kept(1, &ids, "as now"), 0, "a complete score is measured anew");
    }

    #[test]
    fn divergence_is_the_first_token_that_differs() {
        assert_eq!(divergence(&[1, 2, 3], &[1, 2, 3]), None);
        assert_eq!(divergence(&[1, 2, 4], &[1, 2, 3]), Some(2));
        assert_eq!(divergence(&[1, 2], &[1, 2, 3]), Some(2));
        assert_eq!(divergence(&[], &[1]), Some(0));
    }

    fn item(answer: Option<&str>, correct: bool, reference_correct: bool, diverges_at: Option<usize>) -> QuestionItem {
        let outcome =
            |answer: Option<&str>, correct| Outcome { answer: answer.map(Into::into), correct, ..Default::default() };
        QuestionItem {
            subject: Some("algebra".into()),
            outcome: outcome(answer, correct),
            reference: Some(outcome(Some("1"), reference_correct)),
            diverges_at,
            ..Default::default()
        }
    }

    #[test]
    fn unparsed_answers_are_wrong_and_counted_apart() {
        let items = [
            item(Some("1"), true, true, None),
            item(None, false, true, Some(4)),
            item(Some("2"), false, true, Some(8)),
        ];
        let about = Accuracy { max_new_tokens: Some(32), ..Default::default() };
        let score = summarize(&items, &about);
        assert_eq!((score.questions, score.correct, score.unparsed, score.paired.lost), (3, 1, Some(1), Some(2)));
        assert_eq!((score.diverged, score.median_divergence), (Some(2), Some(6.0)));
        assert_eq!(score.by_subject["algebra"].reference_correct, 3);
    }
}
