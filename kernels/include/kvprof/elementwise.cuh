// The activation of a gated MLP over many tokens, in one pass where plain operations make two over strided halves:
//
//   out[r, i] = SiLU(x[r, i]) · x[r, n + i],  i < n
//
// Shapes   x [rows, 2n] (gate, then up), out [rows, n], contiguous, FP16 or BF16; n a multiple of 8. Each quotient and product is
//          computed in float and rounded where a plain implementation stores it, as in step.cuh.
// Grid     x: pieces of 8 elements of `out` in blocks of 256 threads, one a thread.
// Reference  candle_nn::ops::swiglu on the CPU.
// Bound    bytes read and written (6 an element of `out`) over the copy bandwidth.
#pragma once

#include "kvprof/ptx.cuh"

namespace kvprof {

/// Mirrored by `SwiGluParams` in src/model/activation.rs.
struct SwiGluParams {
  const void* x;
  void* out;
  int32_t rows;
  int32_t pieces;  // n / 8
};
static_assert(sizeof(SwiGluParams) == 24, "mirrored by SwiGluParams in src/model/activation.rs");

constexpr int kActivationThreads = 256;

template <typename T>
__device__ __forceinline__ void swiglu(const SwiGluParams& p) {
  const int64_t at = static_cast<int64_t>(blockIdx.x) * kActivationThreads + threadIdx.x;
  const int row = static_cast<int>(at / p.pieces), piece = static_cast<int>(at % p.pieces);
  if (row >= p.rows) return;
  const uint4* const x = static_cast<const uint4*>(p.x) + 2 * static_cast<int64_t>(row) * p.pieces + piece;
  const uint4 gate = x[0], up = x[p.pieces];
  const auto active = [](uint32_t gate_pair, uint32_t up_pair) {
    const float2 g = to_floats<T>(gate_pair), u = to_floats<T>(up_pair);
    const float2 silu = to_floats<T>(to_pair<T>(g.x / (1.f + __expf(-g.x)), g.y / (1.f + __expf(-g.y))));
    return to_pair<T>(silu.x * u.x, silu.y * u.y);
  };
  static_cast<uint4*>(p.out)[at] =
      make_uint4(active(gate.x, up.x), active(gate.y, up.y), active(gate.z, up.z), active(gate.w, up.w));
}

}  // namespace kvprof
