// The shrinkage of HQQ's errors in the refinement of a zero point (hqq.cuh), in units of 2^-16 of a code.
// Reference  src/quant/shrinkage.rs, operation by operation.
#pragma once

#include "kvprof/arithmetic.cuh"
#include "kvprof/power.cuh"

namespace kvprof {

/// min(|d|, K·|d|^-0.3) of the errors of one group. |d| up to half a code: a polynomial of degree 4 in |d| + 1/2, fitted to |d|^-0.3 between
/// the least |d| whose shrinkage acts (0.17·S) and 1/2; below, it is larger than |d|, as the power is.
struct Shrinkage {
  static constexpr int kDegree = 4, kBins = 12;
  float coefficients[kDegree + 1];
  uint32_t low_selector, high_selector;  // not literals: an instruction takes one, which is 1/2

  /// Half a step of codes reaches the shrinkage.
  static __device__ __forceinline__ bool acts(float factor) { return 0.5f > 0.17f * factor; }

  /// K in units of 2^-16.
  static __device__ __forceinline__ float strength_of(float factor) {
    return __fmul_rn(__fmul_rn(factor, power(__frcp_rn(factor))), 6553.6f);
  }

  __device__ __forceinline__ Shrinkage(float factor, float strength);

  /// The smaller of each error of `sizes` (two, in units of 2^-16, below 2^15) and its power.
  __device__ __forceinline__ uint32_t operator()(uint32_t sizes) const {
    // 1/2 + |d| as floats: the error's two bytes below the exponent.
    const uint32_t low = power_of(__uint_as_float(select_bytes(sizes, 0x3f000000u, low_selector)));
    const uint32_t high = power_of(__uint_as_float(select_bytes(sizes, 0x3f000000u, high_selector)));
    return __vminu2(__byte_perm(low, high, 0x5410), sizes);
  }

 private:
  /// In the low half: the last multiplication rounds to an integer.
  __device__ __forceinline__ uint32_t power_of(float m) const {
    float sum = coefficients[kDegree];
#pragma unroll
    for (int i = kDegree - 1; i >= 0; --i) sum = __fmaf_rn(sum, m, coefficients[i]);
    return __float_as_uint(sum);
  }
};

/// Coefficients for S in (2, 3], (1.5, 2], (1, 1.5], (0.75, 1] and so on, of m^0 first.
__constant__ constexpr float kShrinkagePolynomials[Shrinkage::kBins][Shrinkage::kDegree + 1] = {
    {0x1.2a9ad6p+3f, -0x1.b39ba0p+4f, 0x1.223e2ap+5f, -0x1.68c16ep+4f, 0x1.591850p+2f},
    {0x1.80d386p+3f, -0x1.394fe6p+5f, 0x1.c0a85ep+5f, -0x1.28f420p+5f, 0x1.2d00f8p+3f},
    {0x1.198804p+4f, -0x1.04a6a8p+6f, 0x1.959db0p+6f, -0x1.205cdcp+6f, 0x1.37c3b4p+4f},
    {0x1.74cf54p+4f, -0x1.738d52p+6f, 0x1.2f3056p+7f, -0x1.c0d4b8p+6f, 0x1.f6ee66p+4f},
    {0x1.16978ap+5f, -0x1.2d82b6p+7f, 0x1.039494p+8f, -0x1.91f420p+7f, 0x1.d48296p+5f},
    {0x1.721cc6p+5f, -0x1.a34c86p+7f, 0x1.740338p+8f, -0x1.27570ep+8f, 0x1.5fd124p+6f},
    {0x1.11e19ep+6f, -0x1.463e94p+8f, 0x1.2b514cp+9f, -0x1.e8aaf2p+8f, 0x1.2a1fd6p+7f},
    {0x1.666eccp+6f, -0x1.b6e532p+8f, 0x1.9a4874p+9f, -0x1.54275ep+9f, 0x1.a499fap+7f},
    {0x1.01a824p+7f, -0x1.45305ep+9f, 0x1.36690ep+10f, -0x1.05d8b2p+10f, 0x1.489a3cp+8f},
    {0x1.492a96p+7f, -0x1.a673dep+9f, 0x1.9805acp+10f, -0x1.5b8e34p+10f, 0x1.b7cd38p+8f},
    {0x1.c85934p+7f, -0x1.2a5516p+10f, 0x1.23fc64p+11f, -0x1.f6ed8cp+10f, 0x1.413330p+9f},
    {0x1.1bf712p+8f, -0x1.772c4cp+10f, 0x1.71f994p+11f, -0x1.40a24ap+11f, 0x1.9bbe8cp+9f},
};

__device__ __forceinline__ Shrinkage::Shrinkage(float factor, float strength) {
  // The bits of a float fall by 2^22 from 3 to 2, to 1.5, to 1 and so on.
  const int bin = (0x40400000 - __float_as_int(factor)) >> 22;
  const float* const row = kShrinkagePolynomials[min(max(bin, 0), kBins - 1)];
#pragma unroll
  for (int i = 0; i <= kDegree; ++i) coefficients[i] = __fmul_rn(row[i], strength);
  coefficients[0] = __fadd_rn(coefficients[0], kRoundingShift);
  // The sign of S is 0, which the compiler does not know.
  const uint32_t sign = __float_as_uint(factor) >> 31;
  low_selector = 0x7104 + sign;
  high_selector = 0x7324 + sign;
}

}  // namespace kvprof
