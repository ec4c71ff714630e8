// Attention of one warp to one packed tile. Its sides lie in shared memory apart, each its codes, then its parameters. The parameters folded into the arithmetic: no key or
// value is ever dequantized. With x = s·c + m for a code c and its group's scale s and minimum m:
//
//   keys, column parameters (per-channel):  q·k = Σ_d (q_d s_d) c_d + Σ_d q_d m_d    queries are scaled once a group
//   keys, row parameters (per-token):       q·k = Σ_j s_j Σ_{d in j} q_d c_d + Σ_j m_j Σ_{d in j} q_d
//   values, column parameters (per-token):  o_d = Σ_i (p_i s_i) c_i + Σ_i p_i m_i    probabilities are scaled
//   values, row parameters (per-channel):   o_d = Σ_j s_j Σ_{i in j} p_i c_i + Σ_j m_j Σ_{i in j} p_i
//
// The sums with minima are mma's too, a few for a whole tile: their row operand holds minima as they are stored, with
// groups as the summed index (row parameters) or as the rows (column parameters). Numbers that are summed against
// minima but are no 16-bit floats themselves (Σ q, Σ p) go in as two, high and low, in the two halves of that index.
#pragma once

#include "kvprof/codes.cuh"
#include "kvprof/copy_ring.cuh"
#include "kvprof/query.cuh"
#include "kvprof/softmax.cuh"

namespace kvprof {

/// Two fp32 numbers as 16-bit floats, and what these lack of them as such.
template <typename Float>
__device__ __forceinline__ ColumnOperand split_pair(float a, float b) {
  const uint32_t high = to_pair<Float>(a, b);
  const float2 rounded = to_floats<Float>(high);
  return {high, to_pair<Float>(a - rounded.x, b - rounded.y)};
}

/// The parameters of one side of a tile as this lane's operands.
template <typename Float, TileLayout kTile, Side kSide>
struct Parameters {
  static constexpr int kGroups = kTile.groups(kSide);
  static constexpr int kRows = kTile.rows(kSide);
  const uint8_t* scales;
  int g, t;

  __device__ __forceinline__ explicit Parameters(const uint8_t* side)
      : scales(side + kTile.code_bytes(kSide)), g(threadIdx.x % 32 / 4), t(threadIdx.x % 4) {}

  __device__ __forceinline__ const uint8_t* minima() const { return scales + kTile.scale_bytes(kSide); }

  /// Column parameters: scales of the 32 columns from 32·k2 in group j; x, z belong to k-step 2·k2, y, w to 2·k2 + 1.
  __device__ __forceinline__ uint4 column_scales(int k2, int j) const {
    return *reinterpret_cast<const uint4*>(scales + 64 * (k2 * kGroups + j) + 16 * t);
  }
  /// The same of minima, rows g of the operand standing for group g % groups. k-step 2·k2 is in rows g, 2·k2 + 1 in rows
  /// g + 8: times the queries (probabilities) of one step, the other eight rows of the product mean nothing.
  __device__ __forceinline__ RowOperand column_minima(int k2) const {
    const int j = kGroups == 1 ? 0 : g % kGroups;
    const uint4 m = *reinterpret_cast<const uint4*>(minima() + 64 * (k2 * kGroups + j) + 16 * t);
    return {m.x, m.y, m.z, m.w};
  }

  /// Row parameters: scales of rows g, g+8 in group j, one word for each of the four m-tiles from 4·r4.
  __device__ __forceinline__ uint4 row_scales(int r4, int j) const {
    return *reinterpret_cast<const uint4*>(scales + 128 * (j * (kRows / 64) + r4) + 16 * g);
  }
  /// The same of minima where there is one group.
  __device__ __forceinline__ uint4 row_minima(int r4) const {
    return *reinterpret_cast<const uint4*>(minima() + 128 * r4 + 16 * g);
  }
  /// Minima of m-tiles 2·r2 (against the low half of the summed index) and 2·r2 + 1 (against the high half), groups being
  /// that index.
  __device__ __forceinline__ RowOperand row_minima_by_group(int r2) const {
    constexpr int kPairs = kGroups / 2;
    const uint4 w = *reinterpret_cast<const uint4*>(minima() + 16 * ((r2 * 8 + g) * kPairs + t % kPairs));
    return {w.x, w.y, w.z, w.w};
  }
};

/// What row minima are summed against, for rows 2t, 2t+1: Σ q of a channel group, or Σ p of a token group.
template <typename Float, int kGroups>
struct GroupSums {
  uint32_t high, low;  ///< high + low parts of groups 2t, 2t+1 of column g; 0 past the last group

  __device__ __forceinline__ void add_minima(Accumulator& even, Accumulator& odd, const RowOperand& minima) const {
    mma<Float>(even, minima, {high, 0u});
    mma<Float>(odd, minima, {0u, high});
    mma<Float>(even, minima, {low, 0u});
    mma<Float>(odd, minima, {0u, low});
  }
};

/// Σ q over the channels of each group, by group and row of the lane's column (g); all lanes of one g agree.
template <typename Float, int kChannels, int kGroups>
struct QuerySums {
  float by_group[kGroups];

  __device__ __forceinline__ explicit QuerySums(const Queries<Float, kChannels>& q) {
    constexpr int kSteps = kChannels / 16 / kGroups;
#pragma unroll
    for (int j = 0; j < kGroups; ++j) {
      by_group[j] = 0.f;
#pragma unroll
      for (int k = j * kSteps; k < (j + 1) * kSteps; ++k) {
        const float2 a = to_floats<Float>(q.dense[k].low_half), b = to_floats<Float>(q.dense[k].high_half);
        by_group[j] += (a.x + a.y) + (b.x + b.y);
      }
      by_group[j] += __shfl_xor_sync(kFullWarp, by_group[j], 1);
      by_group[j] += __shfl_xor_sync(kFullWarp, by_group[j], 2);
    }
  }
};

__device__ __forceinline__ uint32_t word(const uint4& x, int i) { return i == 0 ? x.x : i == 1 ? x.y : i == 2 ? x.z : x.w; }

template <typename Float, TileLayout kTile>
struct TileAttention {
  static constexpr int kChannels = kTile.channels;
  static constexpr int kKeyTiles = kTile.tokens / 16;
  static constexpr int kRowTiles = kChannels / 16;
  static constexpr Format kKey = kTile.key, kValue = kTile.value;
  static constexpr bool kKeyColumns = kTile.column_parameters(Side::key);
  static constexpr bool kValueColumns = kTile.column_parameters(Side::value);
  static constexpr bool kKeyFp8 = kKey.direction == Direction::tile;
  static constexpr bool kValueFp8 = kValue.direction == Direction::tile;
  using State = AttentionState<kChannels>;

  static constexpr int kKeyGroups = kTile.groups(Side::key), kValueGroups = kTile.groups(Side::value);

  const Queries<Float, kChannels>& q;
  GroupSums<Float, kKeyGroups> query_sums;  ///< for per-token keys of several groups
  float query_sum[2];                       ///< for per-token keys of one group: Σ q of rows 2t, 2t+1

  __device__ __forceinline__ explicit TileAttention(const Queries<Float, kChannels>& queries) : q(queries) {
    if constexpr (!kKeyColumns && !kKeyFp8) {
      const QuerySums<Float, kChannels, kKeyGroups> sums(q);
      const int t = threadIdx.x % 4;
      query_sum[0] = __shfl_sync(kFullWarp, sums.by_group[0], 8 * t);
      query_sum[1] = __shfl_sync(kFullWarp, sums.by_group[0], 8 * t + 4);
      float mine[2] = {0.f, 0.f};
#pragma unroll
      for (int j = 0; j < kKeyGroups; ++j)
        if (j / 2 == t) mine[j % 2] = sums.by_group[j];
      const ColumnOperand parts = split_pair<Float>(mine[0], mine[1]);
      query_sums = {parts.low_half, parts.high_half};
    }
  }

  static __device__ __forceinline__ uint4 piece(const uint8_t* codes, int index) {
    return reinterpret_cast<const uint4*>(codes)[index * 32 + threadIdx.x % 32];
  }

  KVPROF_HOST_DEVICE static constexpr int side_bytes(Side side) { return kTile.code_bytes(side) + kTile.parameter_bytes(side); }

  /// Starts copying one side of a tile in device memory.
  template <Side kSide>
  static __device__ __forceinline__ void load(uint32_t to, const uint8_t* tile) {
    copy_to_warp<kTile.code_bytes(kSide)>(to, tile + kTile.codes_at(kSide));
    copy_to_warp<kTile.parameter_bytes(kSide)>(to + kTile.code_bytes(kSide), tile + kTile.parameters_at(kSide));
  }

  /// q·k of the tile's tokens; score[i] holds tokens 16·i + g and + 8.
  __device__ __forceinline__ void scores(const uint8_t* side, Accumulator (&score)[kKeyTiles]) const {
    if constexpr (kKeyColumns)
      column_scores(side, score);
    else
      row_scores(side, score);
  }

  /// Adds Σ p·v of the tile's tokens to the output, Σ p to the denominator. While tiles are summed, the output of
  /// per-token and of fp8 values lacks `finish_tiles`.
  __device__ __forceinline__ void values(const uint8_t* side, const ColumnOperand (&p)[kKeyTiles], State& state) const {
    if constexpr (kValueFp8)
      fp8_values(side, p, state);
    else if constexpr (kValueColumns)
      column_values(side, p, state);
    else
      row_values(side, p, state);
  }

  /// Brings the output to its true scale, after the last tile.
  __device__ __forceinline__ void finish_tiles(State& state) const {
    if constexpr (kValueFp8 || kValueColumns) {
#pragma unroll
      for (int r = 0; r < kRowTiles; ++r)
#pragma unroll
        for (int i = 0; i < 4; ++i) {
          state.out[r][i] *= code_unit(kValue, r, i / 2);
          if constexpr (kValueColumns) {
            const int j = (16 * r + 8 * (i / 2)) / kValue.group;
            state.out[r][i] += __shfl_sync(kFullWarp, state.minima[0][i % 2] + state.minima[1][2 + i % 2], 4 * j + threadIdx.x % 4);
          }
        }
    }
  }

 private:
  __device__ __forceinline__ void column_scores(const uint8_t* side, Accumulator (&score)[kKeyTiles]) const {
    const Parameters<Float, kTile, Side::key> parameters(side);
    constexpr int kGroups = kTile.groups(Side::key), kSteps = kChannels / 16;
    constexpr int kRowsAtOnce = interleaved_rows(kKey), kPieceSteps = steps_per_piece(kKey);
    constexpr int kGroupTiles = kKey.group / 16;

    Accumulator minima[2];
#pragma unroll
    for (int k2 = 0; k2 < kSteps / 2; ++k2) {
      const RowOperand m = parameters.column_minima(k2);
      mma<Float>(minima[0], m, q.dense[2 * k2]);
      mma<Float>(minima[1], m, q.dense[2 * k2 + 1]);
    }
    minima[0][0] += minima[1][2];
    minima[0][1] += minima[1][3];

    constexpr int kScaled = kRowsAtOnce > kGroupTiles ? 2 : 1;  // groups that a row of words spans
    ColumnOperand scaled[kScaled][kSteps];
    float minimum[kScaled][2];
#pragma unroll
    for (int r = 0; r < kKeyTiles; r += kRowsAtOnce) {
      if (r % kGroupTiles == 0) {
#pragma unroll
        for (int n = 0; n < kScaled; ++n) {
          const int j = r / kGroupTiles + n;
#pragma unroll
          for (int k2 = 0; k2 < kSteps / 2; ++k2) {
            const uint4 s = parameters.column_scales(k2, j);
            scaled[n][2 * k2] = times(q.half[2 * k2], s.x, s.z);
            scaled[n][2 * k2 + 1] = times(q.half[2 * k2 + 1], s.y, s.w);
          }
          minimum[n][0] = kGroups == 1 ? minima[0][0] : __shfl_sync(kFullWarp, minima[0][0], 4 * j + parameters.t);
          minimum[n][1] = kGroups == 1 ? minima[0][1] : __shfl_sync(kFullWarp, minima[0][1], 4 * j + parameters.t);
        }
      }
      Accumulator sum[kRowsAtOnce];
#pragma unroll
      for (int k = 0; k < kSteps; k += kPieceSteps) {
        const uint4 codes = piece(side, (r / kRowsAtOnce * kSteps + k) / kPieceSteps);
#pragma unroll
        for (int i = 0; i < kPieceSteps; ++i)
#pragma unroll
          for (int n = 0; n < kRowsAtOnce; ++n)
            mma<__half>(sum[n], unpack<kKey>(codes, r + n, i), scaled[kScaled == 1 ? 0 : n][k + i]);
      }
#pragma unroll
      for (int n = 0; n < kRowsAtOnce; ++n)
#pragma unroll
        for (int i = 0; i < 4; ++i)
          score[r + n][i] = fmaf(sum[n][i], code_unit(kKey, r + n, i / 2), minimum[kScaled == 1 ? 0 : n][i % 2]);
    }
  }

  /// Per-token keys, and fp8 keys as a single group without minima.
  __device__ __forceinline__ void row_scores(const uint8_t* side, Accumulator (&score)[kKeyTiles]) const {
    const Parameters<Float, kTile, Side::key> parameters(side);
    constexpr int kGroups = kTile.groups(Side::key), kSteps = kChannels / 16, kGroupSteps = kSteps / kGroups;
    constexpr int kRowsAtOnce = interleaved_rows(kKey), kPieceSteps = steps_per_piece(kKey);
    // A piece of codes can span groups, or a group pieces.
    constexpr int kRun = kPieceSteps < kGroupSteps ? kPieceSteps : kGroupSteps;

    float tile_scale = 0.f;
    if constexpr (kKeyFp8) tile_scale = to_floats<Float>(*reinterpret_cast<const uint32_t*>(parameters.scales)).x;
    uint4 scales[kGroups];
#pragma unroll
    for (int r = 0; r < kKeyTiles; r += kRowsAtOnce) {
      if (r % 4 == 0) {
#pragma unroll
        for (int i = 0; i < 4; ++i) score[r + i] = Accumulator{};
        if constexpr (!kKeyFp8) {
#pragma unroll
          for (int j = 0; j < kGroups; ++j) scales[j] = parameters.row_scales(r / 4, j);
          if constexpr (kGroups == 1) {
            add_single_minima(score + r, parameters.row_minima(r / 4), query_sum[0], query_sum[1]);
          } else {
            query_sums.add_minima(score[r], score[r + 1], parameters.row_minima_by_group(r / 2));
            query_sums.add_minima(score[r + 2], score[r + 3], parameters.row_minima_by_group(r / 2 + 1));
          }
        }
      }
      uint4 codes;
      Accumulator sum[kRowsAtOnce];
#pragma unroll
      for (int k = 0; k < kSteps; k += kRun) {
        if (k % kPieceSteps == 0)
          codes = piece(side, (r / kRowsAtOnce * kSteps + k) / kPieceSteps);
#pragma unroll
        for (int n = 0; n < kRowsAtOnce; ++n) {
          if (k % kGroupSteps == 0) sum[n] = Accumulator{};
#pragma unroll
          for (int i = 0; i < kRun; ++i)
            mma<__half>(sum[n], unpack<kKey>(codes, r + n, k % kPieceSteps + i), q.half[k + i]);
          if ((k + kRun) % kGroupSteps != 0) continue;
          float2 s = {tile_scale, tile_scale};
          if constexpr (!kKeyFp8) s = to_floats<Float>(word(scales[k / kGroupSteps], (r + n) % 4));
          s.x *= code_unit(kKey, r + n, 0);
          s.y *= code_unit(kKey, r + n, 1);
#pragma unroll
          for (int i = 0; i < 4; ++i) score[r + n][i] = fmaf(sum[n][i], i < 2 ? s.x : s.y, score[r + n][i]);
        }
      }
    }
  }

  __device__ __forceinline__ void row_values(const uint8_t* side, const ColumnOperand (&p)[kKeyTiles],
                                             State& state) const {
    const Parameters<Float, kTile, Side::value> parameters(side);
    constexpr int kGroups = kTile.groups(Side::value), kSteps = kTile.tokens / 16, kGroupSteps = kSteps / kGroups;
    constexpr int kRowsAtOnce = interleaved_rows(kValue), kPieceSteps = steps_per_piece(kValue);
    constexpr int kRun = kPieceSteps < kGroupSteps ? kPieceSteps : kGroupSteps;

    Accumulator sums;  // Σ p of this tile
    GroupSums<Float, kGroups> group_sums;
    if constexpr (kGroups == 1) {
#pragma unroll
      for (int k = 0; k < kSteps; ++k) add_column_sums<__half>(sums, p[k]);
      state.denominator[0] += sums[0];
      state.denominator[1] += sums[1];
    } else {
      // Rows j < 8: Σ p of token group j.
#pragma unroll
      for (int k = 0; k < kSteps; ++k) {
        const uint32_t mine = parameters.g == k / kGroupSteps ? kOnes<__half> : 0u;
        mma<__half>(sums, {mine, 0u, mine, 0u}, p[k]);
        add_column_sums<__half>(state.denominator, p[k]);
      }
      const ColumnOperand parts = split_pair<Float>(sums[0], sums[1]);
      group_sums = {transpose8x8(parts.low_half), transpose8x8(parts.high_half)};
    }

    uint4 scales[kGroups];
#pragma unroll
    for (int r = 0; r < kRowTiles; r += kRowsAtOnce) {
      if (r % 4 == 0) {
#pragma unroll
        for (int j = 0; j < kGroups; ++j) scales[j] = parameters.row_scales(r / 4, j);
        if constexpr (kGroups == 1) {
          add_single_minima(state.out + r, parameters.row_minima(r / 4), sums[0], sums[1]);
        } else {
          group_sums.add_minima(state.out[r], state.out[r + 1], parameters.row_minima_by_group(r / 2));
          group_sums.add_minima(state.out[r + 2], state.out[r + 3], parameters.row_minima_by_group(r / 2 + 1));
        }
      }
      uint4 codes;
      Accumulator sum[kRowsAtOnce];
#pragma unroll
      for (int k = 0; k < kSteps; k += kRun) {
        if (k % kPieceSteps == 0)
          codes = piece(side, (r / kRowsAtOnce * kSteps + k) / kPieceSteps);
#pragma unroll
        for (int n = 0; n < kRowsAtOnce; ++n) {
          if (k % kGroupSteps == 0) sum[n] = Accumulator{};
#pragma unroll
          for (int i = 0; i < kRun; ++i)
            mma<__half>(sum[n], unpack<kValue>(codes, r + n, k % kPieceSteps + i), p[k + i]);
          if ((k + kRun) % kGroupSteps != 0) continue;
          float2 s = to_floats<Float>(word(scales[k / kGroupSteps], (r + n) % 4));
          s.x *= code_unit(kValue, r + n, 0);
          s.y *= code_unit(kValue, r + n, 1);
#pragma unroll
          for (int i = 0; i < 4; ++i) state.out[r + n][i] = fmaf(sum[n][i], i < 2 ? s.x : s.y, state.out[r + n][i]);
        }
      }
    }
  }

  __device__ __forceinline__ void column_values(const uint8_t* side, const ColumnOperand (&p)[kKeyTiles],
                                                State& state) const {
    const Parameters<Float, kTile, Side::value> parameters(side);
    constexpr int kSteps = kTile.tokens / 16, kGroupTiles = kValue.group / 16;
    constexpr int kRowsAtOnce = interleaved_rows(kValue);
    constexpr int kScaled = kRowsAtOnce > kGroupTiles ? 2 : 1;

#pragma unroll
    for (int k2 = 0; k2 < kSteps / 2; ++k2) {
      RowOperand m = parameters.column_minima(k2);
      if constexpr (!__is_same(Float, __half))
        m = {as_half<Float>(m.low_half_g), as_half<Float>(m.low_half_g8), as_half<Float>(m.high_half_g),
             as_half<Float>(m.high_half_g8)};
      mma<__half>(state.minima[0], m, p[2 * k2]);
      mma<__half>(state.minima[1], m, p[2 * k2 + 1]);
      add_column_sums<__half>(state.denominator, p[2 * k2]);
      add_column_sums<__half>(state.denominator, p[2 * k2 + 1]);
    }
    ColumnOperand scaled[kScaled][kSteps];
#pragma unroll
    for (int r = 0; r < kRowTiles; r += kRowsAtOnce) {
      if (r % kGroupTiles == 0) {
#pragma unroll
        for (int n = 0; n < kScaled; ++n)
#pragma unroll
          for (int k2 = 0; k2 < kSteps / 2; ++k2) {
            const uint4 s = parameters.column_scales(k2, r / kGroupTiles + n);
            scaled[n][2 * k2] = times(p[2 * k2], s.x, s.z);
            scaled[n][2 * k2 + 1] = times(p[2 * k2 + 1], s.y, s.w);
          }
      }
      accumulate_rows(side, r, scaled, state);
    }
  }

  __device__ __forceinline__ void fp8_values(const uint8_t* side, const ColumnOperand (&p)[kKeyTiles],
                                             State& state) const {
    const Parameters<Float, kTile, Side::value> parameters(side);
    constexpr int kSteps = kTile.tokens / 16;
    const uint32_t first = *reinterpret_cast<const uint32_t*>(parameters.scales);
    const uint32_t scale = __byte_perm(first, first, 0x1010);
    ColumnOperand scaled[1][kSteps];
#pragma unroll
    for (int k = 0; k < kSteps; ++k) {
      add_column_sums<__half>(state.denominator, p[k]);
      scaled[0][k] = times(p[k], scale, scale);
    }
#pragma unroll
    for (int r = 0; r < kRowTiles; ++r) accumulate_rows(side, r, scaled, state);
  }

  /// out[r] (and out[r+1] where codes are interleaved) += codes · scaled probabilities.
  template <int kScaled>
  static __device__ __forceinline__ void accumulate_rows(const uint8_t* side, int r,
                                                         const ColumnOperand (&scaled)[kScaled][kTile.tokens / 16],
                                                         State& state) {
    constexpr int kSteps = kTile.tokens / 16, kRowsAtOnce = interleaved_rows(kValue);
    constexpr int kPieceSteps = steps_per_piece(kValue);
#pragma unroll
    for (int k = 0; k < kSteps; k += kPieceSteps) {
      const uint4 codes = piece(side, (r / kRowsAtOnce * kSteps + k) / kPieceSteps);
#pragma unroll
      for (int i = 0; i < kPieceSteps; ++i)
#pragma unroll
        for (int n = 0; n < kRowsAtOnce; ++n)
          mma<__half>(state.out[r + n], unpack<kValue>(codes, r + n, i), scaled[kScaled == 1 ? 0 : n][k + i]);
    }
  }

  /// x[i] += minimum · (a, b) for rows g and g+8 of four m-tiles, a word of minima each, and columns 2t and 2t+1.
  static __device__ __forceinline__ void add_single_minima(Accumulator* x, const uint4& minima, float a, float b) {
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const float2 m = to_floats<Float>(word(minima, i));
      x[i][0] = fmaf(m.x, a, x[i][0]);
      x[i][1] = fmaf(m.x, b, x[i][1]);
      x[i][2] = fmaf(m.y, a, x[i][2]);
      x[i][3] = fmaf(m.y, b, x[i][3]);
    }
  }

  /// A column operand times the cache's floats (two words of scales), rounded to fp16.
  static __device__ __forceinline__ ColumnOperand times(const ColumnOperand& x, uint32_t low, uint32_t high) {
    return {bits_of(__hmul2(half2_of(x.low_half), half2_of(as_half<Float>(low)))),
            bits_of(__hmul2(half2_of(x.high_half), half2_of(as_half<Float>(high))))};
  }
};

}  // namespace kvprof
