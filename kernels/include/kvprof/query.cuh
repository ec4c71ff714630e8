// The queries of a warp: rows (query head, token) as the column operand of the score mma's, eight, or four that are two columns
// each (softmax.cuh).
//
// Each row is divided by a power of two that brings its largest element into [1, 2): exact, and it keeps products of
// queries and scales inside fp16's range whatever the model. The softmax scale stays out of the 16-bit numbers.
#pragma once

#include "kvprof/decode_params.cuh"
#include "kvprof/ptx.cuh"

namespace kvprof {

/// Place of a row in the query and in the output.
struct RowPlace {
  int batch, head, token;
};

/// The place of a row of a KV head; token = -1 past the last row.
__device__ __forceinline__ RowPlace row_place(const DecodeParams& p, int batch, int kv_head, int row) {
  const int first = kv_head * p.heads_per_kv;
  if (p.tokens == 1) return {batch, first + row, row < p.heads_per_kv ? 0 : -1};
  const int token = row / p.heads_per_kv;
  return {batch, first + row % p.heads_per_kv, token < p.tokens ? token : -1};
}

template <typename Float, int kChannels, int kRows>
struct Queries {
  static constexpr int kSteps = kChannels / 16;
  static constexpr int kLaneRows = kRows / 4;

  ColumnOperand dense[kSteps];  ///< as Float: against dense keys and minima
  ColumnOperand half[kSteps];   ///< as fp16: against codes. The same words if Float is fp16

  float norm;                   ///< softmax scale · ‖q‖ of the row of this lane's column

  /// Asks for the row of this lane's column; zeros past the last row.
  __device__ __forceinline__ void load(const DecodeParams& p, int batch, int kv_head, int first_row) {
    const int t = threadIdx.x % 4;
    const RowPlace place = row_place(p, batch, kv_head, first_row + threadIdx.x % 32 * kRows / 32);
    const Float* row = static_cast<const Float*>(p.query) + static_cast<int64_t>(place.batch) * p.query_batch_stride +
                       static_cast<int64_t>(place.head) * p.query_head_stride +
                       static_cast<int64_t>(place.token) * p.query_token_stride;
#pragma unroll
    for (int k = 0; k < kSteps; ++k) {
      dense[k] = {0u, 0u};
      if (place.token >= 0)
        dense[k] = {*reinterpret_cast<const uint32_t*>(row + 16 * k + 2 * t),
                    *reinterpret_cast<const uint32_t*>(row + 16 * k + 8 + 2 * t)};
    }
  }

  /// Scales what was loaded, and sets the factors of the lane's rows (softmax.cuh).
  __device__ __forceinline__ void scale(float softmax_scale, float (&factor)[kLaneRows]) {
    float largest = 0.f, squares = 0.f;
#pragma unroll
    for (int k = 0; k < kSteps; ++k) {
      const float2 a = to_floats<Float>(dense[k].low_half), b = to_floats<Float>(dense[k].high_half);
      largest = fmaxf(largest, fmaxf(fmaxf(fabsf(a.x), fabsf(a.y)), fmaxf(fabsf(b.x), fabsf(b.y))));
      squares += (a.x * a.x + a.y * a.y) + (b.x * b.x + b.y * b.y);
    }
    largest = fmaxf(largest, __shfl_xor_sync(kFullWarp, largest, 1));
    largest = fmaxf(largest, __shfl_xor_sync(kFullWarp, largest, 2));
    squares += __shfl_xor_sync(kFullWarp, squares, 1);
    squares += __shfl_xor_sync(kFullWarp, squares, 2);
    norm = softmax_scale * sqrtf(squares);
    // 2^(exponent - 127) and its inverse, from the bits; 1 for zeros, and both finite whatever the exponent.
    const uint32_t exponent = min(max(__float_as_uint(largest) >> 23, 1u), 253u);
    const float grow = largest > 0.f ? __uint_as_float(exponent << 23) : 1.f;
    const float shrink = largest > 0.f ? __uint_as_float((254u - exponent) << 23) : 1.f;
#pragma unroll
    for (int k = 0; k < kSteps; ++k) {
      const float2 a = to_floats<Float>(dense[k].low_half), b = to_floats<Float>(dense[k].high_half);
      dense[k] = {to_pair<Float>(a.x * shrink, a.y * shrink), to_pair<Float>(b.x * shrink, b.y * shrink)};
      half[k] = {to_pair<__half>(a.x * shrink, a.y * shrink), to_pair<__half>(b.x * shrink, b.y * shrink)};
    }
    const float mine = softmax_scale * 1.44269504f * grow;
#pragma unroll
    for (int row = 0; row < kLaneRows; ++row) factor[row] = __shfl_sync(kFullWarp, mine, 8 * (threadIdx.x % 4) + 4 * row);
  }

  /// Of all rows, the largest softmax scale · ‖q‖.
  __device__ __forceinline__ float largest_norm() const {
    float largest = norm;
#pragma unroll
    for (int lanes = 4; lanes < 32; lanes *= 2) largest = fmaxf(largest, __shfl_xor_sync(kFullWarp, largest, lanes));
    return largest;
  }
};

}  // namespace kvprof
