//! Random weights in a configuration's real shapes, for timing and memory without a download.

use std::cell::RefCell;

use candle_core::{DType, Device, Tensor};

use super::Weights;
use crate::{Error, Result};

/// Elements of the random block that fills all tensors: a prime, so that the rows of no matrix line up with it.
const BLOCK: usize = 4_194_301;

/// Standard deviation of weights, as models are initialized.
const STD: f64 = 0.02;

/// Makes any tensor that is asked for. All of one block of N(0, 0.02²) made once on the device, entered at a place that
/// moves on, so that a 7B model takes seconds. The values are finite and never all zero, but mean nothing.
#[derive(Debug, Default)]
pub struct DummyWeights {
    /// The block, and where the next tensor starts in it.
    state: RefCell<Option<(Tensor, usize)>>,
}

impl DummyWeights {
    fn noise(&self, count: usize, dtype: DType, device: &Device) -> Result<Tensor> {
        let mut state = self.state.borrow_mut();
        let (block, start) = match state.take() {
            Some((block, start)) => (block, start),
            None => (random_block(dtype, device)?, 0),
        };
        let mut pieces = Vec::new();
        let (mut at, mut missing) = (start, count);
        while missing > 0 {
            let take = missing.min(BLOCK - at);
            pieces.push(block.narrow(0, at, take)?);
            at = (at + take) % BLOCK;
            missing -= take;
        }
        *state = Some((block, at));
        // `cat` of one piece may be a view of the block: weights must own their memory, or one would be counted as all.
        Ok(Tensor::cat(&pieces, 0)?.force_contiguous()?)
    }
}

/// N(0, 0.02²) of [`BLOCK`] elements. On the CPU seeded by the code, so that runs agree; on a GPU by the device.
fn random_block(dtype: DType, device: &Device) -> Result<Tensor> {
    if device.is_cpu() {
        use rand::{RngExt, SeedableRng};
        let mut rng = rand::rngs::StdRng::seed_from_u64(0);
        // The sum of 12 uniforms on [-1/2, 1/2) has variance 1 and is close enough to normal.
        let values: Vec<f32> =
            (0..BLOCK).map(|_| (0..12).map(|_| rng.random::<f32>() - 0.5).sum::<f32>() * STD as f32).collect();
        return Ok(Tensor::from_vec(values, BLOCK, device)?.to_dtype(dtype)?);
    }
    device.set_seed(0)?;
    Ok(Tensor::randn(0f32, STD as f32, BLOCK, device)?.to_dtype(dtype)?)
}

impl Weights for DummyWeights {
    /// Nothing is.
    fn contains(&self, _name: &str) -> bool {
        false
    }

    fn load(&self, name: &str, shape: &[usize], dtype: DType, device: &Device) -> Result<Tensor> {
        let noise = self.noise(shape.iter().product(), dtype, device)?.reshape(shape)?;
        // Norm weights are near one, or every activation would vanish.
        let is_norm_weight = shape.len() == 1 && !name.ends_with(".bias");
        Ok(if is_norm_weight { (noise + 1.0)? } else { noise })
    }

    fn fault(&self, name: &str, message: &str) -> Error {
        Error::usage(format!("dummy weights: tensor `{name}` {message}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dummy_weights_have_the_spread_of_a_fresh_model_and_differ_from_each_other() {
        let dummy = DummyWeights::default();
        let load = |name: &str, shape: &[usize]| dummy.load(name, shape, DType::F32, &Device::Cpu).unwrap();
        let a = load("a.weight", &[512, 300]).flatten_all().unwrap().to_vec1::<f32>().unwrap();
        let b = load("b.weight", &[512, 300]).flatten_all().unwrap().to_vec1::<f32>().unwrap();
        assert_ne!(a, b);
        let mean_square = a.iter().map(|x| f64::from(x * x)).sum::<f64>() / a.len() as f64;
        assert!((mean_square.sqrt() / STD - 1.0).abs() < 0.02, "{}", mean_square.sqrt());
        let norm = load("norm.weight", &[64]).to_vec1::<f32>().unwrap();
        assert!(norm.iter().all(|x| (x - 1.0).abs() < 0.2));
    }

    #[test]
    fn a_tensor_larger_than_the_block_is_filled_to_its_end() {
        let dummy = DummyWeights::default();
        let x = dummy.load("x.weight", &[BLOCK + 7], DType::F32, &Device::Cpu).unwrap();
        let tail = x.narrow(0, BLOCK, 7).unwrap().to_vec1::<f32>().unwrap();
        assert!(tail.iter().any(|&v| v != 1.0));
    }
}
