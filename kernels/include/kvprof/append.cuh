// Appends new keys and values to the recent window, and notes the first that is not finite.
//
// Shapes   k and v [B, Hkv, T, D] through strides to the ring [2, B, Hkv, W, D]. FP16 or BF16, D a multiple of 8.
// Grid     x: 16-byte pieces of T * D, in blocks of 256; y: B * Hkv; z: K, V.
// Faults   the earliest position with a NaN or an infinity (fault.cuh).
// Reference  append_window in src/cache/ops on the CPU.
// Bound    bytes read and written over the copy bandwidth; a launch, for one token.
#pragma once

#include "kvprof/fault.cuh"
#include "kvprof/ptx.cuh"
#include "kvprof/rows.cuh"

namespace kvprof {

/// Mirrored by `AppendParams` in src/cache/ops/cuda.rs.
struct AppendParams {
  const void* k;
  const void* v;
  unsigned long long* not_finite;
  Strides k_strides, v_strides;
  Ring window;
  int32_t first_position;  // of token 0
  int32_t new_tokens;
  int32_t layer;
  int32_t reserved;
};
static_assert(sizeof(AppendParams) == 112, "mirrored by AppendParams in src/cache/ops/cuda.rs");

constexpr int kAppendThreads = 256;

template <typename T>
__device__ __forceinline__ void append(const AppendParams& p) {
  const int chunks = p.window.channels / 8;
  const int piece = blockIdx.x * kAppendThreads + threadIdx.x;
  const int token = piece / chunks, chunk = piece % chunks;
  if (token >= p.new_tokens) return;
  const int batch = blockIdx.y / p.window.kv_heads, head = blockIdx.y % p.window.kv_heads;
  const Strides& strides = blockIdx.z == 0 ? p.k_strides : p.v_strides;
  const T* source = static_cast<const T*>(blockIdx.z == 0 ? p.k : p.v) + batch * strides.batch + head * strides.head +
                    token * strides.token + chunk * 8;
  const int position = p.first_position + token;
  T* target = p.window.head<T>(blockIdx.z, blockIdx.y) +
              static_cast<int64_t>(position % p.window.capacity) * p.window.channels + chunk * 8;
  const uint4 x = *reinterpret_cast<const uint4*>(source);
  *reinterpret_cast<uint4*>(target) = x;
  if (!(is_finite_pair<T>(x.x) && is_finite_pair<T>(x.y) && is_finite_pair<T>(x.z) && is_finite_pair<T>(x.w))) {
    note_not_finite(p.not_finite, position, p.layer);
  }
}

}  // namespace kvprof
