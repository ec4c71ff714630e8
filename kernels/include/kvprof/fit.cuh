// The fit of a group of elements: where among the codes an element lies, and the pair to store.
// Reference  src/quant (the fits on the CPU); the numerics are stated there.
#pragma once

#include "kvprof/arithmetic.cuh"
#include "kvprof/shrinkage.cuh"

namespace kvprof {

constexpr float kLargestFloat = 3.402823466e38f;

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
template <typename T>
struct MinMaxFit {
  /// Blocks of the quantizer (quantize.cuh) that a multiprocessor has registers for: 64 for each thread.
  static constexpr int kBlocks = 8;

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

  /// Of x among the codes.
  __device__ __forceinline__ float place(float x) const {
    return divide(__fmaf_rn(x, lift, -lifted_minimum), lifted_scale, inverse);
  }

  __device__ __forceinline__ StoredPair stored() const {
    if (lift == 0.0f) return {1.0f, lifted_minimum};
    const float lower = lift == 1.0f ? 1.0f : lift > 1.0f ? 0x1p-100f : 0x1p64f;
    return {lifted_scale * lower, lifted_minimum * lower};
  }
};

/// A position t among the codes is the float `origin` + t, whose last place is 2^-16, or with 8 bits 2^-14, whatever t.
__device__ __forceinline__ constexpr float hqq_origin(bool wide_codes) { return wide_codes ? 768.0f : 192.0f; }

/// How far the extremes of a group may begin outside the codes without being treated apart.
constexpr float kHqqSlack = 1.0f / 128.0f;

/// HQQ: S = min((2^b - 1) / (max - min), 2e4), code = round(x·S + z), s = 1/S, m = -z/S. The zero point z starts at -min·S and is
/// refined (hqq.cuh).
template <typename T>
struct HqqFit {
  /// As above: 56 registers for each thread.
  static constexpr int kBlocks = 9;

  float factor;  // S; 0 where all elements are equal, and every code is 0
  float zero;    // z
  float ratio;           // of the corners of the shrinkage; the element where all are equal
  int16_t shift;         // what refinement has added to z so far, in units of 2^-16; or kClamps
  uint16_t least_error;  // so far: the mean of the errors, in units of 2^-16

  static constexpr int16_t kClamps = -0x8000;  // a code may need clamping

  /// Begins with the extremes of the group at the first and the last code.
  __device__ __forceinline__ void start(float low, float high, float top) {
    const bool equal = low == high;
    factor = equal ? 0.0f : fminf(__fdiv_rn(top, width(low, high)), 2e4f);
    zero = equal ? 0.0f : __fmul_rn(-low, factor);
    ratio = equal ? low : Shrinkage::ratio_of(factor);
    // Much is rounded away where a group is narrow and far from zero, and the difference of opposite extremes may overflow.
    const float origin = hqq_origin(top > 15.0f), first = __fadd_rn(zero, origin);
    const bool outside = __fmaf_rn(low, factor, first) < origin - kHqqSlack || __fmaf_rn(high, factor, first) > origin + top + kHqqSlack;
    shift = outside ? kClamps : 0;
    least_error = 0xffff;
  }

  /// Of x among the codes.
  __device__ __forceinline__ float place(float x) const { return __fmaf_rn(x, factor, zero); }

  __device__ __forceinline__ StoredPair stored() const {
    if (factor == 0.0f) return {1.0f, ratio};
    // A zero point between codes may put the minimum past the extreme of the type.
    const float minimum = __fdiv_rn(-zero, factor);
    return {round_to<T>(__frcp_rn(factor)), round_to<T>(fminf(fmaxf(minimum, -largest<T>()), largest<T>()))};
  }
};

}  // namespace kvprof
