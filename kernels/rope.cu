// Entry points of the rotary embedding (include/kvprof/rope.cuh), named by float type and head dimension.
#include "kvprof/rope.cuh"

#define KVPROF_ROPE(NAME, TYPE, D)                                            \
  extern "C" __global__ void __launch_bounds__(kvprof::kRopeThreads)          \
      rope_##NAME##_d##D(const __grid_constant__ kvprof::RopeParams p) {      \
    kvprof::rotate<TYPE, D>(p);                                               \
  }

KVPROF_ROPE(f16, __half, 64)
KVPROF_ROPE(f16, __half, 128)
KVPROF_ROPE(bf16, __nv_bfloat16, 64)
KVPROF_ROPE(bf16, __nv_bfloat16, 128)
