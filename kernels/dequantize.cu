// Entry points of dequantization (include/kvprof/dequantize.cuh), named by float type and head dimension.
#include "kvprof/dequantize.cuh"

#define KVPROF_DEQUANTIZE(NAME, TYPE, D)                                              \
  extern "C" __global__ void __launch_bounds__(kvprof::kTileThreads)                  \
      dequantize_##NAME##_d##D(const __grid_constant__ kvprof::DequantizeParams p) {  \
    kvprof::Dequantize<TYPE, D>::run(p);                                              \
  }

KVPROF_DEQUANTIZE(f16, __half, 64)
KVPROF_DEQUANTIZE(f16, __half, 128)
KVPROF_DEQUANTIZE(bf16, __nv_bfloat16, 64)
KVPROF_DEQUANTIZE(bf16, __nv_bfloat16, 128)
