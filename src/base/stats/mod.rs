//! The one place where numbers are summarized and compared: every block of a result, every comparison and every program in
//! `benches/` uses these.

mod histogram;
mod interval;
mod paired;
mod series;

use serde::{Deserialize, Serialize};

pub use histogram::Histogram;
pub use interval::wilson;
pub use paired::{
    Change, PairTable, change_of_log, independent_rates, items_to_exclude, mcnemar_exact, paired_rates,
    ratio_of_medians, section_means,
};
pub use series::{
    Estimate, blocks, mean_difference, percentile_interval, root_mean_square_interval, section_difference,
    section_log_ratio, share_interval,
};

/// Summary of repeated measurements, in the unit of the measurements.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct Summary {
    /// Middle value (mean of the two middle ones for an even count).
    pub median: f64,
    /// Arithmetic mean.
    pub mean: f64,
    /// Sample standard deviation (n − 1); `null` for a single value, which shows no spread (0 in older files).
    pub sd: Option<f64>,
    /// 10th percentile, linearly interpolated.
    pub p10: f64,
    /// 90th percentile, linearly interpolated.
    pub p90: f64,
    /// Every value, in the order measured.
    pub raw: Vec<f64>,
}

impl Summary {
    /// Summarizes `raw`; `None` when it is empty.
    pub fn of(raw: &[f64]) -> Option<Self> {
        Some(Summary {
            median: median(raw)?,
            mean: mean(raw)?,
            sd: sd(raw),
            p10: percentile(raw, 10.0)?,
            p90: percentile(raw, 90.0)?,
            raw: raw.to_vec(),
        })
    }

    /// Standard deviation; older files have 0 for a single value, which shows none.
    pub fn spread(&self) -> Option<f64> {
        self.sd.filter(|_| self.raw.len() > 1)
    }

    /// Relative change from the first to the last value; 0 for fewer than two.
    pub fn drift(&self) -> f64 {
        match (self.raw.first(), self.raw.last()) {
            (Some(first), Some(last)) if *first != 0.0 => last / first - 1.0,
            _ => 0.0,
        }
    }
}

/// Arithmetic mean; `None` when empty.
pub fn mean(values: &[f64]) -> Option<f64> {
    (!values.is_empty()).then(|| values.iter().sum::<f64>() / values.len() as f64)
}

/// Sample standard deviation (n − 1); `None` for fewer than two values, which show no spread.
pub fn sd(values: &[f64]) -> Option<f64> {
    let mean = mean(values).filter(|_| values.len() > 1)?;
    let squares: f64 = values.iter().map(|v| (v - mean).powi(2)).sum();
    Some((squares / (values.len() - 1) as f64).sqrt())
}

/// Standard error of the mean of independent `values`; `None` for fewer than two.
pub fn standard_error(values: &[f64]) -> Option<f64> {
    Some(sd(values)? / (values.len() as f64).sqrt())
}

/// Standard normal deviate of a two-sided 95 % interval.
pub const Z95: f64 = 1.959_963_984_540_054;

/// The `p`-th percentile (0…100), linearly interpolated between ranks; `None` when empty.
pub fn percentile(values: &[f64], p: f64) -> Option<f64> {
    if values.is_empty() {
        return None;
    }
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let rank = (p / 100.0).clamp(0.0, 1.0) * (sorted.len() - 1) as f64;
    let (low, high) = (rank.floor() as usize, rank.ceil() as usize);
    Some(sorted[low] + (sorted[high] - sorted[low]) * (rank - low as f64))
}

/// Middle value; the mean of the two middle ones for an even count. `None` when empty.
pub fn median(values: &[f64]) -> Option<f64> {
    percentile(values, 50.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_summary_of_known_values() {
        let s = Summary::of(&[4.0, 1.0, 3.0, 2.0]).unwrap();
        assert_eq!((s.median, s.mean), (2.5, 2.5));
        assert!((s.sd.unwrap() - 1.290_994_448_735_805_6).abs() < 1e-12);
        assert!((s.p10 - 1.3).abs() < 1e-12 && (s.p90 - 3.7).abs() < 1e-12);
        assert_eq!(s.drift(), -0.5);
        assert!(Summary::of(&[]).is_none());
        assert!((standard_error(&[4.0, 1.0, 3.0, 2.0]).unwrap() - s.sd.unwrap() / 2.0).abs() < 1e-12);
        assert_eq!((standard_error(&[4.0]), Summary::of(&[4.0]).unwrap().sd), (None, None));
    }
}
