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

#include "kvprof/arithmetic.cuh"
#include "kvprof/staging.cuh"

namespace kvprof {

/// Mirrored by `DequantizeParams` in src/cache/ops/cuda.rs.
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
static_assert(sizeof(DequantizeParams) == 104, "mirrored by DequantizeParams in src/cache/ops/cuda.rs");

template <typename T, int D>
struct Dequantize {
  static __device__ __forceinline__ void run(const DequantizeParams& p) {
    extern __shared__ __align__(16) uint8_t shared[];
    const TileLayout& layout = p.layout;
    const StagedTile<T, D> staged(shared);
    float2* const pairs = reinterpret_cast<float2*>(staged.row(layout.tokens));
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
      staged.template load<kTileThreads>(p.window, p.window.head<const T>(blockIdx.z, blockIdx.y), span_begin % p.window.capacity, layout.tokens);
      wait_copies<0>();
    }
    __syncthreads();
    T* const out = static_cast<T*>(side == Side::key ? p.out_keys : p.out_values);
    staged.store(out + static_cast<int64_t>(blockIdx.y) * p.out_rows * D, span_begin, layout.tokens, p.first_position,
                 p.end);
  }

 private:
  /// Brings one side of a tile to shared memory as values.
  template <Side kSide>
  static __device__ __forceinline__ void expand(const TileLayout& layout, const uint8_t* tile,
                                                const StagedTile<T, D>& staged, float2* pairs) {
    const Format format = layout.format(kSide);
    // Asked for before anything waits: all of the codes, unless they have 8 bits or D is 128 and the tile 128 tokens long.
    const uint4* const source = reinterpret_cast<const uint4*>(tile + layout.codes_at(kSide));
    uint4 first = {};
    if (static_cast<int>(threadIdx.x) * 16 < layout.code_bytes(kSide)) first = source[threadIdx.x];
    if (format.direction == Direction::tile) {
      const float scale = parameter(tile, layout.pair(kSide, 0, 0).scale);
      return unpack<kSide, 8>(layout, source, first, staged, [&](int, int) {
        return [=](int, int, uint32_t low, uint32_t high) {
          return make_float2(__fmul_rn(from_e4m3(low), scale), __fmul_rn(from_e4m3(high), scale));
        };
      });
    }
    if (format.direction == Direction::channel) {
      expand_groups<kSide, Direction::channel>(layout, format, tile, source, first, staged, pairs);
    } else {
      expand_groups<kSide, Direction::token>(layout, format, tile, source, first, staged, pairs);
    }
  }

  template <Side kSide, Direction kDirection>
  static __device__ __forceinline__ void expand_groups(const TileLayout& layout, const Format& format, const uint8_t* tile,
                                                       const uint4* source, const uint4& first,
                                                       const StagedTile<T, D>& staged, float2* pairs) {
    switch (format.group) {
      case 16: load_pairs<kSide, kDirection, 16>(layout, tile, pairs); break;
      case 32: load_pairs<kSide, kDirection, 32>(layout, tile, pairs); break;
      case 64: load_pairs<kSide, kDirection, 64>(layout, tile, pairs); break;
      default: load_pairs<kSide, kDirection, 128>(layout, tile, pairs);
    }
    __syncthreads();
    constexpr bool kOfColumn = Groups<kDirection, 16, D>::template kOfColumn<kSide>;
    const int stride = kDirection == Direction::channel ? D : layout.tokens;
    const int blocks_shift = format.group == 128 ? 3 : format.group == 64 ? 2 : format.group == 32 ? 1 : 0;
    const int g = threadIdx.x % 32 / 4, t = threadIdx.x % 4;
    const auto decode = [&](int block_row, int block_column) {
      // The pairs of a lane's elements: four columns, or two rows.
      const float2* at = pairs + (kOfColumn ? (block_row >> blocks_shift) * stride + block_column * 16 + 2 * t
                                            : (block_column >> blocks_shift) * stride + block_row * 16 + g);
      const float2 a = at[0], b = kOfColumn ? at[1] : at[8];
      const float2 c = kOfColumn ? at[8] : a, e = kOfColumn ? at[9] : b;
      return [=](int half, int hi, uint32_t low, uint32_t high) {
        const float2 even = kOfColumn ? (half ? c : a) : (hi ? b : a);
        const float2 odd = kOfColumn ? (half ? e : b) : (hi ? b : a);
        return make_float2(value(low, even), value(high, odd));
      };
    };
    switch (format.bits) {
      case 2: return unpack<kSide, 2>(layout, source, first, staged, decode);
      case 4: return unpack<kSide, 4>(layout, source, first, staged, decode);
      default: return unpack<kSide, 8>(layout, source, first, staged, decode);
    }
  }

  /// Brings the parameters of all groups to shared memory, in the order of `Groups`.
  template <Side kSide, Direction kDirection, int G>
  static __device__ __forceinline__ void load_pairs(const TileLayout& layout, const uint8_t* tile, float2* pairs) {
    using GroupMap = Groups<kDirection, G, D>;
    const TileLayout known = GroupMap::template known_layout<kSide>(layout);
    for (int group = threadIdx.x; group < GroupMap::count(layout.tokens); group += kTileThreads) {
      const PairPlace place =
          known.pair(kSide, GroupMap::first_token(group, layout.tokens), GroupMap::first_channel(group, layout.tokens));
      pairs[group] = make_float2(parameter(tile, place.scale), parameter(tile, place.minimum));
    }
  }

  /// `decode(block_row, block_column)` gives something whose `(half, hi, code, next code)` are two values. `first` is this thread's
  /// 16 bytes of the first 4096 at `source`.
  template <Side kSide, int kBits, typename Decode>
  static __device__ __forceinline__ void unpack(const TileLayout& layout, const uint4* source, const uint4& first,
                                                const StagedTile<T, D>& staged, const Decode& decode) {
    using P = Pieces<kSide, kBits, D>;
    constexpr uint32_t kMask = (1u << kBits) - 1;
    P::template for_each<kTileThreads>(layout.tokens, [&](int block_row, int first_column, int place) {
      const uint4 piece = place == static_cast<int>(threadIdx.x) ? first : source[place];
      const uint32_t words[4] = {piece.x, piece.y, piece.z, piece.w};
#pragma unroll
      for (int i = 0; i < P::kSteps; ++i) {
#pragma unroll
        for (int r = 0; r < P::kRows; ++r) {
          const auto values = decode(block_row + r, first_column + i);
          Fragment fragment;
#pragma unroll
          for (int half = 0; half < 2; ++half) {
#pragma unroll
            for (int hi = 0; hi < 2; ++hi) {
              const uint32_t codes = words[P::word(i, hi)] >> P::bit(r, half, hi);
              const float2 x = values(half, hi, codes & kMask, codes >> 16 & kMask);
              fragment.pairs[half][hi] = to_pair<T>(x.x, x.y);
            }
          }
          fragment.store<kSide>(staged, block_row + r, first_column + i);
        }
      }
    });
  }

  /// scale · code + minimum, each rounded.
  static __device__ __forceinline__ float value(uint32_t code, float2 pair) {
    // The code as a float: its bits under an exponent that makes the last place 1, less that exponent.
    const float number = __uint_as_float(0x4b000000u | code) - 8388608.0f;
    return __fadd_rn(__fmul_rn(pair.x, number), pair.y);
  }

  static __device__ __forceinline__ float parameter(const uint8_t* tile, int byte) {
    return to_floats<T>(*reinterpret_cast<const uint16_t*>(tile + byte)).x;
  }
};

}  // namespace kvprof
