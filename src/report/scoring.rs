//! What a score was measured on: which text or questions, how much of them, in what windows. Scores that differ in it are scores of
//! different things: a table that holds both has a column that tells them apart.

use std::cmp::Ordering;
use std::collections::BTreeSet;

use sha2::{Digest, Sha256};

use super::number;
use crate::schema::{Accuracy, DataSource, Flags, Needle, NeedleTrial, RunResult};

/// What one score was measured on; scores of one benchmark have the same parts in the same order.
#[derive(Debug, Clone)]
pub struct Scoring(Vec<Part>);

impl Scoring {
    /// What tells scores apart: where the data's digest is known, not the name of its file.
    fn key(&self) -> impl Iterator<Item = &Part> {
        let digest = self.digest().is_some();
        self.0.iter().filter(move |part| !(digest && part.name == DATA))
    }

    fn digest(&self) -> Option<&str> {
        self.0.iter().find(|part| part.name == DIGEST)?.words.as_deref().filter(|words| !words.is_empty())
    }

    /// Whether the part at `at` differs from that of `other`, as far as `look` looks. The same data may go by several names.
    fn differs<'a, T: PartialEq>(&'a self, other: &'a Self, at: usize, look: impl Fn(&'a Part) -> T) -> bool {
        let renamed = self.0[at].name == DATA && self.digest().is_some() && self.digest() == other.digest();
        !renamed && look(&self.0[at]) != look(&other.0[at])
    }
}

impl PartialEq for Scoring {
    fn eq(&self, other: &Self) -> bool {
        self.key().eq(other.key())
    }
}

impl Eq for Scoring {}

impl PartialOrd for Scoring {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Scoring {
    fn cmp(&self, other: &Self) -> Ordering {
        self.key().cmp(other.key())
    }
}

/// Names of parts that are looked for.
const DATA: &str = "data";
const DIGEST: &str = "digest";
const NEEDLES: &str = "needles";
const VERSION: &str = "version";
/// Said of a question set whose run was stopped before the last question.
const STOPPED: &str = " (stopped)";

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Part {
    /// What is told.
    name: &'static str,
    /// In words, empty where there is nothing to say; `None` where the file does not say.
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
    [part(DATA, name.map(str::to_string)), part(DIGEST, digest)]
}

/// Version of a benchmark's meaning.
fn version(version: Option<u32>) -> Part {
    part(VERSION, version.map(|v| format!("version {v}")))
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
    let p = result.own_perplexity()?;
    let text = text(p.tokens, p.window, p.burn_in, p.protocol.as_deref());
    Some(Scoring(data(Some(&p.dataset), p.data.as_ref()).into_iter().chain(text).chain([version(p.version)]).collect()))
}

/// Of the divergence of a quantized cache.
pub fn kld(result: &RunResult) -> Option<Scoring> {
    let k = result.divergence()?;
    let name = k.data.as_ref().map(|d| d.name.as_str());
    let text = text(k.tokens, k.window, k.burn_in, k.protocol.as_deref());
    Some(Scoring(data(name, k.data.as_ref()).into_iter().chain(text).chain([version(k.version)]).collect()))
}

/// Of the needles.
pub fn needle(result: &RunResult) -> Option<Scoring> {
    let n = result.benchmarks.needle_in_haystack.as_ref()?;
    let trials = result.benchmarks.needle_in_haystack_trials.as_deref();
    let contexts = needle_contexts(n).join(" and ");
    let name = n.haystack.as_ref().map(|text| format!("in {text}"));
    let [name, mut digest] = data(name.as_deref(), n.data.as_ref());
    if n.haystack.as_deref() == Some("filler") {
        // It comes with kvprof: its name says all.
        digest.words = Some(String::new());
    }
    Some(Scoring(vec![
        part("kind", n.kind.clone()),
        name,
        digest,
        part("contexts", Some(format!("at {contexts} tokens"))),
        part(
            "depths",
            trials.map(|trials| {
                let depths = needle_depths(trials);
                // As many decimals as anyone gives: those of 0.07 × 100 are the machine's.
                let shown: Vec<String> = depths.iter().map(|d| number::round(d * 100.0, 9).to_string()).collect();
                format!("{} % deep", shown.join(", "))
            }),
        ),
        part("trials", Some(number::counted(n.total_trials, "trial"))),
        part(NEEDLES, trials.and_then(hidden)),
        version(n.version),
    ]))
}

/// Context lengths of needles, tokens.
pub fn needle_contexts(needle: &Needle) -> Vec<&str> {
    let mut contexts: Vec<&str> = needle.per_context.keys().map(String::as_str).collect();
    contexts.sort_by_key(|context| context.parse::<usize>().ok());
    contexts
}

/// Depths of needles, 0…1.
pub fn needle_depths(trials: &[NeedleTrial]) -> Vec<f64> {
    // 0…1, in spite of its name.
    let mut depths: Vec<f64> = trials.iter().map(|trial| trial.depth_percent).collect();
    depths.sort_by(f64::total_cmp);
    depths.dedup();
    depths
}

/// Which needles were hidden (another seed hides others), as the first digits of a digest; `None` where the file does not say. They are the
/// same at every place; places are parts of their own, and would make a digest differ that tells nothing more.
fn hidden(trials: &[NeedleTrial]) -> Option<String> {
    let needle = |t: &NeedleTrial| Some(format!("{} {}", t.trial.unwrap_or(0), t.needle.as_ref()?));
    let needles = trials.iter().map(needle).collect::<Option<BTreeSet<_>>>().filter(|needles| !needles.is_empty())?;
    let digest = Sha256::digest(needles.into_iter().collect::<Vec<_>>().join("\n"));
    Some(format!("needles {}", digest.iter().take(4).map(|byte| format!("{byte:02x}")).collect::<String>()))
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
        Some(planned) => format!("{} of {planned} questions{STOPPED}", a.questions),
        None => format!("{} questions", a.questions),
    };
    let rest = [
        Part {
            odd: a.stopped_before().is_some(),
            whole: a.stopped_before().map(|planned| format!("{planned} questions")),
            ..part("questions", Some(questions))
        },
        // Of as many questions of the same data, another seed draws others.
        part("seed", a.seed.map(|seed| format!("drawn with seed {seed}"))),
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
        let block = result.own_perplexity()?;
        let asked = asked(block.settings.as_ref(), "ppl-tokens").unwrap_or(result.config.ppl_tokens);
        Some(super::ppl(result)?.asked("tokens", block.tokens, asked))
    }

    /// As [`super::kld`].
    pub fn kld(result: &RunResult) -> Option<Scoring> {
        let block = result.divergence()?;
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
        for part in self.0.iter_mut().filter(|part| part.name == unit && scored < asked) {
            let stopped = if part.whole.is_some() { STOPPED } else { "" };
            (part.words, part.odd) = (Some(format!("{scored} of {asked} {unit}{stopped}")), true);
        }
        self
    }

    /// Where it set out to score something else than `other`: what, in words. Another version of a benchmark and a run that was
    /// stopped half-way set out for the same.
    pub fn unlike(&self, other: &Self) -> Option<String> {
        fn aim(part: &Part) -> Option<&String> {
            part.whole.as_ref().or(part.words.as_ref()).filter(|_| part.name != VERSION)
        }
        let differs: Vec<bool> = (0..self.0.len()).map(|at| self.differs(other, at, aim)).collect();
        differs.contains(&true).then(|| self.words(&differs))
    }

    /// The parts at which `pick` points, in words.
    fn words(&self, pick: &[bool]) -> String {
        let picked = self.0.iter().zip(pick).filter(|(_, picked)| **picked).map(|(part, _)| part);
        let words = picked.map(|part| part.words.clone().unwrap_or_else(|| format!("unknown {}", part.name)));
        words.filter(|words| !words.is_empty()).collect::<Vec<_>>().join(", ")
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
    // A digest of needles and a version tell nothing by themselves.
    let told =
        |(part, differs): (&Part, &bool)| !differs && part.words.is_some() && ![NEEDLES, VERSION].contains(&part.name);
    let shared: Vec<bool> = first.0.iter().zip(&differs).map(told).collect();
    shared.contains(&true).then(|| first.words(&shared))
}

/// For each part, whether rows differ in it, or one is odd in it; `None` where no row has a score.
fn differing(rows: &[Option<Scoring>]) -> Option<Vec<bool>> {
    let first = rows.iter().flatten().next()?;
    let differs = |at: usize| rows.iter().flatten().any(|row| row.differs(first, at, |part| part) || row.0[at].odd);
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
        let questions = |asked: usize, planned: usize| {
            questions(&Accuracy { questions: asked, planned: Some(planned), ..Default::default() })
        };
        // Of as many as were asked for, whether a run was stopped or could ask no more.
        let of_200 = [6, 197].map(|asked| questions(asked, 197).asked("questions", asked, 200));
        let told = telling(&of_200.map(Some)).unwrap();
        assert_eq!(told, ["6 of 200 questions (stopped)", "197 of 200 questions"]);
        let whole = scored(3000, 1024).unwrap().asked("tokens", 3000, 0);
        assert_eq!(telling(&[Some(whole)]), None, "the whole text was asked for");
    }
}
