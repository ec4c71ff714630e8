// Attention of one warp to 16 positions of the dense window: copied to shared memory, then two short rows of mma's.
//
// A side of a unit (K or V) is 16 rows in shared memory, each D 16-bit floats. The 16-byte chunks of a row are stored in the
// order chunk ^ (row % 8), so that the eight rows of an 8x8 matrix lie in different banks.
#pragma once

#include "kvprof/copy_ring.cuh"
#include "kvprof/query.cuh"
#include "kvprof/softmax.cuh"

namespace kvprof {

constexpr int kUnitTokens = 16;

/// `kReadOnce`: the window is the whole cache, and not a few recent tokens, which the L2 can keep from step to step.
template <typename Float, int kChannels, int kRows, bool kReadOnce>
struct WindowUnit {
  static constexpr int kChunks = kChannels / 8;  // of 16 bytes in a row
  static constexpr int kSideBytes = kUnitTokens * kChannels * 2;

  static __device__ __forceinline__ uint32_t place(int row, int chunk) {
    return 16 * (row * kChunks + (chunk ^ (row % 8)));
  }
  static constexpr int kRowsAtOnce = 32 / kChunks;  // that a copy of one warp is

  /// Starts copying one side of the 16 positions from slot `first` of a ring [capacity, D] on, capacity at least 16.
  /// Positions from the `count`th on become zeros, so that nothing that was never written is multiplied by a zero
  /// probability.
  static __device__ __forceinline__ void load(uint32_t to, const Float* ring, int first, int capacity, int count) {
    const int chunk = threadIdx.x % 32 % kChunks, row = threadIdx.x % 32 / kChunks;
    if (first + kUnitTokens <= capacity && count >= kUnitTokens) {
      copy_rows(to, place(row, chunk), ring + static_cast<uint32_t>(first + row) * kChannels + 8 * chunk);
    } else {
#pragma unroll
      for (int i = row; i < kUnitTokens; i += kRowsAtOnce) {
        const int slot = first + i < capacity ? first + i : first + i - capacity;
        copy16_async(to + place(i, chunk), ring + static_cast<uint32_t>(slot) * kChannels + 8 * chunk, i < count);
      }
    }
  }

  /// All rows from kRow on, of which this lane's first lies at `from`, and the first of all at place `mine`. With row < kRowsAtOnce,
  /// (row + kRow) % 8 is row ^ kRow % 8: so places differ by constants.
  template <int kRow = 0>
  static __device__ __forceinline__ void copy_rows(uint32_t to, uint32_t mine, const Float* from) {
    constexpr int kTo = 16 * kChunks * kRow, kFrom = 2 * kChannels * kRow;
    if constexpr (kReadOnce)
      stream16_async_between<kTo, kFrom>(to + (mine ^ (16 * (kRow % 8))), from);
    else
      copy16_async_between<kTo, kFrom>(to + (mine ^ (16 * (kRow % 8))), from);
    if constexpr (kRow + kRowsAtOnce < kUnitTokens) copy_rows<kRow + kRowsAtOnce>(to, mine, from);
  }

  static __device__ __forceinline__ void scores(uint32_t side, const Queries<Float, kChannels, kRows>& q,
                                                Accumulator (&score)[1]) {
    const int lane = threadIdx.x % 32;
    Accumulator sum[2];  // two chains of dependent mma's
#pragma unroll
    for (int k = 0; k < kChannels / 16; ++k) {
      const uint4 a = load_matrices(side + place(lane % 16, 2 * k + lane / 16));
      mma<Float>(sum[k % 2], {a.x, a.y, a.z, a.w}, q.dense[k]);
    }
#pragma unroll
    for (int i = 0; i < 4; ++i) score[0][i] = sum[0][i] + sum[1][i];
  }

  template <typename State>
  static __device__ __forceinline__ void values(uint32_t side, const ColumnOperand& p, State& state) {
    const int lane = threadIdx.x % 32;
    add_column_sums<Float>(state.denominator, p);
#pragma unroll
    for (int r = 0; r < kChannels / 16; ++r) {
      const uint4 a =
          load_matrices_transposed(side + place(lane % 8 + lane / 16 * 8, 2 * r + lane / 8 % 2));
      mma<Float>(state.out[r], {a.x, a.y, a.z, a.w}, p);
    }
  }
};

}  // namespace kvprof
