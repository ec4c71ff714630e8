//! What a score was measured on: which text or questions, how much of them, in what windows. Scores that differ in it are scores of
//! different things: a table that holds both has a column that tells them apart.

use super::number;
use crate::schema::{Accuracy, DataSource, Flags, NeedleTrial, RunResult};

/// What one score was measured on; scores of one benchmark have the same parts in the same order.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Scoring(Vec<Part>);

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Part {
    /// What is told.
    name: &'static str,
    /// In words; `None` where the file does not say.
    words: Option<String>,
    /// Whether it must be told although all rows of a table have it in common.
    odd: bool,
    /// What it would be had the run not been stopped half-way; `None` where it was not.
    whole: Option<String>,
}

/// The scoring of one benchmark in a result; `None` where it has no score.
pub type Of = fn(&RunResult) -> Option<Scoring>;

fn part(name: &'static str, words: Option<String>) -> Part {
    Part { name, words, odd: false, whole: None }
}

/// The data's name, and the first digits of its digest.
fn data(name: Option<&str>, data: Option<&DataSource>) -> [Part; 2] {
    let digest = data.map(|d| format!("SHA-256 {}", d.sha256.chars().take(8).collect::<String>()));
    [part("data", name.map(str::to_string)), part("digest", digest)]
}

/// Version of a benchmark's meaning.
fn version(version: Option<u32>) -> Part {
    part("version", version.map(|v| format!("version {v}")))
}

/// How `tokens` tokens of a text were scored, window by window.
fn text(
    tokens: usize,
    window: Option<usize>,
    burn_in: Option<usize>,
    protocol: Option<&str>,
) -> impl Iterator<Item = Part> {
    let parts = [
        part("tokens", Some(format!("{tokens} tokens"))),
        part("window", window.map(|n| format!("windows of {n}"))),
        part("burn-in", burn_in.map(|n| format!("all but the first {n} of each"))),
        part("protocol", protocol.map(str::to_string)),
    ];
    parts.into_iter()
}

/// Of the perplexity of a run's own cache.
pub fn ppl(result: &RunResult) -> Option<Scoring> {
    let blocks = &result.benchmarks;
    let quantized = blocks.perplexity_quantized.as_ref().filter(|_| result.kv_quant.enabled);
    let p = quantized.or(blocks.perplexity.as_ref())?;
    let text = text(p.tokens, p.window, p.burn_in, p.protocol.as_deref());
    Some(Scoring(data(Some(&p.dataset), p.data.as_ref()).into_iter().chain(text).chain([version(p.version)]).collect()))
}

/// Of the divergence.
pub fn kld(result: &RunResult) -> Option<Scoring> {
    let k = result.benchmarks.kld.as_ref()?;
    let name = k.data.as_ref().map(|d| d.name.as_str());
    let text = text(k.tokens, k.window, k.burn_in, k.protocol.as_deref());
    Some(Scoring(data(name, k.data.as_ref()).into_iter().chain(text).chain([version(k.version)]).collect()))
}

/// Of the needles.
pub fn needle(result: &RunResult) -> Option<Scoring> {
    let n = result.benchmarks.needle_in_haystack.as_ref()?;
    let mut contexts: Vec<&String> = n.per_context.keys().collect();
    contexts.sort_by_key(|context| context.parse::<usize>().ok());
    let contexts = contexts.into_iter().map(String::as_str).collect::<Vec<_>>().join(" and ");
    let [_, digest] = data(None, n.data.as_ref());
    Some(Scoring(vec![
        part("kind", n.kind.clone()),
        part("haystack", n.haystack.as_ref().map(|text| format!("in {text}"))),
        digest,
        part("contexts", Some(format!("at {contexts} tokens"))),
        part("depths", result.benchmarks.needle_in_haystack_trials.as_deref().map(depths)),
        part("trials", Some(format!("{} trials", n.total_trials))),
        version(n.version),
    ]))
}

fn depths(trials: &[NeedleTrial]) -> String {
    let mut depths: Vec<f64> = trials.iter().map(|trial| trial.depth_percent).collect();
    depths.sort_by(f64::total_cmp);
    depths.dedup();
    // 0…1, in spite of its name.
    let shown: Vec<String> = depths.iter().map(|depth| number::significant(depth * 100.0, 1)).collect();
    format!("{} % deep", shown.join(", "))
}

/// Of MMLU.
pub fn mmlu(result: &RunResult) -> Option<Scoring> {
    result.benchmarks.mmlu.as_ref().map(questions)
}

/// Of MATH.
pub fn math(result: &RunResult) -> Option<Scoring> {
    result.benchmarks.math.as_ref().map(questions)
}

/// Of a question set.
pub fn questions(a: &Accuracy) -> Scoring {
    let questions = match a.stopped_before() {
        // Questions are asked in one order, so that runs stopped at the same one were asked the same.
        Some(planned) => format!("{} of {planned} questions (stopped)", a.questions),
        None => format!("{} questions", a.questions),
    };
    let rest = [
        Part {
            odd: a.stopped_before().is_some(),
            whole: a.stopped_before().map(|planned| format!("{planned} questions")),
            ..part("questions", Some(questions))
        },
        part("shots", a.shots.map(|n| format!("{n} shots"))),
        part("length", a.max_new_tokens.map(|n| format!("answers of up to {n} tokens"))),
        part("prompt", a.prompt.as_ref().map(|prompt| format!("{prompt} prompt"))),
        version(a.version),
    ];
    Scoring(data(a.data.as_ref().map(|d| d.name.as_str()), a.data.as_ref()).into_iter().chain(rest).collect())
}

/// Scorings that also tell where less was scored than was asked for: by the settings of the block where it was patched in, else by
/// the run's. A block that was handed over from another file may have been asked for otherwise: these are for the tables at the end of a run.
pub mod of_run {
    use super::{Accuracy, Flags, RunResult, Scoring};

    /// As [`super::ppl`].
    pub fn ppl(result: &RunResult) -> Option<Scoring> {
        let b = &result.benchmarks;
        let block = b.perplexity_quantized.as_ref().or(b.perplexity.as_ref())?;
        let asked = asked(block.settings.as_ref(), "ppl-tokens").unwrap_or(result.config.ppl_tokens);
        Some(super::ppl(result)?.asked("tokens", block.tokens, asked))
    }

    /// As [`super::kld`].
    pub fn kld(result: &RunResult) -> Option<Scoring> {
        let block = result.benchmarks.kld.as_ref()?;
        let asked = asked(block.settings.as_ref(), "ppl-tokens").unwrap_or(result.config.ppl_tokens);
        Some(super::kld(result)?.asked("tokens", block.tokens, asked))
    }

    /// As [`super::mmlu`].
    pub fn mmlu(result: &RunResult) -> Option<Scoring> {
        result.benchmarks.mmlu.as_ref().map(|a| questions(a, result, "mmlu-questions"))
    }

    /// As [`super::math`].
    pub fn math(result: &RunResult) -> Option<Scoring> {
        result.benchmarks.math.as_ref().map(|a| questions(a, result, "math-problems"))
    }

    fn questions(a: &Accuracy, result: &RunResult, flag: &str) -> Scoring {
        let asked = asked(a.settings.as_ref(), flag).or_else(|| asked(Some(&result.config.flags), flag));
        super::questions(a).asked("questions", a.questions, asked.unwrap_or(0))
    }

    fn asked(settings: Option<&Flags>, flag: &str) -> Option<usize> {
        settings?.get(flag)?.as_u64().map(|count| count as usize)
    }
}

impl Scoring {
    /// The same, told that `asked` of `unit` (`tokens`, `questions`; 0: all there are) were to be scored, and `scored` could be.
    fn asked(mut self, unit: &str, scored: usize, asked: usize) -> Self {
        for part in self.0.iter_mut().filter(|part| part.name == unit && !part.odd && scored < asked) {
            (part.words, part.odd) = (Some(format!("{scored} of {asked} {unit}")), true);
        }
        self
    }

    /// Where it set out to score something else than `other`: what, in words. Another version of a benchmark and a run that was
    /// stopped half-way set out for the same.
    pub fn unlike(&self, other: &Self) -> Option<String> {
        fn aim(part: &Part) -> Option<&String> {
            part.whole.as_ref().or(part.words.as_ref()).filter(|_| part.name != "version")
        }
        let differs: Vec<bool> = self.0.iter().zip(&other.0).map(|(own, other)| aim(own) != aim(other)).collect();
        differs.contains(&true).then(|| self.words(&differs))
    }

    /// The parts at which `pick` points, in words.
    fn words(&self, pick: &[bool]) -> String {
        let picked = self.0.iter().zip(pick).filter(|(_, picked)| **picked).map(|(part, _)| part);
        let words = picked.map(|part| part.words.clone().unwrap_or_else(|| format!("unknown {}", part.name)));
        words.collect::<Vec<_>>().join(", ")
    }
}

/// Where the rows of a table differ in what they were scored on, or one of them in what was asked for: what each row is to say of it,
/// nothing where it has no score. `None` where there is nothing to tell.
pub fn telling(rows: &[Option<Scoring>]) -> Option<Vec<String>> {
    let differs = differing(rows)?;
    let words = |row: &Option<Scoring>| row.as_ref().map_or_else(String::new, |scoring| scoring.words(&differs));
    differs.contains(&true).then(|| rows.iter().map(words).collect())
}

/// What all rows with a score have in common, in words, as far as files say; `None` where there is nothing.
pub fn common(rows: &[Option<Scoring>]) -> Option<String> {
    let differs = differing(rows)?;
    let first = rows.iter().flatten().next()?;
    let told = |(part, differs): (&Part, &bool)| !differs && part.words.is_some() && part.name != "version";
    let shared: Vec<bool> = first.0.iter().zip(&differs).map(told).collect();
    shared.contains(&true).then(|| first.words(&shared))
}

/// For each part, whether rows differ in it, or one is odd in it; `None` where no row has a score.
fn differing(rows: &[Option<Scoring>]) -> Option<Vec<bool>> {
    let first = rows.iter().flatten().next()?;
    let differs = |at: usize| rows.iter().flatten().any(|row| row.0[at] != first.0[at] || row.0[at].odd);
    Some((0..first.0.len()).map(differs).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scored(tokens: usize, window: usize) -> Option<Scoring> {
        let source = DataSource { name: "wikitext2".into(), sha256: "0123456789ab".into(), revision: None };
        let text = text(tokens, Some(window), Some(256), None);
        Some(Scoring(data(Some("wikitext2"), Some(&source)).into_iter().chain(text).collect()))
    }

    #[test]
    fn rows_say_what_they_differ_in_and_nothing_else() {
        assert_eq!(telling(&[scored(4096, 1024), None, scored(4096, 1024)]), None);
        assert_eq!(telling(&[None, None]), None);
        assert_eq!(
            telling(&[scored(4096, 1024), None, scored(4096, 512)]).unwrap(),
            ["windows of 1024", "", "windows of 512"]
        );
        let shared = common(&[scored(4096, 1024), None, scored(4096, 512)]).unwrap();
        assert_eq!(shared, "wikitext2, SHA-256 01234567, 4096 tokens, all but the first 256 of each");
        assert_eq!(common(&[None]), None);
    }

    #[test]
    fn fewer_tokens_than_asked_for_are_told_though_all_rows_have_them() {
        let short = scored(3000, 1024).unwrap().asked("tokens", 3000, 4096);
        assert_eq!(telling(&[Some(short.clone()), Some(short)]).unwrap(), ["3000 of 4096 tokens"; 2]);
        let whole = scored(3000, 1024).unwrap().asked("tokens", 3000, 0);
        assert_eq!(telling(&[Some(whole)]), None, "the whole text was asked for");
    }
}
