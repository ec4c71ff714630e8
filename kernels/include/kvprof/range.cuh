// Least and greatest element of every group of a staged tile, two elements at a time.
#pragma once

#include "kvprof/arithmetic.cuh"
#include "kvprof/staging.cuh"

namespace kvprof {

/// A pair of elements that are compared separately, for minima and maxima.
template <typename T>
struct Extremes {
  using Pair = typename std::conditional<std::is_same<T, __half>::value, __half2, __nv_bfloat162>::type;
  Pair low, high;

  static __device__ __forceinline__ Pair pair_of(uint32_t bits) { return reinterpret_cast<const Pair&>(bits); }

  __device__ __forceinline__ explicit Extremes(uint32_t first) : low(pair_of(first)), high(low) {}
  __device__ __forceinline__ void add(uint32_t bits) {
    low = min_or_nan(low, pair_of(bits));
    high = max_or_nan(high, pair_of(bits));
  }
  /// Merges what `kLanes` neighbouring lanes have seen.
  template <int kLanes>
  __device__ __forceinline__ void merge_lanes() {
#pragma unroll
    for (int step = 1; step < kLanes; step *= 2) {
      low = min_or_nan(low, pair_of(__shfl_xor_sync(kFullWarp, bits_of(low), step)));
      high = max_or_nan(high, pair_of(__shfl_xor_sync(kFullWarp, bits_of(high), step)));
    }
  }
  /// Minimum (low half) and maximum (high half) of the first elements of all pairs, and of the second.
  __device__ __forceinline__ uint2 by_element() const {
    return make_uint2(__byte_perm(bits_of(low), bits_of(high), 0x5410), __byte_perm(bits_of(low), bits_of(high), 0x7632));
  }
  /// Of all elements.
  __device__ __forceinline__ uint32_t over_all() const {
    const uint32_t swapped_low = __byte_perm(bits_of(low), 0, 0x1032), swapped_high = __byte_perm(bits_of(high), 0, 0x1032);
    return __byte_perm(bits_of(min_or_nan(low, pair_of(swapped_low))), bits_of(max_or_nan(high, pair_of(swapped_high))),
                       0x5410);
  }
};

/// Calls `found(group, minimum | maximum << 16)` for every group, each from one of the block's `kThreads` threads.
template <int kThreads, typename T, int D, Direction kDirection, int G, typename Found>
__device__ __forceinline__ void find_ranges(const StagedTile<T, D>& staged, int tokens, const Found& found) {
  constexpr int kLanes = G >= 64 ? 4 : G / 16;  // lanes that share a group
  constexpr int kEach = G / kLanes;             // its elements for each: 16, or 32 where G is 128
  const int lane = threadIdx.x % kLanes;
  if constexpr (kDirection == Direction::channel) {
    // A lane takes two channels, and tokens such that the lanes of a warp read different banks.
    constexpr int kRun = 8 / kLanes;
    const int units = tokens / G * (D / 2);
    for (int unit = threadIdx.x / kLanes; unit < units; unit += kThreads / kLanes) {
      const int channel = unit % (D / 2) * 2, group = unit / (D / 2);
      const T* at = staged.row(group * G + lane * kRun) + channel;
      const auto element = [&](int k) {
        return *reinterpret_cast<const uint32_t*>(at + (k / kRun * 8 + k % kRun) * StagedTile<T, D>::kStride);
      };
      Extremes<T> extremes(element(0));
#pragma unroll
      for (int k = 1; k < kEach; ++k) extremes.add(element(k));
      extremes.template merge_lanes<kLanes>();
      const uint2 ranges = extremes.by_element();
      if (lane == 0) {
        found(group * D + channel, ranges.x);
        found(group * D + channel + 1, ranges.y);
      }
    }
  } else {
    const int units = tokens * (D / G);
    for (int unit = threadIdx.x / kLanes; unit < units; unit += kThreads / kLanes) {
      const int token = unit & (tokens - 1), first = Groups<kDirection, G, D>::first_channel(unit, tokens);
      const T* at = staged.row(token) + first + lane * 8;
      const auto piece = [&](int k) { return *reinterpret_cast<const uint4*>(at + k * kLanes * 8); };
      Extremes<T> extremes(piece(0).x);
#pragma unroll
      for (int k = 0; k < kEach / 8; ++k) {
        const uint4 x = piece(k);
        extremes.add(x.x);
        extremes.add(x.y);
        extremes.add(x.z);
        extremes.add(x.w);
      }
      extremes.template merge_lanes<kLanes>();
      const uint32_t range = extremes.over_all();
      if (lane == 0) found(unit, range);
    }
  }
}

}  // namespace kvprof
