// Rotary position embedding in float, whatever the float type of the model:
//
//   (x[i], x[i + D/2]) -> (x[i]·cos - x[i + D/2]·sin,  x[i + D/2]·cos + x[i]·sin),  i < D/2
//
// With a gain, each row is first divided by its root mean square and multiplied by the gain of its head (Qwen3), rounded after
// either as a plain implementation stores them.
//
// Shapes   x [B, H, T, D] through strides (a view of a fused projection needs no copy); cos and sin [positions, D/2] float,
//          row p for position p; gain [H, D]; out [B, H, T, D] contiguous. FP16 or BF16, D 64 or 128.
// Grid     x: rows (T * H, head first) in blocks of 4; y: B. Block: 128 threads, one warp a row.
// Reference  the rotation of src/model/rope.rs on the CPU.
// Bound    bytes read and written over the copy bandwidth.
#pragma once

#include <type_traits>

#include "kvprof/ptx.cuh"
#include "kvprof/rows.cuh"

namespace kvprof {

/// Mirrored by `RopeParams` in src/model/rope_cuda.rs.
struct RopeParams {
  const void* x;
  void* out;
  const float* cos;
  const float* sin;
  const void* gain;  // or null
  Strides strides;
  int32_t heads;
  int32_t new_tokens;
  int32_t first_position;  // of token 0
  float epsilon;           // of the norm
};
static_assert(sizeof(RopeParams) == 80, "mirrored by RopeParams in src/model/rope_cuda.rs");

constexpr int kRopeThreads = 128;

template <typename T, int D>
__device__ __forceinline__ void rotate(const RopeParams& p) {
  constexpr int kPerLane = D / 64;
  using Share = typename std::conditional<kPerLane == 2, uint32_t, uint16_t>::type;  // a lane's part of half a row
  const int lane = threadIdx.x % 32;
  const int row = blockIdx.x * (kRopeThreads / 32) + threadIdx.x / 32;
  const int token = row / p.heads, head = row % p.heads;
  if (token >= p.new_tokens) return;
  const T* source = static_cast<const T*>(p.x) + blockIdx.y * p.strides.batch + head * p.strides.head +
                    token * p.strides.token + lane * kPerLane;
  T* target = static_cast<T*>(p.out) +
              ((static_cast<int64_t>(blockIdx.y) * p.heads + head) * p.new_tokens + token) * D + lane * kPerLane;

  // Where a lane has one channel of either half, the second of a pair is zero.
  float2 x = to_floats<T>(*reinterpret_cast<const Share*>(source));
  float2 y = to_floats<T>(*reinterpret_cast<const Share*>(source + D / 2));
  if (p.gain != nullptr) {
    float squares = (x.x * x.x + x.y * x.y) + (y.x * y.x + y.y * y.y);
#pragma unroll
    for (int offset = 16; offset > 0; offset /= 2) squares += __shfl_xor_sync(kFullWarp, squares, offset);
    const float scale = rsqrtf(squares / D + p.epsilon);
    const T* gain = static_cast<const T*>(p.gain) + head * D + lane * kPerLane;
    const auto normalized = [scale](float2 z, float2 g) {
      const float2 unit = to_floats<T>(to_pair<T>(z.x * scale, z.y * scale));
      return to_floats<T>(to_pair<T>(unit.x * g.x, unit.y * g.y));
    };
    x = normalized(x, to_floats<T>(*reinterpret_cast<const Share*>(gain)));
    y = normalized(y, to_floats<T>(*reinterpret_cast<const Share*>(gain + D / 2)));
  }
  const int64_t at = static_cast<int64_t>(p.first_position + token) * (D / 2) + lane * kPerLane;
  const float2 cos = make_float2(p.cos[at], p.cos[at + kPerLane - 1]);
  const float2 sin = make_float2(p.sin[at], p.sin[at + kPerLane - 1]);
  *reinterpret_cast<Share*>(target) =
      static_cast<Share>(to_pair<T>(x.x * cos.x - y.x * sin.x, x.y * cos.y - y.y * sin.y));
  *reinterpret_cast<Share*>(target + D / 2) =
      static_cast<Share>(to_pair<T>(y.x * cos.x + x.x * sin.x, y.y * cos.y + x.y * sin.y));
}

}  // namespace kvprof
