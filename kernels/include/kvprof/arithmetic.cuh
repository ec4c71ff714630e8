// Arithmetic that must equal the CPU reference to the last bit: every operation rounds once, to nearest even, and
// nothing is contracted to a fused multiply-add unless written so.
#pragma once

#include "kvprof/ptx.cuh"

namespace kvprof {

/// a / b, correctly rounded, given the correctly rounded reciprocal of b.
///
/// One correction of a·(1/b) is exact: checked on every divisor's hardest dividends, those whose quotient lies within
/// 2^-48 of the midpoint of two floats, and it is Markstein's theorem elsewhere. Needs 1/b and the quotient normal.
__device__ __forceinline__ float divide(float a, float b, float reciprocal) {
  const float q = __fmul_rn(a, reciprocal);
  return __fmaf_rn(__fmaf_rn(-q, b, a), reciprocal, q);
}

/// Added to a number in [0, 2^22], this leaves the nearest integer, ties to even, in the low bits of the sum.
constexpr float kRoundingShift = 12582912.0f;  // 1.5 * 2^23: the last place is 1

/// x rounded and clamped to [0, top]. Clamping first gives the same, since the bounds are integers.
__device__ __forceinline__ float round_to_code(float x, float top) {
  return __fsub_rn(__fadd_rn(fminf(fmaxf(x, 0.0f), top), kRoundingShift), kRoundingShift);
}

/// Two numbers rounded and clamped to [0, top], as the halves of a word; `tops` is top in both halves. Each must be below 2^15 in
/// size, or NaN, which gives 0.
__device__ __forceinline__ uint32_t code_pair(float even, float odd, uint32_t tops) {
  const uint32_t low = __float_as_uint(__fadd_rn(even, kRoundingShift)), high = __float_as_uint(__fadd_rn(odd, kRoundingShift));
  // The low halves are the rounded numbers in two's complement.
  return __vimin_s16x2_relu(__byte_perm(low, high, 0x5410), tops);
}

/// The nearest E4M3 number, ties to even, saturating at ±448.
__device__ __forceinline__ uint32_t to_e4m3(float x) {
  const float magnitude = fminf(fabsf(x), 448.0f);
  const uint32_t bits = __float_as_uint(magnitude);
  // Three bits of mantissa stay and the exponent's bias falls from 127 to 7. Below 2^-6 the last place is 2^-9, as it is of
  // floats from 2^14 on.
  const uint32_t normal = (bits + 0x7ffffu + (bits >> 20 & 1) - (120u << 23)) >> 20;
  const uint32_t subnormal = __float_as_uint(__fadd_rn(magnitude, 16384.0f)) - 0x46800000u;
  return (magnitude < 0x1p-6f ? subnormal : normal) | (__float_as_uint(x) >> 24 & 0x80u);
}

/// An E4M3 number. Its bits, moved to those of a half, read as the number divided by 2^8.
__device__ __forceinline__ float from_e4m3(uint32_t code) {
  return to_floats<__half>((code & 0x80u) << 8 | (code & 0x7fu) << 7).x * 256.0f;
}

/// Minimum and maximum of two pairs of 16-bit floats; a NaN stays.
__device__ __forceinline__ __half2 min_or_nan(__half2 a, __half2 b) { return __hmin2_nan(a, b); }
__device__ __forceinline__ __half2 max_or_nan(__half2 a, __half2 b) { return __hmax2_nan(a, b); }
__device__ __forceinline__ __nv_bfloat162 min_or_nan(__nv_bfloat162 a, __nv_bfloat162 b) { return __hmin2_nan(a, b); }
__device__ __forceinline__ __nv_bfloat162 max_or_nan(__nv_bfloat162 a, __nv_bfloat162 b) { return __hmax2_nan(a, b); }

}  // namespace kvprof
