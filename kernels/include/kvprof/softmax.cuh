// The running state of attention of one warp: for the eight rows (query head, token) that are the columns of its mma's.
//
// Lane 4·g + t sees rows 2t and 2t+1. Scores are of a query divided by 2^e (see query.cuh); `factor` makes them
// base-2 logits. Probabilities are relative to the running maximum, which is the same in all lanes.
#pragma once

#include "kvprof/ptx.cuh"

namespace kvprof {

/// What stands for "no key seen yet": finite, so that differences of maxima never are NaN.
constexpr float kNoMaximum = -1e30f;

template <int kChannels>
struct AttentionState {
  static constexpr int kRowTiles = kChannels / 16;

  /// Output before division, channels 16·i + g and + 8.
  Accumulator out[kRowTiles];
  /// Σ p, the softmax denominator, in every row.
  Accumulator denominator;
  /// For per-token values only: Σ p·minimum of channel group g, over even k-steps in rows g, over odd ones in the rows
  /// g + 8 of the second.
  Accumulator minima[2];
  float maximum[2] = {kNoMaximum, kNoMaximum};
  float factor[2];

  __device__ __forceinline__ void scale_out(float a, float b) {
#pragma unroll
    for (int i = 0; i < kRowTiles; ++i) {
      out[i][0] *= a;
      out[i][1] *= b;
      out[i][2] *= a;
      out[i][3] *= b;
    }
    denominator[0] *= a;
    denominator[1] *= b;
    minima[0][0] *= a;
    minima[0][1] *= b;
    minima[1][2] *= a;
    minima[1][3] *= b;
  }

  /// Raises the maxima to those of `score` and rescales what was summed, if any lane saw a larger score.
  template <int kTiles>
  __device__ __forceinline__ void raise_maximum(const Accumulator (&score)[kTiles]) {
    float a = score[0][0], b = score[0][1];
#pragma unroll
    for (int i = 0; i < kTiles; ++i) {
      a = fmaxf(a, fmaxf(score[i][0], score[i][2]));
      b = fmaxf(b, fmaxf(score[i][1], score[i][3]));
    }
    a *= factor[0];
    b *= factor[1];
    if (__any_sync(kFullWarp, a > maximum[0] || b > maximum[1])) {
#pragma unroll
      for (int lanes = 4; lanes < 32; lanes *= 2) {
        a = fmaxf(a, __shfl_xor_sync(kFullWarp, a, lanes));
        b = fmaxf(b, __shfl_xor_sync(kFullWarp, b, lanes));
      }
      a = fmaxf(a, maximum[0]);
      b = fmaxf(b, maximum[1]);
      scale_out(exp2_fast(maximum[0] - a), exp2_fast(maximum[1] - b));
      maximum[0] = a;
      maximum[1] = b;
    }
  }

  /// Probabilities of 16 keys, rounded to 16-bit floats and turned into the operand of the sum over keys.
  template <typename Float>
  __device__ __forceinline__ ColumnOperand probabilities(const Accumulator& score) const {
    const auto p = [&](int i) { return exp2_fast(fmaf(score[i], factor[i % 2], -maximum[i % 2])); };
    return {transpose8x8(to_pair<Float>(p(0), p(1))), transpose8x8(to_pair<Float>(p(2), p(3)))};
  }
};

}  // namespace kvprof
