//! What two next-token distributions have to do with the true token and with each other.
//!
//! On a CPU a row of logits is read where it lies, all quantities in one go; on a GPU the same quantities are tensor
//! operations. A test holds the two to each other.

use candle_core::{D, Device, Tensor};
use rayon::prelude::*;

use crate::Result;

/// One predicted position.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Pair {
    /// Negative log-likelihood of the true token under the reference, nats.
    pub reference_nll: f32,
    /// The same under the cache under test.
    pub nll: f32,
    /// KL(reference ‖ cache under test), nats.
    pub kl: f32,
    /// Whether both rank the same token first.
    pub same_top: bool,
}

/// Negative log-likelihood of each row's target, nats; `logits` is `[R, V]` f32, contiguous.
///
/// # Errors
/// When the device fails.
pub fn nll(logits: &Tensor, targets: &[u32]) -> Result<Vec<f32>> {
    if let Device::Cpu = logits.device() {
        let width = logits.dim(D::Minus1)?;
        let values = logits.flatten_all()?.to_vec1::<f32>()?;
        let rows = values.par_chunks(width).zip(targets);
        return Ok(rows.map(|(row, target)| (normalizer(row) - f64::from(row[*target as usize])) as f32).collect());
    }
    let targets = Tensor::new(targets, logits.device())?.unsqueeze(1)?;
    let chosen = logits.gather(&targets, 1)?.squeeze(1)?;
    Ok((logits.log_sum_exp(D::Minus1)? - chosen)?.to_vec1()?)
}

/// Both distributions' say on each row's target; `reference` and `tested` are `[R, V]` f32, contiguous.
///
/// # Errors
/// When the device fails.
pub fn compare(reference: &Tensor, tested: &Tensor, targets: &[u32]) -> Result<Vec<Pair>> {
    if let Device::Cpu = reference.device() {
        let width = reference.dim(D::Minus1)?;
        let (reference, tested) = (reference.flatten_all()?.to_vec1::<f32>()?, tested.flatten_all()?.to_vec1::<f32>()?);
        let rows = reference.par_chunks(width).zip(tested.par_chunks(width)).zip(targets);
        return Ok(rows
            .map(|((reference, tested), target)| compare_rows(reference, tested, *target as usize))
            .collect());
    }
    compare_tensors(reference, tested, targets)
}

/// ln Σ exp(row).
fn normalizer(row: &[f32]) -> f64 {
    let largest = largest(row).1;
    f64::from(largest) + row.iter().map(|v| f64::from((v - largest).exp())).sum::<f64>().ln()
}

/// The first of the largest values, with its index.
fn largest(row: &[f32]) -> (usize, f32) {
    row.iter().enumerate().fold((0, f32::NEG_INFINITY), |best, (at, v)| if *v > best.1 { (at, *v) } else { best })
}

fn compare_rows(reference: &[f32], tested: &[f32], target: usize) -> Pair {
    let (top, largest_reference) = largest(reference);
    let (tested_top, largest_tested) = largest(tested);
    let (mut sum, mut tested_sum, mut weighted) = (0f64, 0f64, 0f64);
    for (a, b) in reference.iter().zip(tested) {
        let weight = f64::from((a - largest_reference).exp());
        sum += weight;
        tested_sum += f64::from((b - largest_tested).exp());
        weighted += weight * f64::from(a - b);
    }
    let reference_normalizer = f64::from(largest_reference) + sum.ln();
    let tested_normalizer = f64::from(largest_tested) + tested_sum.ln();
    // Σ p (ln p − ln q); rounding may leave it a hair below zero, where it cannot be.
    let kl = weighted / sum - (reference_normalizer - tested_normalizer);
    Pair {
        reference_nll: (reference_normalizer - f64::from(reference[target])) as f32,
        nll: (tested_normalizer - f64::from(tested[target])) as f32,
        kl: if kl.is_nan() { f32::NAN } else { kl.max(0.0) as f32 },
        same_top: top == tested_top,
    }
}

/// `[R, V]` is large and memory is what this costs: KL = Σ p (a − b) − (ln Σ eᵃ − ln Σ eᵇ) reads it half as often as going
/// through the logarithms of both distributions would.
fn compare_tensors(reference: &Tensor, tested: &Tensor, targets: &[u32]) -> Result<Vec<Pair>> {
    let targets = Tensor::new(targets, reference.device())?.unsqueeze(1)?;
    let (p, top, normalizer) = distribution(reference)?;
    let (_, tested_top, tested_normalizer) = distribution(tested)?;
    let weighted = (p * (reference - tested)?)?.sum(D::Minus1)?;
    let kl = (weighted - (&normalizer - &tested_normalizer)?)?;
    let same = top.eq(&tested_top)?.to_dtype(kl.dtype())?;
    let nll = |logits: &Tensor, normalizer: &Tensor| normalizer - logits.gather(&targets, 1)?.squeeze(1)?;
    // One transfer for all four.
    let columns = [nll(reference, &normalizer)?, nll(tested, &tested_normalizer)?, kl, same];
    let columns = Tensor::stack(&columns, 0)?.to_vec2::<f32>()?;
    let rows = 0..columns[0].len();
    Ok(rows
        .map(|i| Pair {
            reference_nll: columns[0][i],
            nll: columns[1][i],
            // f32::max would hide a NaN.
            kl: if columns[2][i] < 0.0 { 0.0 } else { columns[2][i] },
            same_top: columns[3][i] == 1.0,
        })
        .collect())
}

/// Each row's probabilities `[R, V]`, the place of its largest logit `[R]`, and the logarithm of its sum of exponentials `[R]`.
fn distribution(logits: &Tensor) -> candle_core::Result<(Tensor, Tensor, Tensor)> {
    let p = candle_nn::ops::softmax_last_dim(logits)?;
    let top = logits.argmax_keepdim(D::Minus1)?;
    // The largest probability never underflows.
    let normalizer = (logits.gather(&top, 1)? - p.gather(&top, 1)?.log()?)?.squeeze(1)?;
    Ok((p, top.squeeze(1)?, normalizer))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::rng::SplitMix64;

    fn random(rows: usize, width: usize, seed: u64) -> Tensor {
        let mut rng = SplitMix64::new(seed);
        let values: Vec<f32> = (0..rows * width).map(|_| rng.below(20_000) as f32 / 1000.0 - 10.0).collect();
        Tensor::from_vec(values, (rows, width), &Device::Cpu).unwrap()
    }

    #[test]
    fn known_distributions() {
        // p = (1/2, 1/2), q = (1/4, 3/4): KL = ½ ln 2 + ½ ln ⅔.
        let p = Tensor::new(&[[0f32, 0.0]], &Device::Cpu).unwrap();
        let q = Tensor::new(&[[1f32, 1.0 + 3f32.ln()]], &Device::Cpu).unwrap();
        let pair = compare(&p, &q, &[0]).unwrap()[0];
        assert!((pair.kl - (0.5 * 2f32.ln() + 0.5 * (2f32 / 3.0).ln())).abs() < 1e-6, "{pair:?}");
        assert!((pair.reference_nll - 2f32.ln()).abs() < 1e-6 && (pair.nll - 4f32.ln()).abs() < 1e-6, "{pair:?}");
        assert!(!pair.same_top);
        assert_eq!(nll(&p, &[1]).unwrap(), [2f32.ln()]);
    }

    #[test]
    fn a_distribution_does_not_diverge_from_itself_at_all() {
        let logits = random(8, 1000, 1);
        for pairs in [compare(&logits, &logits, &[3; 8]).unwrap(), compare_tensors(&logits, &logits, &[3; 8]).unwrap()]
        {
            assert!(pairs.iter().all(|p| p.kl == 0.0 && p.same_top && p.nll == p.reference_nll), "{pairs:?}");
        }
    }

    #[test]
    fn rounding_makes_no_divergence_negative() {
        // Logits so alike that what is computed of their divergence is rounding alone, to either side of 0.
        let p = random(256, 500, 1);
        let q = (&p + random(256, 500, 2).affine(1e-7, 0.0).unwrap()).unwrap();
        for pairs in [compare(&p, &q, &[3; 256]).unwrap(), compare_tensors(&p, &q, &[3; 256]).unwrap()] {
            assert!(pairs.iter().all(|pair| pair.kl >= 0.0 && pair.kl < 1e-5), "{pairs:?}");
            assert!(pairs.iter().any(|pair| pair.kl > 0.0), "they differ");
        }
    }

    #[test]
    fn rows_on_the_host_and_tensors_agree() {
        let (p, q) = (random(16, 500, 1), random(16, 500, 2));
        let targets: Vec<u32> = (0..16).collect();
        let host = compare(&p, &q, &targets).unwrap();
        let tensors = compare_tensors(&p, &q, &targets).unwrap();
        for (a, b) in host.iter().zip(&tensors) {
            let close = |x: f32, y: f32| (x - y).abs() <= 1e-4 * x.abs().max(1.0);
            assert!(close(a.kl, b.kl) && close(a.nll, b.nll) && close(a.reference_nll, b.reference_nll), "{a:?} {b:?}");
            assert_eq!(a.same_top, b.same_top);
        }
        let alone = nll(&p, &targets).unwrap();
        assert!(alone.iter().zip(&host).all(|(a, b)| *a == b.reference_nll));
    }

    #[test]
    fn a_value_that_is_no_number_is_not_hidden() {
        let bad = Tensor::new(&[[f32::NAN, 0.0]], &Device::Cpu).unwrap();
        let good = Tensor::new(&[[1f32, 0.0]], &Device::Cpu).unwrap();
        assert!(compare(&good, &bad, &[0]).unwrap()[0].kl.is_nan());
        assert!(compare_tensors(&good, &bad, &[0]).unwrap()[0].kl.is_nan());
    }
}
