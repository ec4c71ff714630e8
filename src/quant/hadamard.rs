//! The Hadamard transform of a row, y = H·x / √D with H[i][j] = (−1)^popcount(i & j) (QuaRot, arXiv:2404.00456; llama.cpp rotates by it too).
//!
//! It is its own inverse and keeps products of rows: attention with queries and keys that were both transformed is the same, and over
//! transformed values it gives the transformed output. What a quantizer sees differs: an outlier of one channel is spread over all, so
//! that groups along a token are no longer as wide as it.

use serde::{Deserialize, Serialize};

/// Which sides of a cache are kept transformed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Hadamard {
    /// Keys, and so the queries.
    pub keys: bool,
    /// Values, and so the output, which is transformed back.
    pub values: bool,
}

impl Hadamard {
    /// Neither side.
    pub const NONE: Self = Hadamard { keys: false, values: false };

    /// Whether nothing is transformed.
    pub fn is_none(&self) -> bool {
        *self == Self::NONE
    }

    /// As overrides write it, `k`, `v` or `kv`; `None` where nothing is transformed.
    pub const fn name(self) -> Option<&'static str> {
        match (self.keys, self.values) {
            (false, false) => None,
            (true, false) => Some("k"),
            (false, true) => Some("v"),
            (true, true) => Some("kv"),
        }
    }

    /// The one called `name`.
    pub fn named(name: &str) -> Option<Self> {
        let all = [(true, false), (false, true), (true, true)].map(|(keys, values)| Hadamard { keys, values });
        all.into_iter().find(|hadamard| hadamard.name() == Some(name))
    }
}

/// Transforms `row`, whose length D is a power of two, in place. Sums of neighbours first; each is rounded by itself, and so is the product
/// with 1/√D: kernels/include/kvprof/hadamard.cuh gives the same bits.
pub fn transform(row: &mut [f32]) {
    let mut step = 1;
    while step < row.len() {
        for block in row.chunks_exact_mut(2 * step) {
            let (low, high) = block.split_at_mut(step);
            for (low, high) in low.iter_mut().zip(high) {
                (*low, *high) = (*low + *high, *low - *high);
            }
        }
        step *= 2;
    }
    let scale = (1.0 / (row.len() as f64).sqrt()) as f32;
    row.iter_mut().for_each(|x| *x *= scale);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_the_matrix_of_signs_over_the_root_of_its_size() {
        for size in [1usize, 2, 8, 64, 128] {
            for column in 0..size {
                let mut row = vec![0.0; size];
                row[column] = 1.0;
                transform(&mut row);
                for (i, x) in row.iter().enumerate() {
                    let sign = if (i & column).count_ones() % 2 == 0 { 1.0 } else { -1.0 };
                    assert!(
                        (f64::from(*x) - sign / (size as f64).sqrt()).abs() < 1e-7,
                        "H[{i}][{column}] of {size}: {x}"
                    );
                }
            }
        }
    }

    #[test]
    fn names_of_sides_are_read_as_they_are_written() {
        for name in ["k", "v", "kv"] {
            assert_eq!(Hadamard::named(name).and_then(Hadamard::name), Some(name));
        }
        assert_eq!((Hadamard::named("vk"), Hadamard::NONE.name()), (None, None));
    }
}
