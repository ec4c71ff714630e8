//! Softmax over keys that arrive a few at a time.

use std::ops::Range;

use crate::device::matmul::{matmul_add, matmul_transposed};

/// Which keys the query rows may see.
#[derive(Debug, Clone, Copy)]
pub struct Causality {
    /// Position of the first query token. Row r holds token r mod `tokens`: the heads of a group stand under each other.
    pub first_query: usize,
    /// Query tokens.
    pub tokens: usize,
    /// Keys this much older than a query, or more, are hidden from it.
    pub sliding_window: Option<usize>,
}

impl Causality {
    /// Positions that `row` sees.
    fn seen(&self, row: usize) -> Range<usize> {
        let query = self.first_query + row % self.tokens;
        self.sliding_window.map_or(0, |window| (query + 1).saturating_sub(window))..query + 1
    }

    /// Positions that at least one row sees.
    pub fn seen_by_any(&self) -> Range<usize> {
        self.seen(0).start..self.first_query + self.tokens
    }
}

/// Unnormalized attention of R query rows over the keys absorbed so far: for each row the largest score, the sum of
/// exp(score − largest), and the sum of values weighted alike. Partial results over disjoint keys merge exactly.
#[derive(Debug, Clone)]
pub struct OnlineSoftmax {
    dim: usize,
    max: Vec<f32>,
    sum: Vec<f32>,
    out: Vec<f32>,
    scores: Vec<f32>,
}

impl OnlineSoftmax {
    /// `rows` rows that have seen nothing, of `dim` channels.
    pub fn new(rows: usize, dim: usize) -> Self {
        OnlineSoftmax {
            dim,
            max: vec![f32::NEG_INFINITY; rows],
            sum: vec![0.0; rows],
            out: vec![0.0; rows * dim],
            scores: Vec::new(),
        }
    }

    /// Takes in keys and values `[n, D]` at consecutive positions from `first_key` on. `queries` is `[R, D]`, scaled.
    pub fn absorb(&mut self, queries: &[f32], keys: &[f32], values: &[f32], first_key: usize, causality: &Causality) {
        let (rows, count) = (self.max.len(), keys.len() / self.dim);
        self.scores.resize(rows * count, 0.0);
        matmul_transposed(queries, keys, &mut self.scores, [rows, count, self.dim]);
        for (row, scores) in self.scores.chunks_exact_mut(count).enumerate() {
            let seen = causality.seen(row);
            let start = seen.start.saturating_sub(first_key).min(count);
            let end = seen.end.saturating_sub(first_key).clamp(start, count);
            scores[..start].fill(0.0);
            scores[end..].fill(0.0);
            let seen = &mut scores[start..end];
            let max = seen.iter().fold(self.max[row], |max, score| max.max(*score));
            if max == f32::NEG_INFINITY {
                continue;
            }
            if max > self.max[row] {
                let shrink = (self.max[row] - max).exp();
                self.sum[row] *= shrink;
                self.out[row * self.dim..][..self.dim].iter_mut().for_each(|x| *x *= shrink);
                self.max[row] = max;
            }
            let mut sum = 0.0;
            for score in seen {
                *score = (*score - max).exp();
                sum += *score;
            }
            self.sum[row] += sum;
        }
        matmul_add(&self.scores, values, &mut self.out, [rows, self.dim, count]);
    }

    /// The result over this one's keys and `other`'s together.
    pub fn merge(mut self, other: &OnlineSoftmax) -> Self {
        for row in 0..self.max.len() {
            let max = self.max[row].max(other.max[row]);
            if max == f32::NEG_INFINITY {
                continue;
            }
            let (mine, theirs) = ((self.max[row] - max).exp(), (other.max[row] - max).exp());
            let range = row * self.dim..(row + 1) * self.dim;
            for (x, y) in self.out[range.clone()].iter_mut().zip(&other.out[range]) {
                *x = *x * mine + *y * theirs;
            }
            self.sum[row] = self.sum[row] * mine + other.sum[row] * theirs;
            self.max[row] = max;
        }
        self
    }

    /// The attention output `[R, D]`. Every row must have seen a key.
    pub fn finish(mut self) -> Vec<f32> {
        for (out, sum) in self.out.chunks_exact_mut(self.dim).zip(&self.sum) {
            out.iter_mut().for_each(|x| *x /= sum);
        }
        self.out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_merged_equal_the_whole_even_when_a_part_is_unseen() {
        let (dim, count) = (4, 10);
        let numbers = |seed: usize, n: usize| -> Vec<f32> {
            (0..n).map(|i| ((i * 37 + seed * 11) % 23) as f32 / 5.0 - 2.0).collect()
        };
        let (q, k, v) = (numbers(1, 2 * dim), numbers(2, count * dim), numbers(3, count * dim));
        let causality = Causality { first_query: 8, tokens: 2, sliding_window: Some(3) };
        let mut whole = OnlineSoftmax::new(2, dim);
        whole.absorb(&q, &k, &v, 0, &causality);
        let part = |keys: Range<usize>| {
            let mut part = OnlineSoftmax::new(2, dim);
            let elements = keys.start * dim..keys.end * dim;
            part.absorb(&q, &k[elements.clone()], &v[elements], keys.start, &causality);
            part
        };
        let merged = part(0..5).merge(&part(5..7)).merge(&part(7..10)).finish();
        for (a, b) in whole.finish().iter().zip(&merged) {
            assert!((a - b).abs() < 1e-6, "{a} {b}");
        }
    }
}
