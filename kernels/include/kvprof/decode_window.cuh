// Attention of one warp to 16 positions of the dense window: copied to shared memory, then two short rows of mma's.
//
// A side of a unit (K or V) is 16 rows in shared memory, each D 16-bit floats and 16 bytes of padding, so that the eight
// rows of an 8x8 matrix lie in different banks.
#pragma once

#include "kvprof/copy_ring.cuh"
#include "kvprof/query.cuh"
#include "kvprof/softmax.cuh"

namespace kvprof {

constexpr int kUnitTokens = 16;

template <typename Float, int kChannels>
struct WindowUnit {
  static constexpr int kRowBytes = kChannels * 2;
  static constexpr int kStride = kRowBytes + 16;
  static constexpr int kSideBytes = kUnitTokens * kStride;

  static __device__ __forceinline__ uint32_t place(int row, int chunk) { return row * kStride + 16 * chunk; }

  /// Starts copying one side of the 16 positions from ring slot `first` on to slot `s` of the copy ring; `side` is
  /// [capacity, D], capacity at least 16. Positions from the `count`th on become zeros, so that nothing that was never
  /// written is multiplied by a zero probability.
  template <typename Ring>
  static __device__ __forceinline__ void load(const Ring& ring, int s, const Float* side, int first, int capacity,
                                              int count) {
    const int lane = threadIdx.x % 32;
    const uint32_t to = ring.at(s);
    if constexpr (Ring::kBulk) {
      ring.begin(s, min(kUnitTokens, count) * kRowBytes);
      if (lane < kUnitTokens) {
        const int slot = first + lane < capacity ? first + lane : first + lane - capacity;
        if (lane < count) {
          ring.copy_bulk(s, to + place(lane, 0), side + static_cast<uint32_t>(slot) * kChannels, kRowBytes);
        } else {
#pragma unroll 1
          for (int i = 0; i < kRowBytes; i += 16) store_zeros(to + place(lane, 0) + i);
        }
      }
    } else {
      constexpr int kChunks = kRowBytes / 16, kRowsAtOnce = 32 / kChunks;
      const int chunk = lane % kChunks;
      int row = lane / kChunks, slot = first + row;
#pragma unroll
      for (int i = 0; i < kUnitTokens; i += kRowsAtOnce) {
        if (slot >= capacity) slot -= capacity;
        copy16_async(to + place(row, chunk), side + static_cast<uint32_t>(slot) * kChannels + 8 * chunk, row < count);
        row += kRowsAtOnce;
        slot += kRowsAtOnce;
      }
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
