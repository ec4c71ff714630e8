// A tile on its way between the dense rows of a cache and its packed form (tile.cuh): 256 threads handle one side (K or
// V) of one tile, with the tile's elements in shared memory.
#pragma once

#include "kvprof/ptx.cuh"
#include "kvprof/rows.cuh"
#include "kvprof/tile.cuh"

namespace kvprof {

constexpr int kTileThreads = 256;

/// A tile of the window in shared memory, [tokens, D] with rows padded by 16 bytes: eight rows of one 16-byte column then
/// lie in different banks.
template <typename T, int D>
struct StagedTile {
  static constexpr int kStride = D + 8;
  T* base;

  __device__ __forceinline__ explicit StagedTile(void* shared) : base(static_cast<T*>(shared)) {}

  __device__ __forceinline__ T* row(int token) const { return base + token * kStride; }
  __device__ __forceinline__ float at(int token, int channel) const {
    return to_floats<T>(*reinterpret_cast<const uint16_t*>(row(token) + channel)).x;
  }

  /// Starts copying `tokens` positions from `first_slot` of the ring on, by `kThreads` threads.
  template <int kThreads>
  __device__ __forceinline__ void load(const Ring& ring, const T* head, int first_slot, int tokens) const {
    constexpr int kChunks = D / 8;
    if (tokens == 64 && first_slot + 64 <= ring.capacity) {  // the usual case, with constant distances
      constexpr int kRowsAtOnce = kThreads / kChunks;
      const int token = threadIdx.x / kChunks, channel = threadIdx.x % kChunks * 8;
      copy_rows<64 / kRowsAtOnce, kRowsAtOnce>(shared_address(row(token) + channel),
                                               head + static_cast<int64_t>(first_slot + token) * D + channel);
      return commit_copies();
    }
    for (int i = threadIdx.x; i < tokens * kChunks; i += kThreads) {
      const int token = i / kChunks, chunk = i % kChunks;
      int slot = first_slot + token;
      if (slot >= ring.capacity) slot -= ring.capacity;
      copy16_async(shared_address(row(token) + chunk * 8), head + static_cast<int64_t>(slot) * D + chunk * 8);
    }
    commit_copies();
  }

  /// Copies 16 bytes of `kCount` rows, `kApart` rows apart.
  template <int kCount, int kApart, int kDone = 0>
  static __device__ __forceinline__ void copy_rows(uint32_t shared, const T* global) {
    if constexpr (kDone < kCount) {
      copy16_async_between<kDone * kApart * kStride * 2, kDone * kApart * D * 2>(shared, global);
      copy_rows<kCount, kApart, kDone + 1>(shared, global);
    }
  }

  /// Writes positions first .. first + tokens of the tile to dense rows, of which row 0 is position `origin`; those outside
  /// origin .. end are left out.
  __device__ __forceinline__ void store(T* rows, int first, int tokens, int origin, int end) const {
    constexpr int kChunks = D / 8;
    if (first >= origin && first + tokens <= end) {
      constexpr int kRowsAtOnce = kTileThreads / kChunks;
      const int token = threadIdx.x / kChunks, channel = threadIdx.x % kChunks * 8;
      T* const out = rows + static_cast<int64_t>(first + token - origin) * D + channel;
      const T* const in = row(token) + channel;
#pragma unroll 4
      for (int i = 0; i < tokens; i += kRowsAtOnce) {
        *reinterpret_cast<uint4*>(out + i * D) = *reinterpret_cast<const uint4*>(in + i * kStride);
      }
      return;
    }
    for (int i = threadIdx.x; i < tokens * kChunks; i += kTileThreads) {
      const int token = i / kChunks, chunk = i % kChunks;
      const int position = first + token;
      if (position < origin || position >= end) continue;
      *reinterpret_cast<uint4*>(rows + static_cast<int64_t>(position - origin) * D + chunk * 8) =
          *reinterpret_cast<const uint4*>(row(token) + chunk * 8);
    }
  }
};

/// One lane's pairs of a 16x16 fragment of a side's matrix (tile.cuh): pair [half][hi] holds columns 8·half + 2t and the
/// next of row 8·hi + g.
struct Fragment {
  uint32_t pairs[2][2];

  /// Fragment (block_row, block_column) of a staged tile. The rows of the keys' matrix are the rows in memory; for the values
  /// they are the columns, and the matrix load transposes.
  template <Side kSide, typename T, int D>
  static __device__ __forceinline__ Fragment load(const StagedTile<T, D>& staged, int block_row, int block_column) {
    const uint4 m = kSide == Side::key ? load_matrices(address<kSide>(staged, block_row, block_column))
                                       : load_matrices_transposed(address<kSide>(staged, block_row, block_column));
    return {{{m.x, m.y}, {m.z, m.w}}};
  }

  /// The inverse.
  template <Side kSide, typename T, int D>
  __device__ __forceinline__ void store(const StagedTile<T, D>& staged, int block_row, int block_column) const {
    const int g = threadIdx.x % 32 / 4, t = threadIdx.x % 4;
#pragma unroll
    for (int half = 0; half < 2; ++half) {
#pragma unroll
      for (int hi = 0; hi < 2; ++hi) {
        // Transposed, a lane holds channels 2t and 2t + 1 of token g of the 8x8 block in either case.
        const uint32_t pair = kSide == Side::key ? pairs[half][hi] : transpose8x8(pairs[half][hi]);
        const int token = kSide == Side::key ? block_row * 16 + 8 * hi : block_column * 16 + 8 * half;
        const int channel = kSide == Side::key ? block_column * 16 + 8 * half : block_row * 16 + 8 * hi;
        *reinterpret_cast<uint32_t*>(staged.row(token + g) + channel + 2 * t) = pair;
      }
    }
  }

 private:
  /// Lane l gives row l % 8 of the 8x8 block l / 8 = hi + 2·half.
  template <Side kSide, typename T, int D>
  static __device__ __forceinline__ uint32_t address(const StagedTile<T, D>& staged, int block_row, int block_column) {
    const int lane = threadIdx.x % 32, row = lane % 8, hi = lane / 8 % 2, half = lane / 16;
    const int token = kSide == Side::key ? block_row * 16 + 8 * hi : block_column * 16 + 8 * half;
    const int channel = kSide == Side::key ? block_column * 16 + 8 * half : block_row * 16 + 8 * hi;
    return shared_address(staged.row(token + row) + channel);
  }
};

/// How the codes of one side lie (tile.cuh), in terms of fragments: a warp's 512 bytes hold `kSteps` neighbouring column
/// blocks of `kRows` row blocks.
template <Side kSide, int kBits, int D>
struct Pieces {
  static constexpr int kSteps = kBits == 8 ? 2 : 4;
  static constexpr int kRows = kBits == 2 ? 2 : 1;

  /// Calls `visit(block_row, block_column, lane's 16 bytes)` for each piece of this warp, one of kThreads / 32.
  template <int kThreads, typename Visit>
  static __device__ __forceinline__ void for_each(int tokens, const Visit& visit) {
    const int column_blocks = kSide == Side::key ? D / 16 : tokens / 16;  // 4 or 8
    const int shift = column_blocks == 8 ? 3 : 2;
    const int pieces = tokens * D * kBits / 8 / 512;
    for (int piece = threadIdx.x / 32; piece < pieces; piece += kThreads / 32) {
      const int block = piece * kSteps;
      visit((block >> shift) * kRows, block & (column_blocks - 1), piece * 32 + threadIdx.x % 32);
    }
  }

  /// Word and lowest bit of pair (half, hi) of row block `r` and step `i` in a lane's 16 bytes.
  static __device__ __forceinline__ constexpr int word(int i, int hi) { return kBits == 8 ? 2 * i + hi : i; }
  static __device__ __forceinline__ constexpr int bit(int r, int half, int hi) {
    return 8 * half + (kBits == 8 ? 0 : kBits == 4 ? 4 * hi : 4 * r + 2 * hi);
  }
};

/// Groups of a side's matrix, numbered: along channels first where a group is tokens of one channel, along tokens first where
/// it is channels of one token.
template <Direction kDirection, int G, int D>
struct Groups {
  static __device__ __forceinline__ int count(int tokens) { return tokens * D / G; }
  static __device__ __forceinline__ int first_token(int index, int tokens) {
    return kDirection == Direction::channel ? index / D * G : index & (tokens - 1);
  }
  static __device__ __forceinline__ int first_channel(int index, int tokens) {
    return kDirection == Direction::channel ? index % D : (tokens == 128 ? index / 128 : index / 64) * G;
  }

  /// The layout with what is known of it before it runs, so that divisions by it are shifts.
  template <Side kSide>
  static __device__ __forceinline__ TileLayout known_layout(TileLayout layout) {
    layout.channels = D;
    Format& format = kSide == Side::key ? layout.key : layout.value;
    format.group = G;
    format.direction = kDirection;
    return layout;
  }

  /// Whether a group is part of one column of the matrix (then each column of a fragment has one of its own), or of one row.
  template <Side kSide>
  static constexpr bool kOfColumn = (kDirection == Direction::channel) == (kSide == Side::key);

  /// The first group of a fragment: that of its row or column 0. Groups of its other rows or columns follow it.
  template <Side kSide>
  static __device__ __forceinline__ int of_fragment(int tokens, int block_row, int block_column) {
    constexpr int kBlocks = G / 16;  // a group spans whole fragments
    const int stride = kDirection == Direction::channel ? D : tokens;
    return kOfColumn<kSide> ? block_row / kBlocks * stride + block_column * 16
                            : block_column / kBlocks * stride + block_row * 16;
  }
};

}  // namespace kvprof
