// Quantizes whole tiles of the recent window: fit, encode, pack, in one pass over the window.
//
// Shapes   from the ring [2, B, Hkv, W, D] (FP16 or BF16) to the tiles [B, Hkv, capacity, tile bytes] of tile.cuh.
// Grid     x: tiles to write; y: B * Hkv; z: 1 or 2 of K, V. Block: kQuantizeThreads. Small blocks, so that a multiprocessor has many:
//          while the last few groups of one tile are refined, others load and pack.
// Shared   the tile as it lies in the window, rows padded by 16 bytes; for each of its groups 16 bytes (the fit), and 4 more for HQQ (a
//          place in each of two lists).
// Steps    1. cp.async brings the tile in.  2. Every group gets its range, and HQQ refines its fit (hqq.cuh), which overwrites the
//          tile: it is brought in again.  3. A warp writes 512 bytes of codes at a time in the order of the tile, encoding what a
//          matrix load brings from shared memory.
// Faults   A group with an element that is not finite is written as zeros; FP8 leaves such elements out of its scale and clamps them.
//          append.cuh has recorded the element.
// Reference  src/quant on the CPU, equal in every code.
// Bound    bytes read and written over the copy bandwidth; HQQ: instructions.
#pragma once

#include <type_traits>

#include "kvprof/hqq.cuh"
#include "kvprof/range.cuh"

namespace kvprof {

/// Mirrored by `QUANTIZE_THREADS` in src/cache/ops/cuda.rs.
constexpr int kQuantizeThreads = 128;

/// Mirrored by `QuantizeParams` in src/cache/ops/cuda.rs.
struct QuantizeParams {
  Ring window;
  uint8_t* tiles;
  TileLayout layout;
  int32_t tile_bytes;
  int32_t tile_capacity;  // tiles of the ring of tiles
  int32_t first_tile;     // its slot in that ring
  int32_t first_slot;     // of its elements in the window
  int32_t first_side;     // 0 keys, 1 values: what blockIdx.z = 0 quantizes
  int32_t reserved;
};
static_assert(sizeof(TileLayout) == 32, "mirrored by TileLayout in src/cache/ops/cuda.rs");
static_assert(sizeof(QuantizeParams) == 88, "mirrored by QuantizeParams in src/cache/ops/cuda.rs");

template <typename T>
__device__ __forceinline__ void store_parameter(uint8_t* tile, int byte, float x) {
  *reinterpret_cast<uint16_t*>(tile + byte) = static_cast<uint16_t>(to_pair<T>(x, 0.0f));
}

/// The tile a block writes.
struct TileTask {
  Side side;
  int first_slot;
  uint8_t* tile;

  __device__ __forceinline__ explicit TileTask(const QuantizeParams& p)
      : side(p.first_side + blockIdx.z == 0 ? Side::key : Side::value),
        first_slot(in_ring(p.first_slot + blockIdx.x * p.layout.tokens, p.window.capacity)) {
    const int slot = in_ring(p.first_tile + blockIdx.x, p.tile_capacity);
    tile = p.tiles + (static_cast<int64_t>(blockIdx.y) * p.tile_capacity + slot) * p.tile_bytes;
  }

  /// Brings the elements in; all threads of the block see them.
  template <typename T, int D>
  __device__ __forceinline__ void load(const QuantizeParams& p, const StagedTile<T, D>& staged) const {
    staged.template load<kQuantizeThreads>(p.window, head<T>(p), first_slot, p.layout.tokens);
    wait_copies<0>();
    __syncthreads();
  }

  /// One element, from the window.
  template <typename T, int D>
  __device__ __forceinline__ float element(const QuantizeParams& p, int token, int channel) const {
    const int64_t slot = in_ring(first_slot + token, p.window.capacity);
    return to_floats<T>(*reinterpret_cast<const uint16_t*>(head<T>(p) + slot * D + channel)).x;
  }

 private:
  /// A launch writes no slot twice, so that a number passes the end of its ring once at most.
  static __device__ __forceinline__ int in_ring(int slot, int capacity) { return slot < capacity ? slot : slot - capacity; }

  template <typename T>
  __device__ __forceinline__ const T* head(const QuantizeParams& p) const {
    return p.window.head<const T>(side == Side::key ? 0 : 1, blockIdx.y);
  }
};

/// Writes the codes of one side. `encode.fragment(block_row, block_column)` gives something whose `(half, hi, pair)` turns a
/// pair of elements into codes in the halves of a word.
template <Side kSide, int kBits, typename T, int D, typename Encode>
__device__ __forceinline__ void pack_codes(const TileLayout& layout, const StagedTile<T, D>& staged, uint8_t* tile,
                                           const Encode& encode) {
  using P = Pieces<kSide, kBits, D>;
  uint4* const target = reinterpret_cast<uint4*>(tile + layout.codes_at(kSide));
  P::template for_each<kQuantizeThreads>(layout.tokens, [&](int block_row, int first_column, int place) {
    uint32_t words[4] = {};
#pragma unroll
    for (int i = 0; i < P::kSteps; ++i) {
#pragma unroll
      for (int r = 0; r < P::kRows; ++r) {
        const Fragment fragment = Fragment::load<kSide>(staged, block_row + r, first_column + i);
        const auto& coders = encode.fragment(block_row + r, first_column + i);
#pragma unroll
        for (int half = 0; half < 2; ++half) {
#pragma unroll
          for (int hi = 0; hi < 2; ++hi) {
            words[P::word(i, hi)] += coders(half, hi, to_floats<T>(fragment.pairs[half][hi])) << P::bit(r, half, hi);
          }
        }
      }
    }
    target[place] = make_uint4(words[0], words[1], words[2], words[3]);
  });
}

/// Encodes with a fit for each group.
template <Side kSide, Direction kDirection, int G, int D, typename Fit>
struct GroupEncoder {
  using GroupMap = Groups<kDirection, G, D>;
  const Fit* fits;
  uint32_t tops;  // the greatest code, in both halves
  int tokens;

  /// The fits of one lane's elements: four columns, or two rows.
  struct OfFragment {
    Fit fits[4];
    uint32_t tops;
    __device__ __forceinline__ uint32_t operator()(int half, int hi, float2 x) const {
      const Fit& even = GroupMap::template kOfColumn<kSide> ? fits[2 * half] : fits[hi];
      const Fit& odd = GroupMap::template kOfColumn<kSide> ? fits[2 * half + 1] : fits[hi];
      return code_pair(even.place(x.x), odd.place(x.y), tops);
    }
  };

  __device__ __forceinline__ OfFragment fragment(int block_row, int block_column) const {
    const int g = threadIdx.x % 32 / 4, t = threadIdx.x % 4;
    const Fit* first = fits + GroupMap::template of_fragment<kSide>(tokens, block_row, block_column);
    if constexpr (GroupMap::template kOfColumn<kSide>) {
      first += 2 * t;
      return {{first[0], first[1], first[8], first[9]}, tops};
    } else {
      first += g;
      return {{first[0], first[8]}, tops};
    }
  }
};

/// `Fit` is MinMaxFit<T> or HqqFit<T>.
template <typename T, int D, Direction kDirection, int G, typename Fit>
struct Quantize {
  using GroupMap = Groups<kDirection, G, D>;

  static __device__ __forceinline__ void run(const QuantizeParams& p) {
    extern __shared__ __align__(16) uint8_t shared[];
    const TileLayout& layout = p.layout;
    const int tokens = layout.tokens;
    const TileTask task(p);
    const StagedTile<T, D> staged(shared);
    Fit* const fits = reinterpret_cast<Fit*>(staged.row(tokens));
    const float top = static_cast<float>((1 << layout.format(task.side).bits) - 1);
    task.load(p, staged);

    // Until a group has its fit, the fit's place holds its range.
    static_assert(sizeof(Fit) >= sizeof(uint32_t));
    find_ranges<kQuantizeThreads, T, D, kDirection, G>(staged, tokens,
                                     [&](int group, uint32_t range) { *reinterpret_cast<uint32_t*>(fits + group) = range; });
    __syncthreads();
    for (int group = threadIdx.x; group < GroupMap::count(tokens); group += kQuantizeThreads) {
      const float2 range = to_floats<T>(*reinterpret_cast<const uint32_t*>(fits + group));
      float low = __fadd_rn(range.x, 0.0f), high = __fadd_rn(range.y, 0.0f);  // -0 becomes +0
      if (!(low >= -kLargestFloat && high <= kLargestFloat)) low = high = 0.0f;
      fits[group].start(low, high, top);
    }
    __syncthreads();
    if constexpr (std::is_same<Fit, HqqFit<T>>::value) {
      uint16_t* const lists = reinterpret_cast<uint16_t*>(fits + GroupMap::count(tokens));
      const HqqRefinement<kQuantizeThreads, T, D, kDirection, G> refinement{staged, tokens, fits, lists, top};
      refinement.run([&](int token, int channel) { return task.element<T, D>(p, token, channel); });
      task.load(p, staged);  // refinement has overwritten the elements
    }
    if (task.side == Side::key) {
      write<Side::key>(layout, staged, fits, task.tile);
    } else {
      write<Side::value>(layout, staged, fits, task.tile);
    }
  }

 private:
  /// Parameters and codes of the tile.
  template <Side kSide>
  static __device__ __forceinline__ void write(const TileLayout& layout, const StagedTile<T, D>& staged, const Fit* fits,
                                               uint8_t* tile) {
    const TileLayout known = GroupMap::template known_layout<kSide>(layout);
    for (int group = threadIdx.x; group < GroupMap::count(layout.tokens); group += kQuantizeThreads) {
      const StoredPair pair = fits[group].stored();
      const PairPlace place =
          known.pair(kSide, GroupMap::first_token(group, layout.tokens), GroupMap::first_channel(group, layout.tokens));
      store_parameter<T>(tile, place.scale, pair.scale);
      store_parameter<T>(tile, place.minimum, pair.minimum);
    }
    const int bits = known.format(kSide).bits;
    const GroupEncoder<kSide, kDirection, G, D, Fit> encoder{fits, ((1u << bits) - 1) * 0x00010001u, layout.tokens};
    switch (bits) {
      case 2: return pack_codes<kSide, 2>(layout, staged, tile, encoder);
      case 4: return pack_codes<kSide, 4>(layout, staged, tile, encoder);
      default: return pack_codes<kSide, 8>(layout, staged, tile, encoder);
    }
  }
};

/// Encodes to E4M3 with one scale; `lift` as in MinMaxFit.
struct Fp8Encoder {
  float lift, lifted_scale, inverse;

  __device__ __forceinline__ explicit Fp8Encoder(float scale)
      : lift(scale < 0x1p-64f ? 0x1p100f : 1.0f), lifted_scale(scale * lift), inverse(__frcp_rn(lifted_scale)) {}

  /// The sign comes from x: of a quotient that is zero it is lost.
  __device__ __forceinline__ uint32_t code(float x) const {
    return to_e4m3(copysignf(divide(x * lift, lifted_scale, inverse), x));
  }
  __device__ __forceinline__ const Fp8Encoder& fragment(int, int) const { return *this; }
  __device__ __forceinline__ uint32_t operator()(int, int, float2 x) const {
    return code(x.x) | code(x.y) << 16;
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
    task.load(p, staged);

    const float rounded = round_to<T>(__fdiv_rn(largest_magnitude(staged, layout.tokens), 448.0f));
    const float scale = rounded == 0.0f ? 1.0f : rounded;
    if (threadIdx.x < 8) {  // the 16 bytes of the scale: the rest is zero
      uint16_t* const scales = reinterpret_cast<uint16_t*>(task.tile + layout.pair(task.side, 0, 0).scale);
      scales[threadIdx.x] = threadIdx.x == 0 ? static_cast<uint16_t>(to_pair<T>(scale, 0.0f)) : 0;
    }
    if (task.side == Side::key) {
      pack_codes<Side::key, 8>(layout, staged, task.tile, Fp8Encoder(scale));
    } else {
      pack_codes<Side::value, 8>(layout, staged, task.tile, Fp8Encoder(scale));
    }
  }

  /// Of the finite elements.
  static __device__ __forceinline__ float largest_magnitude(const StagedTile<T, D>& staged, int tokens) {
    __shared__ float maxima[kQuantizeThreads / 32];
    float largest = 0.0f;
    const auto keep = [&](float x) {
      if (fabsf(x) <= kLargestFloat) largest = fmaxf(largest, fabsf(x));
    };
    for (int i = threadIdx.x; i < tokens * D / 2; i += kQuantizeThreads) {
      const float2 x = to_floats<T>(*reinterpret_cast<const uint32_t*>(staged.row(i / (D / 2)) + i % (D / 2) * 2));
      keep(x.x);
      keep(x.y);
    }
    for (int step = 16; step > 0; step /= 2) largest = fmaxf(largest, __shfl_xor_sync(kFullWarp, largest, step));
    if (threadIdx.x % 32 == 0) maxima[threadIdx.x / 32] = largest;
    __syncthreads();
    for (int warp = 0; warp < kQuantizeThreads / 32; ++warp) largest = fmaxf(largest, maxima[warp]);
    return largest;
  }
};

}  // namespace kvprof
