//! `kvprof compare`: new results against old ones, for people and for CI.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::process::ExitCode;

use super::inputs::{load, refuse_input};
use super::output;
use crate::Error;
use crate::base::message::tell;
use crate::report::compare::change::Verdict;
use crate::report::compare::condition::Condition;
use crate::report::compare::{self, Comparison, Line};
use crate::report::export::TableFormat;
use crate::report::study::{Study, canonical};
use crate::report::write_file;

// --against takes all paths that follow it, so that BASE must stand before it; the line that clap would write has it the other way round.
const USAGE: &str = "kvprof compare [OPTIONS] <BASE>... --against <NEW>...";

/// Arguments of `kvprof compare`.
#[derive(Debug, clap::Args)]
#[command(override_usage = USAGE)]
pub struct Args {
    /// What to compare with: result files, or folders that hold them.
    #[arg(required = true, value_name = "BASE")]
    base: Vec<PathBuf>,
    /// What is compared: result files, or folders that hold them.
    #[arg(long, required = true, num_args = 1.., value_name = "NEW")]
    against: Vec<PathBuf>,
    /// Exit with code 1 if a change crosses this: a metric, < or >, and a change such as 1%, 2pt or 0.05; may be given several times. Metrics: ppl,
    /// kld (nats), needle, mmlu and math (rates: -2pt), kv and memory (bytes), prefill and follow-up (ms), decode (tokens/s: slower is less,
    /// decode<-5%), energy (J/token). A change that is not told from noise (its 95 % interval includes 0) counts as no change, and is named; where the spread is not known
    /// (energy, memory, fewer than three repeats) the change counts as it is. Fails too where a pair's new side lost the metric or measured it
    /// otherwise; rows and caches without a partner are named and do not fail.
    #[arg(long, value_name = "CONDITION", allow_hyphen_values = true)]
    fail_if: Vec<String>,
    /// File to write the table to; standard output without it.
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Format; without it the one of the output's extension, else Markdown.
    #[arg(short, long, value_enum)]
    format: Option<TableFormat>,
}

/// Writes the comparison: exit code 1 when a condition is crossed (or cannot be told), or a file was skipped.
///
/// # Errors
/// An extension that tells no format, a missing path, a wrong condition, no result file on a side, no pair, and what the system says about the output.
pub fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let conditions = args.fail_if.iter().map(|text| Condition::parse(text)).collect::<crate::Result<Vec<_>>>()?;
    let format = TableFormat::chosen(args.format, args.output.as_deref(), TableFormat::Md)?;
    let (base, base_skipped) = load(&args.base, "the paths of BASE", "base: ")?;
    let (new, new_skipped) = load(&args.against, "the paths of --against", "new: ")?;
    let skipped = [base_skipped, new_skipped].iter().any(|code| *code != ExitCode::SUCCESS);
    if files(&base) == files(&new) {
        tell!("warning: BASE and --against are the same files, which cannot differ");
    }
    if let Some(path) = &args.output {
        let found = base.result_files().chain(new.result_files());
        refuse_input(path, args.base.iter().chain(&args.against).chain(found))?;
    }
    let comparison = compare::compare(&base, &new);
    for line in &comparison.unpaired {
        tell!("not compared: {}", line.text);
    }
    if comparison.lines.is_empty() {
        let why = match comparison.unpaired.is_empty() {
            true => "the two sides hold neither measurements nor scores",
            false => "nothing could be compared, for the reasons above",
        };
        return Err(Error::usage(why).into());
    }
    let table = compare::table(&comparison);
    let table =
        if matches!(format, TableFormat::Md | TableFormat::Latex) { compare::for_people(&table) } else { table };
    let bytes = format.render(&table)?;
    match &args.output {
        Some(path) => write_file(path, &bytes)?,
        None => output::write(&bytes)?,
    }
    tell!("{}", summary(&comparison));
    let failed = conditions.iter().filter(|condition| fails(condition, &comparison)).count();
    Ok(ExitCode::from(u8::from(failed > 0 || skipped)))
}

/// The files of a side, by whatever name they were given.
fn files(side: &Study) -> BTreeSet<PathBuf> {
    side.runs.iter().map(|run| canonical(&run.file)).collect()
}

fn summary(comparison: &Comparison) -> String {
    let count = |verdict| comparison.count(verdict);
    format!(
        "{} compared: {} better, {} worse, {} without clear change, {} of unknown spread",
        comparison.lines.len(),
        count(Verdict::Better),
        count(Verdict::Worse),
        count(Verdict::Same),
        count(Verdict::MaybeBetter) + count(Verdict::MaybeWorse)
    )
}

/// Says on standard error what became of `condition`, and where; whether it failed.
fn fails(condition: &Condition, comparison: &Comparison) -> bool {
    let judged = condition.judge(comparison);
    let say = |word: &str, line: &Line| {
        let place =
            line.place.map_or_else(String::new, |(context, batch)| format!(" at {context} tokens, batch {batch}"));
        let (text, change) = (&condition.text, line.metric.words(&line.delta));
        tell!("{word}: {text}: {} {}{place}: {change}", line.model, line.what);
    };
    judged.crossed.iter().for_each(|line| say("failed", line));
    judged.unclear.iter().for_each(|line| say("not told from noise", line));
    for lost in &judged.lost {
        tell!("failed: {} cannot be told: {}", condition.text, lost.text);
    }
    if judged.lines == 0 && judged.lost.is_empty() {
        tell!("failed: {} cannot be told: no pair has this metric on both sides", condition.text);
    } else if !judged.failed() {
        tell!("passed: {}: {} compared", condition.text, judged.lines);
    }
    judged.failed()
}

#[cfg(test)]
mod tests {
    use clap::Args as _;

    use super::*;
    use crate::report::compare::metric;

    #[test]
    fn help_names_every_metric_that_a_condition_can_have() {
        let command = Args::augment_args(clap::Command::new("compare"));
        let help = command.get_arguments().find(|argument| argument.get_id() == "fail_if").unwrap().get_help().unwrap();
        let help = help.to_string();
        let (_, metrics) = help.split_once("Metrics: ").unwrap();
        let words: Vec<&str> = metrics.split([' ', ',', '\n']).collect();
        let missing: Vec<_> = metric::all().map(|m| m.name).filter(|name| !words.contains(name)).collect();
        assert!(missing.is_empty(), "{missing:?}");
    }
}
