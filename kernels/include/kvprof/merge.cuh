// Merging attention over parts of the sequence. A part is (maximum in log2 units, denominator, output before division),
// all fp32. Three steps, each skipped where there is one part: the warps of a block, through its shared memory; the blocks
// of a cluster, through each other's; the clusters of a row of the grid, through device memory, in the block that arrives
// last.
#pragma once

#include "kvprof/cluster.cuh"
#include "kvprof/decode_params.cuh"
#include "kvprof/query.cuh"
#include "kvprof/softmax.cuh"

namespace kvprof {

/// Where the rows of one pass (at most eight) of one batch entry and KV head go.
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

template <typename Float, int kChannels, int kWarps>
struct Merge {
  static constexpr int kThreads = 32 * kWarps;
  static constexpr int kStride = kChannels + 4;  // floats; keeps the writes of a warp in different banks
  static constexpr int kQuads = kChannels / 4;
  static constexpr int kPartBytes = 8 * (kStride * 4 + 8);
  /// Shared memory: a part for each warp, and the block's.
  static constexpr int kBytes = (kWarps + 1) * kPartBytes;

  const DecodeParams& p;
  const Pass& pass;

  /// Merges everything and writes the output. To be called by all threads, `shared` free for use.
  __device__ __forceinline__ void run(const AttentionState<kChannels>& state, uint8_t* shared) const {
    const int cluster = cluster_size(), clusters = gridDim.x / cluster, quads = pass.rows * kQuads;
    put_warp(state, shared);
    __syncthreads();
    if (cluster == 1) {
      for (int i = threadIdx.x; i < quads; i += kThreads) put(merge_warps(shared, i), i, clusters, blockIdx.x);
    } else {
      float* block = reinterpret_cast<float*>(shared + kWarps * kPartBytes);
      float2* block_sums = reinterpret_cast<float2*>(block + 8 * kStride);
      for (int i = threadIdx.x; i < quads; i += kThreads) {
        const PartQuad part = merge_warps(shared, i);
        *reinterpret_cast<float4*>(block + i / kQuads * kStride + 4 * (i % kQuads)) = part.out;
        if (i % kQuads == 0) block_sums[i / kQuads] = {part.maximum, part.sum};
      }
      cluster_barrier();
      for (int i = cluster_rank() * kThreads + threadIdx.x; i < quads; i += cluster * kThreads)
        put(merge_cluster(block, block_sums, i, cluster), i, clusters, blockIdx.x / cluster);
      cluster_barrier();  // nobody leaves while others read its shared memory
    }
    if (clusters > 1) finish(clusters, cluster, reinterpret_cast<uint32_t*>(shared));
  }

 private:
  __device__ __forceinline__ void put_warp(const AttentionState<kChannels>& state, uint8_t* shared) const {
    const int g = threadIdx.x % 32 / 4, t = threadIdx.x % 4;
    float* out = reinterpret_cast<float*>(shared + threadIdx.x / 32 * kPartBytes);
    float2* sums = reinterpret_cast<float2*>(out + 8 * kStride);
#pragma unroll
    for (int column = 0; column < 2; ++column) {
      const int row = 2 * t + column;
      if (g == 0) sums[row] = {state.maximum[column], state.denominator[column]};
#pragma unroll
      for (int r = 0; r < kChannels / 16; ++r) {
        out[row * kStride + 16 * r + g] = state.out[r][column];
        out[row * kStride + 16 * r + 8 + g] = state.out[r][2 + column];
      }
    }
  }

  static __device__ __forceinline__ PartQuad merge_warps(const uint8_t* shared, int i) {
    const int row = i / kQuads, quad = i % kQuads;
    PartQuad part;
    const auto sums = [&](int w) {
      return reinterpret_cast<const float2*>(shared + w * kPartBytes + 8 * kStride * 4)[row];
    };
#pragma unroll
    for (int w = 0; w < kWarps; ++w) part.maximum = fmaxf(part.maximum, sums(w).x);
#pragma unroll
    for (int w = 0; w < kWarps; ++w)
      part.add(sums(w), reinterpret_cast<const float4*>(shared + w * kPartBytes + row * kStride * 4)[quad],
               exp2_fast(sums(w).x - part.maximum));
    return part;
  }

  static __device__ __forceinline__ PartQuad merge_cluster(const float* block, const float2* sums, int i, int cluster) {
    const int row = i / kQuads, quad = i % kQuads;
    const uint32_t out_at = shared_address(block + row * kStride + 4 * quad), sums_at = shared_address(sums + row);
    PartQuad part;
#pragma unroll 4
    for (int rank = 0; rank < cluster; ++rank) {
      const float2 other = load_remote2(sums_at, rank);
      const float4 out = load_remote4(out_at, rank);
      const float maximum = fmaxf(part.maximum, other.x);
      part.scale(exp2_fast(part.maximum - maximum));
      part.maximum = maximum;
      part.add(other, out, exp2_fast(other.x - maximum));
    }
    return part;
  }

  /// Writes the output if this part is all, else the part.
  __device__ __forceinline__ void put(const PartQuad& part, int i, int parts, int index) const {
    const int row = i / kQuads, quad = i % kQuads;
    if (parts == 1) {
      store(part, row, quad);
    } else {
      const int64_t at = (pass.partial_row + row) * parts + index;
      reinterpret_cast<float4*>(p.partial_out)[at * kQuads + quad] = part.out;
      if (quad == 0) p.partial_sums[at] = {part.maximum, part.sum};
    }
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

  /// In the block that arrives last: merges the parts that all clusters have put into device memory.
  __device__ __forceinline__ void finish(int parts, int cluster, uint32_t* last) const {
    __syncthreads();  // every thread has put its share
    if (threadIdx.x == 0) {
      __threadfence();
      // Every block arrives. The counter wraps to 0, ready for the next launch.
      *last = atomicInc(p.arrivals + blockIdx.z * gridDim.y + blockIdx.y, gridDim.x - 1) == gridDim.x - 1;
    }
    __syncthreads();
    if (!*last) return;
    __threadfence();
    constexpr int kAtOnce = 8;
    for (int i = threadIdx.x; i < pass.rows * kQuads; i += kThreads) {
      const int64_t first = (pass.partial_row + i / kQuads) * parts;
      const float2* sums = p.partial_sums + first;
      const float4* outs = reinterpret_cast<const float4*>(p.partial_out) + first * kQuads + i % kQuads;
      PartQuad part;
      for (int s = 0; s < parts; s += kAtOnce) {
        float2 other[kAtOnce];
        float4 out[kAtOnce];
        float maximum = part.maximum;
#pragma unroll
        for (int n = 0; n < kAtOnce; ++n) {
          const int at = min(s + n, parts - 1);
          other[n] = __ldcg(sums + at);
          out[n] = __ldcg(outs + static_cast<int64_t>(at) * kQuads);
        }
#pragma unroll
        for (int n = 0; n < kAtOnce; ++n) maximum = fmaxf(maximum, other[n].x);
        part.scale(exp2_fast(part.maximum - maximum));
        part.maximum = maximum;
#pragma unroll
        for (int n = 0; n < kAtOnce; ++n)
          part.add(other[n], out[n], s + n < parts ? exp2_fast(other[n].x - maximum) : 0.f);
      }
      store(part, i / kQuads, i % kQuads);
    }
  }
};

}  // namespace kvprof
