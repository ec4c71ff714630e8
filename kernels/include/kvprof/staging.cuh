// A tile on its way between the dense rows of a cache and its packed form (tile.cuh): 256 threads handle one side (K or
// V) of one tile, with the tile's elements in shared memory.
#pragma once

#include "kvprof/ptx.cuh"
#include "kvprof/rows.cuh"
#include "kvprof/tile.cuh"

namespace kvprof {

constexpr int kTileThreads = 256;

/// A tile of the window in shared memory, [tokens, D] with padded rows: the 16 bytes spread four tokens of eight channels
/// over all banks.
template <typename T>
struct StagedTile {
  T* base;
  int stride;

  __device__ __forceinline__ StagedTile(void* shared, int channels)
      : base(static_cast<T*>(shared)), stride(channels + 8) {}

  __device__ __forceinline__ float at(int token, int channel) const {
    return to_floats<T>(*reinterpret_cast<const uint16_t*>(base + token * stride + channel)).x;
  }

  /// Elements (row, column) and (row, column + 1) of the side's matrix (tile.cuh); `column` is even.
  template <Side kSide>
  __device__ __forceinline__ float2 pair(int row, int column) const {
    if constexpr (kSide == Side::key) {
      return to_floats<T>(*reinterpret_cast<const uint32_t*>(base + row * stride + column));
    } else {
      return make_float2(at(column, row), at(column + 1, row));
    }
  }

  template <Side kSide>
  __device__ __forceinline__ void store_pair(int row, int column, float x, float y) const {
    const uint32_t packed = to_pair<T>(x, y);
    if constexpr (kSide == Side::key) {
      *reinterpret_cast<uint32_t*>(base + row * stride + column) = packed;
    } else {
      uint16_t* const bits = reinterpret_cast<uint16_t*>(base);
      bits[column * stride + row] = static_cast<uint16_t>(packed);
      bits[(column + 1) * stride + row] = static_cast<uint16_t>(packed >> 16);
    }
  }

  /// Starts copying positions first .. first + tokens from the ring.
  __device__ __forceinline__ void load(const Ring& ring, const T* head, int first, int tokens) const {
    const int chunks = ring.channels / 8;
    const int first_slot = first % ring.capacity;
    for (int i = threadIdx.x; i < tokens * chunks; i += kTileThreads) {
      const int token = i / chunks, chunk = i % chunks;
      int slot = first_slot + token;
      if (slot >= ring.capacity) slot -= ring.capacity;
      copy16_async(shared_address(base + token * stride + chunk * 8),
                   head + static_cast<int64_t>(slot) * ring.channels + chunk * 8);
    }
    commit_copies();
  }
};

/// A lane's place in a 16-byte piece of codes (tile.cuh): what word `j` of the piece holds.
template <int kBits>
struct WordPlace {
  int block_row, block_column, first_hi;

  __device__ __forceinline__ WordPlace(int piece, int j, int column_blocks) {
    const int word = piece / 32 * 4 + j;
    const int block = kBits == 8 ? word / 2 : word;
    block_row = block / column_blocks * (kBits == 2 ? 2 : 1);
    block_column = block % column_blocks;
    first_hi = kBits == 8 ? word % 2 : 0;
  }
  /// Block (16 rows) and row of the `c`-th code of a byte; a byte holds rows eight apart.
  __device__ __forceinline__ int block_row_of(int c) const { return block_row + c / 2; }
  __device__ __forceinline__ int row_of(int c, int g) const {
    return block_row_of(c) * 16 + 8 * (first_hi + c % 2) + g;
  }
  __device__ __forceinline__ int column_of(int half, int t) const { return block_column * 16 + 8 * half + 2 * t; }
};

/// Writes the codes of one side in the order of tile.cuh. `encode(block_row, row, block_column, column)` gives the codes
/// of columns `column` and `column + 1` in the low bytes of the halves of a word; block_row is row / 16, and so on.
template <int kBits, typename Encode>
__device__ __forceinline__ void pack_codes(const TileLayout& layout, Side side, uint8_t* tile, const Encode& encode) {
  const int column_blocks = layout.columns(side) / 16;
  uint4* target = reinterpret_cast<uint4*>(tile + layout.codes_at(side));
  const int pieces = layout.code_bytes(side) / 16;
  for (int piece = threadIdx.x; piece < pieces; piece += kTileThreads) {
    const int g = piece % 32 / 4, t = piece % 4;
    uint32_t words[4];
#pragma unroll
    for (int j = 0; j < 4; ++j) {
      const WordPlace<kBits> place(piece, j, column_blocks);
      words[j] = 0;
#pragma unroll
      for (int c = 0; c < 8 / kBits; ++c) {
#pragma unroll
        for (int half = 0; half < 2; ++half) {
          const uint32_t codes =
              encode(place.block_row_of(c), place.row_of(c, g), place.block_column, place.column_of(half, t));
          words[j] |= codes << (8 * half + kBits * c);
        }
      }
    }
    target[piece] = make_uint4(words[0], words[1], words[2], words[3]);
  }
}

/// The inverse: calls `decode(block_row, row, block_column, column, codes)` with two codes as `encode` gives them.
template <int kBits, typename Decode>
__device__ __forceinline__ void unpack_codes(const TileLayout& layout, Side side, const uint8_t* tile,
                                             const Decode& decode) {
  constexpr uint32_t kMask = 0x00010001u * ((1u << kBits) - 1);
  const int column_blocks = layout.columns(side) / 16;
  const uint4* source = reinterpret_cast<const uint4*>(tile + layout.codes_at(side));
  const int pieces = layout.code_bytes(side) / 16;
  for (int piece = threadIdx.x; piece < pieces; piece += kTileThreads) {
    const int g = piece % 32 / 4, t = piece % 4;
    const uint4 four = source[piece];
    const uint32_t words[4] = {four.x, four.y, four.z, four.w};
#pragma unroll
    for (int j = 0; j < 4; ++j) {
      const WordPlace<kBits> place(piece, j, column_blocks);
#pragma unroll
      for (int c = 0; c < 8 / kBits; ++c) {
#pragma unroll
        for (int half = 0; half < 2; ++half) {
          decode(place.block_row_of(c), place.row_of(c, g), place.block_column, place.column_of(half, t),
                 words[j] >> (8 * half + kBits * c) & kMask);
        }
      }
    }
  }
}

/// The group of an element, counted along channels first where a group is tokens of one channel, along tokens first where
/// it is channels of one token. `blocks_per_group` is G / 16: a group holds whole blocks, so elements of a word that
/// share a group are seen to.
template <Side kSide>
__device__ __forceinline__ int group_of(const TileLayout& layout, Direction direction, int blocks_per_group,
                                        int block_row, int row, int block_column, int column) {
  const int block_token = kSide == Side::key ? block_row : block_column;
  const int block_channel = kSide == Side::key ? block_column : block_row;
  const int token = kSide == Side::key ? row : column, channel = kSide == Side::key ? column : row;
  return direction == Direction::channel ? block_token / blocks_per_group * layout.channels + channel
                                         : block_channel / blocks_per_group * layout.tokens + token;
}

/// First token and channel of a group counted so.
struct GroupOrigin {
  int token, channel;

  __device__ __forceinline__ GroupOrigin(const TileLayout& layout, Direction direction, int group_size, int index)
      : token(direction == Direction::channel ? index / layout.channels * group_size : index % layout.tokens),
        channel(direction == Direction::channel ? index % layout.channels : index / layout.tokens * group_size) {}
};

}  // namespace kvprof
