// Fitting a group of G elements: min-max, or HQQ's refinement of the zero point (mobiusml/hqq, core/optimize.py).
//
// `kLanes` neighbouring lanes share a group. Sums follow the reference's order: element i adds to accumulator i % 4, and
// the four add up as (a0 + a1) + (a2 + a3). Lane l of 4 therefore holds the elements i % 4 = l, lane l of 2 those with
// i % 4 in {2l, 2l + 1}, and the order survives with no more than two shuffles.
// Reference  src/quant (the fits on the CPU); the numerics are stated there.
#pragma once

#include "kvprof/arithmetic.cuh"

namespace kvprof {

constexpr float kLargestFloat = 3.402823466e38f;

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

  static __device__ __forceinline__ float2 range(const float (&x)[kElements]) {
    float low = x[0], high = x[0];
#pragma unroll
    for (int k = 1; k < kElements; ++k) {
      low = min_or_nan(low, x[k]);
      high = max_or_nan(high, x[k]);
    }
#pragma unroll
    for (int step = 1; step < kLanes; step *= 2) {
      low = min_or_nan(low, __shfl_xor_sync(kFullWarp, low, step));
      high = max_or_nan(high, __shfl_xor_sync(kFullWarp, high, step));
    }
    return make_float2(low, high);
  }
};

template <typename T>
__device__ __forceinline__ float round_to(float x) {
  return to_floats<T>(to_pair<T>(x, 0.0f)).x;
}

/// What a fit leaves: how to encode the group's elements, and the pair to store, rounded to the cache's float type.
template <typename Coder>
struct Fitted {
  Coder coder;
  float scale;
  float minimum;
};

/// The width of a group. Only opposite extremes of bfloat16 overflow here.
__device__ __forceinline__ float width(float low, float high) { return fminf(__fsub_rn(high, low), kLargestFloat); }

/// code = round((x - minimum) / scale). Both terms are multiplied by `lift`, a power of two, so that the inverse of any
/// bfloat16 scale is a normal number; that changes no rounding.
struct MinMaxCoder {
  float lift, lifted_minimum, lifted_scale, inverse;
  __device__ __forceinline__ float place(float x) const {
    return divide(__fmaf_rn(x, lift, -lifted_minimum), lifted_scale, inverse);
  }
};

template <typename T, int G>
struct MinMaxFit {
  using Coder = MinMaxCoder;

  static __device__ __forceinline__ Fitted<Coder> fit(const float (&)[GroupLanes<G>::kElements], float low, float high,
                                                      float top) {
    const float scale = round_to<T>(__fdiv_rn(width(low, high), top));
    // Equal elements, or a scale that rounds to zero: every code is 0.
    if (scale == 0.0f) return {{0.0f, 0.0f, 1.0f, 0.0f}, 1.0f, low};
    const float lift = scale < 0x1p-64f ? 0x1p100f : scale > 0x1p100f ? 0x1p-64f : 1.0f;
    return {{lift, low * lift, scale * lift, __frcp_rn(scale * lift)}, scale, low};
  }
};

/// code = round(x · factor + offset)
struct HqqCoder {
  float factor, offset;
  __device__ __forceinline__ float place(float x) const { return __fadd_rn(__fmul_rn(x, factor), offset); }
};

/// HQQ with p = 0.7 and beta = 10. All lanes of the warp call it together.
template <typename T, int G>
struct HqqFit {
  using Coder = HqqCoder;
  using Lanes = GroupLanes<G>;
  static constexpr int kElements = Lanes::kElements;
  static constexpr int kSums = Lanes::kSums;
  static constexpr int kIterations = 20;
  static constexpr float kShrinkFrom = 0.17f;  // below, the shrinkage is exactly 0

  /// sign(e) · max(|e| - |e|^-0.3 / 10, 0)
  static __device__ __forceinline__ float shrink(float e) {
    const float magnitude = fabsf(e);
    if (magnitude < kShrinkFrom) return 0.0f;
    const float power = divide(power_minus_3_tenths(magnitude), 10.0f, 0.1f);
    return copysignf(fmaxf(__fsub_rn(magnitude, power), 0.0f), e);
  }

  /// One refinement: the next zero point and this one's mean error. `kPlain` asserts that no code needs clamping and no
  /// error reaches 0.17, where shrinkage begins.
  template <bool kPlain>
  static __device__ __forceinline__ float2 refine(const float (&x)[kElements], float factor, float inverse, float zero,
                                                  float top) {
    float zeros[kSums] = {}, errors[kSums] = {};
#pragma unroll
    for (int k = 0; k < kElements; ++k) {
      const float scaled = __fmul_rn(x[k], factor);
      const float place = __fadd_rn(scaled, zero);
      const float code = kPlain ? __fsub_rn(__fadd_rn(place, kRoundingShift), kRoundingShift) : round_to_code(place, top);
      const float error = __fsub_rn(x[k], divide(__fsub_rn(code, zero), factor, inverse));
      const float target = kPlain ? scaled : __fmul_rn(__fsub_rn(x[k], shrink(error)), factor);
      zeros[k % kSums] = __fadd_rn(zeros[k % kSums], __fsub_rn(code, target));
      errors[k % kSums] = __fadd_rn(errors[k % kSums], fabsf(error));
    }
    constexpr float kShare = 1.0f / G;  // a power of two: exact
    return make_float2(__fmul_rn(Lanes::total(zeros), kShare), __fmul_rn(Lanes::total(errors), kShare));
  }

  /// Whether `refine<true>` may be used: the extremes stay within half a code of the range, so every error is at most half a
  /// step. The slack covers the rounding of all steps with room to spare.
  static __device__ __forceinline__ bool is_plain(float low, float high, float factor, float inverse, float zero,
                                                  float top) {
    const float overshoot = fmaxf(-(low * factor + zero), high * factor + zero - top);
    const float slack = 1e-6f * (fmaxf(fabsf(low), fabsf(high)) * factor + fabsf(zero) + top);
    return overshoot + slack < 0.5f && (0.5f + slack) * inverse < kShrinkFrom;
  }

  static __device__ __forceinline__ Fitted<Coder> fit(const float (&x)[kElements], float low, float high,
                                                      float top) {
    const bool constant = high == low;
    const float range = constant ? 1.0f : width(low, high);
    const float factor = fminf(__fdiv_rn(top, range), 2e4f);
    const float inverse = __frcp_rn(factor);
    float zero = __fmul_rn(-low, factor);
    float best = INFINITY;
    bool done = constant;
    for (int i = 0; i < kIterations && __any_sync(kFullWarp, !done); ++i) {
      const bool plain = done || is_plain(low, high, factor, inverse, zero, top);
      const float2 next = __all_sync(kFullWarp, plain) ? refine<true>(x, factor, inverse, zero, top)
                                                       : refine<false>(x, factor, inverse, zero, top);
      if (!done) {
        // The reference stops when the error no longer falls. A zero point that stays is such a stop, seen a step early:
        // the next step would repeat this one.
        done = !(next.y < best) || next.x == zero;
        zero = next.x;
        best = next.y;
      }
    }
    if (constant) return {{0.0f, 0.0f}, 1.0f, low};
    return {{factor, zero}, round_to<T>(inverse), round_to<T>(__fdiv_rn(-zero, factor))};
  }
};

}  // namespace kvprof
