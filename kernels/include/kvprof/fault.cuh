// Keys and values that are not finite, which no cache can hold: noted on the device, read by the host when it next waits anyway.
#pragma once

#include <cuda_fp16.h>

#include <cstdint>
#include <type_traits>

namespace kvprof {

/// Whether both halves of a word, FP16 or BF16, are finite.
template <typename T>
__device__ __forceinline__ bool is_finite_pair(uint32_t pair) {
  constexpr uint32_t kExponent = std::is_same<T, __half>::value ? 0x7c00u : 0x7f80u;
  return (pair & kExponent) != kExponent && (pair >> 16 & kExponent) != kExponent;
}

/// Notes one at `position` of `layer`. `earliest` is 0, or position · 2^32 + layer + 1 of the earliest that was noted.
__device__ __forceinline__ void note_not_finite(unsigned long long* earliest, int position, int layer) {
  const unsigned long long fault = static_cast<unsigned long long>(position) << 32 | (layer + 1u);
  if (atomicCAS(earliest, 0ull, fault) != 0) atomicMin(earliest, fault);
}

}  // namespace kvprof
