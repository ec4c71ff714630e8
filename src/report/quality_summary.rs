//! The table of divergence and question sets at the end of a run.

use super::identity::{self, Row};
use super::label::quantization;
use super::number::{self, Digits};
use super::scoring::{self, of_run};
use super::terminal::{TerminalTable, absent};
use crate::schema::{Accuracy, Kld, RunResult};

/// One row for each result that has a divergence, MMLU or MATH; `None` when no result has.
pub fn table(results: &[&RunResult]) -> Option<TerminalTable> {
    let any = |has: fn(&RunResult) -> bool| results.iter().any(|r| has(r));
    let kld = any(|r| r.divergence().is_some());
    let (mmlu, math) = (any(|r| r.benchmarks.mmlu.is_some()), any(|r| r.benchmarks.math.is_some()));
    if !(kld || mmlu || math) {
        return None;
    }
    let over = |scoring: scoring::Of| {
        let rows: Vec<_> = results.iter().map(|result| scoring(result)).collect();
        scoring::telling(&rows)
    };
    let (kld_over, mmlu_over, math_over) = (over(of_run::kld), over(of_run::mmlu), over(of_run::math));
    let rows: Vec<Row<'_>> = results.iter().map(|result| (*result, None)).collect();
    let varying = identity::varying(&rows);
    let mut header: Vec<&str> = varying.iter().map(|identity| identity.head).chain(["KV cache"]).collect();
    if kld {
        header.extend(kld_over.iter().map(|_| "KL over"));
        header.extend(["KL mean ± 95 %, nats", "KL p99, nats", "same top"]);
    }
    if mmlu {
        header.extend(mmlu_over.iter().map(|_| "MMLU over"));
        header.extend(["MMLU", "Δ points (p)"]);
    }
    if math {
        header.extend(math_over.iter().map(|_| "MATH over"));
        header.extend(["MATH", "Δ points (p)", "unparsed", "corrupted"]);
    }
    let names = varying.len() + 1;
    let mut table = TerminalTable::new(header, names).right_from(names);
    for (at, result) in results.iter().enumerate() {
        let over = |words: &Option<Vec<String>>| words.as_ref().map(|words| words[at].clone());
        let b = &result.benchmarks;
        let mut row = identity::cells(&varying, result);
        row.push(quantization(result));
        if kld {
            row.extend(over(&kld_over));
            row.extend(divergence(result.divergence()));
        }
        if mmlu {
            row.extend(over(&mmlu_over));
            row.extend(score(b.mmlu.as_ref(), result.kv_quant.enabled));
        }
        if math {
            row.extend(over(&math_over));
            row.extend(score(b.math.as_ref(), result.kv_quant.enabled));
            let count = |n: Option<usize>| n.map_or_else(absent, |n| n.to_string());
            row.push(count(b.math.as_ref().and_then(|m| m.unparsed)));
            row.push(count(b.math.as_ref().and_then(|m| m.corrupted)));
        }
        table.add_row(row);
    }
    Some(table)
}

/// Mean with the upper half of its interval (the lower may end at 0), 99th percentile, share of equal top tokens.
fn divergence(kld: Option<&Kld>) -> [String; 3] {
    let Some(kld) = kld else { return [absent(), absent(), absent()] };
    let half = kld.intervals.as_ref().map(|i| format!(" ± {:.1e}", i.mean.1 - kld.mean)).unwrap_or_default();
    [
        format!("{:.2e}{half}", kld.mean),
        kld.p99.map_or_else(absent, |v| format!("{v:.2e}")),
        kld.top1_agreement.map_or_else(absent, |v| format!("{:.2} %", 100.0 * v)),
    ]
}

/// Share of right answers with its interval; the change of a `quantized` cache against the unquantized one with McNemar's p.
fn score(score: Option<&Accuracy>, quantized: bool) -> [String; 2] {
    let Some(score) = score else { return [absent(), absent()] };
    let interval = score.paired.interval.map(|(low, high)| format!(" [{:.1}, {:.1}]", 100.0 * low, 100.0 * high));
    // A cache is not held against itself.
    let paired = score.paired.delta.zip(score.paired.mcnemar_p).filter(|_| quantized);
    let change = paired.map(|(delta, p)| format!("{} ({p:.2})", number::shown(100.0 * delta, Digits::Signed(1))));
    [format!("{:.1} %{}", 100.0 * score.accuracy, interval.unwrap_or_default()), change.unwrap_or_else(absent)]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schema::{Benchmarks, KldIntervals, Paired, bare_result};

    #[test]
    fn divergence_is_told_with_half_its_interval() {
        let intervals = KldIntervals { mean: (0.001, 0.003), ..Default::default() };
        let kld = Kld { mean: 0.002, p99: Some(0.03), intervals: Some(intervals), ..Default::default() };
        assert_eq!(divergence(Some(&kld)), ["2.00e-3 ± 1.0e-3".to_string(), "3.00e-2".into(), "–".into()]);
    }

    #[test]
    fn a_score_is_told_with_its_interval_and_change() {
        let accuracy = Accuracy {
            accuracy: 0.25,
            paired: Paired {
                interval: Some((0.2, 0.31)),
                delta: Some(-0.03),
                mcnemar_p: Some(0.5),
                ..Default::default()
            },
            ..Default::default()
        };
        assert_eq!(score(Some(&accuracy), true), ["25.0 % [20.0, 31.0]".to_string(), "−3.0 (0.50)".into()]);
        assert_eq!(score(Some(&accuracy), false)[1], "–", "the unquantized cache has no change");
    }

    #[test]
    fn the_unquantized_cache_has_no_divergence_from_itself() {
        let result = |enabled: bool, mmlu: Option<Accuracy>| {
            let kld = Some(Kld { tokens: 64, p99: Some(0.03), ..Default::default() });
            let mut result = bare_result();
            result.kv_quant.enabled = enabled;
            RunResult { benchmarks: Benchmarks { kld, mmlu, ..Default::default() }, ..result }
        };
        let (none, int4) = (result(false, None), result(true, None));
        let text = table(&[&none, &int4]).unwrap().to_string();
        let rows: Vec<&str> = text.lines().filter(|line| line.starts_with('│')).skip(1).collect();
        assert_eq!((rows[0].matches('–').count(), rows[1].matches("3.00e-2").count()), (2, 1), "{text}");
        assert!(table(&[&none]).is_none(), "a column of nothing is left out");
        assert!(!table(&[&result(false, Some(Accuracy::default()))]).unwrap().to_string().contains("KL"));
    }
}
