// Dense keys and values as kernels see them: through strides, or as the ring of recent tokens.
#pragma once

#include <cstdint>

namespace kvprof {

/// Element strides of a [batch, head, token, D] tensor whose last dimension is contiguous. Mirrored by `Strides` in
/// src/device/kernels.rs.
struct Strides {
  int64_t batch, head, token;
};

/// Keys and values [2 (K, V), B, Hkv, capacity, D] of a 16-bit float type: position p lies in slot p mod capacity.
/// Mirrored by `Ring` in src/device/kernels.rs.
struct Ring {
  void* base;
  int32_t batch;
  int32_t kv_heads;
  int32_t capacity;
  int32_t channels;  // D

  /// Slot 0 of one head; `plane` is 0 for keys, 1 for values, `head` counts over B * Hkv.
  template <typename T>
  __device__ __forceinline__ T* head(int plane, int head) const {
    const int64_t index = static_cast<int64_t>(plane) * batch * kv_heads + head;
    return static_cast<T*>(base) + index * capacity * channels;
  }
};
static_assert(sizeof(Ring) == 24, "mirrored by Ring in src/device/kernels.rs");

}  // namespace kvprof
