//! `--fail-if 'ppl>1%'`: a metric, a direction, and how far it may go.

use super::change::Verdict;
use super::metric::{self, Metric};
use super::{Comparison, Line, Unpaired};
use crate::base::error::{Error, Result};

/// A condition on the change of a metric.
#[derive(Debug, Clone)]
pub struct Condition {
    /// As written.
    pub text: String,
    metric: &'static Metric,
    above: bool,
    inclusive: bool,
    limit: Limit,
}

/// What became of a condition.
#[derive(Debug, Default)]
pub struct Judgement<'a> {
    /// How many changes it was held against.
    pub lines: usize,
    /// Those that cross it.
    pub crossed: Vec<&'a Line>,
    /// Those that would, were they told from noise.
    pub unclear: Vec<&'a Line>,
    /// Where it could not be told, although the base of a pair has the metric.
    pub lost: Vec<&'a Unpaired>,
}

impl Judgement<'_> {
    /// Whether a gate must not open: what cannot be told is no pass.
    pub fn failed(&self) -> bool {
        self.lines == 0 || !self.crossed.is_empty() || !self.lost.is_empty()
    }
}

/// In what a change is measured.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Limit {
    /// As a share of the base.
    Relative(f64),
    /// In the metric's unit.
    Absolute(f64),
}

impl Condition {
    /// Parses `metric` `>`, `>=`, `<` or `<=` `number` and, at the end, `%` (of the base), `pt` (points of a rate) or nothing (the
    /// metric's own unit).
    ///
    /// # Errors
    /// Says what is wrong and what is understood.
    pub fn parse(text: &str) -> Result<Self> {
        let wrong = |why: &str| {
            let names: Vec<&str> = metric::all().map(|m| m.name).collect();
            Error::usage(format!(
                "--fail-if '{text}': {why}; write a metric ({}), >, >=, < or <=, and a change such as 1%, 2pt or 0.05",
                names.join(", ")
            ))
        };
        let place = text.find(['<', '>']).ok_or_else(|| wrong("no < or >"))?;
        let (name, rest) = text.split_at(place);
        let metric = metric::all().find(|m| m.name == name.trim()).ok_or_else(|| wrong("no such metric"))?;
        let above = rest.starts_with('>');
        let rest = &rest[1..];
        let (inclusive, value) = (rest.starts_with('='), rest.strip_prefix('=').unwrap_or(rest).trim());
        let (number, limit): (&str, fn(f64) -> Limit) = if let Some(number) = value.strip_suffix('%') {
            (number, |v| Limit::Relative(v / 100.0))
        } else if let Some(number) = value.strip_suffix("pt") {
            if !metric.points {
                return Err(wrong("points are for rates (needle, mmlu, math)"));
            }
            (number, |v| Limit::Absolute(v / 100.0))
        } else {
            (value, Limit::Absolute)
        };
        let number: f64 = number.trim().parse().map_err(|_| wrong("no number"))?;
        if !number.is_finite() {
            return Err(wrong("the number is not finite"));
        }
        if metric.points && number.abs() > 1.0 && !value.ends_with(['%', 't']) {
            return Err(wrong("a rate changes by at most 1; points are written as in 2pt"));
        }
        Ok(Condition { text: text.into(), metric, above, inclusive, limit: limit(number) })
    }

    /// Holds the condition against every line of its metric.
    pub fn judge<'a>(&self, comparison: &'a Comparison) -> Judgement<'a> {
        let mut judged = Judgement::default();
        for line in comparison.lines.iter().filter(|line| std::ptr::eq(line.metric, self.metric)) {
            // What is not told from noise is no change.
            let change = if line.delta.verdict == Verdict::Same { 0.0 } else { line.delta.change };
            judged.lines += 1;
            if self.holds(line, change) {
                judged.crossed.push(line);
            } else if self.holds(line, line.delta.change) {
                judged.unclear.push(line);
            }
        }
        let lost = |unpaired: &&Unpaired| unpaired.lost.iter().any(|metric| std::ptr::eq(*metric, self.metric));
        judged.lost = comparison.unpaired.iter().filter(lost).collect();
        judged
    }

    /// Whether `change`, that of `line` or none, crosses the condition.
    fn holds(&self, line: &Line, change: f64) -> bool {
        // All from the change that the line shows, which is paired: base and new by themselves may say something else.
        let base = line.delta.base;
        let (value, limit) = match self.limit {
            // Nothing found, and still nothing: no change, though 0 has no percentage.
            Limit::Relative(limit) if line.metric.points && change == 0.0 => (0.0, limit),
            Limit::Relative(limit) if line.metric.points => (change / base, limit),
            Limit::Relative(limit) => (change, limit),
            Limit::Absolute(limit) if line.metric.points => (change, limit),
            Limit::Absolute(limit) => (change * base, limit),
        };
        match (self.above, self.inclusive) {
            (true, false) => value > limit,
            (true, true) => value >= limit,
            (false, false) => value < limit,
            (false, true) => value <= limit,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::change::Delta;
    use super::*;

    fn comparison(name: &str, base: f64, new: f64) -> Comparison {
        let metric = metric::all().find(|m| m.name == name).unwrap();
        let change = if metric.points { new - base } else { new / base - 1.0 };
        let delta = Delta { base, new, change, interval: None, unpaired: None, verdict: Verdict::MaybeWorse };
        let line = Line { model: "m".into(), what: "INT4".into(), place: None, metric, delta, remark: None };
        Comparison { lines: vec![line], unpaired: Vec::new() }
    }

    #[test]
    fn conditions_are_crossed_beyond_their_limit_only() {
        for (text, name, base, new, expected) in [
            ("ppl>1%", "ppl", 10.0, 10.2, true),
            ("ppl > 1 %", "ppl", 10.0, 10.05, false),
            ("ppl>0.1", "ppl", 10.0, 10.2, true),
            ("decode<-5%", "decode", 100.0, 90.0, true),
            ("decode<-5%", "decode", 100.0, 97.0, false),
            ("decode<=-50%", "decode", 100.0, 50.0, true),
            ("needle<-2pt", "needle", 1.0, 0.97, true),
            ("needle<-2pt", "needle", 1.0, 0.99, false),
            ("needle>=0", "needle", 0.5, 0.5, true),
        ] {
            let comparison = comparison(name, base, new);
            let condition = Condition::parse(text).unwrap();
            assert_eq!(condition.judge(&comparison).failed(), expected, "{text} {base} {new}");
        }
    }

    #[test]
    fn a_condition_is_held_against_the_change_that_the_line_shows() {
        // By themselves the rates rose by half; on the pairs, which count, they fell.
        let mut needle = comparison("needle", 0.4, 0.6);
        needle.lines[0].delta.change = -0.1;
        let mut decode = comparison("decode", 100.0, 120.0);
        decode.lines[0].delta.change = -0.1;
        for (text, comparison, expected) in [
            ("needle>10%", &needle, false),
            ("needle<-20%", &needle, true),
            ("needle<-5pt", &needle, true),
            ("decode>5", &decode, false),
            ("decode<-5", &decode, true),
        ] {
            assert_eq!(Condition::parse(text).unwrap().judge(comparison).failed(), expected, "{text}");
        }
        let nothing = comparison("needle", 0.0, 0.0);
        assert!(!Condition::parse("needle<-1%").unwrap().judge(&nothing).failed());
        assert!(Condition::parse("needle>=0%").unwrap().judge(&nothing).failed());
    }

    #[test]
    fn a_change_that_is_not_told_from_noise_is_none() {
        for (text, verdict, failed, unclear) in [
            ("prefill>10%", Verdict::Worse, true, 0),
            ("prefill>10%", Verdict::Same, false, 1),
            ("prefill>30%", Verdict::Same, false, 0),
            // Where the spread is not known, the change is all there is to go by.
            ("prefill>10%", Verdict::MaybeWorse, true, 0),
            // A gate that asks for a gain is not passed by noise.
            ("prefill<10%", Verdict::Same, true, 0),
        ] {
            let mut noisy = comparison("prefill", 100.0, 120.0);
            noisy.lines[0].delta.verdict = verdict;
            let condition = Condition::parse(text).unwrap();
            let judged = condition.judge(&noisy);
            assert_eq!((judged.failed(), judged.unclear.len()), (failed, unclear), "{text} {verdict:?}");
        }
    }

    #[test]
    fn a_metric_that_nobody_measured_is_not_a_pass() {
        assert!(Condition::parse("mmlu<-1pt").unwrap().judge(&comparison("ppl", 1.0, 1.0)).failed());
    }

    #[test]
    fn a_wrong_condition_is_named_with_what_is_understood() {
        for text in
            ["ppl", "perplexity>1%", "ppl>", "ppl>x%", "ppl>1pt", ">1%", "ppl>inf", "ppl=>1%", "ppl>==1%", "needle<-2"]
        {
            let message = Condition::parse(text).unwrap_err().to_string();
            assert!(message.contains(text) && message.contains("needle"), "{message}");
        }
    }
}
