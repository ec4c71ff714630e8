// Fused decode attention over a KV cache: packed tiles and the dense recent window in one launch.
//
//   out[b, h, i, :] = softmax(scale · q[b, h, i, :] · K[b, h/(Hq/Hkv), :, :]^T) · V[b, h/(Hq/Hkv), :, :]
//
// for T new tokens i (one; or a few, each seeing the keys up to its own), with K and V given as tiles (tile.cuh) of
// positions [0, quantized) and the window ring of positions [quantized, total). See decode_params.cuh for shapes.
//
//   grid    (splits, Hkv · passes, B); a pass is eight rows (query head, token) of one KV head, which share what is read
//   block   kWarps warps. Each takes every (splits · kWarps)-th item: a tile, or 16 positions of the window. It copies items
//           to its own part of shared memory, kStages - 1 of them ahead, and keeps a running softmax of its own
//   shared  kWarps · kStages · max(tile bytes, 64·D), at least Merge::kBytes and 32·splits + 16; `shared_bytes`
//   bound   bytes of the cache over the memory's bandwidth (copy on an H200: about 4300 GB/s)
//
// The warps' parts are merged at the end, then the splits' by the last block to arrive: no second launch, and a grid that
// does not depend on the cache's length, so that a captured launch follows the cache as it grows.
// CPU reference: float64 attention over the dequantized cache, in tests.
#pragma once

#include "kvprof/decode_tile.cuh"
#include "kvprof/decode_window.cuh"
#include "kvprof/merge.cuh"

namespace kvprof {

/// A cache without tiles: all of it is the window.
constexpr TileLayout dense_layout(int channels) { return {64, channels, {0, 0, Direction::tile}, {0, 0, Direction::tile}}; }

template <typename Float, TileLayout kTile, int kWarps, int kStages>
struct DecodeAttention {
  static constexpr int kChannels = kTile.channels;
  static constexpr bool kHasTiles = kTile.key.bits != 0;
  using Unit = WindowUnit<Float, kChannels>;
  using Tile = TileAttention<Float, kTile>;
  using State = AttentionState<kChannels>;
  using Merging = Merge<kChannels, kWarps>;

  static constexpr int kTileBytes = kHasTiles ? kTile.bytes() : 0;
  static constexpr int kSlotBytes = kTileBytes > Unit::kBytes ? kTileBytes : Unit::kBytes;
  static constexpr int kThreads = 32 * kWarps;

  static constexpr int shared_bytes(int splits) {
    const int ring = kWarps * kStages * kSlotBytes, merge = 32 * splits + 16;
    const int larger = ring > merge ? ring : merge;
    return larger > Merging::kBytes ? larger : Merging::kBytes;
  }

  /// What a lane needs to know of positions: the last one its rows may see.
  struct Visible {
    int last[2];
    int sliding_window;
    __device__ __forceinline__ bool operator()(int position, int column) const {
      return position <= last[column] && (sliding_window == 0 || position > last[column] - sliding_window);
    }
  };

  template <int kTiles>
  static __device__ __forceinline__ void hide(Accumulator (&score)[kTiles], int position, int end, const Visible& visible) {
    const int g = threadIdx.x % 32 / 4;
#pragma unroll
    for (int i = 0; i < kTiles; ++i)
#pragma unroll
      for (int j = 0; j < 4; ++j) {
        const int at = position + 16 * i + 8 * (j / 2) + g;
        if (at >= end || !visible(at, j % 2)) score[i][j] = -INFINITY;
      }
  }

  static __device__ __forceinline__ void run(const DecodeParams& p) {
    extern __shared__ __align__(128) uint8_t shared[];
    const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    const int passes = gridDim.y / p.kv_heads, kv_head = blockIdx.y / passes, batch = blockIdx.z;
    const int first_row = blockIdx.y % passes * 8, all_rows = p.tokens * p.heads_per_kv;
    const int pair = batch * p.kv_heads + kv_head;
    const Pass pass{batch, kv_head, first_row, min(8, all_rows - first_row), static_cast<int64_t>(pair) * all_rows + first_row};

    const CacheLength length = *p.length;
    const int seen_from = p.sliding_window > 0 ? max(0, length.total - p.tokens - p.sliding_window + 1) : 0;
    const int first_tile = seen_from / kTile.tokens;
    const int tiles = kHasTiles ? max(0, (length.quantized + kTile.tokens - 1) / kTile.tokens - first_tile) : 0;
    const int window_from = max(length.quantized, seen_from);
    const int items = tiles + (length.total - window_from + kUnitTokens - 1) / kUnitTokens;

    const uint8_t* packed = p.tiles + static_cast<int64_t>(pair) * p.tile_capacity * kTileBytes;
    const int64_t ring = static_cast<int64_t>(p.window_capacity) * kChannels;
    const Float* keys = static_cast<const Float*>(p.window) + pair * ring;
    const Float* values = keys + static_cast<int64_t>(gridDim.z) * p.kv_heads * ring;

    uint8_t* slots = shared + warp * kStages * kSlotBytes;
    const uint32_t slots_at = shared_address(slots);
    const auto load = [&](int item, int slot) {
      const uint32_t to = slots_at + slot * kSlotBytes;
      if (kHasTiles && item < tiles) {
        const uint8_t* from = packed + static_cast<int64_t>((first_tile + item) % p.tile_capacity) * kTileBytes;
#pragma unroll
        for (int i = 0; i < kTileBytes; i += 512)
          if (kTileBytes - i >= 512 || lane * 16 < kTileBytes - i) copy16_async(to + i + lane * 16, from + i + lane * 16);
      } else if (item < items) {
        Unit::load(to, keys, values, window_from + (item - tiles) * kUnitTokens, length.total, p.window_capacity);
      }
      commit_copies();
    };

    const int first = blockIdx.x * kWarps + warp, stride = gridDim.x * kWarps;
#pragma unroll
    for (int s = 0; s < kStages - 1; ++s) load(first + s * stride, s);

    State state;
    Queries<Float, kChannels> q;
    q.load(p, batch, kv_head, first_row, state.factor);
    Visible visible;
    visible.sliding_window = p.sliding_window;
#pragma unroll
    for (int column = 0; column < 2; ++column) {
      const int token = min((first_row + lane % 4 * 2 + column) / p.heads_per_kv, p.tokens - 1);
      visible.last[column] = length.total - p.tokens + token;
    }

    int slot = 0, item = first;
    const auto next = [&] {  // waits for this item's bytes, after asking for those of a later one
      load(item + (kStages - 1) * stride, slot == 0 ? kStages - 1 : slot - 1);
      wait_copies<kStages - 1>();
      __syncwarp();
    };
    const auto done = [&] {
      __syncwarp();  // all lanes have read the slot that the next load overwrites
      slot = slot == kStages - 1 ? 0 : slot + 1;
      item += stride;
    };

    if constexpr (kHasTiles) {
      const Tile tile(q);
      while (item < tiles) {
        next();
        const uint8_t* bytes = slots + slot * kSlotBytes;
        Accumulator score[kTile.tokens / 16];
        tile.scores(bytes, score);
        const int position = (first_tile + item) * kTile.tokens;
        if (position < seen_from + p.tokens || position + kTile.tokens > length.quantized)
          hide(score, position, length.quantized, visible);
        state.raise_maximum(score);
        ColumnOperand probability[kTile.tokens / 16];
#pragma unroll
        for (int i = 0; i < kTile.tokens / 16; ++i) probability[i] = state.template probabilities<__half>(score[i]);
        tile.values(bytes, probability, state);
        done();
      }
      tile.finish_tiles(state);
    }
    while (item < items) {
      next();
      const uint32_t unit = slots_at + slot * kSlotBytes;
      const int position = window_from + (item - tiles) * kUnitTokens;
      Accumulator score[1];
      Unit::scores(unit, q, score);
      if (position < seen_from + p.tokens || position + kUnitTokens > length.total - p.tokens)
        hide(score, position, length.total, visible);
      state.raise_maximum(score);
      Unit::values(unit, state.template probabilities<Float>(score[0]), state);
      done();
    }
    wait_copies<0>();
    __syncthreads();  // the ring becomes scratch

    Merging::template warps<Float>(p, pass, state, shared);
    if (gridDim.x > 1) Merging::template splits<Float>(p, pass, shared);
  }
};

}  // namespace kvprof
