//! Rotary position embedding: tables in f32 whatever the model's dtype, since bf16 cannot even count past 256.

use candle_core::{DType, Device, Tensor};

use super::config::{Rope, RopeScaling};
use crate::Result;

/// cos and sin of every position and channel pair, each `[positions, D/2]` f32.
#[derive(Debug, Clone)]
pub struct RopeTable {
    cos: Tensor,
    sin: Tensor,
}

impl RopeTable {
    /// Tables for positions 0 up to `positions`.
    ///
    /// # Errors
    /// When the device has no room for them.
    pub fn new(rope: &Rope, head_dim: usize, positions: usize, device: &Device) -> Result<Self> {
        let frequencies = frequencies(rope, head_dim);
        let amplitude = match rope.scaling {
            RopeScaling::Yarn { attention_factor, .. } => attention_factor as f32,
            _ => 1.0,
        };
        let angles = (0..positions).flat_map(|p| frequencies.iter().map(move |f| p as f32 * f));
        let (cos, sin): (Vec<f32>, Vec<f32>) = angles.map(|a| (a.cos() * amplitude, a.sin() * amplitude)).unzip();
        let shape = (positions, head_dim / 2);
        Ok(RopeTable { cos: Tensor::from_vec(cos, shape, device)?, sin: Tensor::from_vec(sin, shape, device)? })
    }

    /// Rotates `x` `[B, H, T, D]`, whose first token is at `position`; computed in f32, returned in the dtype of `x`.
    ///
    /// # Errors
    /// When `position + T` passes the end of the tables.
    pub fn rotate(&self, x: &Tensor, position: usize) -> Result<Tensor> {
        let (_, _, tokens, _) = x.dims4()?;
        let cos = self.cos.narrow(0, position, tokens)?;
        let sin = self.sin.narrow(0, position, tokens)?;
        let rotated = candle_nn::rotary_emb::rope(&x.to_dtype(DType::F32)?.contiguous()?, &cos, &sin)?;
        Ok(rotated.to_dtype(x.dtype())?)
    }
}

/// Radians a token of each of the D/2 channel pairs (transformers `modeling_rope_utils.py`, which computes them in f32).
pub fn frequencies(rope: &Rope, head_dim: usize) -> Vec<f32> {
    let exponent = |i: usize| 2.0 * i as f64 / head_dim as f64;
    let plain = (0..head_dim / 2).map(|i| rope.base.powf(-exponent(i)));
    let tau = std::f64::consts::TAU;
    let scaled: Vec<f64> = match &rope.scaling {
        RopeScaling::None => plain.collect(),
        RopeScaling::Linear { factor } => plain.map(|f| f / factor).collect(),
        RopeScaling::Llama3 { factor, low, high, original_positions } => plain
            .map(|f| {
                let wavelength = tau / f;
                if wavelength < original_positions / high {
                    f
                } else if wavelength > original_positions / low {
                    f / factor
                } else {
                    let smooth = (original_positions / wavelength - low) / (high - low);
                    (1.0 - smooth) * f / factor + smooth * f
                }
            })
            .collect(),
        RopeScaling::Yarn { factor, beta_fast, beta_slow, original_positions, truncate, .. } => {
            // The channel that makes `turns` turns over the original context.
            let channel =
                |turns: f64| head_dim as f64 * (original_positions / (turns * tau)).ln() / (2.0 * rope.base.ln());
            let (mut first, mut last) = (channel(*beta_fast), channel(*beta_slow));
            if *truncate {
                (first, last) = (first.floor(), last.ceil());
            }
            let (first, mut last) = (first.max(0.0), last.min(head_dim as f64 - 1.0));
            if first == last {
                last += 0.001;
            }
            plain
                .enumerate()
                .map(|(i, f)| {
                    let divided = ((i as f64 - first) / (last - first)).clamp(0.0, 1.0);
                    f / factor * divided + f * (1.0 - divided)
                })
                .collect()
        }
        RopeScaling::Divisors(divisors) => plain.zip(divisors).map(|(f, &d)| f / f64::from(d)).collect(),
    };
    scaled.into_iter().map(|f| f as f32).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn angles_are_exact_far_beyond_what_bf16_can_count() {
        let rope = Rope { base: 10_000.0, scaling: RopeScaling::None };
        let table = RopeTable::new(&rope, 4, 100_001, &Device::Cpu).unwrap();
        let x = Tensor::new(&[1f32, 0.0, 0.0, 0.0], &Device::Cpu).unwrap().reshape((1, 1, 1, 4)).unwrap();
        let y = table.rotate(&x, 100_000).unwrap().flatten_all().unwrap().to_vec1::<f32>().unwrap();
        assert!((f64::from(y[0]) - 100_000f64.cos()).abs() < 1e-5, "{y:?}");
        assert!((f64::from(y[2]) - 100_000f64.sin()).abs() < 1e-5, "{y:?}");
    }

    #[test]
    fn the_divisors_of_a_gguf_file_say_the_same_as_llama3_scaling() {
        let llama3 = RopeScaling::Llama3 { factor: 8.0, low: 1.0, high: 4.0, original_positions: 8192.0 };
        let wanted = frequencies(&Rope { base: 500_000.0, scaling: llama3 }, 128);
        let plain = frequencies(&Rope { base: 500_000.0, scaling: RopeScaling::None }, 128);
        let divisors: Vec<f32> = plain.iter().zip(&wanted).map(|(p, w)| p / w).collect();
        assert_eq!(divisors[0], 1.0);
        assert!((divisors[63] - 8.0).abs() < 1e-5);
        let got = frequencies(&Rope { base: 500_000.0, scaling: RopeScaling::Divisors(divisors) }, 128);
        for (g, w) in got.iter().zip(&wanted) {
            assert!((g / w - 1.0).abs() < 1e-6);
        }
    }
}
