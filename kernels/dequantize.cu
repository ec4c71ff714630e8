// Entry points of dequantization (include/kvprof/dequantize.cuh), named by float type.
#include "kvprof/dequantize.cuh"

extern "C" __global__ void __launch_bounds__(kvprof::kTileThreads)
    dequantize_f16(const __grid_constant__ kvprof::DequantizeParams p) {
  kvprof::Dequantize<__half>::run(p);
}
extern "C" __global__ void __launch_bounds__(kvprof::kTileThreads)
    dequantize_bf16(const __grid_constant__ kvprof::DequantizeParams p) {
  kvprof::Dequantize<__nv_bfloat16>::run(p);
}
