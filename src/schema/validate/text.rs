//! What must hold within the scores of a text: perplexities, and divergences with their spread.

use super::{DERIVED, differs};
use crate::schema::{Benchmarks, Kld, KldBin, Perplexity};

/// Findings on the perplexities and the divergence of a file; `ours`: of one that is not 2.0's.
pub(super) fn scores(b: &Benchmarks, quantized: bool, ours: bool, findings: &mut Vec<String>) {
    for (name, p) in [("perplexity", &b.perplexity), ("perplexity_quantized", &b.perplexity_quantized)] {
        let Some(p) = p else { continue };
        perplexity(p, ours, &mut |text| findings.push(format!("benchmarks.{name}: {text}")));
    }
    if let Some(p) = &b.perplexity_quantized {
        let reference = b.perplexity.as_ref();
        change(p, reference, quantized, ours, findings);
    }
    if let Some(kld) = &b.kld {
        divergence(kld, &mut |text| findings.push(format!("benchmarks.kld: {text}")));
    }
}

fn perplexity(p: &Perplexity, ours: bool, find: &mut dyn FnMut(String)) {
    if p.tokens == 0 {
        find("it scored no token".into());
    }
    // No token's probability is above 1. Of text that is known by heart the mean may round to it.
    if p.value < 1.0 - DERIVED {
        find(format!("a value of {} is below 1, as if tokens were more than certain", p.value));
    }
    if let Some(nll) = p.nll.filter(|nll| ours && (nll.exp() - p.value).abs() > 1e-6 * p.value.abs()) {
        find(format!("the value is {}, but exp(nll) is {}", p.value, nll.exp()));
    }
    if let Some(nll) = p.nll {
        among_sections("nll", nll, &p.by_section, find);
    }
    scored_part(p.window, p.burn_in, find);
}

/// A quantized cache's perplexity beside the unquantized one's.
fn change(p: &Perplexity, reference: Option<&Perplexity>, quantized: bool, ours: bool, findings: &mut Vec<String>) {
    if !quantized {
        findings.push("benchmarks.perplexity_quantized in a run whose cache is not quantized".into());
    }
    if ours && p.quantized_read_fraction == Some(0.0) {
        findings.push("benchmarks.perplexity_quantized never read a code".into());
    }
    if let (Some(delta), Some(reference)) = (p.delta, p.reference_value)
        && (p.value - reference - delta).abs() > 1e-9 * p.value.abs().max(1.0)
    {
        findings.push(format!("benchmarks.perplexity_quantized: {} − {reference} is not {delta}", p.value));
    }
    if let (Some(ln_ratio), Some(reference)) = (p.ln_ratio, p.reference_value)
        && (p.value / reference - ln_ratio.exp()).abs() > 1e-6 * ln_ratio.exp()
    {
        let ratio = p.value / reference;
        let from = format!("{} over {reference} is {ratio}", p.value);
        findings.push(format!("benchmarks.perplexity_quantized: {from}, but exp(ln_ratio) is {}", ln_ratio.exp()));
    }
    let Some(reference) = reference else { return };
    if reference.tokens != p.tokens {
        findings.push(format!("benchmarks: the reference scored {} tokens, not {}", reference.tokens, p.tokens));
    }
    if let Some(value) = p.reference_value.filter(|value| differs(*value, reference.value)) {
        findings.push(format!(
            "benchmarks.perplexity_quantized.reference_value is {value}, but perplexity.value is {}",
            reference.value
        ));
    }
}

fn divergence(kld: &Kld, find: &mut dyn FnMut(String)) {
    if kld.tokens == 0 {
        find("it scored no token".into());
    }
    let spread = [kld.median, kld.p90, kld.p99, kld.p999, kld.max];
    in_order("", kld.mean, spread, find);
    among_sections("mean", kld.mean, &kld.by_section, find);
    scored_part(kld.window, kld.burn_in, find);
    for (at, bin) in kld.by_position.iter().enumerate() {
        let KldBin { from, to, tokens, .. } = *bin;
        let at = format!("by_position[{at}]");
        if from >= to || tokens == 0 {
            find(format!("{at} has {tokens} tokens of the places {from} to {to}"));
        }
        in_order(&format!("{at}."), bin.mean, [bin.median, bin.p90, bin.p99, bin.p999, bin.max], find);
    }
    let overlap = kld.by_position.windows(2).find(|bins| bins[0].to > bins[1].from);
    if let Some([first, second]) = overlap.map(|bins| [&bins[0], &bins[1]]) {
        find(format!("by_position has a bin from {} behind one to {}", second.from, first.to));
    }
    let tokens = kld.by_position.iter().fold(0usize, |sum, bin| sum.saturating_add(bin.tokens));
    if !kld.by_position.is_empty() && tokens != kld.tokens {
        find(format!("by_position has {tokens} tokens, not {}", kld.tokens));
    }
    let largest = kld.by_position.iter().filter_map(|bin| bin.max).reduce(f64::max);
    if let Some((largest, max)) = largest.zip(kld.max).filter(|(largest, max)| differs(*largest, *max)) {
        find(format!("the largest max of by_position is {largest}, not max, {max}"));
    }
}

/// A mean that is not negative but by rounding nor above the maximum, and percentiles (`spread`: the median, p90, p99, p99.9, the maximum)
/// none of which is less than the one before it.
fn in_order(at: &str, mean: f64, spread: [Option<f64>; 5], find: &mut dyn FnMut(String)) {
    if mean < -1e-6 {
        find(format!("{at}mean is {mean}: a mean divergence is not negative"));
    }
    let names = ["median", "p90", "p99", "p999", "max"];
    let known: Vec<(&str, f64)> = names.into_iter().zip(spread).filter_map(|(name, v)| Some((name, v?))).collect();
    let less = |value: f64, than: f64| value < than && differs(value, than);
    if let Some([(low, below), (high, above)]) =
        known.windows(2).find(|pair| less(pair[1].1, pair[0].1)).map(|pair| [pair[0], pair[1]])
    {
        find(format!("{at}{high} is {above}, which is less than {low}, {below}"));
    }
    if let Some(max) = spread[4].filter(|max| less(*max, mean)) {
        find(format!("{at}max is {max}, which is less than mean, {mean}"));
    }
}

/// A mean lies among those of the sections of its text.
fn among_sections(name: &str, mean: f64, sections: &[f64], find: &mut dyn FnMut(String)) {
    let least = sections.iter().copied().reduce(f64::min);
    let most = sections.iter().copied().reduce(f64::max);
    let Some((least, most)) = least.zip(most) else { return };
    let nearest = if mean < least { least } else { most };
    if (mean < least || mean > most) && differs(mean, nearest) {
        find(format!("{name} is {mean}, but its sections (by_section) are {least} to {most}"));
    }
}

fn scored_part(window: Option<usize>, burn_in: Option<usize>, find: &mut dyn FnMut(String)) {
    if let Some((window, burn_in)) = window.zip(burn_in).filter(|(window, burn_in)| burn_in >= window) {
        find(format!("a burn_in of {burn_in} tokens leaves none of a window of {window} to score"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A change to a sound score, and what is said of it.
    type Broken<T> = (fn(&mut T), &'static str);

    fn found(b: Benchmarks) -> Vec<String> {
        let mut findings = Vec::new();
        scores(&b, true, true, &mut findings);
        findings
    }

    fn kld(change: impl Fn(&mut Kld)) -> Benchmarks {
        let bin = |from: usize, max| KldBin {
            from,
            to: from + 10,
            tokens: 20,
            mean: 0.2,
            median: Some(0.1),
            p90: Some(0.3),
            p99: Some(0.4),
            p999: Some(0.5),
            max: Some(max),
            ..KldBin::default()
        };
        let mut kld = Kld {
            tokens: 40,
            mean: 0.2,
            median: Some(0.1),
            p90: Some(0.3),
            p99: Some(0.4),
            p999: Some(0.5),
            max: Some(0.7),
            by_position: vec![bin(10, 0.6), bin(20, 0.7)],
            by_section: vec![0.1, 0.3],
            window: Some(30),
            burn_in: Some(10),
            ..Kld::default()
        };
        change(&mut kld);
        Benchmarks { kld: Some(kld), ..Default::default() }
    }

    #[test]
    fn a_divergence_whose_spread_contradicts_itself_is_told_by_field_and_numbers() {
        assert_eq!(found(kld(|_| {})), Vec::<String>::new());
        // Older files do not have all of it.
        let older = |k: &mut Kld| {
            (k.p90, k.max, k.by_section) = (None, None, Vec::new());
            k.by_position.iter_mut().for_each(|bin| (bin.p90, bin.p999, bin.max) = (None, None, None));
        };
        assert_eq!(found(kld(older)), Vec::<String>::new());
        let broken: [Broken<Kld>; 11] = [
            (|k| k.p90 = Some(0.05), "p90 is 0.05, which is less than median, 0.1"),
            (|k| (k.p90, k.p99) = (None, Some(0.05)), "p99 is 0.05, which is less than median, 0.1"),
            (|k| k.p999 = Some(0.8), "max is 0.7, which is less than p999, 0.8"),
            (|k| k.by_position[0].p99 = Some(9.0), "by_position[0].p999 is 0.5, which is less than p99, 9"),
            (|k| k.by_position[1].mean = -0.1, "by_position[1].mean is -0.1: a mean divergence is not negative"),
            (|k| k.by_position[1].mean = 0.8, "by_position[1].max is 0.7, which is less than mean, 0.8"),
            (|k| k.by_position[0].to = 10, "by_position[0] has 20 tokens of the places 10 to 10"),
            (|k| k.by_position[0].to = 21, "by_position has a bin from 20 behind one to 21"),
            (|k| k.tokens = 41, "by_position has 40 tokens, not 41"),
            (|k| k.by_position[1].max = Some(0.65), "the largest max of by_position is 0.65, not max, 0.7"),
            (|k| k.by_section[1] = 0.15, "mean is 0.2, but its sections (by_section) are 0.1 to 0.15"),
        ];
        for (change, said) in broken {
            assert_eq!(found(kld(change)), [format!("benchmarks.kld: {said}")]);
        }
    }

    #[test]
    fn a_perplexity_that_cannot_be_is_told() {
        let of = |change: fn(&mut Perplexity)| {
            let mut p = Perplexity {
                tokens: 40,
                value: 2f64.exp(),
                nll: Some(2.0),
                by_section: vec![1.0, 3.0],
                window: Some(30),
                burn_in: Some(10),
                ..Default::default()
            };
            change(&mut p);
            found(Benchmarks { perplexity: Some(p), ..Default::default() })
        };
        assert_eq!(of(|_| {}), Vec::<String>::new());
        let broken: [Broken<Perplexity>; 4] = [
            (|p| p.tokens = 0, "it scored no token"),
            (
                |p| (p.value, p.nll, p.by_section) = (0.5, None, Vec::new()),
                "a value of 0.5 is below 1, as if tokens were more than certain",
            ),
            (|p| p.by_section[1] = 1.5, "nll is 2, but its sections (by_section) are 1 to 1.5"),
            (|p| p.burn_in = Some(30), "a burn_in of 30 tokens leaves none of a window of 30 to score"),
        ];
        for (change, said) in broken {
            assert_eq!(of(change), [format!("benchmarks.perplexity: {said}")]);
        }
    }

    #[test]
    fn a_quantized_perplexity_is_held_to_the_reference_beside_it() {
        let of = |value| Perplexity { tokens: 40, value, ..Default::default() };
        let found = |reference_value| {
            found(Benchmarks {
                perplexity: Some(of(4.0)),
                perplexity_quantized: Some(Perplexity { reference_value, ..of(5.0) }),
                ..Default::default()
            })
        };
        assert_eq!((found(Some(4.0)), found(None)), (Vec::new(), Vec::new()));
        assert_eq!(
            found(Some(3.0)),
            ["benchmarks.perplexity_quantized.reference_value is 3, but perplexity.value is 4"]
        );
    }
}
