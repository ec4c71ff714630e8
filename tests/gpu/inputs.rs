//! Numbers that break careless kernels.

use candle_core::{DType, Device, Tensor};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

/// What keys and values are filled with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Independent, bell-shaped.
    Normal,
    /// One channel a thousand times larger than the others.
    Outlier,
    /// Channels that never change beside channels that do.
    Constant,
    /// Multiples of 1/8: every tie there is.
    Ties,
    /// Near the smallest number of the type.
    Tiny,
    /// Near the largest number of the type.
    Huge,
    /// A large mean in a few channels, as key biases make.
    Bias,
}

impl Kind {
    /// All of them.
    pub const ALL: [Kind; 7] =
        [Kind::Normal, Kind::Outlier, Kind::Constant, Kind::Ties, Kind::Tiny, Kind::Huge, Kind::Bias];
}

/// A `[B, H, T, D]` tensor of `dtype` on the CPU.
pub fn tensor(kind: Kind, dims: [usize; 4], dtype: DType, seed: u64) -> Tensor {
    let mut rng = StdRng::seed_from_u64(seed);
    let channels = dims[3];
    // Four times 0.9 is the largest of the numbers below.
    let (tiny, huge) = if dtype == DType::F16 { (1e-6, 65504.0 / 3.7) } else { (1e-38, 3.3e38 / 3.7) };
    let data: Vec<f32> = (0..dims.iter().product())
        .map(|i: usize| {
            // The sum of four uniform numbers is bell-shaped enough.
            let normal: f32 = (0..4).map(|_| rng.random_range(-0.9f32..0.9)).sum();
            let channel = i % channels;
            match kind {
                Kind::Normal => normal,
                Kind::Outlier => normal * if channel == 5 { 1000.0 } else { 1.0 },
                Kind::Constant => {
                    if channel.is_multiple_of(2) {
                        0.25 * channel as f32
                    } else {
                        normal
                    }
                }
                Kind::Ties => (normal * 8.0).round() / 8.0,
                Kind::Tiny => normal * tiny,
                Kind::Huge => normal * huge,
                Kind::Bias => normal + if channel % 16 == 7 { 300.0 } else { 0.0 },
            }
        })
        .collect();
    Tensor::from_vec(data, &dims, &Device::Cpu).unwrap().to_dtype(dtype).unwrap()
}
