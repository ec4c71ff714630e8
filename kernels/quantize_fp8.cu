// Entry points of quantization to FP8 (include/kvprof/quantize.cuh), named by float type.
#include "kvprof/quantize.cuh"

extern "C" __global__ void __launch_bounds__(kvprof::kTileThreads)
    quantize_fp8_f16(const __grid_constant__ kvprof::QuantizeParams p) {
  kvprof::QuantizeFp8<__half>::run(p);
}
extern "C" __global__ void __launch_bounds__(kvprof::kTileThreads)
    quantize_fp8_bf16(const __grid_constant__ kvprof::QuantizeParams p) {
  kvprof::QuantizeFp8<__nv_bfloat16>::run(p);
}
