// Entry points of quantization to FP8 (include/kvprof/quantize.cuh), named by float type and head dimension.
#include "kvprof/quantize.cuh"

#define KVPROF_QUANTIZE_FP8(NAME, TYPE, D)                                              \
  extern "C" __global__ void __launch_bounds__(kvprof::kQuantizeThreads)                \
      quantize_fp8_##NAME##_d##D(const __grid_constant__ kvprof::QuantizeParams p) {    \
    kvprof::QuantizeFp8<TYPE, D>::run(p);                                               \
  }

KVPROF_QUANTIZE_FP8(f16, __half, 64)
KVPROF_QUANTIZE_FP8(f16, __half, 128)
KVPROF_QUANTIZE_FP8(bf16, __nv_bfloat16, 64)
KVPROF_QUANTIZE_FP8(bf16, __nv_bfloat16, 128)
