// Quantizes whole tiles of the recent window: fit, encode, pack, in one pass over the window.
//
// Shapes   from the ring [2, B, Hkv, W, D] (FP16 or BF16) to the tiles [B, Hkv, capacity, tile bytes] of tile.cuh.
// Grid     x: tiles to write; y: B * Hkv; z: 1 or 2 of K, V. Block: 256 threads.
// Shared   the tile as it lies in the window, rows padded by 16 bytes; 16 bytes for the fit of each of its groups, and for HQQ
//          4 bytes more for lists of groups.
// Steps    1. cp.async brings the tile in.  2. `kLanes` lanes a group fit it in registers.  3. A warp writes 512 bytes
//          of codes at a time in the order of the tile, encoding what a matrix load brings from shared memory.
// Faults   A group with an element that is not finite is written as zeros: append.cuh has recorded the element.
// Reference  src/quant on the CPU, equal in every code.
// Bound    bytes read and written over the copy bandwidth; HQQ also arithmetic: 12 operations an element and step, and
//          where the shrinkage acts 30 more, 10 of them in double.
#pragma once

#include <type_traits>

#include "kvprof/fit.cuh"
#include "kvprof/range.cuh"

namespace kvprof {

/// Mirrored by `QuantizeParams` in src/cache/ops/cuda.rs.
struct QuantizeParams {
  Ring window;
  uint8_t* tiles;
  TileLayout layout;
  int32_t first_position;  // of the first tile to write: a multiple of the tile's tokens
  int32_t tile_capacity;   // tiles of the ring of tiles
  int32_t first_side;  // 0 keys, 1 values: what blockIdx.z = 0 quantizes
  int32_t reserved;
};
static_assert(sizeof(TileLayout) == 32, "mirrored by TileLayout in src/cache/ops/cuda.rs");
static_assert(sizeof(QuantizeParams) == 80, "mirrored by QuantizeParams in src/cache/ops/cuda.rs");

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
        const auto& coders = encode.fragment(block_row + r, first_column + i);
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

/// Encodes with a fit for each group.
template <Side kSide, Direction kDirection, int G, int D, typename Fit>
struct GroupEncoder {
  using GroupMap = Groups<kDirection, G, D>;
  static constexpr uint32_t kShift = kRoundingShiftBits;
  const Fit* fits;
  float top;
  int tokens;

  /// The fits of one lane's elements: four columns, or two rows.
  struct OfFragment {
    Fit fits[4];
    float top;
    __device__ __forceinline__ uint2 operator()(int half, int hi, float2 x) const {
      const Fit& even = GroupMap::template kOfColumn<kSide> ? fits[2 * half] : fits[hi];
      const Fit& odd = GroupMap::template kOfColumn<kSide> ? fits[2 * half + 1] : fits[hi];
      return make_uint2(shifted_code(even.place(x.x), top), shifted_code(odd.place(x.y), top));
    }
  };

  __device__ __forceinline__ OfFragment fragment(int block_row, int block_column) const {
    const int g = threadIdx.x % 32 / 4, t = threadIdx.x % 4;
    const Fit* first = fits + GroupMap::template of_fragment<kSide>(tokens, block_row, block_column);
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
  using Lanes = GroupLanes<G>;
  using GroupMap = Groups<kDirection, G, D>;
  static constexpr int kLanes = Lanes::kLanes;
  static constexpr int kGroupsAtOnce = kTileThreads / kLanes;

  static __device__ __forceinline__ void run(const QuantizeParams& p) {
    extern __shared__ __align__(16) uint8_t shared[];
    const TileLayout& layout = p.layout;
    const int tokens = layout.tokens;
    const TileTask task(p);
    const StagedTile<T, D> staged(shared);
    Fit* const fits = reinterpret_cast<Fit*>(staged.row(tokens));
    const float top = static_cast<float>((1 << layout.format(task.side).bits) - 1);

    staged.load(p.window, p.window.head<const T>(task.plane(), blockIdx.y), task.first_position, tokens);
    wait_copies<0>();
    __syncthreads();

    // Until a group has its fit, the fit's place holds its range.
    find_ranges<T, D, kDirection, G>(staged, tokens,
                                     [&](int group, uint32_t range) { *reinterpret_cast<uint32_t*>(fits + group) = range; });
    __syncthreads();
    for (int group = threadIdx.x; group < GroupMap::count(tokens); group += kTileThreads) {
      const float2 range = to_floats<T>(*reinterpret_cast<const uint32_t*>(fits + group));
      float low = __fadd_rn(range.x, 0.0f), high = __fadd_rn(range.y, 0.0f);  // -0 becomes +0
      if (!(low >= -kLargestFloat && high <= kLargestFloat)) low = high = 0.0f;
      store(layout, task, group, fits[group].start(low, high, top));
    }
    __syncthreads();
    if constexpr (std::is_same<Fit, HqqFit<T, G>>::value) {
      refine(staged, tokens, fits, top);
      for (int group = threadIdx.x; group < GroupMap::count(tokens); group += kTileThreads) {
        if (fits[group].refinable()) store(layout, task, group, fits[group].stored());
      }
    }

    if (task.side == Side::key) {
      pack<Side::key>(layout, staged, fits, top, task.tile);
    } else {
      pack<Side::value>(layout, staged, fits, top, task.tile);
    }
  }

 private:
  /// This lane's elements of a group.
  static __device__ __forceinline__ void gather(const StagedTile<T, D>& staged, int tokens, int group,
                                                float (&x)[Lanes::kElements]) {
    const int token = GroupMap::first_token(group, tokens), channel = GroupMap::first_channel(group, tokens);
#pragma unroll
    for (int k = 0; k < Lanes::kElements; ++k) {
      const int i = Lanes::element(threadIdx.x % kLanes, k);
      x[k] = kDirection == Direction::channel ? staged.at(token + i, channel) : staged.at(token, channel + i);
    }
  }

  static __device__ __forceinline__ void store(const TileLayout& layout, const TileTask& task, int group,
                                               const StoredPair& pair) {
    // What is known of the layout before it runs, so that the divisions below are shifts.
    TileLayout known = layout;
    known.channels = D;
    (task.side == Side::key ? known.key : known.value).group = G;
    (task.side == Side::key ? known.key : known.value).direction = kDirection;
    const int token = GroupMap::first_token(group, layout.tokens);
    const int channel = GroupMap::first_channel(group, layout.tokens);
    const PairPlace place = task.side == Side::key ? known.pair(Side::key, token, channel)
                                                   : known.pair(Side::value, token, channel);
    store_parameter<T>(task.tile, place.scale, pair.scale);
    store_parameter<T>(task.tile, place.minimum, pair.minimum);
  }

  /// Refines all fits. Groups need few steps on average but up to 20, so after each round those that are not done yet are
  /// gathered anew: warps stay full. Coarse groups, whose steps cost several times as much, are gathered apart from the others.
  static __device__ __forceinline__ void refine(const StagedTile<T, D>& staged, int tokens, Fit* fits, float top) {
    constexpr int kRounds = 5;
    const auto steps = [](int round) { return round < 2 ? 2 : round == 2 ? 3 : round == 3 ? 4 : 9; };  // 20 in all
    __shared__ int waiting[kRounds + 1][2];  // groups before each round: fine, coarse
    const int groups = GroupMap::count(tokens);
    uint16_t* const lists = reinterpret_cast<uint16_t*>(fits + groups);
    // Fine groups fill a round's list from the front, coarse ones from the back.
    const auto enlist = [&](int round, int group, bool coarse) {
      const int index = atomicAdd(&waiting[round][coarse], 1);
      lists[round % 2 * groups + (coarse ? groups - 1 - index : index)] = group;
    };
    if (threadIdx.x <= kRounds) waiting[threadIdx.x][0] = waiting[threadIdx.x][1] = 0;
    __syncthreads();
    for (int group = threadIdx.x; group < groups; group += kTileThreads) {
      if (fits[group].refinable()) enlist(0, group, fits[group].is_coarse());
    }
    __syncthreads();

#pragma unroll 1
    for (int round = 0; round < kRounds; ++round) {
#pragma unroll 1
      for (int coarse = 0; coarse < 2; ++coarse) {
        const int count = waiting[round][coarse];
        const uint16_t* const list = lists + round % 2 * groups + (coarse ? groups - count : 0);
#pragma unroll 1
        for (int first = threadIdx.x / 32 * (32 / kLanes); first < count; first += kGroupsAtOnce) {
          const int index = first + threadIdx.x % 32 / kLanes;
          const bool mine = index < count;
          const int group = mine ? list[index] : 0;
          float x[Lanes::kElements];
          gather(staged, tokens, group, x);
          Fit fit = {};
          if (mine) fit = fits[group];
          const bool done = fit.refine(x, top, steps(round), !mine);
          if (mine && threadIdx.x % kLanes == 0) {
            fits[group] = fit;
            if (!done) enlist(round + 1, group, coarse);
          }
        }
      }
      __syncthreads();
      if (waiting[round + 1][0] + waiting[round + 1][1] == 0) break;
    }
  }

  template <Side kSide>
  static __device__ __forceinline__ void pack(const TileLayout& layout, const StagedTile<T, D>& staged,
                                              const Fit* fits, float top, uint8_t* tile) {
    const GroupEncoder<kSide, kDirection, G, D, Fit> encoder{fits, top, layout.tokens};
    switch (layout.format(kSide).bits) {
      case 2: return pack_codes<kSide, 2>(layout, staged, tile, encoder);
      case 4: return pack_codes<kSide, 4>(layout, staged, tile, encoder);
      default: return pack_codes<kSide, 8>(layout, staged, tile, encoder);
    }
  }
};

/// Encodes to E4M3 with one scale; `lift` as in MinMaxFit.
struct Fp8Encoder {
  static constexpr uint32_t kShift = 0;
  float lift, lifted_scale, inverse;

  __device__ __forceinline__ explicit Fp8Encoder(float scale)
      : lift(scale < 0x1p-64f ? 0x1p100f : 1.0f), lifted_scale(scale * lift), inverse(__frcp_rn(lifted_scale)) {}

  __device__ __forceinline__ const Fp8Encoder& fragment(int, int) const { return *this; }
  __device__ __forceinline__ uint2 operator()(int, int, float2 x) const {
    return make_uint2(to_e4m3(divide(x.x * lift, lifted_scale, inverse)),
                      to_e4m3(divide(x.y * lift, lifted_scale, inverse)));
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
      pack_codes<Side::key, 8>(layout, staged, task.tile, Fp8Encoder(scale));
    } else {
      pack_codes<Side::value, 8>(layout, staged, task.tile, Fp8Encoder(scale));
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
