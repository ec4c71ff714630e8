// Entry points of the operations of include/kvprof/elementwise.cuh, named by float type.
#include "kvprof/elementwise.cuh"

#define KVPROF_ELEMENTWISE(NAME, TYPE)                                             \
  extern "C" __global__ void __launch_bounds__(kvprof::kElementwiseThreads)        \
      swiglu_##NAME(const __grid_constant__ kvprof::SwiGluParams p) {              \
    kvprof::swiglu<TYPE>(p);                                                       \
  }                                                                                \
  extern "C" __global__ void __launch_bounds__(kvprof::kElementwiseThreads)        \
      add_##NAME(const __grid_constant__ kvprof::AddParams p) {                    \
    kvprof::add<TYPE>(p);                                                          \
  }

KVPROF_ELEMENTWISE(f16, __half)
KVPROF_ELEMENTWISE(bf16, __nv_bfloat16)
