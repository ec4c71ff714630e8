//! Rotary position embedding: tables in f32 whatever the model's dtype, since bf16 cannot even count past 256.

#[cfg(feature = "cuda")]
use candle_core::CudaStorage;
use candle_core::{CpuStorage, CustomOp3, DType, Device, Layout, Shape, Tensor};
use rayon::prelude::*;

use super::config::{Rope, RopeScaling};
use super::norm::QkNorm;
use crate::Result;
use crate::cache::GPU_HEAD_DIMS;
use crate::quant::Real;
use crate::quant::real::with_real;

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
        let shape = (positions, head_dim / 2);
        // In one range, whose length is known: vectors that grow would hold up to twice as much.
        let angles = (0..positions * shape.1).map(|i| (i / shape.1) as f32 * frequencies[i % shape.1]);
        let (cos, sin): (Vec<f32>, Vec<f32>) = angles.map(|a| (a.cos() * amplitude, a.sin() * amplitude)).unzip();
        Ok(RopeTable { cos: Tensor::from_vec(cos, shape, device)?, sin: Tensor::from_vec(sin, shape, device)? })
    }

    /// Positions that it holds.
    pub fn positions(&self) -> usize {
        self.cos.dims()[0]
    }

    /// cos of each position and channel pair, `[positions, D/2]` f32.
    #[cfg(feature = "cuda")]
    pub fn cos(&self) -> &Tensor {
        &self.cos
    }

    /// sin of each position and channel pair, `[positions, D/2]` f32.
    #[cfg(feature = "cuda")]
    pub fn sin(&self) -> &Tensor {
        &self.sin
    }

    /// Rotates `x` `[B, H, T, D]` (any strides, D innermost), whose first token is at `position`, after `norm` if there is one;
    /// computed in f32. The result is contiguous, in the dtype of `x`.
    ///
    /// # Errors
    /// When `position + T` passes the end of the tables, or the dtype is not a float type.
    pub(super) fn rotate(&self, x: &Tensor, position: usize, norm: Option<&QkNorm>) -> Result<Tensor> {
        let (_, _, tokens, head_dim) = x.dims4()?;
        let by_kernel = x.device().is_cuda() && kernel_serves(x.dtype(), head_dim);
        if let Some(norm) = norm
            && !by_kernel
        {
            return self.rotate(&norm.forward(x)?, position, None);
        }
        let innermost = if x.stride()[3] == 1 { x.clone() } else { x.contiguous()? };
        if x.device().is_cuda() && !by_kernel {
            // Only tests use such models on a GPU: f32, or heads of another size.
            let cos = self.cos.narrow(0, position, tokens)?;
            let sin = self.sin.narrow(0, position, tokens)?;
            let single = innermost.to_dtype(DType::F32)?.contiguous()?;
            return Ok(candle_nn::rotary_emb::rope(&single, &cos, &sin)?.to_dtype(x.dtype())?);
        }
        if position + tokens > self.positions() {
            return Err(crate::Error::usage(format!("position {} is past the RoPE tables", position + tokens - 1)));
        }
        let rotation = Rotation { position, norm };
        Ok(innermost.apply_op3_no_bwd(&self.cos, &self.sin, &rotation)?)
    }
}

/// Whether kernels/rope.cu has an entry for it.
fn kernel_serves(dtype: DType, head_dim: usize) -> bool {
    matches!(dtype, DType::F16 | DType::BF16) && GPU_HEAD_DIMS.contains(&head_dim)
}

/// The rotation as one operation on `x`, cos and sin. On the GPU: kernels/rope.cu.
struct Rotation<'a> {
    /// Of the first token.
    position: usize,
    /// Comes before it, on the GPU only.
    norm: Option<&'a QkNorm>,
}

impl Rotation<'_> {
    fn host<P: Real>(&self, x: &[P], layout: &Layout, cos: &[f32], sin: &[f32]) -> candle_core::Result<Vec<P>> {
        let (_, heads, tokens, head_dim) = layout.shape().dims4()?;
        let strides = layout.stride();
        let half = head_dim / 2;
        let mut out = vec![P::narrow(0.0); layout.shape().elem_count()];
        out.par_chunks_mut(head_dim).enumerate().for_each(|(row, out)| {
            let (batch, head, token) = (row / tokens / heads, row / tokens % heads, row % tokens);
            let start = layout.start_offset() + batch * strides[0] + head * strides[1] + token * strides[2];
            let x = &x[start..start + head_dim];
            let at = (self.position + token) * half;
            for i in 0..half {
                let (cos, sin) = (cos[at + i], sin[at + i]);
                let (first, second) = (x[i].widen(), x[i + half].widen());
                out[i] = P::narrow(first * cos - second * sin);
                out[i + half] = P::narrow(second * cos + first * sin);
            }
        });
        Ok(out)
    }
}

impl CustomOp3 for Rotation<'_> {
    fn name(&self) -> &'static str {
        "rotary-embedding"
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        layout: &Layout,
        cos: &CpuStorage,
        _: &Layout,
        sin: &CpuStorage,
        _: &Layout,
    ) -> candle_core::Result<(CpuStorage, Shape)> {
        if self.norm.is_some() {
            candle_core::bail!("on the CPU a norm is an operation of its own");
        }
        let (cos, sin) = (cos.as_slice::<f32>()?, sin.as_slice::<f32>()?);
        with_real!(candle_core::backend::BackendStorage::dtype(x), P => {
            let out = self.host(P::slice(x)?, layout, cos, sin)?;
            Ok((<P as candle_core::WithDType>::to_cpu_storage_owned(out), layout.shape().clone()))
        })
    }

    #[cfg(feature = "cuda")]
    fn cuda_fwd(
        &self,
        x: &CudaStorage,
        layout: &Layout,
        cos: &CudaStorage,
        cos_layout: &Layout,
        sin: &CudaStorage,
        sin_layout: &Layout,
    ) -> candle_core::Result<(CudaStorage, Shape)> {
        super::rope_cuda::rotate((x, layout), (cos, cos_layout), (sin, sin_layout), self.position, self.norm)
    }
}

/// Radians a token of each of the D/2 channel pairs (transformers `modeling_rope_utils.py`, which computes them in f32).
pub fn frequencies(rope: &Rope, head_dim: usize) -> Vec<f32> {
    let exponent = |i: usize| 2.0 * i as f64 / head_dim as f64;
    let plain = (0..head_dim / 2).map(|i| rope.base.powf(-exponent(i)));
    let tau = std::f64::consts::TAU;
    let scaled: Vec<f64> = match &rope.scaling {
        RopeScaling::None | RopeScaling::Dynamic => plain.collect(),
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
        let y = table.rotate(&x, 100_000, None).unwrap().flatten_all().unwrap().to_vec1::<f32>().unwrap();
        assert!((f64::from(y[0]) - 100_000f64.cos()).abs() < 1e-5, "{y:?}");
        assert!((f64::from(y[2]) - 100_000f64.sin()).abs() < 1e-5, "{y:?}");
    }

    #[test]
    fn a_ramp_of_yarn_that_ends_past_the_last_channel_keeps_its_slope() {
        // transformers' find_correction_range for 131072 positions: 32 turns are made by channel 2.815, one by channel 4.319 of 8.
        let yarn = |truncate| {
            let scaling = RopeScaling::Yarn {
                factor: 4.0,
                beta_fast: 32.0,
                beta_slow: 1.0,
                original_positions: 131_072.0,
                attention_factor: 1.0,
                truncate,
            };
            frequencies(&Rope { base: 10_000.0, scaling }, 8)
        };
        // Of the last pair a third of the way from 2 to 5 is divided by 4, or (3 − 2.815)/(4.319 − 2.815) of the way.
        for (truncate, last) in [(true, 0.75e-3), (false, 0.90741e-3)] {
            let found = yarn(truncate);
            assert_eq!(found[..3], [1.0, 0.1, 0.01]);
            assert!((found[3] / last - 1.0).abs() < 1e-4, "truncate {truncate}: {found:?}");
        }
    }

    #[test]
    fn a_strided_view_turns_as_the_tensor_it_shows() {
        let rope = Rope { base: 10_000.0, scaling: RopeScaling::None };
        let table = RopeTable::new(&rope, 8, 32, &Device::Cpu).unwrap();
        // [B, T, H, D] as a fused projection leaves it, seen as [B, H, T, D] without its last two heads.
        let fused = Tensor::rand(-1f32, 1.0, (2, 5, 6, 8), &Device::Cpu).unwrap();
        let view = fused.transpose(1, 2).unwrap().narrow(1, 0, 4).unwrap();
        let turned = table.rotate(&view, 3, None).unwrap();
        assert!(turned.is_contiguous());
        let (cos, sin) = (table.cos.narrow(0, 3, 5).unwrap(), table.sin.narrow(0, 3, 5).unwrap());
        let wanted = candle_nn::rotary_emb::rope_slow(&view.contiguous().unwrap(), &cos, &sin).unwrap();
        let difference = (turned - wanted).unwrap().abs().unwrap().flatten_all().unwrap().max(0).unwrap();
        assert!(difference.to_scalar::<f32>().unwrap() < 1e-6);
        assert!(table.rotate(&view, 28, None).unwrap_err().is_usage());
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
