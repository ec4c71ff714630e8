//! MMLU: multiple choice over 57 subjects, answered by the likelihood of the letters.

mod letters;
mod sample;

use std::rc::Rc;

use candle_core::D;

use super::data::{self, Files, MMLU_DEV, MMLU_TEST};
use super::feed::{CHUNK, chunks, require_room_for_codes};
use super::questions::{Asked, QuestionSet};
use super::{Benchmark, Block, Context, Readings, Request, Settings};
use crate::model::generate::feed;
use crate::model::{Subject, Tokenizer};
use crate::quant::QuantSpec;
use crate::schema::{Accuracy, Benchmarks, DataSource, Outcome};
use crate::{Error, Result};
use letters::Letters;
use sample::{Question, questions, spread};

/// `--benchmarks mmlu`.
pub struct MmluBenchmark;

impl Benchmark for MmluBenchmark {
    fn name(&self) -> &'static str {
        "mmlu"
    }

    fn version(&self) -> u32 {
        1
    }

    fn local_files(&self, settings: &Settings, _model: &str) -> Vec<Files> {
        [&MMLU_DEV, &MMLU_TEST].into_iter().filter_map(|split| split.local(settings.data.as_deref())).collect()
    }

    fn prepare(&self, request: &Request<'_>, readings: &mut Readings) -> Result<Option<String>> {
        let Request { subject, settings, quant } = *request;
        let exam = Exam::of(subject, settings, readings)?;
        let longest = exam.asked.iter().map(|asked| asked.prompt.len()).max().unwrap_or(0);
        require_room_for_codes(subject, quant, &format!("mmlu: questions of {longest} tokens at most"), longest)?;
        Ok(None)
    }

    fn run(&self, context: &mut Context<'_>, keep: &mut dyn FnMut(Block) -> Result<()>) -> Result<()> {
        let exam = Exam::of(context.subject, context.settings, context.readings)?;
        let ask = |context: &Context<'_>, spec: &QuantSpec, asked: &[&Asked]| {
            asked.iter().map(|asked| choose(context, spec, asked, &exam.letters)).collect()
        };
        let set = QuestionSet {
            name: self.name(),
            version: self.version(),
            questions: &exam.asked,
            about: Accuracy {
                data: Some(exam.source.clone()),
                seed: exam.seed,
                shots: Some(exam.shots),
                prompt: Some("few-shot".into()),
                ..Default::default()
            },
            batch: 1,
            blocks: |score| Benchmarks { mmlu: Some(score), ..Default::default() },
            ask: &ask,
        };
        set.run(context, context.saved.mmlu.as_ref(), keep)
    }
}

/// The questions that settings ask for.
struct Exam {
    /// How the model writes the answers.
    letters: Letters,
    asked: Vec<Asked>,
    /// Most examples before a question.
    shots: usize,
    source: DataSource,
    /// What drew the questions, where not all are asked.
    seed: Option<u64>,
}

impl Exam {
    /// # Errors
    /// When there are no questions, or none that fits the model, or it does not write a letter as one token.
    fn of(subject: &Subject, settings: &Settings, readings: &mut Readings) -> Result<Rc<Self>> {
        readings.get(settings.concerning("mmlu"), || Exam::read(subject, settings))
    }

    fn read(subject: &Subject, settings: &Settings) -> Result<Self> {
        let letters = Letters::of(subject.tokenizer()?)?;
        let folder = settings.data.as_deref();
        if let Some(file) = folder.filter(|path| path.is_file()) {
            return Err(Error::usage(format!(
                "--data {}: mmlu needs the folder with its dev and test splits",
                file.display()
            )));
        }
        let (test, dev) = (MMLU_TEST.find(folder)?, MMLU_DEV.find(folder)?);
        let source = data::source(&test.name, test.revision.clone(), &[&dev, &test])?;
        let (questions, examples) = (questions(&test)?, questions(&dev)?);
        let chosen = spread(&questions, settings.mmlu_questions, settings.seed);
        let seed = (chosen.len() < questions.len()).then_some(settings.seed);
        let limit = subject.config().max_positions;
        let mut asked = Vec::with_capacity(chosen.len());
        // No subject has more examples than this, whatever was asked for.
        let of = |subject: &str| examples.iter().filter(|e| e.subject == subject).count();
        let most = chosen.iter().map(|question| of(&question.subject)).max().unwrap_or(0).min(settings.mmlu_shots);
        for question in chosen {
            let shots = examples.iter().filter(|e| e.subject == question.subject).take(most);
            let shots = shots.collect::<Vec<_>>();
            let Some((prompt, shown)) = prompt(subject.tokenizer()?, question, &shots, limit)? else {
                tracing::warn!("mmlu: question {} is longer than the model's context and left out", question.id);
                continue;
            };
            asked.push(Asked {
                id: question.id.clone(),
                subject: Some(question.subject.clone()),
                expected: LETTERS[question.answer].into(),
                prompt,
                shots: (shown < most).then_some(shown),
            });
        }
        if asked.is_empty() {
            return Err(Error::usage(format!("mmlu: no question fits the model's {limit} tokens")));
        }
        let wanted = settings.mmlu_shots;
        if most < wanted {
            tracing::warn!("mmlu: no subject has {wanted} examples (--mmlu-shots), so at most {most} are shown");
        }
        Ok(Exam { letters, asked, shots: most, source, seed })
    }
}

/// Names of the choices.
const LETTERS: [&str; 4] = ["A", "B", "C", "D"];

/// Token ids of the examples and the question, and how many examples they are. Those that do not fit the model's context are
/// left out from the first on; `None` where the question alone does not fit.
fn prompt(
    tokenizer: &Tokenizer,
    question: &Question,
    shots: &[&Question],
    limit: usize,
) -> Result<Option<(Vec<u32>, usize)>> {
    for first in 0..=shots.len() {
        let topic = question.subject.replace('_', " ");
        let mut text = format!("The following are multiple choice questions (with answers) about {topic}.\n\n");
        for shot in &shots[first..] {
            text += &format!("{} {}\n\n", put(shot), LETTERS[shot.answer]);
        }
        text += &put(question);
        let ids = tokenizer.encode(&text, true)?;
        if ids.len() <= limit {
            return Ok(Some((ids, shots.len() - first)));
        }
    }
    Ok(None)
}

/// The question with its choices, up to where the letter follows.
fn put(question: &Question) -> String {
    let choices = LETTERS.iter().zip(&question.choices).map(|(letter, choice)| format!("\n{letter}. {choice}"));
    format!("{}{}\nAnswer:", question.text, choices.collect::<String>())
}

/// Reads the prompt through a cache of `spec` and takes the likeliest letter.
fn choose(context: &Context<'_>, spec: &QuantSpec, asked: &Asked, letters: &Letters) -> Result<Outcome> {
    let decoder = &context.subject.decoder;
    let mut cache = context.new_cache(spec, 1, asked.prompt.len(), CHUNK.min(asked.prompt.len()))?;
    let logits = feed(decoder, &[&asked.prompt], cache.as_mut(), context.attention, chunks(context.spec))?;
    let logits = logits.squeeze(0)?;
    let normalizer = logits.log_sum_exp(D::Minus1)?.to_scalar::<f32>()?;
    let logits = logits.to_vec1::<f32>()?;
    let log_probabilities = letters.log_probabilities(&logits, normalizer);
    if log_probabilities.iter().any(|p| !p.is_finite()) {
        return Err(Error::NotFinite(format!(
            "mmlu: the likelihoods of {} are not finite; try --dtype bf16 or f32",
            asked.id
        )));
    }
    let mut best = 0;
    for (at, p) in log_probabilities.iter().enumerate() {
        best = if *p > log_probabilities[best] { at } else { best };
    }
    cache.check_finite()?;
    let reads = cache.key_reads();
    Ok(Outcome {
        answer: Some(LETTERS[best].into()),
        correct: LETTERS[best] == asked.expected,
        log_probabilities: log_probabilities.to_vec(),
        key_reads_from_codes: reads.from_codes,
        key_reads: reads.total,
        ..Default::default()
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::LoadOptions;

    fn question(text: &str, answer: usize) -> Question {
        Question {
            id: String::new(),
            subject: "village_history".into(),
            text: text.into(),
            choices: ["one", "two", "three", "four"].map(String::from),
            answer,
        }
    }

    #[test]
    fn examples_that_do_not_fit_are_left_out_from_the_first_on() {
        let subject = Subject::load(&LoadOptions::new("builtin")).unwrap();
        let tokenizer = subject.tokenizer().unwrap();
        let (asked, shots) = (question("Which?", 0), ["Who?", "When?", "Where?"].map(|text| question(text, 2)));
        let shots: Vec<&Question> = shots.iter().collect();
        let put = |limit| prompt(tokenizer, &asked, &shots, limit).unwrap();
        let (all, shown) = put(usize::MAX).unwrap();
        assert_eq!(shown, 3);
        let text = |(ids, shown): (Vec<u32>, usize)| (tokenizer.decode(&ids).unwrap(), shown);
        assert_eq!(text(put(all.len()).unwrap()).1, 3);
        let choices = "A. one\nB. two\nC. three\nD. four\nAnswer:";
        let expected = format!(
            "The following are multiple choice questions (with answers) about village history.\n\n\
             When?\n{choices} C\n\nWhere?\n{choices} C\n\nWhich?\n{choices}"
        );
        assert_eq!(text(put(all.len() - 1).unwrap()), (expected, 2));
        assert_eq!(put(5), None, "not even the question");
    }
}
