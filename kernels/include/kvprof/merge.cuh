// Merging attention over parts of the sequence. A part is (maximum in log2 units, denominator, output before division),
// all fp32. First the warps of a block are merged, through its shared memory; then, where there are several splits, these,
// through device memory, by the block that arrives last.
#pragma once

#include "kvprof/decode_params.cuh"
#include "kvprof/query.cuh"
#include "kvprof/softmax.cuh"

namespace kvprof {

/// Where the rows of one pass (at most kRows) of one batch entry and KV head go.
struct Pass {
  int batch, kv_head, first_row, rows;
  int64_t partial_row;  ///< of first_row in partial_out and partial_sums
};

/// Four channels of a row of a part; kNoMaximum and zeros where nothing was seen.
struct PartQuad {
  float maximum = kNoMaximum, sum = 0.f;
  float4 out = {0.f, 0.f, 0.f, 0.f};

  __device__ __forceinline__ void scale(float by) {
    sum *= by;
    out.x *= by;
    out.y *= by;
    out.z *= by;
    out.w *= by;
  }
  __device__ __forceinline__ void add(float2 other_sums, const float4& other, float weight) {
    sum = fmaf(other_sums.y, weight, sum);
    out.x = fmaf(other.x, weight, out.x);
    out.y = fmaf(other.y, weight, out.y);
    out.z = fmaf(other.z, weight, out.z);
    out.w = fmaf(other.w, weight, out.w);
  }
};

template <typename Float, int kChannels, int kRows, int kWarps>
struct Merge {
  static constexpr int kThreads = 32 * kWarps;
  static constexpr int kStride = kChannels + 4;  // floats; keeps the writes of a warp in different banks
  static constexpr int kQuads = kChannels / 4;
  static constexpr int kEach = (kRows * kQuads + kThreads - 1) / kThreads;  // quads of a thread
  static constexpr int kPartBytes = kRows * (kStride * 4 + 8);
  static constexpr int kBytes = kWarps * kPartBytes;

  const DecodeParams& p;
  const Pass& pass;

  /// Merges everything and writes the output. To be called by all threads, `shared` (kBytes) free for use.
  template <typename State>
  __device__ __forceinline__ void run(const State& state, uint8_t* shared) const {
    put_warp(state, shared);
    __syncthreads();
    for (int i = threadIdx.x; i < pass.rows * kQuads; i += kThreads) {
      const PartQuad part = merge_warps(shared, i / kQuads, i % kQuads);
      if (gridDim.x == 1)
        store(part, i / kQuads, i % kQuads);
      else
        put_split(part, i / kQuads, i % kQuads);
    }
    if (gridDim.x > 1 && is_last(reinterpret_cast<uint32_t*>(shared))) {
      // Unrolled, since a thread has one quad, or two: 0.1 to 0.5 us less.
#pragma unroll
      for (int n = 0; n < kEach; ++n) {
        const int i = threadIdx.x + n * kThreads;
        if (i < pass.rows * kQuads) store(merge_splits(i / kQuads, i % kQuads), i / kQuads, i % kQuads);
      }
    }
  }

 private:
  template <typename State>
  __device__ __forceinline__ void put_warp(const State& state, uint8_t* shared) const {
    const int g = threadIdx.x % 32 / 4, t = threadIdx.x % 4;
    float* out = reinterpret_cast<float*>(shared + threadIdx.x / 32 * kPartBytes);
    float2* sums = reinterpret_cast<float2*>(out + kRows * kStride);
#pragma unroll
    for (int i = 0; i < state.kLaneRows; ++i) {
      const int row = state.kLaneRows * t + i;
      if (g == 0) sums[row] = {state.maximum[i], state.denominator[i]};
#pragma unroll
      for (int r = 0; r < kChannels / 16; ++r) {
        out[row * kStride + 16 * r + g] = state.out[r][i];
        out[row * kStride + 16 * r + 8 + g] = state.out[r][2 + i];
      }
    }
  }

  static __device__ __forceinline__ PartQuad merge_warps(const uint8_t* shared, int row, int quad) {
    const auto sums = [&](int w) {
      return reinterpret_cast<const float2*>(shared + w * kPartBytes + kRows * kStride * 4)[row];
    };
    PartQuad part;
#pragma unroll
    for (int w = 0; w < kWarps; ++w) part.maximum = fmaxf(part.maximum, sums(w).x);
#pragma unroll
    for (int w = 0; w < kWarps; ++w)
      part.add(sums(w), reinterpret_cast<const float4*>(shared + w * kPartBytes + row * kStride * 4)[quad],
               exp2_fast(sums(w).x - part.maximum));
    return part;
  }

  __device__ __forceinline__ void put_split(const PartQuad& part, int row, int quad) const {
    const int64_t at = (pass.partial_row + row) * gridDim.x + blockIdx.x;
    reinterpret_cast<float4*>(p.partial_out)[at * kQuads + quad] = part.out;
    if (quad == 0) p.partial_sums[at] = {part.maximum, part.sum};
  }

  /// Whether all other splits of this pass have put their parts.
  __device__ __forceinline__ bool is_last(uint32_t* shared) const {
    __syncthreads();  // every thread has put its share of the part, and read what `shared` held
    if (threadIdx.x == 0) {
      // Releases the parts of this block, acquires those of others, for the threads on either side of the barriers too.
      // The counter wraps to 0, ready for the next launch.
      const uint32_t before =
          atomic_increment(p.arrivals + blockIdx.z * gridDim.y + blockIdx.y, gridDim.x - 1);
      *shared = before == gridDim.x - 1;
    }
    __syncthreads();
    return *shared;
  }

  __device__ __forceinline__ PartQuad merge_splits(int row, int quad) const {
    constexpr int kAtOnce = 8;
    const int splits = gridDim.x;
    const int64_t first = (pass.partial_row + row) * splits;
    const float2* sums = p.partial_sums + first;
    const float4* outs = reinterpret_cast<const float4*>(p.partial_out) + first * kQuads + quad;
    PartQuad part;
    for (int s = 0; s < splits; s += kAtOnce) {
      float2 other[kAtOnce];
      float4 out[kAtOnce];
      float maximum = part.maximum;
#pragma unroll
      for (int n = 0; n < kAtOnce; ++n) {
        const int at = min(s + n, splits - 1);
        other[n] = __ldcg(sums + at);
        out[n] = __ldcg(outs + static_cast<int64_t>(at) * kQuads);
      }
#pragma unroll
      for (int n = 0; n < kAtOnce; ++n) maximum = fmaxf(maximum, other[n].x);
      part.scale(exp2_fast(part.maximum - maximum));
      part.maximum = maximum;
#pragma unroll
      for (int n = 0; n < kAtOnce; ++n)
        part.add(other[n], out[n], s + n < splits ? exp2_fast(other[n].x - maximum) : 0.f);
    }
    return part;
  }

  __device__ __forceinline__ void store(const PartQuad& part, int row, int quad) const {
    const RowPlace place = row_place(p, pass.batch, pass.kv_head, pass.first_row + row);
    Float* out = static_cast<Float*>(p.out) + static_cast<int64_t>(place.batch) * p.out_batch_stride +
                 static_cast<int64_t>(place.head) * p.out_head_stride +
                 static_cast<int64_t>(place.token) * p.out_token_stride + 4 * quad;
    const float by = 1.f / part.sum;
    *reinterpret_cast<uint2*>(out) = {to_pair<Float>(part.out.x * by, part.out.y * by),
                                      to_pair<Float>(part.out.z * by, part.out.w * by)};
  }
};

}  // namespace kvprof
