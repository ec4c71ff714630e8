// The packed tile: where each code and each (scale, minimum) pair of a quantized KV cache lies in memory.
//
// A cache layer is [B, Hkv, tiles, tile_bytes] bytes. One tile holds the K and the V of `tokens` consecutive
// positions (64; 128 if a per-channel group spans 128) of one batch entry and one KV head, as four contiguous parts:
//
//     K codes | K parameters | V codes | V parameters
//
// Everything is stored in the order in which the attention kernel's lanes want it, so that a tile travels to shared
// memory as plain 16-byte pieces and a lane then reads its operands of mma.m16n8k16 with 16-byte loads, free of
// bank conflicts and without shuffles.
//
// K and V are each seen as a matrix, the 16-row operand of the mma (query heads are its 8 columns):
//
//     K: rows are tokens,   columns are channels       (scores: the mma sums over channels)
//     V: rows are channels, columns are tokens         (output: the mma sums over tokens)
//
// The permutation. Cut the matrix into 16x16 fragments, (r, k) = (row/16, column/16). In a fragment, lane 4·g + t owns
// the eight codes with
//
//     row%16 = 8·hi + g      column%16 = 8·half + 2·t + odd      for hi, half, odd in {0, 1}.
//
// A lane's codes fill little-endian 32-bit words, numbered w over the whole matrix with K = columns/16, and word w of
// lane l is at byte 512·(w/4) + 16·l + 4·(w%4) of the codes. The low bit of a code is at
//
//     8 bits: w = 2·(r·K + k) + hi,  bit 16·odd + 8·half
//     4 bits: w = r·K + k,           bit 16·odd + 8·half + 4·hi
//     2 bits: w = (r/2)·K + k,       bit 16·odd + 8·half + 4·(r%2) + 2·hi
//
// so that one mask (after a shift by 8 for half = 1) leaves a pair of codes where fp16 mantissas are: the halves of the
// word then read as the subnormal numbers code·2^-24, ·2^-22, ·2^-20 or ·2^-18, which the mma takes exactly. The power
// depends on the row only (`hi`, r%2), so it is undone by a constant when the row's sums are scaled. (4-bit codes with hi = 1 are
// left with those of hi = 0 beneath them: `separate_rows` in codes.cuh.)
//
// Parameters are pairs of the cache's float type: all scales of the matrix, then all minima, 2 bytes each. They vary
//
//   by column ("column parameters": K per-channel, V per-token; a group is `group` consecutive rows of one column):
//     scale and minimum of column c, group j, with k = c/16 and `half`, t, `odd` from c%16 as above, at
//         64·((k/2)·groups + j) + 16·t + 8·half + 4·(k%2) + 2·odd                   groups = rows/group
//
//   or by row ("row parameters": K per-token, V per-channel; a group is `group` consecutive columns of one row), with
//   groups = columns/group, r = row/16 and hi, g from row%16 as above:
//     scale     at   128·(j·(rows/64) + r/4) + 16·g + 4·(r%4) + 2·hi
//     minimum   at   the same where groups = 1, else
//                    16·(((r/2)·8 + g)·(groups/2) + j/2) + 8·(r%2) + 4·hi + 2·(j%2)
//
//   or not at all (fp8): one scale for the whole matrix, at byte 0 of 16; the other 14 bytes are zero.
#pragma once

#if defined(__CUDACC__)
#define KVPROF_HOST_DEVICE __host__ __device__
#else
#define KVPROF_HOST_DEVICE
#endif

namespace kvprof {

/// What one (scale, minimum) pair is shared by.
enum class Direction {
  channel,  ///< `group` consecutive tokens of one channel
  token,    ///< `group` consecutive channels of one token
  tile,     ///< every element of the tile: FP8, which has no minimum
};

/// How K or V is stored.
struct Format {
  int bits;   ///< 2, 4 or 8 for each code
  int group;  ///< elements that share a pair: 16, 32, 64 or 128. 0 for Direction::tile
  Direction direction;
};

/// FP8 (E4M3) codes with one scale for each tile.
constexpr Format kFp8{8, 0, Direction::tile};

enum class Side { key, value };

/// Place of a code: bits [shift, shift + bits) of the byte at `byte`.
struct CodePlace {
  int byte;
  int shift;
};

/// Byte offsets of the two halves of a (scale, minimum) pair. `minimum` is -1 where the format has none.
struct PairPlace {
  int scale;
  int minimum;
};

/// Shape and formats of a tile. Offsets are in bytes from the start of the tile.
struct TileLayout {
  int tokens;    ///< 64 or 128
  int channels;  ///< head dimension: 64 or 128
  Format key;
  Format value;

  KVPROF_HOST_DEVICE constexpr Format format(Side side) const { return side == Side::key ? key : value; }
  KVPROF_HOST_DEVICE constexpr int rows(Side side) const { return side == Side::key ? tokens : channels; }
  KVPROF_HOST_DEVICE constexpr int columns(Side side) const { return side == Side::key ? channels : tokens; }

  /// Whether pairs vary along columns (and are shared by `group` rows), rather than along rows.
  KVPROF_HOST_DEVICE constexpr bool column_parameters(Side side) const {
    return format(side).direction == (side == Side::key ? Direction::channel : Direction::token);
  }
  /// Groups in one column (column parameters) or in one row (row parameters).
  KVPROF_HOST_DEVICE constexpr int groups(Side side) const {
    return format(side).direction == Direction::tile
               ? 1
               : (column_parameters(side) ? rows(side) : columns(side)) / format(side).group;
  }

  KVPROF_HOST_DEVICE constexpr int code_bytes(Side side) const { return tokens * channels * format(side).bits / 8; }
  /// Bytes of all scales, which is also the distance from a scale block to its block of minima.
  KVPROF_HOST_DEVICE constexpr int scale_bytes(Side side) const {
    return format(side).direction == Direction::tile
               ? 16
               : 2 * groups(side) * (column_parameters(side) ? columns(side) : rows(side));
  }
  KVPROF_HOST_DEVICE constexpr int parameter_bytes(Side side) const {
    return scale_bytes(side) * (format(side).direction == Direction::tile ? 1 : 2);
  }

  /// Bytes of one side, which are contiguous.
  KVPROF_HOST_DEVICE constexpr int side_bytes(Side side) const { return code_bytes(side) + parameter_bytes(side); }
  KVPROF_HOST_DEVICE constexpr int codes_at(Side side) const { return side == Side::key ? 0 : side_bytes(Side::key); }
  KVPROF_HOST_DEVICE constexpr int parameters_at(Side side) const { return codes_at(side) + code_bytes(side); }
  /// Size of a tile: a multiple of 16.
  KVPROF_HOST_DEVICE constexpr int bytes() const { return side_bytes(Side::key) + side_bytes(Side::value); }

  KVPROF_HOST_DEVICE constexpr CodePlace code(Side side, int token, int channel) const {
    const int row = side == Side::key ? token : channel;
    const int column = side == Side::key ? channel : token;
    const int bits = format(side).bits;
    const int g = row % 8, hi = row / 8 % 2;
    const int odd = column % 2, t = column / 2 % 4, half = column / 8 % 2;
    const int r = row / 16, k = column / 16, ks = columns(side) / 16;
    const int word = bits == 8 ? 2 * (r * ks + k) + hi : bits == 4 ? r * ks + k : r / 2 * ks + k;
    const int bit = 16 * odd + 8 * half + (bits == 8 ? 0 : bits == 4 ? 4 * hi : 4 * (r % 2) + 2 * hi);
    const int at = codes_at(side) + 512 * (word / 4) + 16 * (4 * g + t) + 4 * (word % 4);
    return {at + bit / 8, bit % 8};
  }

  KVPROF_HOST_DEVICE constexpr PairPlace pair(Side side, int token, int channel) const {
    const int row = side == Side::key ? token : channel;
    const int column = side == Side::key ? channel : token;
    const int start = parameters_at(side);
    if (format(side).direction == Direction::tile) return {start, -1};
    const int minima = start + scale_bytes(side);
    const int group = format(side).group, count = groups(side);
    if (column_parameters(side)) {
      const int k = column / 16, half = column / 8 % 2, t = column / 2 % 4, odd = column % 2;
      const int at = 64 * (k / 2 * count + row / group) + 16 * t + 8 * half + 4 * (k % 2) + 2 * odd;
      return {start + at, minima + at};
    }
    const int r = row / 16, hi = row / 8 % 2, g = row % 8, j = column / group;
    const int at = 128 * (j * (rows(side) / 64) + r / 4) + 16 * g + 4 * (r % 4) + 2 * hi;
    const int paired = 16 * ((r / 2 * 8 + g) * (count / 2) + j / 2) + 8 * (r % 2) + 4 * hi + 2 * (j % 2);
    return {start + at, minima + (count == 1 ? at : paired)};
  }
};

}  // namespace kvprof
