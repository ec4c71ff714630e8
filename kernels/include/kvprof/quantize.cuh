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

/// `Fit` is MinMaxFit<T, G> or HqqFit<T, G>.
template <typename T, Direction kDirection, int G, typename Fit>
struct Quantize {
  using Coder = typename Fit::Coder;
  using Lanes = GroupLanes<G>;
  static constexpr int kLanes = Lanes::kLanes;

  static __device__ __forceinline__ void run(const QuantizeParams& p) {
    extern __shared__ __align__(16) uint8_t shared[];
    const TileLayout& layout = p.layout;
    const TileTask task(p);
    const int groups = layout.tokens * layout.channels / G;
    const StagedTile<T> staged(shared, layout.channels);
    Coder* coders = reinterpret_cast<Coder*>(staged.base + layout.tokens * staged.stride);
    const float top = static_cast<float>((1 << layout.format(task.side).bits) - 1);

    staged.load(p.window, p.window.head<const T>(task.plane(), blockIdx.y), task.first_position, layout.tokens);
    wait_copies<0>();
    __syncthreads();

    const int lane = threadIdx.x % kLanes;
    for (int first = 0; first < groups; first += kTileThreads / kLanes) {
      // A lane holds 16 elements (32 where G is 128), so 256 lanes divide every tile: no lane is idle.
      const int group = first + threadIdx.x / kLanes;
      const GroupOrigin origin(layout, kDirection, G, group);
      float x[Lanes::kElements];
#pragma unroll
      for (int k = 0; k < Lanes::kElements; ++k) {
        const int i = Lanes::element(lane, k);
        x[k] = kDirection == Direction::channel ? staged.at(origin.token + i, origin.channel)
                                                : staged.at(origin.token, origin.channel + i);
      }
      const float2 range = Lanes::range(x);
      float low = __fadd_rn(range.x, 0.0f), high = __fadd_rn(range.y, 0.0f);  // -0 becomes +0
      if (!(low >= -kLargestFloat && high <= kLargestFloat)) low = high = 0.0f;
      const Fitted<Coder> fitted = Fit::fit(x, low, high, top);
      if (lane == 0) {
        coders[group] = fitted.coder;
        const PairPlace place = layout.pair(task.side, origin.token, origin.channel);
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

  template <Side kSide>
  static __device__ __forceinline__ void pack(const TileLayout& layout, const StagedTile<T>& staged,
                                              const Coder* coders, float top, uint8_t* tile) {
    const auto encode = [&](int block_row, int row, int block_column, int column) {
      const float2 x = staged.template pair<kSide>(row, column);
      const auto group = [&](int c) {
        return group_of<kSide>(layout, kDirection, G / 16, block_row, row, block_column, c);
      };
      const Coder &low = coders[group(column)], &high = coders[group(column + 1)];
      return integer_of(round_to_code(low.place(x.x), top)) | integer_of(round_to_code(high.place(x.y), top)) << 16;
    };
    switch (layout.format(kSide).bits) {
      case 2: return pack_codes<2>(layout, kSide, tile, encode);
      case 4: return pack_codes<4>(layout, kSide, tile, encode);
      default: return pack_codes<8>(layout, kSide, tile, encode);
    }
  }
};

/// FP8: one scale a tile and side, absmax / 448 (1 where all elements are zero); codes are E4M3 of x / scale.
template <typename T>
struct QuantizeFp8 {
  static __device__ __forceinline__ void run(const QuantizeParams& p) {
    extern __shared__ __align__(16) uint8_t shared[];
    const TileLayout& layout = p.layout;
    const TileTask task(p);
    const StagedTile<T> staged(shared, layout.channels);
    staged.load(p.window, p.window.head<const T>(task.plane(), blockIdx.y), task.first_position, layout.tokens);
    wait_copies<0>();
    __syncthreads();

    const float largest = block_maximum(layout, staged);
    const float rounded = round_to<T>(__fdiv_rn(largest, 448.0f));
    const float scale = rounded == 0.0f ? 1.0f : rounded;
    if (threadIdx.x < 8) {  // the 16 bytes of the scale: the rest is zero
      uint16_t* const scales = reinterpret_cast<uint16_t*>(task.tile + layout.pair(task.side, 0, 0).scale);
      scales[threadIdx.x] = threadIdx.x == 0 ? static_cast<uint16_t>(to_pair<T>(scale, 0.0f)) : 0;
    }
    if (task.side == Side::key) {
      pack<Side::key>(layout, staged, scale, task.tile);
    } else {
      pack<Side::value>(layout, staged, scale, task.tile);
    }
  }

 private:
  template <Side kSide>
  static __device__ __forceinline__ void pack(const TileLayout& layout, const StagedTile<T>& staged, float scale,
                                              uint8_t* tile) {
    pack_codes<8>(layout, kSide, tile, [&](int, int row, int, int column) {
      const float2 x = staged.template pair<kSide>(row, column);
      const auto code = [&](float value) {
        return static_cast<uint32_t>(__nv_cvt_float_to_fp8(__fdiv_rn(value, scale), __NV_SATFINITE, __NV_E4M3));
      };
      return code(x.x) | code(x.y) << 16;
    });
  }

  /// The largest finite magnitude of the tile.
  static __device__ __forceinline__ float block_maximum(const TileLayout& layout, const StagedTile<T>& staged) {
    __shared__ float maxima[kTileThreads / 32];
    float largest = 0.0f;
    for (int i = threadIdx.x; i < layout.tokens * layout.channels; i += kTileThreads) {
      const float x = fabsf(staged.at(i / layout.channels, i % layout.channels));
      if (x < INFINITY) largest = fmaxf(largest, x);
    }
    for (int step = 16; step > 0; step /= 2) largest = fmaxf(largest, __shfl_xor_sync(kFullWarp, largest, step));
    if (threadIdx.x % 32 == 0) maxima[threadIdx.x / 32] = largest;
    __syncthreads();
    for (int warp = 0; warp < kTileThreads / 32; ++warp) largest = fmaxf(largest, maxima[warp]);
    return largest;
  }
};

}  // namespace kvprof
