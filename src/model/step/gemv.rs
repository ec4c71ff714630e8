//! Which linear-layer kernel serves a batch, and how it is launched (kernels/step.cu).

use super::params::GemvInput;
use crate::device::kernels::{Address, Code};

/// Most sequences side by side that the step kernels serve.
pub const MAX_BATCH: usize = 16;

/// Block shape of a linear-layer kernel: `GemvShape` in kernels/include/kvprof/gemv.cuh.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct GemvShape {
    /// Rows of W in a tile.
    pub rows: usize,
    /// Most rows of x.
    pub batch: usize,
    pub warps: usize,
    /// Pieces in a warp's ring.
    pub stages: usize,
}

/// `Gemv1` … `Gemv16` of kernels/step.cu, for Hopper.
const HOPPER: [GemvShape; 5] = [
    GemvShape { rows: 16, batch: 1, warps: 16, stages: 6 },
    GemvShape { rows: 16, batch: 2, warps: 16, stages: 5 },
    GemvShape { rows: 16, batch: 4, warps: 16, stages: 5 },
    GemvShape { rows: 32, batch: 8, warps: 8, stages: 5 },
    GemvShape { rows: 32, batch: 16, warps: 8, stages: 4 },
];

/// The same for other devices.
const PORTABLE: [GemvShape; 5] = [
    GemvShape { rows: 16, batch: 1, warps: 8, stages: 5 },
    GemvShape { rows: 16, batch: 2, warps: 8, stages: 5 },
    GemvShape { rows: 16, batch: 4, warps: 8, stages: 4 },
    GemvShape { rows: 32, batch: 8, warps: 4, stages: 4 },
    GemvShape { rows: 32, batch: 16, warps: 4, stages: 3 },
];

impl GemvShape {
    /// The one of `code` made for the fewest sequences of those that serve `batch`.
    pub fn for_batch(batch: usize, code: Code) -> Option<Self> {
        let shapes = match code {
            Code::Hopper => HOPPER,
            Code::Portable => PORTABLE,
        };
        shapes.into_iter().find(|shape| shape.batch >= batch)
    }

    pub fn threads(&self) -> u32 {
        32 * self.warps as u32
    }

    /// The warps' rings and two sets of their sums (`kSharedBytes`).
    pub fn shared_bytes(&self) -> u32 {
        let ring = self.stages * (self.rows + self.batch) * 128;
        let sums = self.rows * self.batch * size_of::<f32>();
        (self.warps * (ring + 2 * sums)) as u32
    }

    /// Arguments for `batch` products with a matrix of `rows` x `depth` at `weight`.
    pub fn input(&self, weight: Address, x: Address, rows: usize, depth: usize, batch: usize) -> GemvInput {
        GemvInput {
            weight,
            x,
            rows: rows as i32,
            depth: depth as i32,
            batch: batch as i32,
            tiles: rows.div_ceil(self.rows) as i32,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_batch_up_to_the_largest_is_served_by_the_smallest_kernel_that_can() {
        for code in [Code::Hopper, Code::Portable] {
            for batch in 1..=MAX_BATCH {
                let shape = GemvShape::for_batch(batch, code).unwrap();
                assert!(shape.batch >= batch && (shape.batch < 2 * batch || batch == 1));
            }
            assert_eq!(GemvShape::for_batch(MAX_BATCH + 1, code), None);
        }
    }

    #[test]
    fn one_block_fits_a_multiprocessor_and_two_do_not() {
        for (code, shapes) in [(Code::Hopper, HOPPER), (Code::Portable, PORTABLE)] {
            for shape in shapes {
                let (bytes, room) = (shape.shared_bytes() as usize, code.shared_bytes());
                assert!(bytes <= room && 2 * (bytes + 1024) > room, "{shape:?}: {bytes} bytes");
            }
        }
    }
}
