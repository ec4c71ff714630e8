// Entry points of the gated activation (include/kvprof/activation.cuh), named by float type.
#include "kvprof/activation.cuh"

extern "C" __global__ void __launch_bounds__(kvprof::kActivationThreads)
    swiglu_f16(const __grid_constant__ kvprof::SwiGluParams p) {
  kvprof::swiglu<__half>(p);
}
extern "C" __global__ void __launch_bounds__(kvprof::kActivationThreads)
    swiglu_bf16(const __grid_constant__ kvprof::SwiGluParams p) {
  kvprof::swiglu<__nv_bfloat16>(p);
}
