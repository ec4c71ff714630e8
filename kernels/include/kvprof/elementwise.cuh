// Element by element over many tokens, 16 bytes a thread and access; plain tensor operations go element by element where an
// operand is a view or is repeated.
//
//   swiglu   out[r, i] = SiLU(x[r, i]) · x[r, n + i],  i < n
//   add      out[i] = x[i] + y[i mod |y|]: two tensors of one shape, or a bias to each row
//
// Shapes   swiglu: x [rows, 2n] (gate, then up), out [rows, n]. add: x and out of any shape, y as long or as long as a row. Contiguous,
//          FP16 or BF16, n and the length of y multiples of 8. Computed in float and rounded where a plain implementation
//          stores, as in step.cuh.
// Grid     x: pieces of 8 elements of `out` in blocks of 256 threads, one a thread.
// Reference  candle's operations on the CPU.
// Bound    bytes read and written over the copy bandwidth: 6 (swiglu, two tensors), 4 (a bias) for each element of `out`.
#pragma once

#include "kvprof/ptx.cuh"

namespace kvprof {

/// Mirrored by `SwiGluParams` in src/model/elementwise_cuda.rs.
struct SwiGluParams {
  const void* x;
  void* out;
  uint32_t pieces;          // of out
  uint32_t pieces_of_a_row;  // n / 8
};

/// Mirrored by `AddParams` in src/model/elementwise_cuda.rs.
struct AddParams {
  const void* x;
  const void* y;
  void* out;
  uint32_t pieces;  // of out
  uint32_t pieces_of_y;
};
static_assert(sizeof(SwiGluParams) == 24 && sizeof(AddParams) == 32, "mirrored in src/model/elementwise_cuda.rs");

constexpr int kElementwiseThreads = 256;

/// Applies `combine(float2, float2) -> float2` to the pairs of two pieces.
template <typename T, typename Combine>
__device__ __forceinline__ uint4 combine_pieces(const uint4& a, const uint4& b, const Combine& combine) {
  const auto pair = [&](uint32_t x, uint32_t y) {
    const float2 z = combine(to_floats<T>(x), to_floats<T>(y));
    return to_pair<T>(z.x, z.y);
  };
  return make_uint4(pair(a.x, b.x), pair(a.y, b.y), pair(a.z, b.z), pair(a.w, b.w));
}

template <typename T>
__device__ __forceinline__ void swiglu(const SwiGluParams& p) {
  const uint32_t at = blockIdx.x * kElementwiseThreads + threadIdx.x;
  if (at >= p.pieces) return;
  const uint32_t row = at / p.pieces_of_a_row, piece = at % p.pieces_of_a_row;
  const uint4* const x = static_cast<const uint4*>(p.x) + 2ull * row * p.pieces_of_a_row + piece;
  static_cast<uint4*>(p.out)[at] = combine_pieces<T>(x[0], x[p.pieces_of_a_row], [](float2 gate, float2 up) {
    const float2 silu = to_floats<T>(to_pair<T>(gate.x / (1.f + __expf(-gate.x)), gate.y / (1.f + __expf(-gate.y))));
    return make_float2(silu.x * up.x, silu.y * up.y);
  });
}

template <typename T>
__device__ __forceinline__ void add(const AddParams& p) {
  const uint32_t at = blockIdx.x * kElementwiseThreads + threadIdx.x;
  if (at >= p.pieces) return;
  const uint32_t other = p.pieces_of_y == p.pieces ? at : at % p.pieces_of_y;
  static_cast<uint4*>(p.out)[at] =
      combine_pieces<T>(static_cast<const uint4*>(p.x)[at], static_cast<const uint4*>(p.y)[other],
                        [](float2 a, float2 b) { return make_float2(a.x + b.x, a.y + b.y); });
}

}  // namespace kvprof
