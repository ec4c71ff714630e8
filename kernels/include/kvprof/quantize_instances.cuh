// The kernels of one fit and float type (quantize.cuh): each head dimension, direction and group that a spec can ask for. Named
// by them behind KVPROF_QUANTIZE_NAME, as in quantize_hqq_f16_d128_channel_g64.
//
// Included once by each kernels/quantize_{hqq,min_max}_{f16,bf16}.cu, which define the name, the float type
// (KVPROF_QUANTIZE_FLOAT) and the fit (KVPROF_QUANTIZE_FIT).
#pragma once

#include "kvprof/quantize.cuh"

#define KVPROF_JOINED(NAME, D, DIRECTION, G) NAME##_d##D##_##DIRECTION##_g##G
#define KVPROF_QUANTIZE_KERNEL(NAME, D, DIRECTION, G) KVPROF_JOINED(NAME, D, DIRECTION, G)

#define KVPROF_QUANTIZE(D, DIRECTION, G)                                                                      \
  extern "C" __global__ void __launch_bounds__(kvprof::kQuantizeThreads, kvprof::KVPROF_QUANTIZE_FIT<KVPROF_QUANTIZE_FLOAT>::kBlocks) \
      KVPROF_QUANTIZE_KERNEL(KVPROF_QUANTIZE_NAME, D, DIRECTION, G)(                                          \
          const __grid_constant__ kvprof::QuantizeParams p) {                                                 \
    using namespace kvprof;                                                                                   \
    Quantize<KVPROF_QUANTIZE_FLOAT, D, Direction::DIRECTION, G,                                               \
             KVPROF_QUANTIZE_FIT<KVPROF_QUANTIZE_FLOAT>>::run(p);                                          \
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
