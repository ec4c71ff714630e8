// x^-0.3 in float by operations that the CPU repeats one by one (src/quant/power.rs): every bit is the same on both.
//
// With x = 2^k · m, m in [1, 2): x^-0.3 = 2^(-0.3 k) · m^-0.3. The first factor comes from a table, the second is a polynomial of
// degree 5 in fused multiply-adds. The relative error is below 6e-6.
#pragma once

#include "kvprof/ptx.cuh"

namespace kvprof {

/// Coefficients of m^-0.3 on [1, 2), of m^0 first: the least largest relative error, then rounded to float.
constexpr int kPowerDegree = 5;
__constant__ constexpr float kPowerPolynomial[kPowerDegree + 1] = {0x1.b0bd54p+0f,  -0x1.5f5906p+0f, 0x1.141d02p+0f,
                                                      -0x1.0863f6p-1f, 0x1.13859ep-3f,  -0x1.e02cbcp-7f};

/// 2^(i/10).
__constant__ constexpr float kTenthPowers[10] = {1.0f,           0x1.125fbep+0f, 0x1.261118p+0f, 0x1.3b2c48p+0f, 0x1.51cb46p+0f,
                                                 0x1.6a09e6p+0f, 0x1.8406p+0f,   0x1.9fdf8cp+0f, 0x1.bdb8cep+0f, 0x1.ddb68p+0f};

/// 2^(-0.3 k) for k from -126 to 127, correctly rounded.
__device__ __forceinline__ float power_of_binade(int k) {
  const int tenths = 1280 - 3 * k;  // not negative
  return __uint_as_float(__float_as_uint(kTenthPowers[tenths % 10]) + ((tenths / 10 - 128) << 23));
}

/// x^-0.3 of a positive, normal x.
__device__ __forceinline__ float power(float x) {
  const uint32_t bits = __float_as_uint(x);
  const float m = __uint_as_float((bits & 0x007fffffu) | 0x3f800000u);
  float power = kPowerPolynomial[kPowerDegree];
#pragma unroll
  for (int i = kPowerDegree - 1; i >= 0; --i) power = __fmaf_rn(power, m, kPowerPolynomial[i]);
  return __fmul_rn(power, power_of_binade(static_cast<int>(bits >> 23) - 127));
}

}  // namespace kvprof
