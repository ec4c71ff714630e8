// The shrinkage of HQQ's errors in the refinement of a zero point (hqq.cuh), in units of 2^-16 of a code.
// Reference  src/quant/shrinkage.rs, operation by operation.
#pragma once

#include "kvprof/power.cuh"

namespace kvprof {

/// sign(d)·min(|d|, K·|d|^-0.3) of the errors of one group up to half a code, as a polygon: d, and from either corner on another slope. The corners
/// and 1/2 are in geometric progression.
struct Shrinkage {
  uint32_t corners[2], opposite[2];  // corners and their negatives, in both halves
  float bends[2];                    // by how much the slope changes there

  /// Half a step of codes reaches the shrinkage.
  static __device__ __forceinline__ bool acts(float factor) { return 0.5f > 0.17f * factor; }

  /// Of a corner to the next.
  static __device__ __forceinline__ float ratio_of(float factor) { return __fsqrt_rn(__fmul_rn(0.34f, factor)); }

  __device__ __forceinline__ explicit Shrinkage(float ratio);

  /// How far an error is beyond a corner.
  __device__ __forceinline__ int32_t beyond(int i, int32_t error) const {
    const int32_t corner = corners[i] & 0xffff;
    return error - min(max(error, -corner), corner);
  }

  /// What is added to a group's sum of errors, given the sums of what they are beyond the corners.
  __device__ __forceinline__ int32_t bend(int32_t first, int32_t second) const {
    return __float2int_rn(__fmaf_rn(bends[0], __int2float_rn(first), __fmul_rn(bends[1], __int2float_rn(second))));
  }

  /// What the power makes of an error of half a code or more, K = S^1.3 / 10.
  static __device__ __forceinline__ int32_t of_large(int32_t size, float factor) {
    const float strength = __fmul_rn(__fmul_rn(factor, power(__frcp_rn(factor))), 6553.6f);
    return __float2int_rn(fminf(size, __fmul_rn(power(size * 0x1p-16f), strength)));
  }
};

/// Slopes of the second and the third line: coefficients of r, r^2 and r^3, r being the ratio of a corner to the next.
__constant__ constexpr float kSlopes[2][3] = {{-0x1.487e2cp-1f, 0x1.2d4a72p-1f, -0x1.efc5f6p-3f},
                                              {-0x1.1240a4p-8f, -0x1.e78b94p-3f, -0x1.460a88p-4f}};

__device__ __forceinline__ Shrinkage::Shrinkage(float ratio) {
  const auto slope = [&](int i) {
    return __fmul_rn(__fmaf_rn(__fmaf_rn(kSlopes[i][2], ratio, kSlopes[i][1]), ratio, kSlopes[i][0]), ratio);
  };
  const float at[2] = {__fmul_rn(ratio, ratio), ratio};
#pragma unroll
  for (int i = 0; i < 2; ++i) {
    const int32_t corner = min(max(__float2int_rn(__fmul_rn(at[i], 32768.0f)), 1), 0x7fff);
    corners[i] = __byte_perm(corner, 0, 0x1010);
    opposite[i] = __byte_perm(-corner, 0, 0x1010);
  }
  bends[0] = __fsub_rn(slope(0), 1.0f);
  bends[1] = __fsub_rn(slope(1), slope(0));
}

}  // namespace kvprof
