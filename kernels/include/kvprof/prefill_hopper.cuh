// Flash attention of prefill.cuh with the warpgroup products of Hopper (compute capability 9.0a), for D = 128. Same
// parameters, same result up to the order of sums.
//
// Grid     as in prefill.cuh. Block: 384 threads; one warpgroup loads, two compute 64 rows each.
// Shared   queries [128, 128], two stages of keys and of values [128, 128]: 160 KiB, one block a multiprocessor. Every matrix is
//          two halves of 64 channels, rows of 128 bytes, permuted as wgmma reads them.
// Overlap  A computing warpgroup issues the scores of a tile together with the output of the tile before, and does the
//          softmax while the other warpgroup's products run; they take turns at a pair of named barriers.
// Loads    by the copy engine, as boxes of the ring seen as a tensor. Tiles that wrap around the ring's end, and the last one, whose rows
//          past S must be zeros, by cp.async.
// Bound    tensor cores: 4 * D FLOP a visible (query, key) pair. 2048 tokens at the end of 32768 on an H200 (FP16, 32/8 heads): 663
//          TFLOP/s, where loads by cp.async alone gave 485 and a dense 8192 x 8192 x 8192 product gives 790.
#pragma once

#include "kvprof/prefill.cuh"
#include "kvprof/wgmma.cuh"

namespace kvprof {

constexpr int kHopperThreads = 384;
constexpr int kHopperKeys = 128;
constexpr int kHopperStages = 2;
constexpr int kHopperTileBytes = 128 * 128 * 2;
constexpr int kHopperSharedBytes = (1 + 2 * kHopperStages) * kHopperTileBytes + 1024;
/// Rows of a copied box, a tile's, 64 channels each.
constexpr int kHopperBoxRows = 128;

/// Mirrored by `HopperParams` in src/model/attention/flash.rs.
struct HopperParams {
  PrefillParams prefill;
  TensorMap kv;  ///< [2 (K, V) * B * Hkv, capacity, D] in boxes [1, kHopperBoxRows, 64], permuted as `offset` says
};
static_assert(sizeof(HopperParams) == 384, "mirrored by HopperParams in src/model/attention/flash.rs");

template <typename T>
struct PrefillHopper {
  static constexpr int D = 128;
  static constexpr int kHalfBytes = 128 * 128;  // 128 rows of 64 channels
  static constexpr float kMasked = -INFINITY;

  /// What a block does: which rows, which tiles of keys.
  struct Work {
    int batch, kv_head, row0, rows, history, first_token, last_token, tile_begin, tile_end;

    __device__ __forceinline__ explicit Work(const PrefillParams& p) {
      batch = blockIdx.y / p.kv_heads;
      kv_head = blockIdx.y % p.kv_heads;
      rows = p.new_tokens * p.gqa;
      row0 = (gridDim.x - 1 - blockIdx.x) * kPrefillRows;
      history = p.cached_tokens - p.new_tokens;
      first_token = row0 / p.gqa;
      last_token = min(row0 + kPrefillRows - 1, rows - 1) / p.gqa;
      const int begin = p.window > 0 ? max(history + first_token - p.window + 1, 0) : 0;
      tile_begin = begin / kHopperKeys;
      tile_end = (history + last_token + kHopperKeys) / kHopperKeys;
      if (p.splits > 1) {
        const int per_split = (tile_end - tile_begin + p.splits - 1) / p.splits;
        tile_begin += blockIdx.z * per_split;
        tile_end = min(tile_begin + per_split, tile_end);
      }
    }
  };

  /// Shared memory, and the barriers that pass its stages between the loader and the two computing warpgroups.
  struct Stages {
    uint32_t base;
    uint32_t barriers;

    __device__ __forceinline__ Stages(const void* shared, const void* barrier_words)
        : base((shared_address(shared) + 1023) & ~1023u), barriers(shared_address(barrier_words)) {}

    __device__ __forceinline__ uint32_t queries() const { return base; }
    __device__ __forceinline__ uint32_t keys(int stage) const { return base + (1 + stage) * kHopperTileBytes; }
    __device__ __forceinline__ uint32_t values(int stage) const {
      return base + (1 + kHopperStages + stage) * kHopperTileBytes;
    }
    __device__ __forceinline__ SharedBarrier queries_full() const { return {barriers}; }
    __device__ __forceinline__ SharedBarrier keys_full(int stage) const { return of_stage(0, stage); }
    __device__ __forceinline__ SharedBarrier keys_empty(int stage) const { return of_stage(1, stage); }
    __device__ __forceinline__ SharedBarrier values_full(int stage) const { return of_stage(2, stage); }
    __device__ __forceinline__ SharedBarrier values_empty(int stage) const { return of_stage(3, stage); }

   private:
    __device__ __forceinline__ SharedBarrier of_stage(int kind, int stage) const {
      return {barriers + 8 * (1 + kind * kHopperStages + stage)};
    }
  };
  static constexpr int kBarriers = 1 + 4 * kHopperStages;

  /// Byte offset of 16 bytes of a row: half, row, permuted piece.
  static __device__ __forceinline__ uint32_t offset(int row, int chunk) {
    return (chunk >> 3) * kHalfBytes + row * 128 + (((chunk & 7) ^ (row & 7)) << 4);
  }

  static __device__ __forceinline__ void run(const HopperParams& params) {
    const PrefillParams& p = params.prefill;
    extern __shared__ __align__(16) uint8_t shared_bytes[];
    __shared__ uint64_t barrier_words[kBarriers];
    const Stages stages(shared_bytes, barrier_words);
    const Work work(p);
    if (threadIdx.x == 0) {
      stages.queries_full().init(128);
      for (int s = 0; s < kHopperStages; ++s) {
        stages.keys_full(s).init(128);
        stages.values_full(s).init(128);
        stages.keys_empty(s).init(8);
        stages.values_empty(s).init(8);
      }
      fence_for_async_proxy();  // for the copy engine, which arrives at them
    }
    __syncthreads();
    if (threadIdx.x < 128) {
      give_registers<40>();
      load(params, work, stages);
    } else {
      take_registers<232>();
      compute(p, work, stages, threadIdx.x / 128 - 1);
    }
  }

 private:
  /// Copies 128 keys or values from tile `tile` on; rows past S are filled with zeros.
  static __device__ __forceinline__ void load_rows(uint32_t shared, const T* head, const PrefillParams& p, int tile) {
    const int chunk = threadIdx.x % 16, first_row = threadIdx.x / 16;
    const int n0 = tile * kHopperKeys;
    int slot = p.first_slot + n0;
    if (slot >= p.capacity) slot -= p.capacity;
    const T* source = head + chunk * 8;
#pragma unroll 4  // fully unrolled it needs more registers than a loading thread has
    for (int i = 0; i < kHopperKeys / 8; ++i) {
      const int row = first_row + i * 8;
      const bool valid = n0 + row < p.cached_tokens;
      int row_slot = slot + row;
      if (row_slot >= p.capacity) row_slot -= p.capacity;
      copy16_async(shared + offset(row, chunk), source + (valid ? row_slot * p.kv_strides.token : 0), valid);
    }
  }

  /// Loads a tile of keys or values (`plane` 0 or 1) into a stage, and arrives at its barrier.
  static __device__ __forceinline__ void load_tile(const HopperParams& params, const T* head, int plane, int tile, uint32_t stage,
                                                   SharedBarrier full) {
    const PrefillParams& p = params.prefill;
    const int n0 = tile * kHopperKeys;
    int slot = p.first_slot + n0;
    if (slot >= p.capacity) slot -= p.capacity;
    if (slot + kHopperKeys > p.capacity || n0 + kHopperKeys > p.cached_tokens) {
      load_rows(stage, head, p, tile);
      full.arrive_when_copied();
    } else if (threadIdx.x == 0) {
      full.arrive_expecting(kHopperTileBytes);
#pragma unroll
      for (int half = 0; half < 2; ++half)
        copy_box(stage + half * kHalfBytes, params.kv, 64 * half, slot, plane * gridDim.y + blockIdx.y, full);
    } else {
      full.arrive();
    }
  }

  static __device__ __forceinline__ void load(const HopperParams& params, const Work& work, const Stages& stages) {
    const PrefillParams& p = params.prefill;
    if (work.tile_begin >= work.tile_end) return;
    const T* q = static_cast<const T*>(p.q) + work.batch * p.q_strides.batch + work.kv_head * p.gqa * p.q_strides.head;
    const int64_t head = work.batch * p.kv_strides.batch + work.kv_head * p.kv_strides.head;
    const T* k = static_cast<const T*>(p.k) + head;
    const T* v = static_cast<const T*>(p.v) + head;

    const int chunk = threadIdx.x % 16;
    for (int row = threadIdx.x / 16; row < kPrefillRows; row += 8) {
      const bool valid = work.row0 + row < work.rows;
      const int token = valid ? (work.row0 + row) / p.gqa : 0, member = valid ? (work.row0 + row) % p.gqa : 0;
      copy16_async(stages.queries() + offset(row, chunk),
                   q + member * p.q_strides.head + token * p.q_strides.token + chunk * 8, valid);
    }
    stages.queries_full().arrive_when_copied();

    for (int i = 0; i < work.tile_end - work.tile_begin; ++i) {
      const int stage = i % kHopperStages;
      const uint32_t freed = (i / kHopperStages & 1) ^ 1;
      const int tile = work.tile_end - 1 - i;
      stages.keys_empty(stage).wait(freed);
      load_tile(params, k, 0, tile, stages.keys(stage), stages.keys_full(stage));
      stages.values_empty(stage).wait(freed);
      load_tile(params, v, 1, tile, stages.values(stage), stages.values_full(stage));
    }
  }

  static __device__ __forceinline__ void compute(const PrefillParams& p, const Work& work, const Stages& stages,
                                                 int group) {
    const int warp = threadIdx.x / 32 % 4, lane = threadIdx.x % 32;
    const int quad = lane / 4, pair = lane % 4;
    const int tiles = work.tile_end - work.tile_begin;
    const int first_row = work.row0 + group * 64 + warp * 16 + quad;
    const int position[2] = {work.history + first_row / p.gqa, work.history + (first_row + 8) / p.gqa};

    float out[64];
#pragma unroll
    for (int i = 0; i < 64; ++i) out[i] = 0.0f;
    float row_max[2] = {kMasked, kMasked}, row_sum[2] = {0.0f, 0.0f};
    if (tiles > 0) {
      float scores[64];
      RowOperand weights[kHopperKeys / 16];
      float rescale[2];
      const auto masked = [&](int i) {
        const int n0 = (work.tile_end - 1 - i) * kHopperKeys;
        const bool past_diagonal = n0 + kHopperKeys > work.history + work.first_token + 1;
        const bool before_window = p.window > 0 && n0 <= work.history + work.last_token - p.window;
        if (past_diagonal || before_window) mask(scores, n0, position, p.window, pair);
      };

      stages.queries_full().wait(0);
      stages.keys_full(0).wait(0);
      fence_for_async_proxy();
      multiply_keys(scores, stages.queries() + group * 64 * 128, stages.keys(0));
      wgmma_wait<0>();
      pin(scores);
      if (lane == 0) stages.keys_empty(0).arrive();
      masked(0);
      soften(scores, row_max, row_sum, rescale, p.scale_log2);
      to_weights(scores, weights);

      if (group == 1) named_barrier_arrive(1, 256);  // the first turn is the first warpgroup's
      for (int i = 1; i < tiles; ++i) {
        const int stage = i % kHopperStages, before = (i - 1) % kHopperStages;
        stages.keys_full(stage).wait(i / kHopperStages & 1);
        fence_for_async_proxy();
        named_barrier_sync(1 + group, 256);
        multiply_keys(scores, stages.queries() + group * 64 * 128, stages.keys(stage));
        stages.values_full(before).wait((i - 1) / kHopperStages & 1);
        fence_for_async_proxy();
        multiply_values(out, weights, stages.values(before));
        named_barrier_arrive(2 - group, 256);
        wgmma_wait<1>();
        pin(scores);
        if (lane == 0) stages.keys_empty(stage).arrive();
        masked(i);
        soften(scores, row_max, row_sum, rescale, p.scale_log2);
        wgmma_wait<0>();
        pin(out);
        if (lane == 0) stages.values_empty(before).arrive();
        to_weights(scores, weights);
#pragma unroll
        for (int n = 0; n < 16; ++n) {
          out[4 * n] *= rescale[0];
          out[4 * n + 1] *= rescale[0];
          out[4 * n + 2] *= rescale[1];
          out[4 * n + 3] *= rescale[1];
        }
      }
      if (group == 0) named_barrier_sync(1, 256);  // takes the turn that the other warpgroup left
      const int last = (tiles - 1) % kHopperStages;
      stages.values_full(last).wait((tiles - 1) / kHopperStages & 1);
      fence_for_async_proxy();
      multiply_values(out, weights, stages.values(last));
      wgmma_wait<0>();
      pin(out);
    }
    finish(p, work, stages, out, row_max, row_sum, group);
  }

  /// scores = q · kᵀ, committed and not waited for. `queries` are 64 rows.
  static __device__ __forceinline__ void multiply_keys(float (&scores)[64], uint32_t queries, uint32_t keys) {
    wgmma_fence();
#pragma unroll
    for (int d = 0; d < D / 16; ++d) {
      const uint32_t at = d / 4 * kHalfBytes + d % 4 * 32;
      wgmma_rows<T>(scores, matrix_descriptor(queries + at, 16), matrix_descriptor(keys + at, 16), d > 0);
    }
    wgmma_commit();
  }

  /// out += weights · v, committed and not waited for.
  static __device__ __forceinline__ void multiply_values(float (&out)[64], const RowOperand (&weights)[8],
                                                         uint32_t values) {
    wgmma_fence();
#pragma unroll
    for (int j = 0; j < kHopperKeys / 16; ++j) {
      wgmma_columns<T>(out, weights[j], matrix_descriptor(values + j * 2048, kHalfBytes));
    }
    wgmma_commit();
  }

  static __device__ __forceinline__ void mask(float (&scores)[64], int n0, const int (&position)[2], int window,
                                              int pair) {
#pragma unroll
    for (int i = 0; i < 64; ++i) {
      const int key = n0 + i / 4 * 8 + pair * 2 + (i & 1);
      const int at = position[i >> 1 & 1];
      if (key > at || (window > 0 && key <= at - window)) scores[i] = kMasked;
    }
  }

  /// Replaces scores by their exponentials against the running maximum of their row.
  static __device__ __forceinline__ void soften(float (&scores)[64], float (&row_max)[2], float (&row_sum)[2],
                                                float (&rescale)[2], float scale_log2) {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      float top = row_max[half];
#pragma unroll
      for (int n = 0; n < 16; ++n) top = fmaxf(top, fmaxf(scores[4 * n + 2 * half], scores[4 * n + 2 * half + 1]));
      top = fmaxf(top, __shfl_xor_sync(kFullWarp, top, 1));
      top = fmaxf(top, __shfl_xor_sync(kFullWarp, top, 2));
      // A row that has seen no key yet keeps a finite reference, so that exp gives 0 and not NaN.
      const float reference = top == kMasked ? 0.0f : top * scale_log2;
      rescale[half] = exp2_fast(row_max[half] * scale_log2 - reference);
      row_max[half] = top;
      float sum = 0.0f;
#pragma unroll
      for (int n = 0; n < 16; ++n) {
#pragma unroll
        for (int i = 4 * n + 2 * half; i < 4 * n + 2 * half + 2; ++i) {
          scores[i] = exp2_fast(fmaf(scores[i], scale_log2, -reference));
          sum += scores[i];
        }
      }
      row_sum[half] = row_sum[half] * rescale[half] + sum;
    }
  }

  static __device__ __forceinline__ void to_weights(const float (&scores)[64], RowOperand (&weights)[8]) {
#pragma unroll
    for (int j = 0; j < 8; ++j) {
      const float* s = scores + 8 * j;
      weights[j] = {to_pair<T>(s[0], s[1]), to_pair<T>(s[2], s[3]), to_pair<T>(s[4], s[5]), to_pair<T>(s[6], s[7])};
    }
  }

  /// Divides by the sum of weights and writes the rows: to `out`, or as this split's part.
  static __device__ __forceinline__ void finish(const PrefillParams& p, const Work& work, const Stages& stages,
                                                float (&out)[64], const float (&row_max)[2], const float (&row_sum)[2],
                                                int group) {
    const int warp = threadIdx.x / 32 % 4, lane = threadIdx.x % 32;
    const int quad = lane / 4, pair = lane % 4;
    const int local_row = group * 64 + warp * 16;
    const int64_t split_row0 = (static_cast<int64_t>(blockIdx.z) * gridDim.y + blockIdx.y) * work.rows;
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      float sum = row_sum[half];
      sum += __shfl_xor_sync(kFullWarp, sum, 1);
      sum += __shfl_xor_sync(kFullWarp, sum, 2);
      const float inverse = sum > 0.0f ? 1.0f / sum : 0.0f;
#pragma unroll
      for (int n = 0; n < 16; ++n) {
        out[4 * n + 2 * half] *= inverse;
        out[4 * n + 2 * half + 1] *= inverse;
      }
      const int row = work.row0 + local_row + half * 8 + quad;
      if (p.splits > 1 && row < work.rows) {
        float* target = p.split_out + (split_row0 + row) * D + pair * 2;
#pragma unroll
        for (int n = 0; n < 16; ++n) {
          *reinterpret_cast<float2*>(target + n * 8) = make_float2(out[4 * n + 2 * half], out[4 * n + 2 * half + 1]);
        }
        if (pair == 0) {
          p.split_log_sum[split_row0 + row] = sum > 0.0f ? row_max[half] * p.scale_log2 + log2f(sum) : kMasked;
        }
      }
    }
    if (p.splits > 1) return;

    // The place of this warpgroup's queries serves to regroup its output for wide stores.
    named_barrier_sync(3 + group, 128);
#pragma unroll
    for (int n = 0; n < 16; ++n) {
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        const uint32_t at = stages.queries() + offset(local_row + half * 8 + quad, n) + pair * 4;
        const uint32_t value = to_pair<T>(out[4 * n + 2 * half], out[4 * n + 2 * half + 1]);
        asm volatile("st.shared.u32 [%0], %1;" ::"r"(at), "r"(value) : "memory");
      }
    }
    __syncwarp();
    T* target = static_cast<T*>(p.out) + work.batch * p.out_strides.batch + work.kv_head * p.gqa * p.out_strides.head;
#pragma unroll
    for (int i = 0; i < 8; ++i) {
      const int local = local_row + 2 * i + lane / 16, chunk = lane % 16;
      const int row = work.row0 + local;
      uint4 value;
      asm volatile("ld.shared.v4.u32 {%0,%1,%2,%3}, [%4];"
                   : "=r"(value.x), "=r"(value.y), "=r"(value.z), "=r"(value.w)
                   : "r"(stages.queries() + offset(local, chunk))
                   : "memory");
      if (row < work.rows) {
        T* at = target + (row % p.gqa) * p.out_strides.head + (row / p.gqa) * p.out_strides.token + chunk * 8;
        *reinterpret_cast<uint4*>(at) = value;
      }
    }
  }
};

}  // namespace kvprof
