//! MATH: competition problems answered in free text, by greedy generation (docs/EVALUATION.md).

pub mod boxed;
mod clean;
pub mod compare;
pub mod corruption;
mod expression;
mod problems;

use std::ops::ControlFlow;

use super::chat::{Message, render};
use super::data::MATH500;
use super::feed::CHUNK;
use super::questions::{Asked, QuestionSet};
use super::{Benchmark, Block, Context};
use crate::model::Tokenizer;
use crate::model::generate::{Chunking, Stop, greedy};
use crate::quant::QuantSpec;
use crate::schema::{Accuracy, Outcome};
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
        1
    }

    fn run(&self, context: &mut Context<'_>, keep: &mut dyn FnMut(Block) -> Result<()>) -> Result<()> {
        let settings = context.settings;
        let files = MATH500.find(settings.data.as_deref())?;
        let all = problems::read(&files)?;
        let tokenizer = context.subject.tokenizer()?;
        let limit = context.subject.config().max_positions;
        let mut asked = Vec::new();
        for problem in problems::draw(&all, settings.math_problems, settings.seed) {
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
        let chat = tokenizer.chat_template().is_some();
        let set = QuestionSet {
            name: self.name(),
            version: self.version(),
            questions: asked,
            about: Accuracy {
                data: Some(files.source()?),
                max_new_tokens: Some(settings.max_new_tokens),
                prompt: Some(if chat { "chat" } else { "plain" }.into()),
                ..Default::default()
            },
            ask: &solve,
        };
        set.run(context, context.saved.math.as_ref(), keep)
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

/// Generates an answer through a cache of `spec` and reads it.
fn solve(context: &Context<'_>, spec: &QuantSpec, asked: &Asked) -> Result<Outcome> {
    let subject = context.subject;
    let length = context.settings.max_new_tokens.min(subject.config().max_positions - asked.prompt.len());
    let mut cache = context.new_cache(spec, 1, asked.prompt.len() + length, CHUNK)?;
    let mut stopped = None;
    let mut on_token = |_: u32, _: &candle_core::Tensor| match context.progress.advance(0) {
        Ok(()) => ControlFlow::Continue(()),
        Err(error) => {
            stopped = Some(error);
            ControlFlow::Break(())
        }
    };
    let (chunking, stop) = (Chunking::Exact(CHUNK), Stop::EndOfText);
    let attention = context.attention;
    let tokens =
        greedy(&subject.decoder, &asked.prompt, length, cache.as_mut(), attention, chunking, stop, &mut on_token)?;
    if let Some(error) = stopped {
        return Err(error);
    }
    let text = subject.tokenizer()?.decode(&tokens)?;
    let answer = boxed::last_boxed(&text).map(str::to_string);
    let reads = cache.key_reads();
    Ok(Outcome {
        correct: answer.as_deref().is_some_and(|answer| compare::equivalent(answer, &asked.expected)),
        answer,
        truncated: Some(tokens.len() == length),
        health: Some(corruption::examine(&text)),
        generated_tokens: Some(tokens.len()),
        text: Some(text),
        tokens,
        key_reads_from_codes: reads.from_codes,
        key_reads: reads.total,
        ..Default::default()
    })
}
