// Merging attention over parts of the sequence: first the warps of a block, then, in the block that arrives last, the
// blocks (splits). A part is (maximum in log2 units, denominator, output before division), all fp32.
#pragma once

#include "kvprof/decode_params.cuh"
#include "kvprof/query.cuh"
#include "kvprof/softmax.cuh"

namespace kvprof {

/// Where the rows of one pass (at most eight) of one batch entry and KV head go.
struct Pass {
  int batch, kv_head, first_row, rows;
  int64_t partial_row;  ///< of first_row in partial_out and partial_sums
};

template <int kChannels, int kWarps>
struct Merge {
  static constexpr int kThreads = 32 * kWarps;
  static constexpr int kStride = kChannels + 4;  // floats; keeps the writes of a warp in different banks
  static constexpr int kQuads = kChannels / 4;
  static constexpr int kBytes = kWarps * 8 * (kStride * 4 + 8);

  template <typename Float>
  static __device__ __forceinline__ void store(const DecodeParams& p, const Pass& pass, int row, int quad, float4 x) {
    const RowPlace place = row_place(p, pass.batch, pass.kv_head, pass.first_row + row);
    Float* out = static_cast<Float*>(p.out) + static_cast<int64_t>(place.batch) * p.out_batch_stride +
                 static_cast<int64_t>(place.head) * p.out_head_stride +
                 static_cast<int64_t>(place.token) * p.out_token_stride + 4 * quad;
    *reinterpret_cast<uint2*>(out) = {to_pair<Float>(x.x, x.y), to_pair<Float>(x.z, x.w)};
  }

  /// Merges the warps' states through `shared` (kBytes). Writes the output where one split is all, else a part.
  template <typename Float>
  static __device__ __forceinline__ void warps(const DecodeParams& p, const Pass& pass,
                                               const AttentionState<kChannels>& state, uint8_t* shared) {
    const int warp = threadIdx.x / 32, g = threadIdx.x % 32 / 4, t = threadIdx.x % 4;
    float* out = reinterpret_cast<float*>(shared);
    float2* sums = reinterpret_cast<float2*>(out + kWarps * 8 * kStride);
#pragma unroll
    for (int column = 0; column < 2; ++column) {
      const int row = warp * 8 + 2 * t + column;
      if (g == 0) sums[row] = {state.maximum[column], state.sums[2 + column]};
#pragma unroll
      for (int r = 0; r < kChannels / 16; ++r) {
        out[row * kStride + 16 * r + g] = state.out[r][column];
        out[row * kStride + 16 * r + 8 + g] = state.out[r][2 + column];
      }
    }
    __syncthreads();
    for (int i = threadIdx.x; i < pass.rows * kQuads; i += kThreads) {
      const int row = i / kQuads, quad = i % kQuads;
      float maximum = kNoMaximum, sum = 0.f;
      float4 x = {0.f, 0.f, 0.f, 0.f};
#pragma unroll
      for (int w = 0; w < kWarps; ++w) maximum = fmaxf(maximum, sums[w * 8 + row].x);
#pragma unroll
      for (int w = 0; w < kWarps; ++w) {
        const float weight = exp2_fast(sums[w * 8 + row].x - maximum);
        add(x, *reinterpret_cast<const float4*>(out + (w * 8 + row) * kStride + 4 * quad), weight);
        sum = fmaf(sums[w * 8 + row].y, weight, sum);
      }
      if (gridDim.x == 1) {
        store<Float>(p, pass, row, quad, scaled(x, 1.f / sum));
      } else {
        const int64_t part = (pass.partial_row + row) * gridDim.x + blockIdx.x;
        reinterpret_cast<float4*>(p.partial_out)[part * kQuads + quad] = x;
        if (quad == 0) p.partial_sums[part] = {maximum, sum};
      }
    }
  }

  /// In the block that arrives last: merges all splits of the pass. `shared` holds 8·splits + 1 words.
  template <typename Float>
  static __device__ __forceinline__ void splits(const DecodeParams& p, const Pass& pass, uint8_t* shared) {
    const int count = gridDim.x, warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    uint32_t* last = reinterpret_cast<uint32_t*>(shared);
    float* weights = reinterpret_cast<float*>(shared + 16);
    __syncthreads();  // every thread has written its share of the part, and read what `shared` held
    if (threadIdx.x == 0) {
      __threadfence();
      // Wraps to 0, ready for the next launch.
      *last = atomicInc(p.arrivals + blockIdx.z * gridDim.y + blockIdx.y, count - 1) == count - 1;
    }
    __syncthreads();
    if (!*last) return;
    __threadfence();

    for (int row = warp; row < pass.rows; row += kWarps) {
      const float2* sums = p.partial_sums + (pass.partial_row + row) * count;
      float maximum = kNoMaximum, sum = 0.f;
      for (int s = lane; s < count; s += 32) maximum = fmaxf(maximum, __ldcg(sums + s).x);
      maximum = warp_max(maximum);
      for (int s = lane; s < count; s += 32) {
        const float2 part = __ldcg(sums + s);
        const float weight = exp2_fast(part.x - maximum);
        weights[row * count + s] = weight;
        sum = fmaf(part.y, weight, sum);
      }
      sum = 1.f / warp_sum(sum);
      __syncwarp();
      for (int s = lane; s < count; s += 32) weights[row * count + s] *= sum;
    }
    __syncthreads();
    for (int i = threadIdx.x; i < pass.rows * kQuads; i += kThreads) {
      const int row = i / kQuads, quad = i % kQuads;
      const float4* parts = reinterpret_cast<const float4*>(p.partial_out) + (pass.partial_row + row) * count * kQuads + quad;
      float4 x = {0.f, 0.f, 0.f, 0.f};
#pragma unroll 8
      for (int s = 0; s < count; ++s) add(x, __ldcg(parts + s * kQuads), weights[row * count + s]);
      store<Float>(p, pass, row, quad, x);
    }
  }

 private:
  static __device__ __forceinline__ void add(float4& x, const float4& y, float weight) {
    x.x = fmaf(y.x, weight, x.x);
    x.y = fmaf(y.y, weight, x.y);
    x.z = fmaf(y.z, weight, x.z);
    x.w = fmaf(y.w, weight, x.w);
  }
  static __device__ __forceinline__ float4 scaled(const float4& x, float by) {
    return {x.x * by, x.y * by, x.z * by, x.w * by};
  }
  static __device__ __forceinline__ float warp_max(float x) {
#pragma unroll
    for (int lanes = 1; lanes < 32; lanes *= 2) x = fmaxf(x, __shfl_xor_sync(kFullWarp, x, lanes));
    return x;
  }
  static __device__ __forceinline__ float warp_sum(float x) {
#pragma unroll
    for (int lanes = 1; lanes < 32; lanes *= 2) x += __shfl_xor_sync(kFullWarp, x, lanes);
    return x;
  }
};

}  // namespace kvprof
