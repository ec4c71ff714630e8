// Softmax over the keys that each query sees, of scores that are all in memory: what `eager` computes between its two products.
//
//   out[r, i] = exp(x[r, i] - max) / sum over the keys i that query r mod T sees, and 0 elsewhere
//
// Shapes   x, out [rows, S], contiguous, FP16 or BF16; rows a multiple of T, the query tokens, which are innermost. Query t is at key
//          `first_query` + t, and sees it, no later one, and of earlier ones those within the sliding window.
// Grid     x: rows, a block of 256 threads each. kEach elements a thread and access: 8 where S is a multiple of 8, else 1.
// Reference  src/model/attention/causal_softmax.rs on the CPU. Computed in float, rounded once.
// Bound    bytes: 2 read (and again, from the L2) and 2 written for each element, over the copy bandwidth.
#pragma once

#include "kvprof/ptx.cuh"

namespace kvprof {

constexpr int kSoftmaxThreads = 256;

/// Mirrored by `CausalSoftmaxParams` in src/model/attention/causal_softmax.rs.
struct CausalSoftmaxParams {
  const void* x;
  void* out;
  int32_t keys;            // S
  int32_t tokens;          // T
  int32_t first_query;
  int32_t sliding_window;  // 0: none
};
static_assert(sizeof(CausalSoftmaxParams) == 32, "mirrored in src/model/attention/causal_softmax.rs");

/// A sum of exponentials relative to a maximum.
struct ExponentialSum {
  float maximum = -INFINITY, sum = 0.f;

  __device__ __forceinline__ void add(const ExponentialSum& other) {
    const float larger = fmaxf(maximum, other.maximum);
    if (larger == -INFINITY) return;
    sum = sum * __expf(maximum - larger) + other.sum * __expf(other.maximum - larger);
    maximum = larger;
  }
};

template <typename T, int kEach>
struct CausalSoftmax {
  /// `kEach` neighbouring elements.
  struct Piece {
    float values[kEach];

    __device__ __forceinline__ static Piece load(const T* from) {
      Piece piece;
      if constexpr (kEach == 1) {
        piece.values[0] = to_floats<T>(*reinterpret_cast<const uint16_t*>(from)).x;
      } else {
        const uint4 words = *reinterpret_cast<const uint4*>(from);
        const uint32_t pairs[4] = {words.x, words.y, words.z, words.w};
#pragma unroll
        for (int i = 0; i < 4; ++i) {
          const float2 pair = to_floats<T>(pairs[i]);
          piece.values[2 * i] = pair.x;
          piece.values[2 * i + 1] = pair.y;
        }
      }
      return piece;
    }

    __device__ __forceinline__ void store(T* to) const {
      if constexpr (kEach == 1) {
        *reinterpret_cast<uint16_t*>(to) = static_cast<uint16_t>(to_pair<T>(values[0], 0.f));
      } else {
        *reinterpret_cast<uint4*>(to) =
            make_uint4(to_pair<T>(values[0], values[1]), to_pair<T>(values[2], values[3]), to_pair<T>(values[4], values[5]),
                       to_pair<T>(values[6], values[7]));
      }
    }
  };

  static __device__ __forceinline__ void run(const CausalSoftmaxParams& p) {
    const int64_t row = blockIdx.x;
    const T* const x = static_cast<const T*>(p.x) + row * p.keys;
    T* const out = static_cast<T*>(p.out) + row * p.keys;
    const int end = min(p.first_query + static_cast<int>(row % p.tokens) + 1, p.keys);
    const int begin = p.sliding_window > 0 ? max(0, end - p.sliding_window) : 0;

    ExponentialSum all;
    for (int i = (begin / kEach + threadIdx.x) * kEach; i < end; i += kSoftmaxThreads * kEach) {
      const Piece piece = Piece::load(x + i);
      const auto seen = [&](int k) { return i + k >= begin && i + k < end; };
      float largest = all.maximum;
#pragma unroll
      for (int k = 0; k < kEach; ++k) largest = seen(k) ? fmaxf(largest, piece.values[k]) : largest;
      if (largest == -INFINITY) continue;  // scores below what fp16 holds
      all.sum *= largest > all.maximum ? __expf(all.maximum - largest) : 1.f;
      all.maximum = largest;
#pragma unroll
      for (int k = 0; k < kEach; ++k) all.sum += seen(k) ? __expf(piece.values[k] - largest) : 0.f;
    }
    all = over_block(all);
    const float by = 1.f / all.sum;
    for (int i = threadIdx.x * kEach; i < p.keys; i += kSoftmaxThreads * kEach) {
      Piece piece{};
      if (i + kEach > begin && i < end) {
        piece = Piece::load(x + i);
#pragma unroll
        for (int k = 0; k < kEach; ++k)
          piece.values[k] = i + k >= begin && i + k < end ? __expf(piece.values[k] - all.maximum) * by : 0.f;
      }
      piece.store(out + i);
    }
  }

 private:
  static __device__ __forceinline__ ExponentialSum over_block(ExponentialSum mine) {
    __shared__ ExponentialSum warps[kSoftmaxThreads / 32];
#pragma unroll
    for (int lanes = 16; lanes > 0; lanes /= 2) {
      mine.add({__shfl_xor_sync(kFullWarp, mine.maximum, lanes), __shfl_xor_sync(kFullWarp, mine.sum, lanes)});
    }
    if (threadIdx.x % 32 == 0) warps[threadIdx.x / 32] = mine;
    __syncthreads();
    ExponentialSum all;
    for (int i = 0; i < kSoftmaxThreads / 32; ++i) all.add(warps[i]);
    return all;
  }
};

}  // namespace kvprof
