// Entry points of quantization with HqqFit on bf16 (include/kvprof/quantize.cuh), named by direction and group size.
#include "kvprof/quantize.cuh"

#define KVPROF_QUANTIZE(DIRECTION, G)                                                          \
  extern "C" __global__ void __launch_bounds__(kvprof::kTileThreads)                           \
      quantize_hqq_bf16_##DIRECTION##_g##G(const __grid_constant__ kvprof::QuantizeParams p) { \
    using namespace kvprof;                                                                    \
    Quantize<__nv_bfloat16, Direction::DIRECTION, G, HqqFit<__nv_bfloat16, G>>::run(p);                         \
  }

KVPROF_QUANTIZE(channel, 16)
KVPROF_QUANTIZE(channel, 32)
KVPROF_QUANTIZE(channel, 64)
KVPROF_QUANTIZE(channel, 128)
KVPROF_QUANTIZE(token, 16)
KVPROF_QUANTIZE(token, 32)
KVPROF_QUANTIZE(token, 64)
KVPROF_QUANTIZE(token, 128)
