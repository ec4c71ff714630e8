// Quantizes whole tiles of the recent window: fit, encode, pack, in one pass over the window.
//
// Shapes   from the ring [2, B, Hkv, W, D] (FP16 or BF16) to the tiles [B, Hkv, capacity, tile bytes] of tile.cuh.
// Grid     x: tiles to write; y: B * Hkv; z: 1 or 2 of K, V. Block: 256 threads.
// Shared   the tile as it lies in the window, rows padded by 16 bytes; the fits of its groups.
// Steps    1. cp.async brings the tile in.  2. `kLanes` lanes a group fit it in registers.  3. A warp writes 512 bytes
//          of codes at a time in the order of the tile, encoding what it needs from shared memory.
// Faults   A group with an element that is not finite is written as zeros: append.cuh has recorded the element.
// Reference  src/quant on the CPU, equal in every code.
// Bound    bytes read and written over the copy bandwidth; HQQ also arithmetic: 12 operations an element and step, and
//          10 in double where the shrinkage acts.
#pragma once

#include <cuda_fp8.h>

#include "kvprof/fit.cuh"
#include "kvprof/staging.cuh"

namespace kvprof {

/// Mirrored by `QuantizeParams` in src/quant/cuda.rs.
struct QuantizeParams {
  Ring window;
  uint8_t* tiles;
  TileLayout layout;
  int32_t first_position;  // of the first tile to write: a multiple of the tile's tokens
  int32_t tile_capacity;   // tiles of the ring of tiles
  int32_t first_side;  // 0 keys, 1 values: what blockIdx.z = 0 quantizes
  int32_t reserved;
};
static_assert(sizeof(TileLayout) == 32, "mirrored by TileLayout in src/device/params.rs");
static_assert(sizeof(QuantizeParams) == 80, "mirrored by QuantizeParams in src/quant/cuda.rs");

template <typename T>
__device__ __forceinline__ void store_parameter(uint8_t* tile, int byte, float x) {
  *reinterpret_cast<uint16_t*>(tile + byte) = static_cast<uint16_t>(to_pair<T>(x, 0.0f));
}

/// The tile a block writes.
struct TileTask {
  Side side;
  int first_position;
  uint8_t* tile;

  __device__ __forceinline__ explicit TileTask(const QuantizeParams& p)
      : side(p.first_side + blockIdx.z == 0 ? Side::key : Side::value),
        first_position(p.first_position + blockIdx.x * p.layout.tokens) {
    const int64_t slot = first_position / p.layout.tokens % p.tile_capacity;
    tile = p.tiles + (static_cast<int64_t>(blockIdx.y) * p.tile_capacity + slot) * p.layout.bytes();
  }
  __device__ __forceinline__ int plane() const { return side == Side::key ? 0 : 1; }
};

/// Writes the codes of one side. `encode.fragment(block_row, block_column)` gives something whose `(half, hi, pair)` turns a
/// pair of elements into two `shifted_code`s.
template <Side kSide, int kBits, typename T, int D, typename Encode>
__device__ __forceinline__ void pack_codes(const TileLayout& layout, const StagedTile<T, D>& staged, uint8_t* tile,
                                           const Encode& encode) {
  using P = Pieces<kSide, kBits, D>;
  uint4* const target = reinterpret_cast<uint4*>(tile + layout.codes_at(kSide));
  P::for_each(layout.tokens, [&](int block_row, int first_column, int place) {
    uint32_t words[4] = {}, shifts[4] = {};
#pragma unroll
    for (int i = 0; i < P::kSteps; ++i) {
#pragma unroll
      for (int r = 0; r < P::kRows; ++r) {
        const Fragment fragment = Fragment::load<kSide>(staged, block_row + r, first_column + i);
        const auto coders = encode.fragment(block_row + r, first_column + i);
#pragma unroll
        for (int half = 0; half < 2; ++half) {
#pragma unroll
          for (int hi = 0; hi < 2; ++hi) {
            const uint2 codes = coders(half, hi, to_floats<T>(fragment.pairs[half][hi]));
            const int word = P::word(i, hi), bit = P::bit(r, half, hi);
            words[word] += (codes.x << bit) + (codes.y << (16 + bit));
            shifts[word] += (Encode::kShift << bit) + (Encode::kShift << (16 + bit));
          }
        }
      }
    }
    target[place] = make_uint4(words[0] - shifts[0], words[1] - shifts[1], words[2] - shifts[2], words[3] - shifts[3]);
  });
}

/// Encodes with a coder for each group.
template <Side kSide, Direction kDirection, int G, int D, typename Coder>
struct GroupEncoder {
  using GroupMap = Groups<kDirection, G, D>;
  static constexpr uint32_t kShift = kRoundingShiftBits;
  const Coder* coders;
  float top;
  int tokens;

  /// The coders of one lane's elements: four columns, or two rows.
  struct OfFragment {
    Coder coders[4];
    float top;
    __device__ __forceinline__ uint2 operator()(int half, int hi, float2 x) const {
      const Coder& even = GroupMap::template kOfColumn<kSide> ? coders[2 * half] : coders[hi];
      const Coder& odd = GroupMap::template kOfColumn<kSide> ? coders[2 * half + 1] : coders[hi];
      return make_uint2(shifted_code(even.place(x.x), top), shifted_code(odd.place(x.y), top));
    }
  };

  __device__ __forceinline__ OfFragment fragment(int block_row, int block_column) const {
    const int g = threadIdx.x % 32 / 4, t = threadIdx.x % 4;
    const Coder* first = coders + GroupMap::template of_fragment<kSide>(tokens, block_row, block_column);
    if constexpr (GroupMap::template kOfColumn<kSide>) {
      first += 2 * t;
      return {{first[0], first[1], first[8], first[9]}, top};
    } else {
      first += g;
      return {{first[0], first[8]}, top};
    }
  }
};

/// `Fit` is MinMaxFit<T, G> or HqqFit<T, G>.
template <typename T, int D, Direction kDirection, int G, typename Fit>
struct Quantize {
  using Coder = typename Fit::Coder;
  using Lanes = GroupLanes<G>;
  using GroupMap = Groups<kDirection, G, D>;
  static constexpr int kLanes = Lanes::kLanes;

  static __device__ __forceinline__ void run(const QuantizeParams& p) {
    extern __shared__ __align__(16) uint8_t shared[];
    const TileLayout& layout = p.layout;
    const int tokens = layout.tokens;
    const TileTask task(p);
    const StagedTile<T, D> staged(shared);
    Coder* const coders = reinterpret_cast<Coder*>(staged.row(tokens));
    const float top = static_cast<float>((1 << layout.format(task.side).bits) - 1);

    staged.load(p.window, p.window.head<const T>(task.plane(), blockIdx.y), task.first_position, tokens);
    wait_copies<0>();
    __syncthreads();

    const int lane = threadIdx.x % kLanes;
    for (int first = 0; first < GroupMap::count(tokens); first += kTileThreads / kLanes) {
      // A lane holds 16 elements (32 where G is 128), so 256 lanes divide every tile: no lane is idle.
      const int group = first + threadIdx.x / kLanes;
      const int token = GroupMap::first_token(group, tokens), channel = GroupMap::first_channel(group, tokens);
      float x[Lanes::kElements];
#pragma unroll
      for (int k = 0; k < Lanes::kElements; ++k) {
        const int i = Lanes::element(lane, k);
        x[k] = kDirection == Direction::channel ? staged.at(token + i, channel) : staged.at(token, channel + i);
      }
      const float2 range = Lanes::range(x);
      float low = __fadd_rn(range.x, 0.0f), high = __fadd_rn(range.y, 0.0f);  // -0 becomes +0
      if (!(low >= -kLargestFloat && high <= kLargestFloat)) low = high = 0.0f;
      const Fitted<Coder> fitted = Fit::fit(x, low, high, top);
      if (lane == 0) {
        coders[group] = fitted.coder;
        const PairPlace place = layout.pair(task.side, token, channel);
        store_parameter<T>(task.tile, place.scale, fitted.scale);
        store_parameter<T>(task.tile, place.minimum, fitted.minimum);
      }
    }
    __syncthreads();

    if (task.side == Side::key) {
      pack<Side::key>(layout, staged, coders, top, task.tile);
    } else {
      pack<Side::value>(layout, staged, coders, top, task.tile);
    }
  }

 private:
  template <Side kSide>
  static __device__ __forceinline__ void pack(const TileLayout& layout, const StagedTile<T, D>& staged,
                                              const Coder* coders, float top, uint8_t* tile) {
    const GroupEncoder<kSide, kDirection, G, D, Coder> encoder{coders, top, layout.tokens};
    switch (layout.format(kSide).bits) {
      case 2: return pack_codes<kSide, 2>(layout, staged, tile, encoder);
      case 4: return pack_codes<kSide, 4>(layout, staged, tile, encoder);
      default: return pack_codes<kSide, 8>(layout, staged, tile, encoder);
    }
  }
};

/// Encodes to E4M3 with one scale.
struct Fp8Encoder {
  static constexpr uint32_t kShift = 0;
  float scale;

  __device__ __forceinline__ Fp8Encoder fragment(int, int) const { return *this; }
  __device__ __forceinline__ uint2 operator()(int, int, float2 x) const {
    const auto code = [&](float value) {
      return static_cast<uint32_t>(__nv_cvt_float_to_fp8(__fdiv_rn(value, scale), __NV_SATFINITE, __NV_E4M3));
    };
    return make_uint2(code(x.x), code(x.y));
  }
};

/// FP8: one scale a tile and side, absmax / 448 (1 where that rounds to zero); codes are E4M3 of x / scale.
template <typename T, int D>
struct QuantizeFp8 {
  static __device__ __forceinline__ void run(const QuantizeParams& p) {
    extern __shared__ __align__(16) uint8_t shared[];
    const TileLayout& layout = p.layout;
    const TileTask task(p);
    const StagedTile<T, D> staged(shared);
    staged.load(p.window, p.window.head<const T>(task.plane(), blockIdx.y), task.first_position, layout.tokens);
    wait_copies<0>();
    __syncthreads();

    const float rounded = round_to<T>(__fdiv_rn(largest_magnitude(staged, layout.tokens), 448.0f));
    const float scale = rounded == 0.0f ? 1.0f : rounded;
    if (threadIdx.x < 8) {  // the 16 bytes of the scale: the rest is zero
      uint16_t* const scales = reinterpret_cast<uint16_t*>(task.tile + layout.pair(task.side, 0, 0).scale);
      scales[threadIdx.x] = threadIdx.x == 0 ? static_cast<uint16_t>(to_pair<T>(scale, 0.0f)) : 0;
    }
    if (task.side == Side::key) {
      pack_codes<Side::key, 8>(layout, staged, task.tile, Fp8Encoder{scale});
    } else {
      pack_codes<Side::value, 8>(layout, staged, task.tile, Fp8Encoder{scale});
    }
  }

 private:
  /// Of the finite elements.
  static __device__ __forceinline__ float largest_magnitude(const StagedTile<T, D>& staged, int tokens) {
    __shared__ float maxima[kTileThreads / 32];
    float largest = 0.0f;
    const auto keep = [&](float x) {
      if (fabsf(x) <= kLargestFloat) largest = fmaxf(largest, fabsf(x));
    };
    for (int i = threadIdx.x; i < tokens * D / 2; i += kTileThreads) {
      const float2 x = to_floats<T>(*reinterpret_cast<const uint32_t*>(staged.row(i / (D / 2)) + i % (D / 2) * 2));
      keep(x.x);
      keep(x.y);
    }
    for (int step = 16; step > 0; step /= 2) largest = fmaxf(largest, __shfl_xor_sync(kFullWarp, largest, step));
    if (threadIdx.x % 32 == 0) maxima[threadIdx.x / 32] = largest;
    __syncthreads();
    for (int warp = 0; warp < kTileThreads / 32; ++warp) largest = fmaxf(largest, maxima[warp]);
    return largest;
  }
};

}  // namespace kvprof
