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
#include "kvprof/power.cuh"

namespace kvprof {

constexpr float kLargestFloat = 3.402823466e38f;

/// How a group of G elements is shared by lanes.
template <int G>
struct GroupLanes {
  static constexpr int kLanes = G == 128 ? 4 : G == 64 ? 2 : 1;
  static constexpr int kElements = G / kLanes;  // 16, or 32 a lane
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

/// The largest finite number of the cache's float type.
template <typename T>
__device__ __forceinline__ constexpr float largest() {
  return __is_same(T, __half) ? 65504.0f : 0x1.fep+127f;
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
  float lift;  // 0 where every code is 0
  float lifted_minimum;
  float lifted_scale;
  float inverse;  // 1 / lifted_scale

  /// Of elements between `low` and `high`.
  __device__ __forceinline__ void start(float low, float high, float top) {
    const float scale = round_to<T>(__fdiv_rn(width(low, high), top));
    if (scale == 0.0f) {  // equal elements, or a scale that rounds to zero
      *this = {0.0f, low, 0.0f, 0.0f};
      return;
    }
    lift = scale < 0x1p-64f ? 0x1p100f : scale > 0x1p100f ? 0x1p-64f : 1.0f;
    lifted_minimum = low * lift;
    lifted_scale = scale * lift;
    inverse = __frcp_rn(lifted_scale);
  }

  __device__ __forceinline__ float place(float x) const {
    return divide(__fmaf_rn(x, lift, -lifted_minimum), lifted_scale, inverse);
  }

  __device__ __forceinline__ StoredPair stored() const {
    if (lift == 0.0f) return {1.0f, lifted_minimum};
    const float lower = lift == 1.0f ? 1.0f : lift > 1.0f ? 0x1p-100f : 0x1p64f;
    return {lifted_scale * lower, lifted_minimum * lower};
  }
};

/// HQQ with p = 0.7 and beta = 10: code = round(x · factor + zero), the zero point refined in up to 20 steps.
template <typename T, int G>
struct HqqFit {
  float factor;  // 0 where every code is 0
  float zero;

  __device__ __forceinline__ float place(float x) const { return __fadd_rn(__fmul_rn(x, factor), zero); }
};

/// The refinement of one group's zero point, everything measured in codes: with scaled = x · S, code = clamp(round(scaled + z))
/// and d = scaled + z - code, a step takes the mean of sign(d) · min(|d|, K · |d|^-0.3) from z, K = S^1.3 / 10.
template <typename T, int G>
struct HqqRefinement {
  using Lanes = GroupLanes<G>;
  static constexpr int kElements = Lanes::kElements;
  static constexpr int kSums = Lanes::kSums;
  static constexpr float kShrinkFrom = 0.17f;  // below, |e|^-0.3 / 10 is greater than |e| by a thousandth or more

  float first_zero;   // before any refinement, when the extremes lay at codes 0 and 2^b - 1; the element where all are equal
  float least_error;  // so far: the sum of |d|
  float strength;     // K

  /// Begins with the extremes of the group at the first and the last code.
  __device__ __forceinline__ HqqFit<T, G> start(float low, float high, float top) {
    if (low == high) {
      first_zero = low;
      return {0.0f, 0.0f};
    }
    const float factor = fminf(__fdiv_rn(top, width(low, high)), 2e4f);
    first_zero = __fmul_rn(-low, factor);
    least_error = INFINITY;
    strength = __fmul_rn(__fmul_rn(factor, power(__frcp_rn(factor))), 0.1f);
    return {factor, first_zero};
  }

  /// The pair of a refined fit.
  __device__ __forceinline__ StoredPair stored(const HqqFit<T, G>& fit) const {
    if (fit.factor == 0.0f) return {1.0f, first_zero};
    // A zero point between codes may put the minimum past the extreme of the type.
    const float minimum = __fdiv_rn(-fit.zero, fit.factor);
    return {round_to<T>(__frcp_rn(fit.factor)), round_to<T>(fminf(fmaxf(minimum, -largest<T>()), largest<T>()))};
  }

  /// Half a step of codes reaches the shrinkage, so that every refinement takes powers.
  static __device__ __forceinline__ bool is_coarse(float factor) { return 0.50001f > kShrinkFrom * factor; }

  /// Up to `steps` refinements of `zero`; returns whether there is nothing more to do. All lanes of the warp call it together,
  /// those with nothing to do with `done`. `kCoarse` says that some group of the warp is coarse.
  template <bool kCoarse>
  __device__ __forceinline__ bool refine(const WarpPower& warp_power, const float (&scaled)[kElements], float& zero, float top,
                                         int steps, bool done) {
    for (int i = 0; i < steps && __any_sync(kFullWarp, !done); ++i) {
      const bool clamps = __any_sync(kFullWarp, !done && may_clamp(zero, top));
      const float2 next = clamps    ? step<true, true>(warp_power, scaled, zero, top)
                          : kCoarse ? step<true, false>(warp_power, scaled, zero, top)
                                    : step<false, false>(warp_power, scaled, zero, top);
      if (!done) {
        // A zero point that stays would only repeat this step and then stop.
        done = !(next.y < least_error) || next.x == zero;
        zero = next.x;
        least_error = next.y;
      }
    }
    return done;
  }

 private:
  /// One refinement: the next zero point and the sum of |d|. Where `kClamps` is false no element lies outside the codes, so that
  /// |d| is at most 1/2; where `kShrinks` is false too, no |d| reaches the shrinkage.
  template <bool kShrinks, bool kClamps>
  __device__ __forceinline__ float2 step(const WarpPower& warp_power, const float (&scaled)[kElements], float zero,
                                         float top) const {
    float coefficients[kPowerDegree + 1];
#pragma unroll
    for (int i = 0; i <= kPowerDegree; ++i) coefficients[i] = __fmul_rn(kPowerPolynomial[i], strength);
    float moves[kSums] = {}, errors[kSums] = {};
#pragma unroll
    for (int k = 0; k < kElements; ++k) {
      const float at = __fadd_rn(scaled[k], zero);
      const float code = kClamps ? round_to_code(at, top) : __fsub_rn(__fadd_rn(at, kRoundingShift), kRoundingShift);
      const float error = __fsub_rn(at, code);
      float move = error;
      if constexpr (kShrinks) move = copysignf(fminf(fabsf(error), warp_power(error, coefficients)), error);
      moves[k % kSums] = __fadd_rn(moves[k % kSums], move);
      errors[k % kSums] = __fadd_rn(errors[k % kSums], fabsf(error));
    }
    constexpr float kShare = 1.0f / G;  // a power of two: exact
    return make_float2(__fsub_rn(zero, __fmul_rn(Lanes::total(moves), kShare)), Lanes::total(errors));
  }

  /// Whether a code might need clamping: without, the extremes have moved by less than half a code. The slack covers the rounding
  /// of all operations with room to spare.
  __device__ __forceinline__ bool may_clamp(float zero, float top) const {
    const float slack = 1e-6f * (fabsf(first_zero) + fabsf(zero) + top);
    return !(fabsf(zero - first_zero) + slack < 0.5f);
  }
};

}  // namespace kvprof
