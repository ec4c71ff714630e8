// Entry points of quantization with HqqFit on f16 (include/kvprof/quantize.cuh), named by head dimension, direction and group.
#include "kvprof/quantize.cuh"

#define KVPROF_QUANTIZE(D, DIRECTION, G)                                                            \
  extern "C" __global__ void __launch_bounds__(kvprof::kTileThreads)                                \
      quantize_hqq_f16_d##D##_##DIRECTION##_g##G(const __grid_constant__ kvprof::QuantizeParams p) { \
    using namespace kvprof;                                                                         \
    Quantize<__half, D, Direction::DIRECTION, G, HqqFit<__half, G>>::run(p);                           \
  }

KVPROF_QUANTIZE(64, channel, 16)
KVPROF_QUANTIZE(64, channel, 32)
KVPROF_QUANTIZE(64, channel, 64)
KVPROF_QUANTIZE(64, channel, 128)
KVPROF_QUANTIZE(64, token, 16)
KVPROF_QUANTIZE(64, token, 32)
KVPROF_QUANTIZE(64, token, 64)
KVPROF_QUANTIZE(128, channel, 16)
KVPROF_QUANTIZE(128, channel, 32)
KVPROF_QUANTIZE(128, channel, 64)
KVPROF_QUANTIZE(128, channel, 128)
KVPROF_QUANTIZE(128, token, 16)
KVPROF_QUANTIZE(128, token, 32)
KVPROF_QUANTIZE(128, token, 64)
KVPROF_QUANTIZE(128, token, 128)
