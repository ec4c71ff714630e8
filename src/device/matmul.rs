//! Small dense matrix products on one host thread, for attention over a few dozen keys at a time.

use gemm::{Parallelism, gemm};

/// `out [m, n] = a [m, k] · b [n, k]ᵀ`, all row-major.
///
/// # Panics
/// When a slice is not of the size its shape says.
pub fn matmul_transposed(a: &[f32], b: &[f32], out: &mut [f32], [m, n, k]: [usize; 3]) {
    assert_eq!((a.len(), b.len(), out.len()), (m * k, n * k, m * n));
    let [_, columns, inner] = [m, n, k].map(|x| x as isize);
    // SAFETY: the three slices are as large as the shape says (asserted above) and the strides stay inside: element (i, j) of
    // a is at i·k + j < m·k, of bᵀ at j·k + i < n·k, of out at i·n + j < m·n. `out` is borrowed mutably, so nothing aliases.
    unsafe {
        gemm(
            m,
            n,
            k,
            out.as_mut_ptr(),
            1,
            columns,
            false,
            a.as_ptr(),
            1,
            inner,
            b.as_ptr(),
            inner,
            1,
            0.0,
            1.0,
            false,
            false,
            false,
            Parallelism::None,
        );
    }
}

/// `out [m, n] += a [m, k] · b [k, n]`, all row-major.
///
/// # Panics
/// When a slice is not of the size its shape says.
pub fn matmul_add(a: &[f32], b: &[f32], out: &mut [f32], [m, n, k]: [usize; 3]) {
    assert_eq!((a.len(), b.len(), out.len()), (m * k, k * n, m * n));
    let [_, columns, inner] = [m, n, k].map(|x| x as isize);
    // SAFETY: as above; element (i, j) of b is at i·n + j < k·n, and `out` is initialized, so it may be read.
    unsafe {
        gemm(
            m,
            n,
            k,
            out.as_mut_ptr(),
            1,
            columns,
            true,
            a.as_ptr(),
            1,
            inner,
            b.as_ptr(),
            1,
            columns,
            1.0,
            1.0,
            false,
            false,
            false,
            Parallelism::None,
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn products_match_the_definition() {
        let [m, n, k] = [3, 5, 4];
        let a: Vec<f32> = (0..m * k).map(|i| i as f32 - 5.0).collect();
        let b: Vec<f32> = (0..n * k).map(|i| (i * i % 7) as f32).collect();
        let mut out = vec![f32::NAN; m * n];
        matmul_transposed(&a, &b, &mut out, [m, n, k]);
        for i in 0..m {
            for j in 0..n {
                let expected: f32 = (0..k).map(|x| a[i * k + x] * b[j * k + x]).sum();
                assert_eq!(out[i * n + j], expected);
            }
        }
        let mut sum = vec![1.0; m * n];
        matmul_add(&a, &b, &mut sum, [m, n, k]);
        for i in 0..m {
            for j in 0..n {
                let expected: f32 = (0..k).map(|x| a[i * k + x] * b[x * n + j]).sum();
                assert_eq!(sum[i * n + j], 1.0 + expected);
            }
        }
    }
}
