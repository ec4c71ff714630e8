// Fused decode attention over a KV cache: packed tiles and the dense recent window in one launch.
//
//   out[b, h, i, :] = softmax(scale · q[b, h, i, :] · K[b, h/(Hq/Hkv), :, :]^T) · V[b, h/(Hq/Hkv), :, :]
//
// for T new tokens i (one; or a few, each seeing the keys up to its own), with K and V given as tiles (tile.cuh) of
// positions [0, quantized) and the window ring of positions [quantized, total). See decode_params.cuh for shapes.
//
//   grid    (splits, Hkv · passes, B); a pass is kRows rows (query head, token) of one KV head, which share what is read: eight, the
//           columns of an mma, or four that have two each, for which half of the work outside the mma's is left out
//   block   kWarps warps. Each takes every (splits · kWarps)-th item: a tile, or a unit of 16 positions of the window. Items
//           pass through its own ring of two slots, and it keeps a running softmax of its own. Step n of a warp's loop
//           reads one slot: the keys of its item n and the values of item n - 1, independent work that hides each other's latency
//   shared  a CopyRing a warp, a slot the larger of a tile and a unit; at least Merge::kBytes: `kSharedBytes`
//   bound   bytes of the cache over the memory's bandwidth (copy on an H200: about 4200 GB/s)
//
// At the end the parts are merged in the same launch (merge.cuh), and the grid does not depend on the cache's length: a
// captured launch follows the cache as it grows. CPU reference: float64 attention over the dequantized cache, in tests.
#pragma once

#include "kvprof/decode_tile.cuh"
#include "kvprof/decode_window.cuh"
#include "kvprof/merge.cuh"
#include "kvprof/overlap.cuh"
#include "kvprof/shared.cuh"

namespace kvprof {

/// In place of both formats: a cache without tiles, all of it the window.
constexpr Format kDense{0, 0, Direction::tile};

KVPROF_HOST_DEVICE constexpr int larger_of(int a, int b) { return a > b ? a : b; }

/// Bytes for one side in a slot of a warp's ring: of a tile, or of a unit of the window.
KVPROF_HOST_DEVICE constexpr int decode_side_bytes(TileLayout tile, Side side) {
  return larger_of(tile.key.bits ? tile.side_bytes(side) : 0, 2 * kUnitTokens * tile.channels);
}
KVPROF_HOST_DEVICE constexpr int decode_slot_bytes(TileLayout tile) {
  return decode_side_bytes(tile, Side::key) + decode_side_bytes(tile, Side::value);
}
constexpr int kDecodeSlots = 2;
/// As many warps as the shared memory of a multiprocessor has rings for, but no more than are of use (12, which
/// registers (168 each lane) allow, where 2-bit codes are bound by arithmetic, and 8 where memory is the limit), and beyond four a
/// multiple of the four schedulers that share them: six warps are slower than four. Mirrored by `DecodeKernel` in the Rust crate.
KVPROF_HOST_DEVICE constexpr int decode_warps(TileLayout tile) {
  const int fit = kSharedOfMultiprocessor / (kDecodeSlots * decode_slot_bytes(tile)), useful = tile.key.bits == 2 ? 12 : 8;
  const int most = fit < useful ? fit : useful;
  return most > 4 ? most / 4 * 4 : most;
}
/// Blocks that a multiprocessor is to hold, for which the compiler leaves registers: one with tiles, which is better served
/// by more than 128 for each lane, and without, two where shared memory has room. Mirrored likewise.
KVPROF_HOST_DEVICE constexpr int decode_blocks(TileLayout tile, int shared_bytes) {
  return tile.key.bits == 0 && 2 * (shared_bytes + 1024) <= kSharedOfMultiprocessor ? 2 : 1;
}

template <typename Float, TileLayout kTile, int kRows, int kWarps = decode_warps(kTile)>
struct DecodeAttention {
  static constexpr int kChannels = kTile.channels;
  static constexpr bool kHasTiles = kTile.key.bits != 0;
  static constexpr int kThreads = 32 * kWarps;
  static constexpr int kLaneRows = kRows / 4;
  static constexpr int kKeyTiles = kTile.tokens / 16;
  using Unit = WindowUnit<Float, kChannels, kRows, !kHasTiles>;
  using Tile = TileAttention<Float, kTile, kRows>;
  using Merging = Merge<Float, kChannels, kRows, kWarps>;

  static constexpr int kTileBytes = kHasTiles ? kTile.bytes() : 0;
  static constexpr int kValuesAt = decode_side_bytes(kTile, Side::key);  // in a slot
  using Ring = CopyRing<kDecodeSlots, decode_slot_bytes(kTile)>;
  static constexpr int kSharedBytes = larger_of(kWarps * Ring::kBytes, Merging::kBytes);
  static constexpr int kBlocks = decode_blocks(kTile, kSharedBytes);

  /// The last position that each of a lane's rows may see, and how far back it sees.
  struct Visible {
    int last[kLaneRows];
    int sliding_window;
    __device__ __forceinline__ bool operator()(int position, int row) const {
      return position <= last[row] && (sliding_window == 0 || position > last[row] - sliding_window);
    }
  };

  /// Scores of positions from `end` on, and of those a row may not see, become minus infinity.
  template <int kTiles>
  static __device__ __forceinline__ void hide(Accumulator (&score)[kTiles], int position, int end,
                                              const Visible& visible) {
    const int g = threadIdx.x % 32 / 4;
#pragma unroll
    for (int i = 0; i < kTiles; ++i)
#pragma unroll
      for (int hi = 0; hi < 2; ++hi) {
        const int at = position + 16 * i + 8 * hi + g;
#pragma unroll
        for (int row = 0; row < kLaneRows; ++row)
          if (at >= end || !visible(at, row)) score[i][2 * hi + row] = -INFINITY;
      }
  }

  static __device__ __forceinline__ void run(const DecodeParams& p) {
    allow_next_kernel();
    extern __shared__ __align__(128) uint8_t shared[];
    const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    const int passes = gridDim.y / p.kv_heads, kv_head = blockIdx.y / passes, batch = blockIdx.z;
    const int first_row = blockIdx.y % passes * kRows, all_rows = p.tokens * p.heads_per_kv;
    const int pair = batch * p.kv_heads + kv_head;

    // What a slot holds is asked for as soon as it is known. The keys of the first tile come first, if there seems to be one;
    // tiles are written by no kernel that may still run when this one starts early (overlap.cuh): `tiles_expected`
    // counts none that the kernel just before this one wrote. Then come the queries: behind two full slots of every warp they
    // would arrive last, and nothing could begin before.
    const uint8_t* packed = p.tiles + static_cast<int64_t>(pair) * p.tile_capacity * kTileBytes + 16 * lane;
    const auto tile_at = [&](int place) { return packed + static_cast<int64_t>(place) * kTileBytes; };
    Ring ring(shared + warp * Ring::kBytes);
    const int first = blockIdx.x + gridDim.x * warp, stride = gridDim.x * kWarps;
    const bool early = kHasTiles && first < p.tiles_expected, early_next = kHasTiles && first + stride < p.tiles_expected;
    if constexpr (kHasTiles) {
      if (early) Tile::template load<Side::key>(ring.at(0), tile_at(first));
    }

    wait_for_previous_kernel();
    Queries<Float, kChannels, kRows> q;
    q.load(p, batch, kv_head, first_row);
    const CacheLength length = p.length ? *p.length : p.fixed_length;
    if constexpr (kHasTiles) {
      if (early) ring.end();
      if (early_next) {
        Tile::template load<Side::key>(ring.at(1), tile_at(first + stride));
        Tile::template load<Side::value>(ring.at(1) + kValuesAt, tile_at(first));
        ring.end();
      }
    }
    // Positions from `seen_from` on are seen by some row, from `clear_from` on by all that come after them.
    const int seen_from = p.sliding_window > 0 ? max(0, length.total - p.tokens - p.sliding_window + 1) : 0;
    const int clear_from = p.sliding_window > 0 ? seen_from + p.tokens : 0;
    const int first_tile = seen_from / kTile.tokens;
    const int tiles = kHasTiles ? max(0, length.quantized / kTile.tokens - first_tile) : 0;
    const int window_from = max(length.quantized, seen_from);
    const int items = tiles + (length.total - window_from + kUnitTokens - 1) / kUnitTokens;

    // Places in the two rings: what is seen is no longer than a ring, so one subtraction wraps.
    const int first_place = first_tile < p.tile_capacity ? first_tile : first_tile % p.tile_capacity;
    const int first_slot = window_from < p.window_capacity ? window_from : window_from % p.window_capacity;
    const auto wrap = [](int place, int capacity) { return place < capacity ? place : place - capacity; };
    const int64_t head = static_cast<int64_t>(p.window_capacity) * kChannels;
    const Float* keys = static_cast<const Float*>(p.window) + pair * head;
    const Float* values = keys + static_cast<int64_t>(gridDim.z) * p.kv_heads * head;
    const auto load_side = [&]<Side kSide>(int item, uint32_t to) {
      if (kHasTiles && item < tiles) {
        if constexpr (kHasTiles) Tile::template load<kSide>(to, tile_at(wrap(first_place + item, p.tile_capacity)));
      } else if (item < items) {
        const int position = (item - tiles) * kUnitTokens;  // from window_from
        Unit::load(to, kSide == Side::key ? keys : values, wrap(first_slot + position, p.window_capacity),
                   p.window_capacity, length.total - window_from - position);
      }
    };
    const auto load = [&](int key_item, int value_item, int slot) {
      load_side.template operator()<Side::key>(key_item, ring.at(slot));
      load_side.template operator()<Side::value>(value_item, ring.at(slot) + kValuesAt);
      ring.end();
    };
    static_assert(kDecodeSlots == 2);
    // What was asked for on a wrong expectation arrives before something else is asked for in its place.
    const bool have = early && first_tile == 0 && first < tiles;
    const bool have_next = early_next && first_tile == 0 && first + stride < tiles;
    if (early != have || early_next != have_next) ring.drain();
    if (!have) load(first, items, 0);
    if (!have_next) load(first + stride, first, 1);

    typename Tile::State state;
    q.scale(p.softmax_scale, state.factor);
    Visible visible;
    visible.sliding_window = p.sliding_window;
#pragma unroll
    for (int i = 0; i < kLaneRows; ++i) {
      const int row = first_row + lane % 4 * kLaneRows + i;
      visible.last[i] = length.total - p.tokens + (p.tokens == 1 ? 0 : min(row / p.heads_per_kv, p.tokens - 1));
    }

    int item = first;
    const auto refill = [&] {
      __syncwarp();
      load(item + 2 * stride, item + stride, ring.slot);
      ring.advance();
    };
    if constexpr (kHasTiles) {
      const Tile tile(q);
      ColumnOperand probability[kKeyTiles];
      for (; item < tiles; item += stride) {
        ring.wait();
        Accumulator score[kKeyTiles];
        const uint8_t *key_side = ring.current(), *value_side = key_side + kValuesAt;
        if (item == first) {
          tile.template scores<true>(key_side, score);
        } else {
          Tile::make_room(value_side, probability, state);
          if (tile.two_parts(key_side))
            tile.template scores<true>(key_side, score);
          else
            tile.template scores<false>(key_side, score);
          tile.values(value_side, probability, state);
        }
        refill();

        const int position = (first_tile + item) * kTile.tokens;
        if (p.sliding_window > 0 && position < clear_from) hide(score, position, length.quantized, visible);
        state.template weigh<__half>(score, probability);
      }
      if (item != first) {
        ring.wait();
        Tile::make_room(ring.current() + kValuesAt, probability, state);
        tile.values(ring.current() + kValuesAt, probability, state);
      }
      tile.finish_tiles(state);
    }
    for (; item < items; item += stride) {
      ring.wait();
      Accumulator score[1];
      Unit::scores(ring.at(ring.slot), q, score);
      refill();

      const int position = window_from + (item - tiles) * kUnitTokens;
      if (position < clear_from || position + kUnitTokens > length.total - p.tokens)
        hide(score, position, length.total, visible);
      ColumnOperand probability[1];
      state.template weigh<Float>(score, probability);
      ring.wait();
      Unit::values(ring.at(ring.slot) + kValuesAt, probability[0], state);
    }
    ring.drain();
    __syncthreads();  // the rings become scratch

    const Pass pass{batch, kv_head, first_row, min(kRows, all_rows - first_row),
                    static_cast<int64_t>(pair) * all_rows + first_row};
    Merging{p, pass}.run(state, shared);
  }
};

}  // namespace kvprof

/// Entry points for one pair of formats: decode_<name>_{f16,bf16}_{d64,d128}_{r4,r8}, the last the rows of a pass.
#define KVPROF_DECODE_KERNEL(name, Float, layout, rows)                                                              \
  extern "C" __global__ void __launch_bounds__(kvprof::DecodeAttention<Float, layout, rows>::kThreads,               \
                                               kvprof::DecodeAttention<Float, layout, rows>::kBlocks)                \
      name##_r##rows(const __grid_constant__ kvprof::DecodeParams p) {                                               \
    kvprof::DecodeAttention<Float, layout, rows>::run(p);                                                            \
  }
#define KVPROF_DECODE_ROWS(name, Float, layout)                                                                      \
  KVPROF_DECODE_KERNEL(name, Float, layout, 4)                                                                       \
  KVPROF_DECODE_KERNEL(name, Float, layout, 8)
#define KVPROF_DECODE_KERNELS(name, key, value)                                                                      \
  constexpr kvprof::TileLayout k64##name{64, 64, key, value}, k128##name{64, 128, key, value};                       \
  KVPROF_DECODE_ROWS(decode_##name##_f16_d64, __half, k64##name)                                                     \
  KVPROF_DECODE_ROWS(decode_##name##_bf16_d64, __nv_bfloat16, k64##name)                                             \
  KVPROF_DECODE_ROWS(decode_##name##_f16_d128, __half, k128##name)                                                   \
  KVPROF_DECODE_ROWS(decode_##name##_bf16_d128, __nv_bfloat16, k128##name)
