// Arguments of the decode attention kernels; mirrored field by field by `DecodeParams` in the Rust crate.
#pragma once

#include <cstdint>

namespace kvprof {

/// How far a cache has grown. Lives in device memory, so that a captured launch sees the growth.
struct CacheLength {
  int32_t quantized;  ///< positions [0, quantized) are, or were, in tiles; a multiple of the tile's tokens
  int32_t total;      ///< positions [quantized, total) are in the window; the last query is at total - 1
};

/// Shapes: rows of a KV head are its query heads times the new tokens, T·Hq/Hkv, row = token·(Hq/Hkv) + head.
struct DecodeParams {
  const void* query;          ///< [B, Hq, T, D] by the strides below, the cache's float type
  void* out;                  ///< the same shape, strides of its own
  const uint8_t* tiles;       ///< [B, Hkv, tile_capacity, tile bytes], 16-byte aligned; may be null without tiles
  const void* window;         ///< [2 (K, V), B, Hkv, window_capacity, D], 16-byte aligned
  const CacheLength* length;  ///< one for the whole batch; null: `fixed_length` instead
  float* partial_out;         ///< [B, Hkv, rows, splits, D] scratch; unused when splits = 1
  float2* partial_sums;       ///< [B, Hkv, rows, splits] scratch: (maximum in log2 units, denominator)
  uint32_t* arrivals;         ///< [B, Hkv·passes] zero before the first launch; every launch leaves zeros
  int32_t query_batch_stride, query_head_stride, query_token_stride;  ///< in elements; even
  int32_t out_batch_stride, out_head_stride, out_token_stride;        ///< in elements; multiples of 4
  int32_t kv_heads;
  int32_t heads_per_kv;     ///< Hq / Hkv
  int32_t tokens;           ///< T, new tokens, the last of the cache; all of them in the window
  int32_t tile_capacity;    ///< tiles in the ring: the tile of position p is p / tile tokens % tile_capacity
  int32_t window_capacity;  ///< slots in the ring: the slot of position p is p % window_capacity
  int32_t sliding_window;   ///< a query at p attends to positions > p - sliding_window; 0: to all before it
  CacheLength fixed_length;  ///< for a launch that is not repeated
  float softmax_scale;
  int32_t tiles_expected;  ///< tiles that seem to hold tokens, at most `tile_capacity`: lets a block ask for its first tiles before
                           ///< it has read `length`. A wrong number costs time only; 0 with a sliding window
};

static_assert(sizeof(CacheLength) == 8, "mirrored in Rust");
static_assert(sizeof(DecodeParams) == 128, "mirrored in Rust");

}  // namespace kvprof
