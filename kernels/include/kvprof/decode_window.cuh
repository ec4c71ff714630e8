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

template <typename Float, int kChannels>
struct WindowUnit {
  static constexpr int kChunks = kChannels / 8;  // of 16 bytes in a row
  static constexpr int kSideBytes = kUnitTokens * kChannels * 2;

  static __device__ __forceinline__ uint32_t place(int row, int chunk) {
    return 16 * (row * kChunks + (chunk ^ (row % 8)));
  }

  /// Starts copying one side of the 16 positions from slot `first` of a ring [capacity, D] on, capacity at least 16.
  /// Positions from the `count`th on become zeros, so that nothing that was never written is multiplied by a zero
  /// probability.
  static __device__ __forceinline__ void load(uint32_t to, const Float* ring, int first, int capacity, int count) {
    constexpr int kRowsAtOnce = 32 / kChunks;
    const int chunk = threadIdx.x % 32 % kChunks;
    int row = threadIdx.x % 32 / kChunks, slot = first + row;
#pragma unroll
    for (int i = 0; i < kUnitTokens; i += kRowsAtOnce) {
      if (slot >= capacity) slot -= capacity;
      copy16_async(to + place(row, chunk), ring + static_cast<uint32_t>(slot) * kChannels + 8 * chunk, row < count);
      row += kRowsAtOnce;
      slot += kRowsAtOnce;
    }
  }

  static __device__ __forceinline__ void scores(uint32_t side, const Queries<Float, kChannels>& q,
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

  static __device__ __forceinline__ void values(uint32_t side, const ColumnOperand& p,
                                                AttentionState<kChannels>& state) {
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
