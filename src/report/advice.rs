//! What to use, in plain words: the smallest cache that keeps quality within a stated bound, what it saves, what it costs.

use std::collections::BTreeSet;

use super::group::{Group, Subject};
use super::number::{self, Digits};
use super::quality::{Quality, Score};
use super::run::Run;
use super::study::Row;

/// How much quality may be lost.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Bound {
    /// Largest rise of the perplexity, as a fraction. Where the file has an interval, its upper end must keep to it.
    pub ppl_rise: f64,
    /// Largest fall of a score (needle, MMLU, MATH), as a fraction of all items.
    pub score_fall: f64,
}

impl Default for Bound {
    fn default() -> Self {
        Bound { ppl_rise: 0.01, score_fall: 0.02 }
    }
}

impl Bound {
    /// The bound in words.
    pub fn words(&self) -> String {
        let percent = |v: f64| number::shown(v * 100.0, Digits::Exact);
        format!(
            "perplexity rises by at most {} % (the upper end of its 95 % interval where there is one), and no score falls by more than \
             {} points",
            percent(self.ppl_rise),
            percent(self.score_fall)
        )
    }
}

/// Whether a cache keeps to the bound.
#[derive(Debug, Clone, PartialEq)]
pub enum Verdict {
    /// It does; with what was measured, in words.
    Keeps(String),
    /// It does not; with what breaks the bound.
    Breaks(String),
    /// Nothing was measured that tells.
    Unknown,
}

/// What to use for one model on one backend.
#[derive(Debug)]
pub struct Advice<'a> {
    /// For people.
    pub subject: String,
    /// The cache to use; `None` where none is smaller than the unquantized one and keeps to the bound.
    pub choice: Option<&'a Run>,
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

/// Holds `quality` against `bound`.
pub fn judge(quality: &Quality, bound: &Bound) -> Verdict {
    let (mut measured, mut broken) = (Vec::new(), Vec::new());
    if let Some(rise) = quality.relative_rise() {
        let worst = quality.relative_interval().map_or(rise, |(_, high)| high);
        let shown = |v| number::shown(v, Digits::SignedPercent(2));
        let interval = quality
            .relative_interval()
            .map_or_else(String::new, |(low, high)| format!(" (95 %: {} to {})", shown(low), shown(high)));
        let words = format!("perplexity {}{interval}", shown(rise));
        if worst > bound.ppl_rise {
            broken.push(words.clone())
        }
        measured.push(words);
    }
    for (name, score) in scores(quality).filter(|(_, score)| !score.of_nothing()) {
        let Some(delta) = score.delta else { continue };
        let words = score_words(name, score, delta);
        if delta < -bound.score_fall - 1e-12 {
            broken.push(words.clone())
        }
        measured.push(words);
    }
    match (measured.is_empty(), broken.is_empty()) {
        (true, _) => Verdict::Unknown,
        (_, true) => Verdict::Keeps(measured.join("; ")),
        (_, false) => Verdict::Breaks(broken.join("; ")),
    }
}

fn scores(quality: &Quality) -> impl Iterator<Item = (&'static str, &Score)> {
    let scores = [("needle", &quality.needle), ("MMLU", &quality.mmlu), ("MATH", &quality.math)];
    scores.into_iter().filter_map(|(name, score)| Some((name, score.as_ref()?)))
}

/// The scores that [`judge`] leaves out, since they cannot fall.
fn left_out(subject: &Subject<'_>) -> Vec<String> {
    let runs = subject.runs.iter().filter(|run| run.quantized());
    let nothing = runs.flat_map(|run| scores(&run.quality)).filter(|(_, score)| score.of_nothing());
    let names: BTreeSet<&str> = nothing.map(|(name, _)| name).collect();
    let told =
        |name| format!("Of {name} the model scores nothing with an unquantized cache, so that it is left out here.");
    names.into_iter().map(told).collect()
}

fn score_words(name: &str, score: &Score, delta: f64) -> String {
    let points = number::shown(delta * 100.0, Digits::Signed(1));
    let stopped = score.stopped_before.map_or_else(String::new, |planned| format!(", stopped before {planned}"));
    format!("{name} {points} points ({} of {}{stopped})", score.successes, score.trials)
}

/// A quantized cache with its size where it is compared.
struct Candidate<'a> {
    run: &'a Run,
    bytes: Option<f64>,
    verdict: Verdict,
}

fn advise<'a>(subject: &Subject<'a>, bound: &Bound) -> Advice<'a> {
    let ground = subject.common_ground();
    let row = |cache: &str| ground.and_then(|(context, batch)| subject.row(cache, context, batch));
    let baseline = subject.baseline().and_then(row);
    let mut candidates: Vec<Candidate<'a>> = subject
        .runs
        .iter()
        .filter(|run| run.quantized())
        .map(|run| Candidate {
            run,
            bytes: row(&run.cache).and_then(Row::cache_bytes),
            verdict: judge(&run.quality, bound),
        })
        .collect();
    // Smallest first; those whose size is unknown last.
    candidates.sort_by(|a, b| a.bytes.unwrap_or(f64::INFINITY).total_cmp(&b.bytes.unwrap_or(f64::INFINITY)));
    // By the ledger where no unquantized cache was measured at that place.
    let unquantized = |row: &Row<'_>| baseline.and_then(Row::cache_bytes).or(row.unquantized_bytes());
    let smaller = |c: &Candidate<'_>| match (c.bytes, row(&c.run.cache).and_then(unquantized)) {
        (Some(bytes), Some(full)) => bytes < full,
        (bytes, _) => bytes.is_some(),
    };
    let chosen = candidates.iter().position(|c| matches!(c.verdict, Verdict::Keeps(_)) && smaller(c));
    let others =
        candidates.iter().enumerate().filter(|(i, _)| Some(*i) != chosen).map(|(_, c)| other_words(c)).collect();
    let mut advice = Advice {
        subject: subject.name.clone(),
        choice: chosen.map(|i| candidates[i].run),
        headline: String::new(),
        reason: String::new(),
        saves: None,
        costs: None,
        caveats: left_out(subject),
        others,
    };
    match chosen.map(|i| &candidates[i]) {
        Some(chosen) => {
            let Verdict::Keeps(words) = &chosen.verdict else { return advice };
            advice.headline = format!("For {}, use {}.", subject.name, chosen.run.cache);
            advice.reason = format!("The smallest measured cache that keeps to the bound: {words}.");
            let place = row(&chosen.run.cache).zip(ground);
            advice.saves = place.and_then(|(row, ground)| saves(row, unquantized(row)?, ground));
            advice.costs = place
                .zip(baseline)
                .map(|((row, _), full)| (row, full))
                .filter(within_memory)
                .and_then(|(row, full)| costs(row, full));
            advice.caveats.extend(caveats(subject, chosen.run, baseline.is_some(), advice.saves.is_some()));
        }
        None => {
            let tested = candidates.iter().any(|c| c.verdict != Verdict::Unknown);
            // Quality alone says nothing about size.
            let unsized_caches: Vec<&str> = candidates
                .iter()
                .filter(|c| matches!(c.verdict, Verdict::Keeps(_)) && c.bytes.is_none())
                .map(|c| c.run.cache.as_str())
                .collect();
            if !unsized_caches.is_empty() {
                advice.headline = format!(
                    "For {}, {} keeps to the bound; its size was not measured.",
                    subject.name,
                    unsized_caches.join(" or ")
                );
                advice.reason = "Measure it: kvprof run without --no-profile.".into();
                return advice;
            }
            advice.headline = match (candidates.is_empty(), tested) {
                (true, _) => format!("For {}, no quantized cache was measured.", subject.name),
                (_, false) => format!("For {}, the quality of no quantized cache was measured.", subject.name),
                _ => format!("For {}, keep the unquantized cache.", subject.name),
            };
            advice.reason = match (candidates.is_empty(), tested) {
                (true, _) => "Measure some: kvprof run --kv-quant int8-hqq int4-hqq int2-hqq-kivi.".into(),
                (_, false) => "Measure it: kvprof run with the benchmarks ppl and needle.".into(),
                _ => "No quantized cache that was measured keeps to the bound and is smaller.".into(),
            };
        }
    }
    advice
}

fn saves(row: &Row<'_>, before: f64, (context, batch): (usize, usize)) -> Option<String> {
    let bytes = row.cache_bytes().filter(|_| before > 0.0)?;
    let batch = if batch == 1 { String::new() } else { format!(" and batch {batch}") };
    Some(format!(
        "{} instead of {} of cache at {} tokens of context{batch}: {} less, {}× smaller.",
        number::bytes(bytes),
        number::bytes(before),
        number::tokens(context),
        number::shown(1.0 - bytes / before, Digits::Percent(0)),
        number::significant(before / bytes, 2)
    ))
}

/// Whether neither spilled to the host's memory: times and energy of those that did are the host link's.
fn within_memory((row, full): &(&Row<'_>, &Row<'_>)) -> bool {
    !row.spilled() && !full.spilled()
}

fn costs(row: &Row<'_>, full: &Row<'_>) -> Option<String> {
    let change = |new: f64, old: f64| number::shown(new / old - 1.0, Digits::SignedPercent(0));
    let mut parts = Vec::new();
    if let Some((new, old)) = row.decode_rate().zip(full.decode_rate()).filter(|(_, old)| *old > 0.0) {
        let [a, b] = [new, old].map(|v| number::significant(v, 3));
        parts.push(format!("decoding at {a} instead of {b} tokens/s ({})", change(new, old)));
    }
    let prefill = |r: &Row<'_>| r.measured.and_then(|m| m.prefill_ms).filter(|ms| *ms > 0.0);
    if let Some((new, old)) = prefill(row).zip(prefill(full)) {
        let [a, b] = [new, old].map(|v| number::significant(v, 3));
        parts.push(format!("a prefill of {a} instead of {b} ms ({})", change(new, old)));
    }
    if let Some((new, old)) = row.energy_j().zip(full.energy_j()) {
        let [a, b] = [new, old].map(|v| number::significant(v, 3));
        parts.push(format!("{a} instead of {b} J per token ({})", change(new, old)));
    }
    let last = parts.pop()?;
    let text = if parts.is_empty() { last } else { format!("{} and {last}", parts.join(", ")) };
    let mut letters = text.chars();
    let first = letters.next()?;
    Some(format!("{}{}.", first.to_uppercase(), letters.as_str()))
}

fn caveats(subject: &Subject<'_>, chosen: &Run, baseline: bool, saves: bool) -> Vec<String> {
    let mut out = Vec::new();
    if !baseline {
        let so = match saves {
            true => "so costs are not known, and what is saved is by the cache's own ledger",
            false => "so savings and costs are not known",
        };
        out.push(format!("No unquantized cache was measured at the same place, {so}."));
    }
    if chosen.quality.ln_ratio.is_some() && chosen.quality.ln_ratio_estimate.is_none() {
        out.push("The file records no uncertainty of the perplexity difference.".into());
    }
    if chosen.quality.ln_ratio.is_none() {
        out.push("Perplexity was not measured.".into());
    }
    let of_cache = |row: &Row<'_>| row.run.quantized() && row.run.cache == chosen.cache;
    let did_not_fit = |name: &str, wanted: &dyn Fn(&Row<'_>) -> bool| {
        let rows = subject.rows.iter().filter(|row| row.spilled() && wanted(row));
        let at: BTreeSet<usize> = rows.filter_map(Row::context).collect();
        let at: Vec<String> = at.into_iter().map(number::tokens).collect();
        (!at.is_empty()).then(|| {
            format!(
                "At {} tokens {name} did not fit into device memory; its times there are the host link's.",
                at.join(", ")
            )
        })
    };
    out.extend(did_not_fit("the unquantized cache", &|row| !row.run.quantized()));
    out.extend(did_not_fit(&chosen.cache, &of_cache));
    out
}

fn other_words(candidate: &Candidate<'_>) -> (String, String) {
    let size = candidate.bytes.map_or_else(String::new, |b| format!("{}: ", number::bytes(b)));
    let words = match &candidate.verdict {
        Verdict::Keeps(words) => format!("{size}keeps to the bound; {words}"),
        Verdict::Breaks(words) => format!("{size}breaks the bound; {words}"),
        Verdict::Unknown => format!("{size}quality not measured"),
    };
    (candidate.run.cache.clone(), words)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::stats::Estimate;

    fn quality(rise: f64, error: Option<f64>) -> Quality {
        let value = rise.ln_1p();
        let ln_ratio_estimate = error.map(|error| Estimate { value, error, blocks: 0 });
        Quality { ln_ratio: Some(value), ln_ratio_estimate, ..Quality::default() }
    }

    /// A result file.
    fn parsed(quant: &str, blocks: &str) -> crate::schema::RunResult {
        let text = format!(
            r#"{{"schema_version":"3.0","experiment_id":"e","timestamp":"t","model":"m","model_config":{{"num_params_b":1,
            "num_layers":1,"num_q_heads":1,"num_kv_heads":1,"gqa_ratio":"1:1","head_dim":8,"max_position_embeddings":64}},
            "attn_backend":"fused","kv_quant":{quant},"environment":{{}},"hardware":{{}},"config":{{"seed":1,"warmup_runs":0,
            "measure_runs":1,"decode_tokens":4,"ppl_dataset":"b","ppl_tokens":16}},"measurements":[],
            "benchmarks":{{{blocks}}},"combo_elapsed_s":1.0}}"#
        );
        crate::schema::read::parse(std::path::Path::new("a.json"), text.as_bytes()).unwrap()
    }

    #[test]
    fn the_upper_end_of_the_interval_decides() {
        let bound = Bound::default();
        assert!(matches!(judge(&quality(0.009, None), &bound), Verdict::Keeps(_)));
        assert!(matches!(judge(&quality(0.009, Some(0.002)), &bound), Verdict::Breaks(_)));
        assert!(matches!(judge(&quality(0.011, None), &bound), Verdict::Breaks(_)));
        assert_eq!(judge(&Quality::default(), &bound), Verdict::Unknown);
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
        assert_eq!(advice.headline, "For m, INT8-HQQ keeps to the bound; its size was not measured.");
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
            [([true, false, false], "the unquantized cache", both), ([false, true, false], "INT4-HQQ", both / 2)]
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
    fn a_score_may_fall_to_the_bound_and_no_further() {
        let with = |delta: f64| Quality {
            needle: Some(Score { delta: Some(delta), ..Score::default() }),
            ..quality(0.0, None)
        };
        assert!(matches!(judge(&with(-0.02), &Bound::default()), Verdict::Keeps(_)));
        let Verdict::Breaks(words) = judge(&with(-0.05), &Bound::default()) else { panic!("kept") };
        assert!(words.contains("needle") && !words.contains("perplexity"), "{words}");
        let nothing = Score { trials: 15, delta: Some(0.0), ..Score::default() };
        let quality = Quality { needle: Some(nothing), ..Quality::default() };
        assert_eq!(judge(&quality, &Bound::default()), Verdict::Unknown, "what cannot fall says nothing");
        let stopped = Score { successes: 5, trials: 12, stopped_before: Some(200), ..Score::default() };
        assert_eq!(score_words("MMLU", &stopped, 0.0), "MMLU 0.0 points (5 of 12, stopped before 200)");
    }
}
