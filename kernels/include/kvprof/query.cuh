// The queries of a warp: eight rows (query head, token) as the column operand of the score mma's.
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

/// The row of `column` (0..8) in a pass over eight rows, or one with token = -1 past the last row.
__device__ __forceinline__ RowPlace row_place(const DecodeParams& p, int batch, int kv_head, int row) {
  const int token = row / p.heads_per_kv;
  return {batch, kv_head * p.heads_per_kv + row % p.heads_per_kv, token < p.tokens ? token : -1};
}

template <typename Float, int kChannels>
struct Queries {
  static constexpr int kSteps = kChannels / 16;

  ColumnOperand dense[kSteps];  ///< as Float: against dense keys and minima
  ColumnOperand half[kSteps];   ///< as fp16: against codes. The same words if Float is fp16

  /// Reads the row of this lane's column, and sets factor[0], [1] of its rows 2t, 2t+1 (softmax.cuh).
  __device__ __forceinline__ void load(const DecodeParams& p, int batch, int kv_head, int first_row, float* factor) {
    const int lane = threadIdx.x % 32, g = lane / 4, t = lane % 4;
    const RowPlace place = row_place(p, batch, kv_head, first_row + g);
    const Float* row = static_cast<const Float*>(p.query) + static_cast<int64_t>(place.batch) * p.query_batch_stride +
                       static_cast<int64_t>(place.head) * p.query_head_stride +
                       static_cast<int64_t>(place.token) * p.query_token_stride;
    uint32_t words[kSteps][2];
    float largest = 0.f;
#pragma unroll
    for (int k = 0; k < kSteps; ++k)
#pragma unroll
      for (int h = 0; h < 2; ++h) {
        words[k][h] = place.token < 0 ? 0u : *reinterpret_cast<const uint32_t*>(row + 16 * k + 8 * h + 2 * t);
        const float2 x = to_floats<Float>(words[k][h]);
        largest = fmaxf(largest, fmaxf(fabsf(x.x), fabsf(x.y)));
      }
    largest = fmaxf(largest, __shfl_xor_sync(kFullWarp, largest, 1));
    largest = fmaxf(largest, __shfl_xor_sync(kFullWarp, largest, 2));
    const int exponent = largest > 0.f ? ilogbf(largest) : 0;
    const float shrink = ldexpf(1.f, -exponent);
#pragma unroll
    for (int k = 0; k < kSteps; ++k) {
      const float2 a = to_floats<Float>(words[k][0]), b = to_floats<Float>(words[k][1]);
      dense[k] = {to_pair<Float>(a.x * shrink, a.y * shrink), to_pair<Float>(b.x * shrink, b.y * shrink)};
      half[k] = {to_pair<__half>(a.x * shrink, a.y * shrink), to_pair<__half>(b.x * shrink, b.y * shrink)};
    }
    const float mine = ldexpf(p.softmax_scale * 1.44269504f, exponent);
    factor[0] = __shfl_sync(kFullWarp, mine, 8 * t);
    factor[1] = __shfl_sync(kFullWarp, mine, 8 * t + 4);
  }
};

}  // namespace kvprof
