// Scales and minima of one side of a packed tile as operands of one warp's mma's, and the sums that minima are multiplied by.
//
// Minima enter as row operands, as they are stored: with groups as the summed index (row parameters) or as the rows (column
// parameters). Numbers that are summed against minima but are no 16-bit floats themselves (Σ q, Σ p) go in as two,
// high and low.
#pragma once

#include "kvprof/query.cuh"
#include "kvprof/tile.cuh"

namespace kvprof {

__device__ __forceinline__ uint32_t word(const uint4& x, int i) { return i == 0 ? x.x : i == 1 ? x.y : i == 2 ? x.z : x.w; }

/// Two fp32 numbers as 16-bit floats, and what these lack of them as such.
template <typename Float>
__device__ __forceinline__ ColumnOperand split_pair(float a, float b) {
  const uint32_t high = to_pair<Float>(a, b);
  const float2 rounded = to_floats<Float>(high);
  return {high, to_pair<Float>(a - rounded.x, b - rounded.y)};
}

/// The parameters of one side of a tile as this lane's operands.
template <typename Float, TileLayout kTile, Side kSide>
struct Parameters {
  static constexpr int kGroups = kTile.groups(kSide);
  static constexpr int kRows = kTile.rows(kSide);
  const uint8_t* scales;
  int g, t;

  __device__ __forceinline__ explicit Parameters(const uint8_t* side)
      : scales(side + kTile.code_bytes(kSide)), g(threadIdx.x % 32 / 4), t(threadIdx.x % 4) {}

  __device__ __forceinline__ const uint8_t* minima() const { return scales + kTile.scale_bytes(kSide); }

  /// Column parameters: scales of the 32 columns from 32·k2 in group j; x, z belong to k-step 2·k2, y, w to 2·k2 + 1.
  __device__ __forceinline__ uint4 column_scales(int k2, int j) const {
    return *reinterpret_cast<const uint4*>(scales + 64 * (k2 * kGroups + j) + 16 * t);
  }
  /// The same of minima, rows g of the operand standing for group g % groups. k-step 2·k2 is in rows g, 2·k2 + 1 in rows
  /// g + 8: times the queries (probabilities) of one step, the other eight rows of the product mean nothing.
  __device__ __forceinline__ RowOperand column_minima(int k2) const {
    const int j = kGroups == 1 ? 0 : g % kGroups;
    const uint4 m = *reinterpret_cast<const uint4*>(minima() + 64 * (k2 * kGroups + j) + 16 * t);
    return {m.x, m.y, m.z, m.w};
  }

  /// Row parameters: scales of rows g, g+8 in group j, one word for each of the four m-tiles from 4·r4.
  __device__ __forceinline__ uint4 row_scales(int r4, int j) const {
    return *reinterpret_cast<const uint4*>(scales + 128 * (j * (kRows / 64) + r4) + 16 * g);
  }
  /// The same of minima where there is one group.
  __device__ __forceinline__ uint4 row_minima(int r4) const {
    return *reinterpret_cast<const uint4*>(minima() + 128 * r4 + 16 * g);
  }
  /// Minima of m-tiles 2·r2 (against the low half of the summed index) and 2·r2 + 1 (against the high half), groups being
  /// that index.
  __device__ __forceinline__ RowOperand row_minima_by_group(int r2) const {
    constexpr int kPairs = kGroups / 2;
    const uint4 w = *reinterpret_cast<const uint4*>(minima() + 16 * ((r2 * 8 + g) * kPairs + t % kPairs));
    return {w.x, w.y, w.z, w.w};
  }
};

/// What row minima are multiplied by: Σ q of channel groups, or Σ p of token groups, in parts that are 16-bit floats.
/// Groups 2t, 2t+1 of column g; zeros past the last group.
template <typename Float, int kGroups>
struct GroupSums {
  uint32_t high, low;

  __device__ __forceinline__ void add_minima(Accumulator& even, Accumulator& odd, const RowOperand& minima) const {
    mma<Float>(even, minima, {high, 0u});
    mma<Float>(odd, minima, {0u, high});
    mma<Float>(even, minima, {low, 0u});
    mma<Float>(odd, minima, {0u, low});
  }
};

/// A single group: fp32 sums of columns 2t, 2t+1. Multiplied by lanes, since words of minima would first have to be moved
/// into operands of the mma.
template <typename Float>
struct GroupSums<Float, 1> {
  float sum[2];

  /// x += minimum · sum for rows g and g+8 of an m-tile, a word of minima, and the first kColumns columns of the lane; x is in units of
  /// `unit` in rows g, of `unit8` in rows g+8.
  template <int kColumns>
  __device__ __forceinline__ void add_minima(Accumulator& x, uint32_t minima, float unit, float unit8) const {
    const float2 m = to_floats<Float>(minima);
#pragma unroll
    for (int i = 0; i < kColumns; ++i) {
      x[i] = fmaf(m.x, sum[i] / unit, x[i]);
      x[2 + i] = fmaf(m.y, sum[i] / unit8, x[2 + i]);
    }
  }
};

/// Σ q over the channels of each group, of the row of the lane's column (g); all lanes of one g agree.
template <typename Float, int kChannels, int kRows, int kGroups>
struct QuerySums {
  float by_group[kGroups];

  __device__ __forceinline__ explicit QuerySums(const Queries<Float, kChannels, kRows>& q) {
    constexpr int kSteps = kChannels / 16 / kGroups;
#pragma unroll
    for (int j = 0; j < kGroups; ++j) {
      by_group[j] = 0.f;
#pragma unroll
      for (int k = j * kSteps; k < (j + 1) * kSteps; ++k) {
        const float2 a = to_floats<Float>(q.dense[k].low_half), b = to_floats<Float>(q.dense[k].high_half);
        by_group[j] += (a.x + a.y) + (b.x + b.y);
      }
      by_group[j] += __shfl_xor_sync(kFullWarp, by_group[j], 1);
      by_group[j] += __shfl_xor_sync(kFullWarp, by_group[j], 2);
    }
  }

  __device__ __forceinline__ GroupSums<Float, kGroups> sums() const {
    const int t = threadIdx.x % 4;
    if constexpr (kGroups == 1) {
      return {{__shfl_sync(kFullWarp, by_group[0], 8 * t), __shfl_sync(kFullWarp, by_group[0], 8 * t + 4)}};
    } else {
      float mine[2] = {0.f, 0.f};
#pragma unroll
      for (int j = 0; j < kGroups; ++j)
        if (j / 2 == t) mine[j % 2] = by_group[j];
      const ColumnOperand parts = split_pair<Float>(mine[0], mine[1]);
      return {parts.low_half, parts.high_half};
    }
  }
};

}  // namespace kvprof
