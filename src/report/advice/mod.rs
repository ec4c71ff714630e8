//! What to use, in plain words: the smallest cache that keeps quality within a stated bound, what it saves, what it costs.

mod judge;
mod words;

pub use judge::{Bound, Verdict, judge};

use super::group::{Group, Subject};
use super::number;
use super::run::Run;
use super::study::Row;

/// What to use for one model on one backend.
#[derive(Debug)]
pub struct Advice<'a> {
    /// For people.
    pub subject: String,
    /// The cache to use; `None` where none is smaller than the unquantized one and keeps to the bound.
    pub choice: Option<&'a Run>,
    /// Whether the quality of a quantized cache was measured: without it there is no answer, and the headline says what is missing.
    pub answers: bool,
    /// One sentence that says it.
    pub headline: String,
    /// Why.
    pub reason: String,
    /// What it saves.
    pub saves: Option<String>,
    /// What it costs.
    pub costs: Option<String>,
    /// What a reader should know before trusting it.
    pub caveats: Vec<String>,
    /// Every other quantized cache with its verdict, smallest first: name and words.
    pub others: Vec<(String, String)>,
}

/// Advice for every subject of `group`.
pub fn all<'a>(group: &Group<'a>, bound: &Bound) -> Vec<Advice<'a>> {
    // Scores that were set apart are of caches that newer scores speak for.
    let current = |subject: &&Subject<'a>| subject.runs.iter().all(|run| run.scored.is_empty());
    group.subjects.iter().filter(current).map(|subject| advise(subject, bound)).collect()
}

/// What `group` says within `bound` as lines for people, not wrapped: a paragraph for each subject of which there is an answer, then the bound.
/// Nothing where there is no answer.
pub fn paragraphs(group: &Group<'_>, bound: &Bound) -> Vec<Vec<String>> {
    let answers = all(group, bound).into_iter().filter(|advice| advice.answers);
    let mut paragraphs: Vec<Vec<String>> = answers.map(|advice| advice.lines()).collect();
    if !paragraphs.is_empty() {
        paragraphs.push(vec![format!("The bound: {}.", bound.words())]);
    }
    paragraphs
}

impl<'a> Advice<'a> {
    /// The headline, and what stands under it.
    fn lines(self) -> Vec<String> {
        let saves = self.saves.map(|saves| format!("Saves: {saves}"));
        let costs = self.costs.map(|costs| format!("Costs: {costs}"));
        [self.headline, self.reason].into_iter().chain(saves).chain(costs).chain(self.caveats).collect()
    }

    /// That of the candidate at `chosen`, which keeps to the bound as `measured` says.
    fn for_choice(
        place: &Place<'_, 'a>,
        candidates: &[Candidate<'a>],
        chosen: usize,
        measured: &str,
        bound: &Bound,
    ) -> Self {
        let (subject, run) = (place.subject, candidates[chosen].run);
        let row = place.row(run);
        let saves = row.zip(place.at).and_then(|(row, at)| words::saves(row, place.unquantized(row)?, at));
        let rows = row.zip(place.baseline);
        let others = candidates.iter().enumerate().filter(|(at, _)| *at != chosen);
        let mut caveats = words::left_out(subject);
        caveats.extend(judge::doubts(run, bound));
        caveats.extend(words::caveats(subject, run, place.baseline.is_some(), saves.is_some()));
        if bound.slowdown.is_some() && rows.and_then(|(row, full)| judge::speeds(row, full)).is_none() {
            caveats.push("Its speed could not be held against the unquantized cache's.".into());
        }
        // Larger ones would not be recommended anyway.
        caveats.extend(candidates[..chosen].iter().filter_map(Candidate::only_slow));
        Advice {
            subject: subject.name.clone(),
            choice: Some(run),
            answers: true,
            headline: format!("For {}, use {}.", subject.name, run.cache),
            reason: format!("The smallest measured cache that keeps to the bound: {measured}."),
            saves,
            costs: rows.filter(judge::within_memory).and_then(|(row, full)| words::costs(row, full)),
            caveats,
            others: others.map(|(_, other)| other.words()).collect(),
        }
    }

    /// One without a choice.
    fn without_choice(place: &Place<'_, 'a>, candidates: &[Candidate<'a>], headline: String, reason: &str) -> Self {
        Advice {
            subject: place.subject.name.clone(),
            choice: None,
            answers: candidates.iter().any(|c| c.verdict != Verdict::Unknown),
            headline,
            reason: reason.into(),
            saves: None,
            costs: None,
            caveats: words::left_out(place.subject)
                .into_iter()
                .chain(candidates.iter().filter_map(Candidate::only_slow))
                .collect(),
            others: candidates.iter().map(Candidate::words).collect(),
        }
    }
}

/// A quantized cache with its size where it is compared.
struct Candidate<'a> {
    run: &'a Run,
    bytes: Option<f64>,
    /// What its quality comes to.
    verdict: Verdict,
    /// How it decodes, where that is slower than the bound allows.
    slow: Option<String>,
}

impl Candidate<'_> {
    /// What was measured of its quality, in words, where it keeps to the bound.
    fn keeps(&self) -> Option<&str> {
        match &self.verdict {
            Verdict::Keeps(words) if self.slow.is_none() => Some(words),
            _ => None,
        }
    }

    /// What it is not recommended for, where that is its speed and nothing else.
    fn only_slow(&self) -> Option<String> {
        let slow = self.slow.as_ref().filter(|_| matches!(self.verdict, Verdict::Keeps(_)))?;
        Some(format!("{} keeps to the bound on quality, but {slow}.", self.run.cache))
    }

    /// Its name, and what it came to.
    fn words(&self) -> (String, String) {
        let size = self.bytes.map_or_else(String::new, |b| format!("{}: ", number::bytes(b)));
        let words = match (&self.verdict, &self.slow) {
            (Verdict::Keeps(words), None) => format!("{size}keeps to the bound; {words}"),
            (Verdict::Breaks(words), None) => format!("{size}breaks the bound; {words}"),
            (Verdict::Keeps(words) | Verdict::Breaks(words), Some(slow)) => {
                format!("{size}breaks the bound; {slow}; {words}")
            }
            (Verdict::Unknown, None) => format!("{size}quality not measured"),
            (Verdict::Unknown, Some(slow)) => format!("{size}breaks the bound; {slow}; quality not measured"),
        };
        (self.run.cache.clone(), words)
    }
}

/// Where the caches of a subject are compared.
struct Place<'s, 'a> {
    subject: &'s Subject<'a>,
    /// Context and batch.
    at: Option<(usize, usize)>,
    /// The unquantized cache there.
    baseline: Option<&'s Row<'a>>,
}

impl<'s, 'a> Place<'s, 'a> {
    fn of(subject: &'s Subject<'a>) -> Self {
        let at = subject.common_ground();
        let baseline =
            subject.baseline().zip(at).and_then(|(cache, (context, batch))| subject.row(cache, context, batch));
        Place { subject, at, baseline }
    }

    /// The measurement of the cache of `run` there.
    fn row(&self, run: &Run) -> Option<&'s Row<'a>> {
        self.at.and_then(|(context, batch)| self.subject.row(&run.cache, context, batch))
    }

    /// Bytes of the unquantized cache there; by the ledger of `row` where none was measured.
    fn unquantized(&self, row: &Row<'_>) -> Option<f64> {
        self.baseline.and_then(Row::cache_bytes).or(row.unquantized_bytes())
    }

    fn smaller(&self, candidate: &Candidate<'_>) -> bool {
        match (candidate.bytes, self.row(candidate.run).and_then(|row| self.unquantized(row))) {
            (Some(bytes), Some(full)) => bytes < full,
            (bytes, _) => bytes.is_some(),
        }
    }
}

fn advise<'a>(subject: &Subject<'a>, bound: &Bound) -> Advice<'a> {
    let place = Place::of(subject);
    let candidate = |run: &&'a Run| Candidate {
        run,
        bytes: place.row(run).and_then(Row::cache_bytes),
        verdict: judge(&run.quality, bound),
        slow: place.row(run).zip(place.baseline).and_then(|(row, full)| judge::too_slow(row, full, bound)),
    };
    let mut candidates: Vec<Candidate<'a>> = subject.runs.iter().filter(|run| run.quantized()).map(candidate).collect();
    // Smallest first; those whose size is unknown last.
    candidates.sort_by(|a, b| a.bytes.unwrap_or(f64::INFINITY).total_cmp(&b.bytes.unwrap_or(f64::INFINITY)));
    let keeping = || candidates.iter().enumerate().filter_map(|(at, c)| Some((at, c, c.keeps()?)));
    if let Some((at, _, measured)) = keeping().find(|(_, candidate, _)| place.smaller(candidate)) {
        return Advice::for_choice(&place, &candidates, at, measured, bound);
    }
    // Quality alone says nothing about size.
    let of_unknown_size: Vec<&str> =
        keeping().filter(|(_, c, _)| c.bytes.is_none()).map(|(_, c, _)| c.run.cache.as_str()).collect();
    let tested = candidates.iter().any(|c| c.verdict != Verdict::Unknown);
    let name = &subject.name;
    let (headline, reason) = if !of_unknown_size.is_empty() {
        let caches = of_unknown_size.join(" or ");
        let headline = format!("For {name}, {caches} keeps to the bound; its size was not measured.");
        (headline, "Measure it: kvprof run without --no-profile.")
    } else if candidates.is_empty() {
        let headline = format!("For {name}, no quantized cache was measured.");
        (headline, "Measure some: kvprof run --kv-quant int8-hqq int4-hqq int2-hqq-kivi.")
    } else if !tested {
        let headline = format!("For {name}, the quality of no quantized cache was measured.");
        (headline, "Measure it: kvprof run with the benchmarks ppl and needle.")
    } else {
        let headline = format!("For {name}, keep the unquantized cache.");
        (headline, "No quantized cache that was measured keeps to the bound and is smaller.")
    };
    Advice::without_choice(&place, &candidates, headline, reason)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A result file.
    fn parsed(quant: &str, blocks: &str) -> crate::schema::RunResult {
        let kv_quant = serde_json::from_str(quant).unwrap();
        let benchmarks = serde_json::from_str(&format!("{{{blocks}}}")).unwrap();
        crate::schema::RunResult { kv_quant, benchmarks, ..crate::schema::bare_result() }
    }

    #[test]
    fn a_cache_of_unknown_size_is_neither_recommended_nor_ruled_out() {
        let int8 = parsed(
            r#"{"enabled":true,"nbits":8,"asymmetric":false,"name":"int8-hqq"}"#,
            r#""perplexity_quantized":{"dataset":"b","tokens":16,"value":9.0,"reference_value":9.0,"ln_ratio":0.0,
            "ln_ratio_standard_error":0.0001}"#,
        );
        let study = crate::report::study::Study::of(vec![("a.json".into(), int8)]);
        let advice = &all(&Group::of(&study), &Bound::default())[0];
        assert!(advice.choice.is_none());
        assert_eq!(advice.headline, "For m, int8-hqq keeps to the bound; its size was not measured.");
    }

    #[test]
    fn what_a_cache_costs_is_not_told_from_memory_that_spilled() {
        use crate::report::study::Study;
        use crate::report::{figures, kernels, tables};
        use crate::schema::{CategoryTime, Energy, EnergyWindow, KernelTimes, Measurement, PhaseKernels};
        // The unquantized cache and two windows of INT4, of which the usual one is the smaller; `spilled`: each of them.
        let study = |spilled: [bool; 3]| {
            let run = |at: usize| {
                let mut m = Measurement { context_len: 1024, batch_size: Some(1), ..Default::default() };
                m.vram_overflow = Some(spilled[at]);
                m.kv_cache_mb = Some([100.0, 30.0, 40.0][at]);
                (m.prefill_ms, m.decode_ms, m.decode_tokens) = (Some(10.0), Some([10.0, 20.0, 15.0][at]), Some(10));
                let decode = EnergyWindow { tokens: 10, j_per_token: 1.0, mean_w: 300.0, ..Default::default() };
                m.energy = Some(Energy { decode: Some(decode), ..Default::default() });
                let categories = [("attention".to_string(), CategoryTime { ms: 5.0, count: 1, share: 1.0 })].into();
                let decode = Some(PhaseKernels { categories, ..Default::default() });
                m.kernels = Some(KernelTimes { decode, ..Default::default() });
                let quant = match at {
                    0 => r#"{"enabled":false,"asymmetric":false}"#.to_string(),
                    _ => {
                        let residual = [0, 128, 512][at];
                        format!(
                            r#"{{"enabled":true,"nbits":4,"asymmetric":false,"name":"int4-hqq","residual_length":{residual}}}"#
                        )
                    }
                };
                let scored = r#""perplexity_quantized":{"dataset":"b","tokens":16,"value":9.0,"reference_value":9.0,"ln_ratio":0.0}"#;
                let mut result = parsed(&quant, if at == 0 { "" } else { scored });
                result.measurements = vec![m];
                (format!("{at}.json").into(), result)
            };
            Study::of((0..3).map(run).collect())
        };
        let remarks = |study: &Study| -> Vec<bool> {
            let tables = tables::all(study, &Group::of(study));
            let energy = tables.iter().find(|table| table.id == "energy").unwrap();
            let at = energy.columns.iter().position(|column| column.name == "decode_j").unwrap();
            energy.rows.iter().map(|row| row[at].remark.is_some()).collect()
        };
        let differences = |study: &Study| -> usize {
            let table = kernels::table(&Group::of(study));
            let at = table.columns.iter().position(|column| column.name == "difference_us_per_token").unwrap();
            table.rows.iter().filter(|row| row[at].number().is_some()).count()
        };
        let doubtful = |study: &Study| -> Vec<bool> {
            let charts = figures::all(&Group::of(study), &Bound::default());
            let chart = charts.iter().find(|chart| chart.id == "residual_decode").unwrap();
            let crate::report::chart::Plot::Points(points) = &chart.panels[0].plot else { panic!("no points") };
            points.series[0].points.iter().map(|point| point.doubtful).collect()
        };

        let within = study([false; 3]);
        let told = &all(&Group::of(&within), &Bound::default())[0];
        assert!(told.costs.as_ref().is_some_and(|costs| costs.contains("instead of")), "{told:?}");
        assert!(!told.caveats.iter().any(|caveat| caveat.contains("did not fit")), "{:?}", told.caveats);
        assert_eq!((remarks(&within), doubtful(&within)), (vec![false; 3], vec![false; 2]));
        let both = differences(&within);

        for (spilled, name, fewer) in
            [([true, false, false], "the unquantized cache", both), ([false, true, false], "int4-hqq", both / 2)]
        {
            let study = study(spilled);
            let told = &all(&Group::of(&study), &Bound::default())[0];
            assert!(told.saves.is_some() && told.costs.is_none(), "{told:?}");
            let why = format!("At 1k tokens {name} did not fit into device memory");
            assert!(told.caveats.iter().any(|caveat| caveat.starts_with(&why)), "{:?}", told.caveats);
            assert_eq!(remarks(&study), spilled);
            assert_eq!(differences(&study), both - fewer);
            assert_eq!(doubtful(&study), [spilled[0]; 2]);
        }
    }

    #[test]
    fn what_answers_nothing_is_not_told_and_what_does_ends_with_the_bound() {
        let told = |quants: &[&str], scored: &str| {
            let result = |at: usize| {
                let enabled = quants[at] != "none";
                let quant = format!(r#"{{"enabled":{enabled},"asymmetric":false,"name":"{}"}}"#, quants[at]);
                (format!("{at}.json").into(), parsed(&quant, if enabled { scored } else { "" }))
            };
            let study = crate::report::study::Study::of((0..quants.len()).map(result).collect());
            paragraphs(&Group::of(&study), &Bound::default())
        };
        let scored =
            r#""perplexity_quantized":{"dataset":"b","tokens":16,"value":9.0,"reference_value":9.0,"ln_ratio":0.5}"#;
        assert!(told(&["none"], scored).is_empty(), "one cache only");
        assert!(told(&["none", "int8-hqq"], "").is_empty(), "no score");
        let said = told(&["none", "int8-hqq"], scored);
        assert_eq!(said[0][0], "For m, keep the unquantized cache.");
        assert!(said.len() == 2 && said[1][0].starts_with("The bound: perplexity rises by at most 1 %"), "{said:?}");
    }
}
