// Attention of one warp to one packed tile, whose sides lie in shared memory apart, each its codes, then its parameters. The
// parameters are folded into the arithmetic: no key or value is ever dequantized. With x = s·c + m for a code c and its
// group's scale s and minimum m:
//
//   keys, column parameters (per-channel):  q·k = Σ_d (q_d s_d) c_d + Σ_d q_d m_d    queries are scaled once a group
//   keys, row parameters (per-token):       q·k = Σ_j s_j Σ_{d in j} q_d c_d + Σ_j m_j Σ_{d in j} q_d
//   values, column parameters (per-token):  o_d = Σ_i (p_i s_i) c_i + Σ_i p_i m_i    probabilities are scaled
//   values, row parameters (per-channel):   o_d = Σ_j s_j Σ_{i in j} p_i c_i + Σ_j m_j Σ_{i in j} p_i
//
// The sums with minima are mma's too, a few for a whole tile (decode_parameters.cuh).
//
// Precision. Codes are exact, sums are fp32. What is rounded to fp16: probabilities and p·s, of which many are summed; and
// q·s, whose error is in a logit, so that where the softmax is sharp it is in the result undiminished. Where it would
// be more than a thousandth (`two_parts`), q·s goes in as two numbers, high and low, a second mma on the same codes.
#pragma once

#include "kvprof/codes.cuh"
#include "kvprof/copy_ring.cuh"
#include "kvprof/decode_parameters.cuh"
#include "kvprof/query.cuh"
#include "kvprof/softmax.cuh"

namespace kvprof {

template <typename Float, TileLayout kTile, int kRows>
struct TileAttention {
  static constexpr int kChannels = kTile.channels;
  static constexpr int kKeyTiles = kTile.tokens / 16;
  static constexpr int kRowTiles = kChannels / 16;
  static constexpr int kKeySteps = kChannels / 16, kValueSteps = kTile.tokens / 16;
  static constexpr Format kKey = kTile.key, kValue = kTile.value;
  static constexpr bool kKeyColumns = kTile.column_parameters(Side::key);
  static constexpr bool kValueColumns = kTile.column_parameters(Side::value);
  static constexpr bool kKeyFp8 = kKey.direction == Direction::tile;
  static constexpr bool kValueFp8 = kValue.direction == Direction::tile;
  static constexpr int kKeyGroups = kTile.groups(Side::key), kValueGroups = kTile.groups(Side::value);
  static constexpr int kLaneRows = kRows / 4;
  /// Whether the output stays in units of the codes' operands (codes.cuh) until `finish_tiles`.
  static constexpr bool kOutInUnits = kValueFp8 || kValueColumns || kValueGroups == 1;
  /// Whether probabilities are multiplied by the scales of values before these are summed.
  static constexpr bool kByScale = kValueColumns || (kValueFp8 && kValue.bits != 0);
  using State = AttentionState<kChannels, kRows, kByScale>;

  ColumnOperand dense[kKeySteps];  ///< queries as Float, against minima of per-channel keys
  ColumnOperand query[kKeySteps];  ///< queries as fp16 in the order of the codes' operands, against codes
  GroupSums<Float, kKeyGroups> query_sums;  ///< Σ q of channel groups, for per-token keys
  uint32_t scale_limit;  ///< in both halves, the Float above which scales of per-channel keys need queries in two parts

  __device__ __forceinline__ explicit TileAttention(const Queries<Float, kChannels, kRows>& q) {
#pragma unroll
    for (int k = 0; k < kKeySteps; ++k) {
      dense[k] = q.dense[k];
      query[k] = in_code_order<kKey>(q.half[k]);
    }
    if constexpr (kKeyColumns) {
      // The rounding of q_d·s is 2e-4 of it, root mean square, and codes are 0.6 of the largest. Over all channels that is an
      // error of 1.2e-4 · ‖q‖ · s · largest code in the logit, to be at most 1.2e-3, or twice that where the result itself
      // is rounded to bfloat16.
      constexpr float kLimit = (__is_same(Float, __half) ? 10.f : 20.f) / ((1 << kKey.bits) - 1);
      const float limit = kLimit / q.largest_norm();
      scale_limit = to_pair<Float>(limit, limit);
    }
    if constexpr (!kKeyColumns && !kKeyFp8) query_sums = QuerySums<Float, kChannels, kRows, kKeyGroups>(q).sums();
  }

  static __device__ __forceinline__ uint4 piece(const uint8_t* codes, int index) {
    return reinterpret_cast<const uint4*>(codes)[index * 32 + threadIdx.x % 32];
  }

  /// Starts copying one side of a tile in device memory; `tile` is where this lane's first 16 bytes of it are.
  template <Side kSide>
  static __device__ __forceinline__ void load(uint32_t to, const uint8_t* tile) {
    copy_to_warp<kTile.side_bytes(kSide)>(to, tile + kTile.codes_at(kSide));
  }

  /// Whether the products of queries and of this tile's scales are to be taken in two parts; the same in all lanes.
  __device__ __forceinline__ bool two_parts(const uint8_t* side) const {
    if constexpr (!kKeyColumns) return false;
    return __any_sync(kFullWarp, any_half_greater<Float>(largest_scales<Side::key>(side), scale_limit));
  }

  /// q·k of the tile's tokens; score[i] holds tokens 16·i + g and + 8.
  template <bool kTwoParts>
  __device__ __forceinline__ void scores(const uint8_t* side, Accumulator (&score)[kKeyTiles]) const {
    if constexpr (kKeyColumns)
      column_scores<kTwoParts>(side, score);
    else
      row_scores(side, score);
  }

  /// Scales probabilities and all that was summed down if their products with a scale of this tile's values would not be finite.
  static __device__ __forceinline__ void make_room(const uint8_t* side, ColumnOperand (&p)[kKeyTiles], State& state) {
    if constexpr (kByScale) state.template make_room<Float>(largest_scales<Side::value>(side), p);
  }

  /// Adds Σ p·v of the tile's tokens to the output, Σ p to the denominator. While tiles are summed, the output lacks
  /// `finish_tiles`. After `make_room`.
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
    if constexpr (kOutInUnits) {
#pragma unroll
      for (int r = 0; r < kRowTiles; ++r) {
        if constexpr (kValueColumns) separate_rows<kValue>(state.out[r]);
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
  }

 private:
  /// The larger ones of each half of this lane's share of a side's scales.
  template <Side kSide>
  static __device__ __forceinline__ uint32_t largest_scales(const uint8_t* side) {
    const uint32_t* scales = reinterpret_cast<const uint32_t*>(side + kTile.code_bytes(kSide));
    if constexpr (kTile.format(kSide).direction == Direction::tile) {
      return scales[0];  // the only one, and zero
    } else {
      uint32_t largest = scales[threadIdx.x % 32];
#pragma unroll
      for (int i = 1; i < kTile.scale_bytes(kSide) / 128; ++i)
        largest = larger_halves<Float>(largest, scales[32 * i + threadIdx.x % 32]);
      return largest;
    }
  }

  template <bool kTwoParts>
  __device__ __forceinline__ void column_scores(const uint8_t* side, Accumulator (&score)[kKeyTiles]) const {
    const Parameters<Float, kTile, Side::key> parameters(side);
    constexpr int kRowsAtOnce = interleaved_rows(kKey), kPieceSteps = steps_per_piece(kKey);
    constexpr int kGroupTiles = kKey.group / 16;
    constexpr int kScaled = kRowsAtOnce > kGroupTiles ? 2 : 1;  // groups that a row of words spans

    Accumulator minima[2];
#pragma unroll
    for (int k2 = 0; k2 < kKeySteps / 2; ++k2) {
      const RowOperand m = parameters.column_minima(k2);
      mma<Float>(minima[0], m, dense[2 * k2]);
      mma<Float>(minima[1], m, dense[2 * k2 + 1]);
    }
    minima[0][0] += minima[1][2];
    minima[0][1] += minima[1][3];

#pragma unroll
    for (int r = 0; r < kKeyTiles; ++r) score[r] = Accumulator{};
#pragma unroll
    for (int k = 0; k < kKeySteps; k += kPieceSteps) {
      ColumnOperand high[kScaled][kPieceSteps], low[kScaled][kPieceSteps];
#pragma unroll
      for (int r = 0; r < kKeyTiles; r += kRowsAtOnce) {
        if (r % kGroupTiles == 0) {
#pragma unroll
          for (int n = 0; n < kScaled; ++n)
#pragma unroll
            for (int i = 0; i < kPieceSteps; i += 2) {
              const uint4 s = parameters.column_scales((k + i) / 2, r / kGroupTiles + n);
              high[n][i] = times(query[k + i], s.x, s.z);
              high[n][i + 1] = times(query[k + i + 1], s.y, s.w);
              if constexpr (kTwoParts) {
                low[n][i] = rest(query[k + i], s.x, s.z, high[n][i]);
                low[n][i + 1] = rest(query[k + i + 1], s.y, s.w, high[n][i + 1]);
              }
            }
        }
        const uint4 codes = piece(side, (r / kRowsAtOnce * kKeySteps + k) / kPieceSteps);
#pragma unroll
        for (int i = 0; i < kPieceSteps; ++i)
#pragma unroll
          for (int n = 0; n < kRowsAtOnce; ++n) {
            const RowOperand operand = unpack<kKey>(codes, r + n, i);
            mma<__half>(score[r + n], operand, high[kScaled == 1 ? 0 : n][i]);
            if constexpr (kTwoParts) mma<__half>(score[r + n], operand, low[kScaled == 1 ? 0 : n][i]);
          }
      }
    }

    float minimum[2];
#pragma unroll
    for (int r = 0; r < kKeyTiles; ++r) {
      if (r % kGroupTiles == 0) {
        const int from = 4 * (r / kGroupTiles) + parameters.t;
        minimum[0] = kKeyGroups == 1 ? minima[0][0] : __shfl_sync(kFullWarp, minima[0][0], from);
        minimum[1] = kKeyGroups == 1 ? minima[0][1] : __shfl_sync(kFullWarp, minima[0][1], from);
      }
      separate_rows<kKey>(score[r]);
#pragma unroll
      for (int i = 0; i < 4; ++i) score[r][i] = fmaf(score[r][i], code_unit(kKey, r, i / 2), minimum[i % 2]);
    }
  }

  /// Per-token keys, and fp8 keys as a single group without minima.
  __device__ __forceinline__ void row_scores(const uint8_t* side, Accumulator (&score)[kKeyTiles]) const {
    const Parameters<Float, kTile, Side::key> parameters(side);
#pragma unroll
    for (int r = 0; r < kKeyTiles; ++r) score[r] = Accumulator{};
    if constexpr (kKeyFp8) {
      const float scale = to_floats<Float>(*reinterpret_cast<const uint32_t*>(parameters.scales)).x;
#pragma unroll
      for (int r = 0; r < kKeyTiles; ++r) {
        accumulate_rows<kKey>(side, r, reinterpret_cast<const ColumnOperand (&)[1][kKeySteps]>(query), score);
#pragma unroll
        for (int i = 0; i < 4; ++i) score[r][i] *= scale * code_unit(kKey, r, i / 2);
      }
    } else {
      add_row_sums<Side::key>(side, parameters, query, query_sums, score);
    }
  }

  __device__ __forceinline__ void row_values(const uint8_t* side, const ColumnOperand (&p)[kKeyTiles],
                                             State& state) const {
    const Parameters<Float, kTile, Side::value> parameters(side);
    constexpr int kGroupSteps = kValueSteps / kValueGroups;
    static_assert(kTile.tokens / kValueGroups * kMostProbability < 65504.f, "the sum of a group's probabilities is a fp16 number");
    Accumulator sums;  // Σ p of this tile; where there are several groups, that of token group j in rows j < 8
#pragma unroll
    for (int k = 0; k < kValueSteps; ++k) {
      if constexpr (kValueGroups == 1) {
        add_column_sums<__half>(sums, p[k]);
      } else {
        const uint32_t mine = parameters.g == k / kGroupSteps ? kOnes<__half> : 0u;
        mma<__half>(sums, {mine, 0u, mine, 0u}, p[k]);
        add_column_sums<__half>(state.denominator, p[k]);
      }
    }
    GroupSums<Float, kValueGroups> group_sums;
    if constexpr (kValueGroups == 1) {
      state.denominator[0] += sums[0];
      state.denominator[1] += sums[1];
      group_sums = {{sums[0], sums[1]}};
    } else {
      const ColumnOperand parts = split_pair<Float>(sums[0], sums[1]);
      group_sums = {transpose8x8(parts.low_half), transpose8x8(parts.high_half)};
    }
    add_row_sums<Side::value>(side, parameters, p, group_sums, state.out);
  }

  /// x[r] += Σ_j s_j · (codes · columns of group j) + Σ_j m_j · sums_j for every m-tile r of a side with row parameters.
  template <Side kSide, int kRowCount, int kSteps>
  static __device__ __forceinline__ void add_row_sums(const uint8_t* side, const Parameters<Float, kTile, kSide>& parameters,
                                                      const ColumnOperand (&columns)[kSteps],
                                                      const GroupSums<Float, kTile.groups(kSide)>& sums,
                                                      Accumulator (&x)[kRowCount]) {
    constexpr Format kFormat = kTile.format(kSide);
    constexpr int kGroups = kTile.groups(kSide), kGroupSteps = kSteps / kGroups;
    constexpr int kRowsAtOnce = interleaved_rows(kFormat), kPieceSteps = steps_per_piece(kFormat);
    constexpr int kRun = kPieceSteps < kGroupSteps ? kPieceSteps : kGroupSteps;  // a piece can span groups, or a group pieces
    constexpr bool kInUnits = kSide == Side::value && kOutInUnits;
    uint4 scales[kGroups];
#pragma unroll
    for (int r = 0; r < kRowCount; r += kRowsAtOnce) {
      if (r % 4 == 0) {
#pragma unroll
        for (int j = 0; j < kGroups; ++j) scales[j] = parameters.row_scales(r / 4, j);
        if constexpr (kGroups == 1) {
          const uint4 minima = parameters.row_minima(r / 4);
#pragma unroll
          for (int i = 0; i < 4; ++i)
            sums.template add_minima<kLaneRows>(x[r + i], word(minima, i), kInUnits ? code_unit(kFormat, i, 0) : 1.f,
                                                kInUnits ? code_unit(kFormat, i, 1) : 1.f);
        } else {
          sums.add_minima(x[r], x[r + 1], parameters.row_minima_by_group(r / 2));
          sums.add_minima(x[r + 2], x[r + 3], parameters.row_minima_by_group(r / 2 + 1));
        }
      }
      uint4 codes;
      Accumulator sum[kRowsAtOnce];
#pragma unroll
      for (int k = 0; k < kSteps; k += kRun) {
        if (k % kPieceSteps == 0) codes = piece(side, (r / kRowsAtOnce * kSteps + k) / kPieceSteps);
#pragma unroll
        for (int n = 0; n < kRowsAtOnce; ++n) {
          if (k % kGroupSteps == 0) sum[n] = Accumulator{};
#pragma unroll
          for (int i = 0; i < kRun; ++i)
            mma<__half>(sum[n], unpack<kFormat>(codes, r + n, k % kPieceSteps + i), columns[k + i]);
          if ((k + kRun) % kGroupSteps != 0) continue;
          separate_rows<kFormat>(sum[n]);
          float2 s = to_floats<Float>(word(scales[k / kGroupSteps], (r + n) % 4));
          if constexpr (!kInUnits) {
            s.x *= code_unit(kFormat, r + n, 0);
            s.y *= code_unit(kFormat, r + n, 1);
          }
#pragma unroll
          for (int i = 0; i < kLaneRows; ++i) {
            x[r + n][i] = fmaf(sum[n][i], s.x, x[r + n][i]);
            x[r + n][2 + i] = fmaf(sum[n][2 + i], s.y, x[r + n][2 + i]);
          }
        }
      }
    }
  }

  __device__ __forceinline__ void column_values(const uint8_t* side, const ColumnOperand (&p)[kKeyTiles],
                                                State& state) const {
    const Parameters<Float, kTile, Side::value> parameters(side);
    constexpr int kGroupTiles = kValue.group / 16, kRowsAtOnce = interleaved_rows(kValue);
    constexpr int kScaled = kRowsAtOnce > kGroupTiles ? 2 : 1;

#pragma unroll
    for (int k2 = 0; k2 < kValueSteps / 2; ++k2) {
      RowOperand m = parameters.column_minima(k2);
      if constexpr (!__is_same(Float, __half))
        m = {as_half<Float>(m.low_half_g), as_half<Float>(m.low_half_g8), as_half<Float>(m.high_half_g),
             as_half<Float>(m.high_half_g8)};
      mma<__half>(state.minima[0], m, p[2 * k2]);
      mma<__half>(state.minima[1], m, p[2 * k2 + 1]);
      add_column_sums<__half>(state.denominator, p[2 * k2]);
      add_column_sums<__half>(state.denominator, p[2 * k2 + 1]);
    }
    ColumnOperand scaled[kScaled][kValueSteps];
#pragma unroll
    for (int r = 0; r < kRowTiles; r += kRowsAtOnce) {
      if (r % kGroupTiles == 0) {
#pragma unroll
        for (int n = 0; n < kScaled; ++n)
#pragma unroll
          for (int k2 = 0; k2 < kValueSteps / 2; ++k2) {
            const uint4 s = parameters.column_scales(k2, r / kGroupTiles + n);
            scaled[n][2 * k2] = times(p[2 * k2], s.x, s.z);
            scaled[n][2 * k2 + 1] = times(p[2 * k2 + 1], s.y, s.w);
          }
      }
      accumulate_rows<kValue>(side, r, scaled, state.out);
    }
  }

  __device__ __forceinline__ void fp8_values(const uint8_t* side, const ColumnOperand (&p)[kKeyTiles],
                                             State& state) const {
    const Parameters<Float, kTile, Side::value> parameters(side);
    const uint32_t first = *reinterpret_cast<const uint32_t*>(parameters.scales);
    const uint32_t scale = __byte_perm(first, first, 0x1010);
    ColumnOperand scaled[1][kValueSteps];
#pragma unroll
    for (int k = 0; k < kValueSteps; ++k) {
      add_column_sums<__half>(state.denominator, p[k]);
      scaled[0][k] = in_code_order<kValue>(times(p[k], scale, scale));
    }
#pragma unroll
    for (int r = 0; r < kRowTiles; ++r) accumulate_rows<kValue>(side, r, scaled, state.out);
  }

  /// x[r] (and x[r+1] where codes are interleaved) += codes · columns; these are the same for both rows, or one each.
  template <Format kFormat, int kScaled, int kSteps, int kRowCount>
  static __device__ __forceinline__ void accumulate_rows(const uint8_t* side, int r, const ColumnOperand (&columns)[kScaled][kSteps],
                                                         Accumulator (&x)[kRowCount]) {
    constexpr int kRowsAtOnce = interleaved_rows(kFormat), kPieceSteps = steps_per_piece(kFormat);
#pragma unroll
    for (int k = 0; k < kSteps; k += kPieceSteps) {
      const uint4 codes = piece(side, (r / kRowsAtOnce * kSteps + k) / kPieceSteps);
#pragma unroll
      for (int i = 0; i < kPieceSteps; ++i)
#pragma unroll
        for (int n = 0; n < kRowsAtOnce; ++n)
          mma<__half>(x[r + n], unpack<kFormat>(codes, r + n, i), columns[kScaled == 1 ? 0 : n][k + i]);
    }
  }

  /// A column operand times the cache's floats (two words of scales), rounded to fp16.
  static __device__ __forceinline__ ColumnOperand times(const ColumnOperand& x, uint32_t low, uint32_t high) {
    return {bits_of(__hmul2(half2_of(x.low_half), half2_of(as_half<Float>(low)))),
            bits_of(__hmul2(half2_of(x.high_half), half2_of(as_half<Float>(high))))};
  }

  /// What the rounding of `times` took away, as fp16.
  static __device__ __forceinline__ ColumnOperand rest(const ColumnOperand& x, uint32_t low, uint32_t high,
                                                       const ColumnOperand& product) {
    return {bits_of(__hfma2(half2_of(x.low_half), half2_of(as_half<Float>(low)), __hneg2(half2_of(product.low_half)))),
            bits_of(__hfma2(half2_of(x.high_half), half2_of(as_half<Float>(high)), __hneg2(half2_of(product.high_half))))};
  }
};

}  // namespace kvprof
