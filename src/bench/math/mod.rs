//! MATH: competition problems answered in free text, by greedy generation.

pub mod boxed;
mod clean;
pub mod compare;
pub mod corruption;
mod expression;
mod problems;

use std::rc::Rc;

use super::chat::{Message, render};
use super::data::{Files, MATH500};
use super::feed::{CHUNK, chunks, require_room_for_codes};
use super::questions::{Asked, QuestionSet, side_by_side};
use super::{Benchmark, Block, Context, Readings, Request, Settings};
use crate::model::generate::{Prompt, Written, greedy};
use crate::model::{Subject, Tokenizer};
use crate::quant::QuantSpec;
use crate::schema::{Accuracy, Benchmarks, DataSource, Outcome};
use crate::{Error, Result};

/// What the model is asked to do, after the problem.
const INSTRUCTION: &str = "Solve the problem step by step. Put the final answer in \\boxed{}.";

/// `--benchmarks math`.
pub struct MathBenchmark;

impl Benchmark for MathBenchmark {
    fn name(&self) -> &'static str {
        "math"
    }

    fn version(&self) -> u32 {
        2
    }

    fn local_files(&self, settings: &Settings, _model: &str) -> Vec<Files> {
        MATH500.local(settings.data.as_deref()).into_iter().collect()
    }

    fn prepare(&self, request: &Request<'_>, readings: &mut Readings) -> Result<Option<String>> {
        let Request { subject, settings, quant } = *request;
        let paper = Paper::of(subject, settings, readings)?;
        let lengths = paper.asked.iter().map(|asked| asked.prompt.len() + most_new(subject, settings, asked));
        let longest = lengths.max().unwrap_or(0);
        let what = format!("math: problems and answers of {longest} tokens at most");
        // The last token of an answer is not read.
        require_room_for_codes(subject, quant, &what, longest.saturating_sub(1))?;
        Ok(None)
    }

    fn run(&self, context: &mut Context<'_>, keep: &mut dyn FnMut(Block) -> Result<()>) -> Result<()> {
        let settings = context.settings;
        let paper = Paper::of(context.subject, settings, context.readings)?;
        let chat = context.subject.tokenizer()?.chat_template().is_some();
        let set = QuestionSet {
            name: self.name(),
            version: self.version(),
            questions: &paper.asked,
            about: Accuracy {
                data: Some(paper.source.clone()),
                seed: paper.seed,
                max_new_tokens: Some(settings.max_new_tokens),
                prompt: Some(if chat { "chat" } else { "plain" }.into()),
                ..Default::default()
            },
            batch: settings.batch_size,
            blocks: |score| Benchmarks { math: Some(score), ..Default::default() },
            ask: &solve,
        };
        set.run(context, context.saved.math.as_ref(), keep)
    }
}

/// The problems that settings ask for.
struct Paper {
    asked: Vec<Asked>,
    source: DataSource,
    /// What drew the problems, where not all are asked.
    seed: Option<u64>,
}

impl Paper {
    /// # Errors
    /// When there are no problems, or one cannot be asked of this model.
    fn of(subject: &Subject, settings: &Settings, readings: &mut Readings) -> Result<Rc<Self>> {
        readings.get(settings.concerning("math"), || Paper::read(subject, settings))
    }

    fn read(subject: &Subject, settings: &Settings) -> Result<Self> {
        let files = MATH500.find(settings.data.as_deref())?;
        let all = problems::read(&files)?;
        let tokenizer = subject.tokenizer()?;
        let limit = subject.config().max_positions;
        let drawn = problems::draw(&all, settings.math_problems, settings.seed);
        let seed = (drawn.len() < all.len()).then_some(settings.seed);
        let mut asked = Vec::with_capacity(drawn.len());
        for problem in drawn {
            let prompt = prompt(tokenizer, &problem.text)?;
            if prompt.len() >= limit {
                return Err(Error::usage(format!("math: problem {} fills the model's {limit} tokens", problem.id)));
            }
            asked.push(Asked {
                id: problem.id.clone(),
                subject: problem.subject.clone(),
                expected: problem.answer.clone(),
                prompt,
                shots: None,
            });
        }
        Ok(Paper { asked: side_by_side(asked, settings.batch_size), source: files.source()?, seed })
    }
}

/// Token ids of a problem, by the model's chat template if it has one.
fn prompt(tokenizer: &Tokenizer, problem: &str) -> Result<Vec<u32>> {
    match tokenizer.chat_template() {
        Some(template) => {
            let content = format!("{problem}\n\n{INSTRUCTION}");
            // The template writes the special tokens itself.
            tokenizer.encode(&render(template, &[Message { role: "user", content: &content }])?, false)
        }
        None => tokenizer.encode(&format!("{INSTRUCTION}\n\nProblem: {problem}\n\nSolution:"), true),
    }
}

/// Most tokens of an answer.
fn most_new(subject: &Subject, settings: &Settings, asked: &Asked) -> usize {
    settings.max_new_tokens.min(subject.config().max_positions - asked.prompt.len())
}

/// Generates answers through a cache of `spec` and reads them.
fn solve(context: &Context<'_>, spec: &QuantSpec, asked: &[&Asked]) -> Result<Vec<Outcome>> {
    let subject = context.subject;
    let most = |asked: &Asked| most_new(subject, context.settings, asked);
    let prompts: Vec<Prompt<'_>> =
        asked.iter().map(|asked| Prompt { tokens: &asked.prompt, most: most(asked) }).collect();
    let longest = prompts.iter().map(|prompt| prompt.tokens.len() + prompt.most).max().unwrap_or(0);
    let mut cache = context.new_cache(spec, asked.len(), longest, CHUNK)?;
    let chunks = chunks(context.spec);
    let texts = greedy(&subject.decoder, &prompts, cache.as_mut(), context.attention, chunks, context.progress)?;
    cache.check_finite()?;
    let read = |((asked, written), prompt): ((&&Asked, Written), &Prompt<'_>)| {
        let Written { tokens, reads } = written;
        let text = subject.tokenizer()?.decode(&tokens)?;
        let answer = boxed::last_boxed(&text).map(str::to_string);
        Ok(Outcome {
            correct: answer.as_deref().is_some_and(|answer| compare::equivalent(answer, &asked.expected)),
            answer,
            truncated: Some(tokens.len() == prompt.most),
            health: Some(corruption::examine(&text, &tokens)),
            generated_tokens: Some(tokens.len()),
            text: Some(text),
            tokens,
            key_reads_from_codes: reads.from_codes,
            key_reads: reads.total,
            ..Default::default()
        })
    };
    asked.iter().zip(texts).zip(&prompts).map(read).collect()
}
