// HQQ's refinement of the zero point of every group of a staged tile (mobiusml/hqq, core/optimize.py), in fixed point.
//
// An element lies at t = x·S + z among the codes; code = clamp(round(t)), error d = t - code. A refinement takes the mean of
// sign(d)·min(|d|, K·|d|^-0.3) from z, K = S^1.3 / 10. Positions and what z moves by are integers in units of 2^-16 of a code. While no
// code is clamped, d is what the low 16 bits of t say, as a signed number: two elements fit a word, and sums of integers are the same
// in any order.
//
// The tile in shared memory is overwritten by those low halves at the first z, two elements of one group a word: tokens 2i and 2i + 1 of a
// channel, or channels 2i and 2i + 1 of a token. Besides the fits, each group has a place in two lists.
// Reference  src/quant/hqq.rs, equal in every code; the numerics are stated there.
// Bound      instructions: 2 an element and step, where the shrinkage acts 5.
#pragma once

#include "kvprof/fit.cuh"
#include "kvprof/staging.cuh"

namespace kvprof {

/// What one refinement found: sums over a group, in units of 2^-16.
struct HqqStep {
  int32_t moves = 0;   // of sign(d)·min(|d|, K·|d|^-0.3)
  int32_t errors = 0;  // of |d|
};

/// Refines the fits of a staged tile, by `kThreads` threads.
template <int kThreads, typename T, int D, Direction kDirection, int G>
struct HqqRefinement {
  using GroupMap = Groups<kDirection, G, D>;
  using Tile = StagedTile<T, D>;
  using Fit = HqqFit<T>;
  static constexpr int kLanes = G == 128 ? 4 : G == 64 ? 2 : 1;  // that share a group
  static constexpr int kWords = G / kLanes / 2;                  // 8 or 16 a lane
  static constexpr int kIterations = 20;

  const Tile staged;
  const int tokens;
  Fit* const fits;
  uint16_t* const lists;
  const float top;

  __device__ __forceinline__ int groups() const { return GroupMap::count(tokens); }
  __device__ __forceinline__ bool wide_codes() const { return top > 15.0f; }

  /// `element(token, channel)` reads the window, for the few groups whose codes may need clamping.
  template <typename Element>
  __device__ __forceinline__ void run(const Element& element) const {
    // Groups need few steps on average but up to 20, so after each round those that are not done yet are gathered anew: warps stay full.
    // Coarse groups, whose errors reach the shrinkage so that a step costs several times as much, are gathered apart from the fine ones.
    constexpr int kRounds = 4;
    const auto steps = [](int round) { return round < 2 ? 3 : round == 2 ? 5 : 9; };
    __shared__ int waiting[kRounds + 1][2];  // groups before each round: fine, coarse
    __shared__ int clamping;                 // whether there are groups whose codes may need clamping
    // Fine groups fill a round's list from the front, coarse ones from the back.
    const auto enlist = [&](int round, int group, bool coarse) {
      const int index = atomicAdd(&waiting[round][coarse], 1);
      lists[round % 2 * groups() + (coarse ? groups() - 1 - index : index)] = group;
    };
    if (threadIdx.x <= kRounds) waiting[threadIdx.x][0] = waiting[threadIdx.x][1] = clamping = 0;
    __syncthreads();
    for (int group = threadIdx.x; group < groups(); group += kThreads) {
      const Fit fit = fits[group];
      if (fit.shift == Fit::kClamps) clamping = 1;
      else if (fit.factor != 0.0f) enlist(0, group, Shrinkage::acts(fit.factor));
    }
    if (wide_codes()) to_fractions<true>();
    else to_fractions<false>();
    __syncthreads();

    constexpr int kGroups = 32 / kLanes;  // that a warp refines at once
    const auto refine_some = [&](auto is_coarse, int round, int first) {
      constexpr bool kCoarse = decltype(is_coarse)::value;
      const int count = waiting[round][kCoarse];
      const uint16_t* const list = lists + round % 2 * groups() + (kCoarse ? groups() - count : 0);
      const int index = first + threadIdx.x % 32 / kLanes;
      const bool mine = index < count;
      const int group = list[mine ? index : first];  // never one that another warp has
      Fit fit = fits[group];
      const bool more = refine<kCoarse>(group, fit, steps(round), mine) && round + 1 < kRounds;
      __syncwarp();  // all lanes of the group have read what one of them writes
      if (mine && threadIdx.x % kLanes == 0) {
        if (more) enlist(round + 1, group, kCoarse);
        else if (fit.shift == Fit::kClamps) clamping = 1;
        else fit.zero = __fadd_rn(fit.zero, static_cast<float>(fit.shift) * 0x1p-16f);
        fits[group] = fit;
      }
    };
#pragma unroll 1
    for (int round = 0; round < kRounds; ++round) {
      const int coarse = (waiting[round][1] + kGroups - 1) / kGroups;
      const int all = coarse + (waiting[round][0] + kGroups - 1) / kGroups;
      if (all == 0) break;
#pragma unroll 1
      for (int i = threadIdx.x / 32; i < all; i += kThreads / 32) {
        if (i < coarse) refine_some(std::true_type{}, round, i * kGroups);
        else refine_some(std::false_type{}, round, (i - coarse) * kGroups);
      }
      __syncthreads();
    }
    if (clamping != 0) {
      refine_clamping(element);
      __syncthreads();
    }
  }

 private:
  /// The low halves of the positions of x, by `a`, and y, by `b`, whose zero points include the origin.
  template <bool kWideCodes>
  static __device__ __forceinline__ uint32_t fractions(const Fit& a, float x, const Fit& b, float y) {
    const uint32_t pair = __byte_perm(__float_as_uint(a.place(x)), __float_as_uint(b.place(y)), 0x5410);
    return kWideCodes ? pair << 2 & 0xfffcfffcu : pair;
  }

  template <bool kWideCodes>
  __device__ __forceinline__ Fit from_origin(int group) const {
    Fit fit = fits[group];
    fit.zero = __fadd_rn(fit.zero, hqq_origin(kWideCodes));
    return fit;
  }

  /// Where the word of tokens 2i and 2i + 1 of a channel lies: the words of two rows take the place of their elements.
  __device__ __forceinline__ uint32_t* word(int token_pair, int channel) const {
    return reinterpret_cast<uint32_t*>(staged.row(2 * token_pair + channel / (D / 2))) + channel % (D / 2);
  }

  /// Overwrites the elements by the fractions of their positions.
  template <bool kWideCodes>
  __device__ __forceinline__ void to_fractions() const {
    if constexpr (kDirection == Direction::channel) {
      constexpr int kPairs = D / 64;  // of channels for each lane
      const int lane = threadIdx.x % 32;
      for (int block = threadIdx.x / 32; block < tokens / 16; block += kThreads / 32) {
        Fit of[kPairs][2];
#pragma unroll
        for (int j = 0; j < kPairs; ++j) {
          const int first = block * 16 / G * D + 64 * j + 2 * lane;
          of[j][0] = from_origin<kWideCodes>(first);
          of[j][1] = from_origin<kWideCodes>(first + 1);
        }
#pragma unroll 2
        for (int i = block * 8; i < block * 8 + 8; ++i) {
          uint2 words[kPairs];
#pragma unroll
          for (int j = 0; j < kPairs; ++j) {
            const float2 even = to_floats<T>(*reinterpret_cast<const uint32_t*>(staged.row(2 * i) + 64 * j + 2 * lane));
            const float2 odd = to_floats<T>(*reinterpret_cast<const uint32_t*>(staged.row(2 * i + 1) + 64 * j + 2 * lane));
            words[j].x = fractions<kWideCodes>(of[j][0], even.x, of[j][0], odd.x);
            words[j].y = fractions<kWideCodes>(of[j][1], even.y, of[j][1], odd.y);
          }
          __syncwarp();  // the elements of both rows have been read
#pragma unroll
          for (int j = 0; j < kPairs; ++j) *reinterpret_cast<uint2*>(word(i, 64 * j + 2 * lane)) = words[j];
        }
      }
    } else {
      constexpr int kPieces = D / 8;
      for (int i = threadIdx.x; i < tokens * kPieces; i += kThreads) {
        const int token = i / kPieces, channel = i % kPieces * 8;
        const Fit fit = from_origin<kWideCodes>(channel / G * tokens + token);
        uint4& piece = *reinterpret_cast<uint4*>(staged.row(token) + channel);
        const auto convert = [&](uint32_t pair) {
          const float2 x = to_floats<T>(pair);
          return fractions<kWideCodes>(fit, x.x, fit, x.y);
        };
        piece = make_uint4(convert(piece.x), convert(piece.y), convert(piece.z), convert(piece.w));
      }
    }
  }

  /// This lane's fractions of a group, in places such that the lanes of a warp read different banks.
  __device__ __forceinline__ void gather(int group, uint32_t (&words)[kWords]) const {
    const int lane = threadIdx.x % kLanes;
    const int token = GroupMap::first_token(group, tokens), channel = GroupMap::first_channel(group, tokens);
    if constexpr (kDirection == Direction::channel) {
      constexpr int kRun = 4 / kLanes;
      const uint32_t* const first = word(token / 2 + lane * kRun, channel);
#pragma unroll
      for (int k = 0; k < kWords; ++k) words[k] = first[(k / kRun * 4 + k % kRun) * Tile::kStride];
    } else {
      constexpr int kRun = 8 / kLanes;  // pieces of 16 bytes
      const uint4* const first = reinterpret_cast<const uint4*>(staged.row(token) + channel) + lane * kRun;
#pragma unroll
      for (int k = 0; k < kWords / 4; ++k) {
        const uint4 piece = first[k / kRun * 8 + k % kRun];
        words[4 * k] = piece.x;
        words[4 * k + 1] = piece.y;
        words[4 * k + 2] = piece.z;
        words[4 * k + 3] = piece.w;
      }
    }
  }

  /// Up to `steps` refinements of a group; returns whether more are needed. All lanes of the warp call it together, those with
  /// nothing to do with `mine` false.
  template <bool kCoarse>
  __device__ __forceinline__ bool refine(int group, Fit& fit, int steps, bool mine) const {
    uint32_t words[kWords];
    gather(group, words);
    const Shrinkage shrinkage(fit.ratio);
    int32_t shift = fit.shift, least_error = fit.least_error;
    bool more = mine;
#pragma unroll 1
    for (int i = 0; i < steps && __any_sync(kFullWarp, more); ++i) {
      const HqqStep found = step<kCoarse>(words, __byte_perm(shift, 0, 0x1010), shrinkage);
      const int32_t move = mean(found.moves), error = mean(found.errors);
      shift -= more ? move : 0;
      // A zero point that stays would only repeat this step and then stop.
      more = more && error < least_error && move != 0 && abs(shift) < kUnclamped;
      least_error = error;
    }
    fit.shift = abs(shift) < kUnclamped ? shift : Fit::kClamps;
    fit.least_error = least_error;
    return more;
  }

  /// While z has moved by less no code is clamped, and what it has moved by fits in 16 bits.
  static constexpr int32_t kUnclamped = static_cast<int32_t>((0.5f - kHqqSlack) * 65536.0f);

  /// Rounded to the nearest integer, halves up.
  static __device__ __forceinline__ int32_t mean(int32_t sum) {
    constexpr int kShift = G == 128 ? 7 : G == 64 ? 6 : G == 32 ? 5 : 4;
    return (sum + G / 2) >> kShift;
  }

  static __device__ __forceinline__ int32_t total(int32_t sum) {
#pragma unroll
    for (int step = 1; step < kLanes; step *= 2) sum += __shfl_xor_sync(kFullWarp, sum, step);
    return sum;
  }

  /// Where `kCoarse` is false no error reaches the shrinkage.
  template <bool kCoarse>
  static __device__ __forceinline__ HqqStep step(const uint32_t (&words)[kWords], uint32_t zeros, const Shrinkage& shrinkage) {
    int32_t sum = 0, positive = 0, within[2] = {};
    const auto add = [](uint32_t pair, int32_t& sum) { sum = __dp2a_lo(static_cast<int32_t>(pair), 0x0101, sum); };
#pragma unroll
    for (int k = 0; k < kWords; ++k) {
      add(__viaddmax_s16x2(words[k], zeros, 0x80008000u), sum);
      add(__viaddmax_s16x2(words[k], zeros, 0), positive);
      if constexpr (kCoarse) {
#pragma unroll
        for (int i = 0; i < 2; ++i) {
          add(__vmins2(__viaddmax_s16x2(words[k], zeros, shrinkage.opposite[i]), shrinkage.corners[i]), within[i]);
        }
      }
    }
    sum = total(sum);
    HqqStep step{sum, 2 * total(positive) - sum};
    if constexpr (kCoarse) step.moves += shrinkage.bend(sum - total(within[0]), sum - total(within[1]));
    return step;
  }

  /// Refines anew, one warp a group, those whose codes may need clamping: with whole positions, and errors of any size.
  template <typename Element>
  __device__ __noinline__ void refine_clamping(const Element& element) const {
    const int lane = threadIdx.x % 32;
    for (int first = threadIdx.x / 32 * 32; first < groups(); first += kThreads) {
      for (uint32_t found = __ballot_sync(kFullWarp, fits[first + lane].shift == Fit::kClamps); found != 0; found &= found - 1) {
        refine_clamping(first + __ffs(found) - 1, element);
      }
    }
  }

  template <typename Element>
  __device__ __forceinline__ void refine_clamping(int group, const Element& element) const {
    constexpr int kEach = G < 32 ? 1 : G / 32;
    const int lane = threadIdx.x % 32;
    const int last = static_cast<int>(top);
    const Fit fit = wide_codes() ? from_origin<true>(group) : from_origin<false>(group);
    const int token = GroupMap::first_token(group, tokens), channel = GroupMap::first_channel(group, tokens);
    int32_t positions[kEach];
#pragma unroll
    for (int k = 0; k < kEach; ++k) {
      const int i = (lane + 32 * k) % G;
      const float x = kDirection == Direction::channel ? element(token + i, channel) : element(token, channel + i);
      const int32_t position = __float_as_int(fit.place(x)) - __float_as_int(hqq_origin(wide_codes()));
      positions[k] = wide_codes() ? position * 4 : position;
    }
    const Shrinkage shrinkage(fit.ratio);
    const bool coarse = Shrinkage::acts(fit.factor);
    int32_t shift = 0, least_error = 0x7fffffff;
    for (int i = 0; i < kIterations; ++i) {
      HqqStep step;
      int32_t beyond[2] = {};
      if (lane < G) {
#pragma unroll
        for (int k = 0; k < kEach; ++k) {
          const int32_t at = positions[k] + shift;
          const int32_t error = at - (min(max((at + 0x8000) >> 16, 0), last) << 16);
          step.errors += abs(error);
          if (error >= -0x8000 && error < 0x8000) {
            step.moves += error;
#pragma unroll
            for (int c = 0; c < 2; ++c) beyond[c] += shrinkage.beyond(c, error);
          } else {
            const int32_t move = Shrinkage::of_large(abs(error), fit.factor);
            step.moves += error < 0 ? -move : move;
          }
        }
      }
      const auto total = [](int32_t sum) { return static_cast<int32_t>(__reduce_add_sync(kFullWarp, sum)); };
      const int32_t bend = coarse ? shrinkage.bend(total(beyond[0]), total(beyond[1])) : 0;
      const int32_t move = mean(total(step.moves) + bend), error = mean(total(step.errors));
      shift -= move;
      if (error >= least_error || move == 0) break;
      least_error = error;
    }
    __syncwarp();  // all lanes have read the fit
    if (lane == 0) fits[group].zero = __fadd_rn(fits[group].zero, static_cast<float>(shift) * 0x1p-16f);
  }
};

}  // namespace kvprof
