// Writes what a cache layer holds as dense rows: tiles are dequantized, the recent window is copied behind them.
//
// Shapes   tiles [B, Hkv, capacity, tile bytes] and ring [2, B, Hkv, W, D] to out [2 (K, V)][B, Hkv, out_rows, D], row r
//          holding position first_position + r. FP16 or BF16.
// Grid     x: spans of `tokens` positions, aligned to tiles, from the one that holds first_position; y: B * Hkv; z: K, V.
//          Block: 256 threads.
// Shared   one tile with padded rows; the (scale, minimum) pairs of its groups in float.
// Reference  src/quant on the CPU: x = scale · code + minimum in float, two roundings, then rounded to the float type.
// Bound    bytes read and written over the copy bandwidth.
#pragma once

#include <cuda_fp8.h>

#include "kvprof/staging.cuh"

namespace kvprof {

/// Mirrored by `DequantizeParams` in src/quant/cuda.rs.
struct DequantizeParams {
  Ring window;
  const uint8_t* tiles;
  void* out_keys;
  void* out_values;
  TileLayout layout;
  int32_t first_position;
  int32_t packed_end;  // positions before it come from tiles, the rest from the window; a multiple of the tile's tokens
  int32_t end;         // last position plus one
  int32_t tile_capacity;
  int32_t out_rows;
  int32_t reserved;
};
static_assert(sizeof(DequantizeParams) == 104, "mirrored by DequantizeParams in src/quant/cuda.rs");

template <typename T>
struct Dequantize {
  static __device__ __forceinline__ void run(const DequantizeParams& p) {
    extern __shared__ __align__(16) uint8_t shared[];
    const TileLayout& layout = p.layout;
    const StagedTile<T> staged(shared, layout.channels);
    float2* const pairs = reinterpret_cast<float2*>(staged.base + layout.tokens * staged.stride);
    const Side side = blockIdx.z == 0 ? Side::key : Side::value;
    const int span = p.first_position / layout.tokens + blockIdx.x;
    const int span_begin = span * layout.tokens;

    if (span_begin < p.packed_end) {
      const int64_t slot = span % p.tile_capacity;
      const uint8_t* tile = p.tiles + (static_cast<int64_t>(blockIdx.y) * p.tile_capacity + slot) * layout.bytes();
      if (side == Side::key) {
        expand<Side::key>(layout, tile, staged, pairs);
      } else {
        expand<Side::value>(layout, tile, staged, pairs);
      }
    } else {
      // Slots past `end` are in the ring too, whatever they hold; they are not written out.
      staged.load(p.window, p.window.head<const T>(blockIdx.z, blockIdx.y), span_begin, layout.tokens);
      wait_copies<0>();
    }
    __syncthreads();

    T* const out = static_cast<T*>(side == Side::key ? p.out_keys : p.out_values) +
                   static_cast<int64_t>(blockIdx.y) * p.out_rows * layout.channels;
    const int chunks = layout.channels / 8;
    for (int i = threadIdx.x; i < layout.tokens * chunks; i += kTileThreads) {
      const int token = i / chunks, chunk = i % chunks;
      const int position = span_begin + token;
      if (position < p.first_position || position >= p.end) continue;
      const int64_t row = position - p.first_position;
      *reinterpret_cast<uint4*>(out + row * layout.channels + chunk * 8) =
          *reinterpret_cast<const uint4*>(staged.base + token * staged.stride + chunk * 8);
    }
  }

 private:
  /// Brings one side of a tile to shared memory as values.
  template <Side kSide>
  static __device__ __forceinline__ void expand(const TileLayout& layout, const uint8_t* tile,
                                                const StagedTile<T>& staged, float2* pairs) {
    const Format format = layout.format(kSide);
    if (format.direction == Direction::tile) {
      const float scale = parameter(tile, layout.pair(kSide, 0, 0).scale);
      unpack_codes<8>(layout, kSide, tile, [&](int, int row, int, int column, uint32_t codes) {
        const auto value = [&](uint32_t code) {
          const __half_raw half = __nv_cvt_fp8_to_halfraw(static_cast<__nv_fp8_storage_t>(code), __NV_E4M3);
          return __fmul_rn(__half2float(half), scale);
        };
        staged.template store_pair<kSide>(row, column, value(codes & 0xff), value(codes >> 16));
      });
      return;
    }
    const int groups = layout.tokens * layout.channels / format.group;
    for (int group = threadIdx.x; group < groups; group += kTileThreads) {
      const GroupOrigin origin(layout, format.direction, format.group, group);
      const PairPlace place = layout.pair(kSide, origin.token, origin.channel);
      pairs[group] = make_float2(parameter(tile, place.scale), parameter(tile, place.minimum));
    }
    __syncthreads();
    const int blocks_per_group = format.group / 16;
    const auto decode = [&](int block_row, int row, int block_column, int column, uint32_t codes) {
      const auto value = [&](int at, uint32_t code) {
        const int group = group_of<kSide>(layout, format.direction, blocks_per_group, block_row, row, block_column, at);
        // The code as a float: its bits under an exponent that makes the last place 1, less that exponent.
        const float number = __uint_as_float(0x4b000000u | code) - 8388608.0f;
        return __fadd_rn(__fmul_rn(pairs[group].x, number), pairs[group].y);
      };
      staged.template store_pair<kSide>(row, column, value(column, codes & 0xffffu), value(column + 1, codes >> 16));
    };
    switch (format.bits) {
      case 2: return unpack_codes<2>(layout, kSide, tile, decode);
      case 4: return unpack_codes<4>(layout, kSide, tile, decode);
      default: return unpack_codes<8>(layout, kSide, tile, decode);
    }
  }

  static __device__ __forceinline__ float parameter(const uint8_t* tile, int byte) {
    return to_floats<T>(*reinterpret_cast<const uint16_t*>(tile + byte)).x;
  }
};

}  // namespace kvprof
