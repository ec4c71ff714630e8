// Fitting a group of G elements: min-max, or HQQ's refinement of the zero point (mobiusml/hqq, core/optimize.py).
//
// A fit is a coder, which knows where among the codes an element lies, and the pair to store.
//
// `kLanes` neighbouring lanes share a group. Sums follow the reference's order: element i adds to accumulator i % 4, and
// the four add up as (a0 + a1) + (a2 + a3). Lane l of 4 therefore holds the elements i % 4 = l, lane l of 2 those with
// i % 4 in {2l, 2l + 1}, and the order survives with no more than two shuffles.
// Reference  src/quant (the fits on the CPU); the numerics are stated there.
#pragma once

#include "kvprof/arithmetic.cuh"

namespace kvprof {

constexpr float kLargestFloat = 3.402823466e38f;

/// How a group of G elements is shared by lanes.
template <int G>
struct GroupLanes {
  static constexpr int kLanes = G >= 64 ? 4 : G / 16;  // 1, 2, 4, 4
  static constexpr int kElements = G / kLanes;         // 16, 16, 16, 32 a lane
  static constexpr int kSums = 4 / kLanes;

  /// Index in the group of a lane's element `k`.
  static __device__ __forceinline__ int element(int lane, int k) {
    return k / kSums * 4 + lane * kSums + k % kSums;
  }

  /// (a0 + a1) + (a2 + a3); every lane of the group gets it.
  static __device__ __forceinline__ float total(const float (&sums)[kSums]) {
    float sum;
    if constexpr (kLanes == 1) {
      sum = __fadd_rn(__fadd_rn(sums[0], sums[1]), __fadd_rn(sums[2], sums[3]));
    } else if constexpr (kLanes == 2) {
      sum = __fadd_rn(sums[0], sums[1]);
      sum = __fadd_rn(sum, __shfl_xor_sync(kFullWarp, sum, 1));
    } else {
      sum = __fadd_rn(sums[0], __shfl_xor_sync(kFullWarp, sums[0], 1));
      sum = __fadd_rn(sum, __shfl_xor_sync(kFullWarp, sum, 2));
    }
    return sum;
  }
};

/// x rounded to the cache's float type.
template <typename T>
__device__ __forceinline__ float round_to(float x) {
  return to_floats<T>(to_pair<T>(x, 0.0f)).x;
}

/// The pair that a group's codes are read back with, rounded to the cache's float type.
struct StoredPair {
  float scale;
  float minimum;
};

/// The width of a group. Only opposite extremes of bfloat16 overflow here.
__device__ __forceinline__ float width(float low, float high) { return fminf(__fsub_rn(high, low), kLargestFloat); }

/// s = (max - min) / (2^b - 1), m = min, code = round((x - m) / s) with the stored s. Both terms are multiplied by `lift`, a
/// power of two, so that the inverse of any bfloat16 scale is a normal number; that changes no rounding.
template <typename T, int G>
struct MinMaxFit {
  float lift, lifted_minimum, lifted_scale, inverse;

  /// Elements between `low` and `high`.
  __device__ __forceinline__ StoredPair start(float low, float high, float top) {
    const float scale = round_to<T>(__fdiv_rn(width(low, high), top));
    if (scale == 0.0f) {  // equal elements, or a scale that rounds to zero: every code is 0
      *this = {0.0f, 0.0f, 1.0f, 0.0f};
      return {1.0f, low};
    }
    lift = scale < 0x1p-64f ? 0x1p100f : scale > 0x1p100f ? 0x1p-64f : 1.0f;
    lifted_minimum = low * lift;
    lifted_scale = scale * lift;
    inverse = __frcp_rn(lifted_scale);
    return {scale, low};
  }

  __device__ __forceinline__ float place(float x) const {
    return divide(__fmaf_rn(x, lift, -lifted_minimum), lifted_scale, inverse);
  }
};

/// HQQ with p = 0.7 and beta = 10: code = round(x · factor + zero), the zero point refined in up to 20 steps.
template <typename T, int G>
struct HqqFit {
  using Lanes = GroupLanes<G>;
  static constexpr int kElements = Lanes::kElements;
  static constexpr int kSums = Lanes::kSums;
  static constexpr float kShrinkFrom = 0.17f;  // below, the shrinkage is exactly 0

  float factor;      // 0 where nothing is to be refined
  float zero;
  float first_zero;  // before any refinement, when the extremes lay at codes 0 and 2^b - 1
  float best;        // the least mean error so far

  __device__ __forceinline__ StoredPair start(float low, float high, float top) {
    if (low == high) {
      *this = {0.0f, 0.0f, 0.0f, 0.0f};
      return {1.0f, low};
    }
    factor = fminf(__fdiv_rn(top, width(low, high)), 2e4f);
    first_zero = zero = __fmul_rn(-low, factor);
    best = INFINITY;
    return stored();
  }

  __device__ __forceinline__ bool refinable() const { return factor != 0.0f; }
  /// Half a step reaches the shrinkage, so that every refinement is the slow one.
  __device__ __forceinline__ bool is_coarse() const { return 0.5f > kShrinkFrom * factor; }
  __device__ __forceinline__ StoredPair stored() const {
    return {round_to<T>(__frcp_rn(factor)), round_to<T>(__fdiv_rn(-zero, factor))};
  }
  __device__ __forceinline__ float place(float x) const { return __fadd_rn(__fmul_rn(x, factor), zero); }

  /// Up to `steps` refinements; returns whether there is nothing more to do. All lanes of the warp call it together, those with
  /// nothing to do with `done`.
  __device__ __forceinline__ bool refine(const float (&x)[kElements], float top, int steps, bool done) {
    const float inverse = __frcp_rn(done ? 1.0f : factor);
    for (int i = 0; i < steps && __any_sync(kFullWarp, !done); ++i) {
      const float2 next = __all_sync(kFullWarp, done || is_plain(inverse, top)) ? step<true>(x, inverse, top)
                                                                              : step<false>(x, inverse, top);
      if (!done) {
        // The reference stops when the error no longer falls. A zero point that stays is such a stop, seen a step early:
        // the next step would repeat this one.
        done = !(next.y < best) || next.x == zero;
        zero = next.x;
        best = next.y;
      }
    }
    return done;
  }

 private:
  /// sign(e) · max(|e| - |e|^-0.3 / 10, 0)
  static __device__ __forceinline__ float shrink(float e) {
    const float magnitude = fabsf(e);
    if (magnitude < kShrinkFrom) return 0.0f;
    const float power = divide(power_minus_3_tenths(magnitude), 10.0f, 0.1f);
    return copysignf(fmaxf(__fsub_rn(magnitude, power), 0.0f), e);
  }

  /// One refinement: the next zero point and this one's mean error. `kPlain` asserts `is_plain`.
  template <bool kPlain>
  __device__ __forceinline__ float2 step(const float (&x)[kElements], float inverse, float top) const {
    float zeros[kSums] = {}, errors[kSums] = {};
#pragma unroll
    for (int k = 0; k < kElements; ++k) {
      const float scaled = __fmul_rn(x[k], factor);
      const float at = __fadd_rn(scaled, zero);
      const float code = kPlain ? __fsub_rn(__fadd_rn(at, kRoundingShift), kRoundingShift) : round_to_code(at, top);
      const float error = __fsub_rn(x[k], divide(__fsub_rn(code, zero), factor, inverse));
      const float target = kPlain ? scaled : __fmul_rn(__fsub_rn(x[k], shrink(error)), factor);
      zeros[k % kSums] = __fadd_rn(zeros[k % kSums], __fsub_rn(code, target));
      errors[k % kSums] = __fadd_rn(errors[k % kSums], fabsf(error));
    }
    constexpr float kShare = 1.0f / G;  // a power of two: exact
    return make_float2(__fmul_rn(Lanes::total(zeros), kShare), __fmul_rn(Lanes::total(errors), kShare));
  }

  /// No code needs clamping and no error reaches 0.17: the extremes have moved by less than half a code, so every error is at
  /// most half a step. The slack covers the rounding of all steps with room to spare.
  __device__ __forceinline__ bool is_plain(float inverse, float top) const {
    const float slack = 1e-6f * (fabsf(first_zero) + fabsf(zero) + top);
    return fabsf(zero - first_zero) + slack < 0.5f && (0.5f + slack) * inverse < kShrinkFrom;
  }
};

}  // namespace kvprof
