// The Hadamard transform of rows of D channels, in float: y = H·x / sqrt(D), H[i][j] = (-1)^popcount(i & j).
//
// It is its own inverse, and keeps the products of rows: queries and keys that were both transformed give the scores of those that were
// not, and attention over transformed values gives the transformed output. An outlier of one channel becomes a share of all of them.
//
// Shapes   rows of a tensor [a, b, c, D] through strides, to a contiguous one; or those of one decode step, in place (StepHadamardParams).
//          FP16 or BF16, D 64 or 128.
// Grid     a warp a row; x: rows (b * c) in blocks of 4; y: a. A step: x alone.
// Reference  src/quant/hadamard.rs, equal in every bit: the same sums in the same order, each rounded, and one product.
// Bound    bytes read and written over the copy bandwidth; in a step, latency.
#pragma once

#include <type_traits>

#include "kvprof/decode_params.cuh"
#include "kvprof/fault.cuh"
#include "kvprof/overlap.cuh"
#include "kvprof/ptx.cuh"
#include "kvprof/rows.cuh"

namespace kvprof {

/// Mirrored by `HadamardParams` in src/model/hadamard_cuda.rs.
struct HadamardParams {
  const void* x;
  void* out;
  Strides strides;
  int32_t heads;   // b
  int32_t tokens;  // c
};
static_assert(sizeof(HadamardParams) == 48, "mirrored by HadamardParams in src/model/hadamard_cuda.rs");

/// Rows of one new token of each sequence: with `keys` its queries and keys, with `values` its values. Mirrored by the struct of
/// this name in src/model/step/params.rs.
struct StepHadamardParams {
  void* query;                     ///< [B, Hq, D]
  void* window;                    ///< [2 (K, V), B, Hkv, W, D]; not read where kv_heads is 0
  const CacheLength* length;       ///< the new token's position is length->total - 1
  unsigned long long* not_finite;  ///< a sum may pass the float's largest number (fault.cuh)
  int32_t batch, heads, kv_heads, head_dim, window_capacity, layer;
  int32_t keys, values;  ///< 1 or 0
};
static_assert(sizeof(StepHadamardParams) == 64, "mirrored in Rust");

constexpr int kHadamardThreads = 128;

/// One row by one warp, a lane D / 32 channels that follow each other. Returns whether this lane's results are finite.
template <typename T, int D>
__device__ __forceinline__ bool hadamard_row(const T* from, T* to) {
  constexpr int kEach = D / 32;
  using Share = typename std::conditional<kEach == 4, uint2, uint32_t>::type;
  const int lane = threadIdx.x % 32;
  union {
    Share share;
    uint32_t pairs[kEach / 2];
  } words;
  words.share = *reinterpret_cast<const Share*>(from + lane * kEach);
  float x[kEach];
#pragma unroll
  for (int i = 0; i < kEach / 2; ++i) {
    const float2 pair = to_floats<T>(words.pairs[i]);
    x[2 * i] = pair.x;
    x[2 * i + 1] = pair.y;
  }
#pragma unroll
  for (int step = 1; step < kEach; step *= 2) {
#pragma unroll
    for (int i = 0; i < kEach; ++i) {
      if (i & step) continue;
      const float low = x[i], high = x[i + step];
      x[i] = __fadd_rn(low, high);
      x[i + step] = __fsub_rn(low, high);
    }
  }
#pragma unroll
  for (int step = 1; step < 32; step *= 2) {
#pragma unroll
    for (int i = 0; i < kEach; ++i) {
      const float other = __shfl_xor_sync(kFullWarp, x[i], step);
      x[i] = lane & step ? __fsub_rn(other, x[i]) : __fadd_rn(x[i], other);
    }
  }
  constexpr float kScale = D == 64 ? 0.125f : 0x1.6a09e6p-4f;  // 1 / sqrt(D)
  bool finite = true;
#pragma unroll
  for (int i = 0; i < kEach / 2; ++i) {
    words.pairs[i] = to_pair<T>(__fmul_rn(x[2 * i], kScale), __fmul_rn(x[2 * i + 1], kScale));
    finite = finite && is_finite_pair<T>(words.pairs[i]);
  }
  *reinterpret_cast<Share*>(to + lane * kEach) = words.share;
  return finite;
}

template <typename T, int D>
__device__ __forceinline__ void hadamard(const HadamardParams& p) {
  const int row = blockIdx.x * (kHadamardThreads / 32) + threadIdx.x / 32;
  if (row >= p.heads * p.tokens) return;
  const int head = row / p.tokens, token = row % p.tokens;
  const T* from = static_cast<const T*>(p.x) + blockIdx.y * p.strides.batch + head * p.strides.head + token * p.strides.token;
  hadamard_row<T, D>(from, static_cast<T*>(p.out) + (static_cast<int64_t>(blockIdx.y) * p.heads * p.tokens + row) * D);
}

template <typename T, int D>
__device__ __forceinline__ void step_hadamard(const StepHadamardParams& p) {
  const int of_query = p.keys ? p.heads : 0, of_keys = p.keys ? p.kv_heads : 0, of_values = p.values ? p.kv_heads : 0;
  const int rows = of_query + of_keys + of_values;
  const int index = blockIdx.x * (kHadamardThreads / 32) + threadIdx.x / 32;
  if (index >= p.batch * rows) return;
  const int b = index / rows;
  int head = index % rows;
  if (head < of_query) {
    T* const query = static_cast<T*>(p.query) + (static_cast<int64_t>(b) * p.heads + head) * D;
    hadamard_row<T, D>(query, query);
    return;
  }
  head -= of_query;
  const bool is_key = head < of_keys;
  if (!is_key) head -= of_keys;
  const int position = p.length->total - 1;
  const Ring window{p.window, p.batch, p.kv_heads, p.window_capacity, D};
  T* const kept = window.head<T>(is_key ? 0 : 1, b * p.kv_heads + head) + static_cast<int64_t>(position % p.window_capacity) * D;
  if (!hadamard_row<T, D>(kept, kept)) note_not_finite(p.not_finite, position, p.layer);
}

/// Grid: ceil(rows / 4), a warp for each row of each sequence.
template <typename T>
__device__ __forceinline__ void step_hadamard(const StepHadamardParams& p) {
  allow_next_kernel();
  wait_for_previous_kernel();
  if (p.head_dim == 64) step_hadamard<T, 64>(p);
  else step_hadamard<T, 128>(p);
}

}  // namespace kvprof
