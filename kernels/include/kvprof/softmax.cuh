// The running state of attention of one warp, for the eight columns of its mma's, which are rows (query head, token).
//
// Lane 4·g + t sees columns 2t and 2t+1. These are two rows, or the same one where `kRows`, the rows of a pass, is four: what would be
// done for the second is left out then. Scores are of a query divided by 2^e (see query.cuh); `factor` makes them
// base-2 logits. Probabilities are relative to the running maximum less the lift, the same in all lanes: 2^lift for the maximum, so that as
// 16-bit floats, and times a scale of the values, they stay clear of subnormal numbers. Denominators have the same factor.
#pragma once

#include "kvprof/ptx.cuh"

namespace kvprof {

/// What stands for "no key seen yet": finite, so that differences of maxima never are NaN.
constexpr float kNoMaximum = -1e30f;

/// Of what is multiplied by probabilities alone.
constexpr float kLift = 6.f;
/// The maximum is not raised before such a probability is larger than this: those of a group must sum up to a fp16 number, of which two, high
/// and low, are exact enough (`TileAttention::row_values`).
constexpr float kMostProbability = 512.f;
/// Where probabilities are multiplied by scales first (`kByScale`), as long as no scale is 2 or more: products stay below 2^15, and fp16 reaches
/// 2^16. A token that takes nearly all of the attention, and says nothing itself, leaves e^-15 to those that do, and their scales may be 2^-10.
constexpr float kLiftOfScales = 14.f;

template <int kChannels, int kRows, bool kByScale>
struct AttentionState {
  static constexpr int kRowTiles = kChannels / 16;
  static constexpr int kLaneRows = kRows / 4;

  /// Output before division, channels 16·i + g and + 8; while tiles are summed, what `TileAttention::finish_tiles` makes that of.
  Accumulator out[kRowTiles];
  /// Σ p, the softmax denominator, in every row.
  Accumulator denominator;
  /// For per-token values only: Σ p·minimum of channel group g, over even k-steps in rows g, over odd ones in the rows
  /// g + 8 of the second.
  Accumulator minima[2];
  float maximum[kLaneRows];  ///< less the lift
  float factor[kLaneRows];
  float lift = kByScale ? kLiftOfScales : kLift;

  __device__ __forceinline__ AttentionState() {
#pragma unroll
    for (int row = 0; row < kLaneRows; ++row) maximum[row] = kNoMaximum;
  }

  __device__ __forceinline__ void scale_out(int row, float by) {
#pragma unroll
    for (int i = 0; i < kRowTiles; ++i) {
      out[i][row] *= by;
      out[i][2 + row] *= by;
    }
    denominator[row] *= by;
    minima[0][row] *= by;
    minima[1][2 + row] *= by;
  }

  /// Raises the maxima to those of `score` and rescales what was summed, if any lane saw a larger score.
  template <int kTiles>
  __device__ __forceinline__ void raise_maximum(const Accumulator (&score)[kTiles]) {
    float largest[kLaneRows];
    bool raised = false;
#pragma unroll
    for (int row = 0; row < kLaneRows; ++row) {
      largest[row] = score[0][row];
#pragma unroll
      for (int i = 0; i < kTiles; ++i) largest[row] = fmaxf(largest[row], fmaxf(score[i][row], score[i][2 + row]));
      largest[row] = fmaf(largest[row], factor[row], -lift);
      raised |= largest[row] > maximum[row];
    }
    if (__any_sync(kFullWarp, raised)) {
#pragma unroll
      for (int row = 0; row < kLaneRows; ++row) {
#pragma unroll
        for (int lanes = 4; lanes < 32; lanes *= 2)
          largest[row] = fmaxf(largest[row], __shfl_xor_sync(kFullWarp, largest[row], lanes));
        largest[row] = fmaxf(largest[row], maximum[row]);
        scale_out(row, exp2_fast(maximum[row] - largest[row]));
        maximum[row] = largest[row];
      }
    }
  }

  /// Lowers the lift, and with it `p` and what was summed, if p·s would be past the largest fp16 number for a scale of this tile's values.
  /// `scales` is this lane's share of these, the larger ones of each half.
  template <typename Float, int kTiles>
  __device__ __forceinline__ void make_room(uint32_t scales, ColumnOperand (&p)[kTiles]) {
    static_assert(kByScale);
    // The last 16-bit float below the power of two that scales must not reach. Positive ones are in the order of their bits.
    const float above = exp2_fast(1.f + kLiftOfScales - lift);
    const uint32_t limit = to_pair<Float>(above, above) - 0x00010001u;
    if (!__any_sync(kFullWarp, any_half_greater<Float>(scales, limit))) return;
    constexpr uint32_t kMantissa = __is_same(Float, __half) ? 10 : 7, kBias = __is_same(Float, __half) ? 15 : 127;
    const uint32_t largest = __reduce_max_sync(kFullWarp, max(scales & 0xffffu, scales >> 16));
    const float lower = kLiftOfScales + static_cast<float>(kBias) - static_cast<float>(largest >> kMantissa);
    const float by = exp2_fast(lower - lift);
    const __half2 factor2 = __float2half2_rn(by);
#pragma unroll
    for (int i = 0; i < kTiles; ++i) {
      p[i].low_half = bits_of(__hmul2(half2_of(p[i].low_half), factor2));
      p[i].high_half = bits_of(__hmul2(half2_of(p[i].high_half), factor2));
    }
#pragma unroll
    for (int row = 0; row < kLaneRows; ++row) {
      scale_out(row, by);
      maximum[row] += lift - lower;
    }
    lift = lower;
  }

  /// Probabilities of a tile's keys, rounded to 16-bit floats and turned into operands of the sum over keys. The maxima are raised
  /// first where it must be.
  template <typename Float, int kTiles>
  __device__ __forceinline__ void weigh(const Accumulator (&score)[kTiles], ColumnOperand (&p)[kTiles]) {
    if constexpr (kByScale) {
      raise_maximum(score);
      exponentials<Float>(score, p);
    } else {
      // What is too large is found in pairs of 16-bit floats, in half the operations of a maximum of scores, and nothing waits for it.
      exponentials<Float>(score, p);
      uint32_t largest = larger_halves<Float>(p[0].low_half, p[0].high_half);
#pragma unroll
      for (int i = 1; i < kTiles; ++i)
        largest = larger_halves<Float>(largest, larger_halves<Float>(p[i].low_half, p[i].high_half));
      if (__any_sync(kFullWarp, any_half_greater<Float>(largest, to_pair<Float>(kMostProbability, kMostProbability)))) {
        raise_maximum(score);
        exponentials<Float>(score, p);
      }
    }
#pragma unroll
    for (int i = 0; i < kTiles; ++i) p[i] = {transpose8x8(p[i].low_half), transpose8x8(p[i].high_half)};
  }

 private:
  template <typename Float, int kTiles>
  __device__ __forceinline__ void exponentials(const Accumulator (&score)[kTiles], ColumnOperand (&p)[kTiles]) const {
#pragma unroll
    for (int i = 0; i < kTiles; ++i) {
      const auto pair = [&](int half) {
        const auto one = [&](int row) { return exp2_fast(fmaf(score[i][2 * half + row], factor[row], -maximum[row])); };
        const float first = one(0);
        return to_pair<Float>(first, kLaneRows == 1 ? first : one(kLaneRows - 1));
      };
      p[i] = {pair(0), pair(1)};
    }
  }
};

}  // namespace kvprof
