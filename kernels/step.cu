// Entry points of a decode step: kvprof_<part>_<f16|bf16>, with _b<N> for the linear layers, N the most sequences served.
// Grids, blocks and shared memory: kvprof/step.cuh and kvprof/gemv.cuh.
#include "kvprof/step.cuh"

namespace kvprof {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ < 900
// Rows, batch, warps, stages: what fits every device (shared.cuh).
using Gemv1 = GemvShape<16, 1, 8, 5>;
using Gemv2 = GemvShape<16, 2, 8, 5>;
using Gemv4 = GemvShape<16, 4, 8, 4>;
using Gemv8 = GemvShape<32, 8, 4, 4>;
using Gemv16 = GemvShape<32, 16, 4, 3>;
#else
// The best of those tried (benches/NOTES.md).
using Gemv1 = GemvShape<16, 1, 16, 6>;
using Gemv2 = GemvShape<16, 2, 16, 5>;
using Gemv4 = GemvShape<16, 4, 16, 5>;
using Gemv8 = GemvShape<32, 8, 8, 5>;
using Gemv16 = GemvShape<32, 16, 8, 4>;
#endif
}  // namespace kvprof

#define KVPROF_LINEAR(Float, name, N)                                                          \
  extern "C" __global__ void __launch_bounds__(kvprof::Gemv##N::kThreads, 1)                   \
      kvprof_linear_add_##name##_b##N(const __grid_constant__ kvprof::LinearAddParams p) {     \
    kvprof::linear_add<Float, kvprof::Gemv##N>(p);                                             \
  }                                                                                            \
  extern "C" __global__ void __launch_bounds__(kvprof::Gemv##N::kThreads, 1)                   \
      kvprof_gate_up_##name##_b##N(const __grid_constant__ kvprof::GateUpParams p) {           \
    kvprof::gate_up<Float, kvprof::Gemv##N>(p);                                                \
  }                                                                                            \
  extern "C" __global__ void __launch_bounds__(kvprof::Gemv##N::kThreads, 1)                   \
      kvprof_qkv_##name##_b##N(const __grid_constant__ kvprof::QkvParams p) {                  \
    kvprof::qkv<Float, kvprof::Gemv##N>(p);                                                    \
  }                                                                                            \
  extern "C" __global__ void __launch_bounds__(kvprof::Gemv##N::kThreads, 1)                   \
      kvprof_logits_##name##_b##N(const __grid_constant__ kvprof::LogitsParams p) {            \
    kvprof::logits<Float, kvprof::Gemv##N>(p);                                                 \
  }

#define KVPROF_STEP(Float, name)                                                               \
  KVPROF_LINEAR(Float, name, 1)                                                                \
  KVPROF_LINEAR(Float, name, 2)                                                                \
  KVPROF_LINEAR(Float, name, 4)                                                                \
  KVPROF_LINEAR(Float, name, 8)                                                                \
  KVPROF_LINEAR(Float, name, 16)                                                               \
  extern "C" __global__ void __launch_bounds__(kvprof::kNormThreads)                           \
      kvprof_rms_norm_##name(const __grid_constant__ kvprof::RmsNormParams p) {                \
    kvprof::rms_norm<Float>(p);                                                                \
  }                                                                                            \
  extern "C" __global__ void __launch_bounds__(kvprof::kHeadNormThreads)                       \
      kvprof_normalize_heads_##name(const __grid_constant__ kvprof::HeadNormParams p) {        \
    kvprof::normalize_heads<Float>(p);                                                         \
  }

KVPROF_STEP(__half, f16)
KVPROF_STEP(__nv_bfloat16, bf16)

extern "C" __global__ void kvprof_next_token(const __grid_constant__ kvprof::NextTokenParams p) { kvprof::next_token(p); }
