// Flash attention of a block of new tokens over dense keys and values: prefill, and chunks over a longer history.
//
//   out[b, t, h] = softmax over visible j of (q[b, t, h] · k[b, h / gqa, j]) · scale, times v[b, h / gqa, j]
//
// Query t sits at position S - T + t of the S cached tokens and sees keys 0 ..= S - T + t, of which only the last
// `window` when window > 0.
//
// Shapes   q, out [B, Hq, T, D] through strides; k, v [B, Hkv, S, D] through strides, as a ring: key j lies in slot
//          (first_slot + j) mod capacity, so the unquantized cache is read where it lies. FP16 or BF16, D 64 or 128.
// Grid     x: row tiles, longest first; y: B * Hkv; z: splits of the keys. Block: 128 threads.
//          The query heads of one KV head are the rows of one matrix, row = t * gqa + head: a KV tile serves them
//          all, and a few new tokens of many heads still fill a tile.
// Shared   (128 + 2 * 64) rows of D elements: 64 KiB at D = 128, so two blocks share a multiprocessor.
// Tiles    128 rows x 64 keys; a warp owns 32 rows (scores and output in registers), which halves the shared memory
//          traffic of 16. Keys of the next tile load during softmax and P·V, values during Q·K.
// Splits   With few row tiles the keys are cut in grid.z pieces; each writes its normalized output and log-sum-exp
//          in float, and `merge_splits` adds them up.
// Reference  float64 in tests/gpu/attention.rs.
// Bound    tensor cores: 4 * D FLOP a visible (query, key) pair over the mma.sync rate.
#pragma once

#include "kvprof/ptx.cuh"
#include "kvprof/rows.cuh"

namespace kvprof {

/// Mirrored by `PrefillParams` in src/model/attention/flash.rs.
struct PrefillParams {
  const void* q;
  const void* k;
  const void* v;
  void* out;
  float* split_out;      // [splits, B * Hkv, T * gqa, D], unused when splits is 1
  float* split_log_sum;  // [splits, B * Hkv, T * gqa], base 2
  Strides q_strides, kv_strides, out_strides;
  int32_t new_tokens;     // T
  int32_t cached_tokens;  // S
  int32_t kv_heads;
  int32_t gqa;         // Hq / Hkv
  int32_t window;      // 0: no sliding window
  int32_t first_slot;  // slot of key 0
  int32_t capacity;    // slots of the ring, at least S
  int32_t splits;
  float scale_log2;  // softmax scale times log2(e)
  int32_t reserved;
};
static_assert(sizeof(PrefillParams) == 160, "mirrored by PrefillParams in src/model/attention/flash.rs");

constexpr int kPrefillThreads = 128;
constexpr int kPrefillRows = 128;
constexpr int kPrefillKeys = 64;

template <typename T, int D>
struct Prefill {
  static constexpr int kChunks = D / 8;  // 16-byte pieces of a row
  static constexpr int kRowBytes = D * 2;
  static constexpr int kKeyTileBytes = kPrefillKeys * kRowBytes;
  static constexpr int kSharedBytes = kPrefillRows * kRowBytes + 2 * kKeyTileBytes;
  static constexpr int kScoreTiles = kPrefillKeys / 8;
  static constexpr int kOutTiles = D / 8;
  static constexpr float kMasked = -INFINITY;

  /// Byte offset of a 16-byte piece of a row; pieces are permuted so that eight rows of one column hit all banks.
  static __device__ __forceinline__ uint32_t offset(int row, int chunk) {
    return row * kRowBytes + ((chunk ^ (row & 7)) << 4);
  }

  /// Starts copying keys (or values) n0 .. n0 + 64 of one head; rows past S are filled with zeros.
  static __device__ __forceinline__ void load_keys(uint32_t shared, const T* head, const PrefillParams& p, int n0) {
    constexpr int kRowsPerPass = kPrefillThreads / kChunks;
    const int chunk = threadIdx.x % kChunks;
    const int first_row = threadIdx.x / kChunks;
    int slot = p.first_slot + n0;
    if (slot >= p.capacity) slot -= p.capacity;
    const T* source = head + chunk * 8;
    if (slot + kPrefillKeys <= p.capacity && n0 + kPrefillKeys <= p.cached_tokens) {
      source += (slot + first_row) * p.kv_strides.token;
      const int64_t step = kRowsPerPass * p.kv_strides.token;
#pragma unroll
      for (int i = 0; i < kPrefillKeys / kRowsPerPass; ++i) {
        copy16_async(shared + offset(first_row + i * kRowsPerPass, chunk), source + i * step);
      }
    } else {
#pragma unroll
      for (int i = 0; i < kPrefillKeys / kRowsPerPass; ++i) {
        const int row = first_row + i * kRowsPerPass;
        const bool valid = n0 + row < p.cached_tokens;
        int row_slot = slot + row;
        if (row_slot >= p.capacity) row_slot -= p.capacity;
        copy16_async(shared + offset(row, chunk), source + (valid ? row_slot * p.kv_strides.token : 0), valid);
      }
    }
  }

  static __device__ __forceinline__ void run(const PrefillParams& p) {
    extern __shared__ __align__(128) uint8_t shared_bytes[];
    const uint32_t q_shared = shared_address(shared_bytes);
    const uint32_t k_shared = q_shared + kPrefillRows * kRowBytes;
    const uint32_t v_shared = k_shared + kKeyTileBytes;

    const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    const int quad = lane / 4, pair = lane % 4;
    const int batch = blockIdx.y / p.kv_heads, kv_head = blockIdx.y % p.kv_heads;
    const int rows = p.new_tokens * p.gqa;
    const int row0 = (gridDim.x - 1 - blockIdx.x) * kPrefillRows;
    const int history = p.cached_tokens - p.new_tokens;

    const T* q = static_cast<const T*>(p.q) + batch * p.q_strides.batch + kv_head * p.gqa * p.q_strides.head;
    const int64_t kv_head_offset = batch * p.kv_strides.batch + kv_head * p.kv_strides.head;
    const T* k = static_cast<const T*>(p.k) + kv_head_offset;
    const T* v = static_cast<const T*>(p.v) + kv_head_offset;

    // The key tiles this block visits: those seen by any of its rows, cut into `splits` pieces.
    const int first_token = row0 / p.gqa;
    const int last_token = min(row0 + kPrefillRows - 1, rows - 1) / p.gqa;
    const int visible_end = history + last_token + 1;
    const int visible_begin = p.window > 0 ? max(history + first_token - p.window + 1, 0) : 0;
    int tile_begin = visible_begin / kPrefillKeys;
    int tile_end = (visible_end + kPrefillKeys - 1) / kPrefillKeys;
    if (p.splits > 1) {
      const int per_split = (tile_end - tile_begin + p.splits - 1) / p.splits;
      tile_begin += blockIdx.z * per_split;
      tile_end = min(tile_begin + per_split, tile_end);
    }
    const bool has_keys = tile_begin < tile_end;

    // Every thread needs the positions of its four rows: two 16-row fragments, rows quad and quad + 8 of each.
    int position[2][2];
#pragma unroll
    for (int m = 0; m < 2; ++m) {
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        position[m][half] = history + (row0 + warp * 32 + m * 16 + half * 8 + quad) / p.gqa;
      }
    }

    Accumulator out[2][kOutTiles];
    float row_max[2][2] = {{kMasked, kMasked}, {kMasked, kMasked}};
    float row_sum[2][2] = {};

    if (has_keys) {
      load_keys(k_shared, k, p, (tile_end - 1) * kPrefillKeys);
#pragma unroll
      for (int i = threadIdx.x; i < kPrefillRows * kChunks; i += kPrefillThreads) {
        const int row = i / kChunks, chunk = i % kChunks;
        const bool valid = row0 + row < rows;
        const int token = valid ? (row0 + row) / p.gqa : 0;
        const int head = valid ? (row0 + row) % p.gqa : 0;
        copy16_async(q_shared + offset(row, chunk), q + head * p.q_strides.head + token * p.q_strides.token + chunk * 8,
                    valid);
      }
      commit_copies();
    }

    // Addresses of this lane's rows in ldmatrix; only the low three bits of the row enter the permutation.
    const int a_row = warp * 32 + lane % 16, a_chunk = lane / 16;
    const int k_row = (lane & 7) + ((lane >> 4) << 3), k_chunk = (lane >> 3) & 1;
    const int v_row = lane % 16, v_chunk = lane / 16;

    for (int tile = tile_end - 1; tile >= tile_begin; --tile) {
      const int n0 = tile * kPrefillKeys;
      wait_copies<0>();
      __syncthreads();
      load_keys(v_shared, v, p, n0);
      commit_copies();

      Accumulator scores[2][kScoreTiles];
#pragma unroll
      for (int d = 0; d < D / 16; ++d) {
        const uint4 a[2] = {load_matrices(q_shared + offset(a_row, 2 * d + a_chunk)),
                            load_matrices(q_shared + offset(a_row + 16, 2 * d + a_chunk))};
#pragma unroll
        for (int n = 0; n < kScoreTiles; n += 2) {
          const uint4 b = load_matrices(k_shared + offset(n * 8 + k_row, 2 * d + k_chunk));
#pragma unroll
          for (int m = 0; m < 2; ++m) {
            const RowOperand queries{a[m].x, a[m].y, a[m].z, a[m].w};
            mma<T>(scores[m][n], queries, {b.x, b.y});
            mma<T>(scores[m][n + 1], queries, {b.z, b.w});
          }
        }
      }

      const bool past_diagonal = n0 + kPrefillKeys > history + first_token + 1;
      const bool before_window = p.window > 0 && n0 <= history + last_token - p.window;
      if (past_diagonal || before_window) {
#pragma unroll
        for (int m = 0; m < 2; ++m) {
#pragma unroll
          for (int n = 0; n < kScoreTiles; ++n) {
#pragma unroll
            for (int i = 0; i < 4; ++i) {
              const int key = n0 + n * 8 + pair * 2 + (i & 1);
              const int at = position[m][i >> 1];
              if (key > at || (p.window > 0 && key <= at - p.window)) scores[m][n][i] = kMasked;
            }
          }
        }
      }

      RowOperand weights[2][kScoreTiles / 2];  // exp of the scores, the left operand of P·V
#pragma unroll
      for (int m = 0; m < 2; ++m) {
#pragma unroll
        for (int half = 0; half < 2; ++half) {
          float top = row_max[m][half];
#pragma unroll
          for (int n = 0; n < kScoreTiles; ++n) {
            top = fmaxf(top, fmaxf(scores[m][n][2 * half], scores[m][n][2 * half + 1]));
          }
          top = fmaxf(top, __shfl_xor_sync(kFullWarp, top, 1));
          top = fmaxf(top, __shfl_xor_sync(kFullWarp, top, 2));
          // A row that has seen no key yet keeps a finite reference, so that exp gives 0 and not NaN.
          const float reference = top == kMasked ? 0.0f : top * p.scale_log2;
          const float rescale = exp2_fast(row_max[m][half] * p.scale_log2 - reference);
          row_max[m][half] = top;
          float sum = 0.0f;
#pragma unroll
          for (int n = 0; n < kScoreTiles; ++n) {
#pragma unroll
            for (int i = 2 * half; i < 2 * half + 2; ++i) {
              scores[m][n][i] = exp2_fast(fmaf(scores[m][n][i], p.scale_log2, -reference));
              sum += scores[m][n][i];
            }
          }
          row_sum[m][half] = row_sum[m][half] * rescale + sum;
#pragma unroll
          for (int n = 0; n < kOutTiles; ++n) {
            out[m][n][2 * half] *= rescale;
            out[m][n][2 * half + 1] *= rescale;
          }
        }
#pragma unroll
        for (int n = 0; n < kScoreTiles; n += 2) {
          const Accumulator &low = scores[m][n], &high = scores[m][n + 1];
          weights[m][n / 2] = {to_pair<T>(low[0], low[1]), to_pair<T>(low[2], low[3]),  //
                               to_pair<T>(high[0], high[1]), to_pair<T>(high[2], high[3])};
        }
      }

      wait_copies<0>();
      __syncthreads();
      if (tile > tile_begin) {
        load_keys(k_shared, k, p, n0 - kPrefillKeys);
        commit_copies();
      }
#pragma unroll
      for (int j = 0; j < kPrefillKeys / 16; ++j) {
#pragma unroll
        for (int n = 0; n < kOutTiles; n += 2) {
          const uint4 b = load_matrices_transposed(v_shared + offset(j * 16 + v_row, n + v_chunk));
#pragma unroll
          for (int m = 0; m < 2; ++m) {
            mma<T>(out[m][n], weights[m][j], {b.x, b.y});
            mma<T>(out[m][n + 1], weights[m][j], {b.z, b.w});
          }
        }
      }
    }

    finish(p, out, row_max, row_sum, shared_bytes, batch, kv_head, row0, rows);
  }

  /// Divides by the sum of weights and writes the rows: to `out`, or as this split's part.
  static __device__ __forceinline__ void finish(const PrefillParams& p, Accumulator (&out)[2][kOutTiles],
                                                float (&row_max)[2][2], float (&row_sum)[2][2], uint8_t* shared_bytes,
                                                int batch, int kv_head, int row0, int rows) {
    const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    const int quad = lane / 4, pair = lane % 4;
    const int64_t split_row0 = (static_cast<int64_t>(blockIdx.z) * gridDim.y + blockIdx.y) * rows;
#pragma unroll
    for (int m = 0; m < 2; ++m) {
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        float sum = row_sum[m][half];
        sum += __shfl_xor_sync(kFullWarp, sum, 1);
        sum += __shfl_xor_sync(kFullWarp, sum, 2);
        const float inverse = sum > 0.0f ? 1.0f / sum : 0.0f;
#pragma unroll
        for (int n = 0; n < kOutTiles; ++n) {
          out[m][n][2 * half] *= inverse;
          out[m][n][2 * half + 1] *= inverse;
        }
        if (p.splits > 1) {
          const int row = row0 + warp * 32 + m * 16 + half * 8 + quad;
          if (row >= rows) continue;
          float* target = p.split_out + (split_row0 + row) * D + pair * 2;
#pragma unroll
          for (int n = 0; n < kOutTiles; ++n) {
            *reinterpret_cast<float2*>(target + n * 8) = make_float2(out[m][n][2 * half], out[m][n][2 * half + 1]);
          }
          if (pair == 0) {
            const float log_sum = sum > 0.0f ? row_max[m][half] * p.scale_log2 + log2f(sum) : kMasked;
            p.split_log_sum[split_row0 + row] = log_sum;
          }
        }
      }
    }
    if (p.splits > 1) return;

    // A warp reads back only the query rows it owns, so their place serves to regroup its output for wide stores.
    uint8_t* mine = shared_bytes + warp * 32 * kRowBytes;
    __syncwarp();
#pragma unroll
    for (int m = 0; m < 2; ++m) {
#pragma unroll
      for (int n = 0; n < kOutTiles; ++n) {
#pragma unroll
        for (int half = 0; half < 2; ++half) {
          const int row = m * 16 + half * 8 + quad;
          *reinterpret_cast<uint32_t*>(mine + offset(row, n) + pair * 4) =
              to_pair<T>(out[m][n][2 * half], out[m][n][2 * half + 1]);
        }
      }
    }
    __syncwarp();
    T* target = static_cast<T*>(p.out) + batch * p.out_strides.batch + kv_head * p.gqa * p.out_strides.head;
    constexpr int kRowsPerPass = 32 / kChunks;
#pragma unroll
    for (int i = 0; i < 32 / kRowsPerPass; ++i) {
      const int local = i * kRowsPerPass + lane / kChunks, chunk = lane % kChunks;
      const int row = row0 + warp * 32 + local;
      if (row < rows) {
        T* at = target + (row % p.gqa) * p.out_strides.head + (row / p.gqa) * p.out_strides.token + chunk * 8;
        *reinterpret_cast<uint4*>(at) = *reinterpret_cast<const uint4*>(mine + offset(local, chunk));
      }
    }
  }

  /// Adds up the parts of a row: one warp a row, grid x over rows in blocks of 4, y over B * Hkv.
  static __device__ __forceinline__ void merge_splits(const PrefillParams& p) {
    constexpr int kPerLane = D / 32;
    const int lane = threadIdx.x % 32;
    const int rows = p.new_tokens * p.gqa;
    const int row = blockIdx.x * (kPrefillThreads / 32) + threadIdx.x / 32;
    if (row >= rows) return;
    const int64_t at = static_cast<int64_t>(blockIdx.y) * rows + row;
    const int64_t step = static_cast<int64_t>(gridDim.y) * rows;

    float top = kMasked;
    for (int s = 0; s < p.splits; ++s) top = fmaxf(top, p.split_log_sum[at + s * step]);
    float sum = 0.0f, out[kPerLane] = {};
    for (int s = 0; s < p.splits; ++s) {
      const float weight = exp2_fast(p.split_log_sum[at + s * step] - top);
      sum += weight;
      const float* part = p.split_out + (at + s * step) * D + lane * kPerLane;
#pragma unroll
      for (int i = 0; i < kPerLane; ++i) out[i] += weight * part[i];
    }
    const int batch = blockIdx.y / p.kv_heads, kv_head = blockIdx.y % p.kv_heads;
    T* target = static_cast<T*>(p.out) + batch * p.out_strides.batch +
                (kv_head * p.gqa + row % p.gqa) * p.out_strides.head + (row / p.gqa) * p.out_strides.token +
                lane * kPerLane;
#pragma unroll
    for (int i = 0; i < kPerLane; i += 2) {
      *reinterpret_cast<uint32_t*>(target + i) = to_pair<T>(out[i] / sum, out[i + 1] / sum);
    }
  }
};

}  // namespace kvprof
