//! Many values in few numbers.

/// Counts by size, in bins whose width grows with the value: a bin's upper edge is a fixed ratio above its lower one, so that
/// small and large values are told apart equally well.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Histogram {
    /// Upper edge of each bin but the last, which is open; ascending, in the unit of the values.
    pub edges: Vec<f64>,
    /// Values in each bin: one more than there are edges, or none at all for no values.
    pub counts: Vec<u64>,
}

/// Ratio of a bin's edges, as long as there are no more than `MOST_BINS`.
const NARROWEST: f64 = 1.02;
const MOST_BINS: usize = 64;

impl Histogram {
    /// Counts `values`, which must be positive; others are left out.
    pub fn of(values: &[f64]) -> Self {
        let values: Vec<f64> = values.iter().copied().filter(|v| v.is_finite() && *v > 0.0).collect();
        let Some(least) = values.iter().copied().reduce(f64::min) else { return Histogram::default() };
        let most = values.iter().copied().fold(least, f64::max);
        let bins = ((most / least).ln() / NARROWEST.ln()).ceil().clamp(1.0, MOST_BINS as f64) as usize;
        let ratio = (most / least).powf(1.0 / bins as f64);
        let edges: Vec<f64> = (1..bins).map(|i| least * ratio.powi(i as i32)).collect();
        let mut counts = vec![0; bins];
        for value in values {
            counts[edges.partition_point(|edge| *edge <= value)] += 1;
        }
        Histogram { edges, counts }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_value_is_counted_between_its_edges() {
        let values: Vec<f64> = (1..=1000).map(|i| f64::from(i) / 10.0).collect();
        let histogram = Histogram::of(&values);
        assert_eq!(histogram.counts.len(), MOST_BINS);
        assert_eq!(histogram.edges.len(), MOST_BINS - 1);
        assert_eq!(histogram.counts.iter().sum::<u64>(), 1000);
        assert!(histogram.edges.is_sorted());
        let below = |edge: f64| values.iter().filter(|v| **v < edge).count() as u64;
        assert_eq!(histogram.counts[..10].iter().sum::<u64>(), below(histogram.edges[9]));
    }

    #[test]
    fn few_or_equal_values_need_one_bin() {
        assert_eq!(Histogram::of(&[2.0, 2.0]), Histogram { edges: vec![], counts: vec![2] });
        assert_eq!(Histogram::of(&[0.0, f64::NAN]), Histogram::default());
        // Two clusters a factor of five apart stay apart.
        let two = Histogram::of(&[1.0, 1.001, 5.0]);
        assert_eq!((two.counts.first(), two.counts.last()), (Some(&2), Some(&1)));
    }
}
