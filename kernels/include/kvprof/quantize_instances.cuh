// The kernels of one fit and float type (quantize.cuh): each head dimension, direction and group that a spec can ask for, for one side or
// both; and the KIVI layout, keys by channel and values by token, in one launch, so that the second side fills the device while the last blocks of the
// first end. Named by them behind KVPROF_QUANTIZE_NAME, as in quantize_hqq_f16_d128_channel_g64 and quantize_hqq_f16_d128_kivi_g64.
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

#define KVPROF_QUANTIZE_KIVI(D, G)                                                                            \
  extern "C" __global__ void __launch_bounds__(kvprof::kQuantizeThreads, kvprof::KVPROF_QUANTIZE_FIT<KVPROF_QUANTIZE_FLOAT>::kBlocks) \
      KVPROF_QUANTIZE_KERNEL(KVPROF_QUANTIZE_NAME, D, kivi, G)(const __grid_constant__ kvprof::QuantizeParams p) { \
    using namespace kvprof;                                                                                   \
    using Fit = KVPROF_QUANTIZE_FIT<KVPROF_QUANTIZE_FLOAT>;                                                   \
    if (blockIdx.z == 0) {                                                                                    \
      Quantize<KVPROF_QUANTIZE_FLOAT, D, Direction::channel, G, Fit>::run(p);                                 \
    } else {                                                                                                  \
      Quantize<KVPROF_QUANTIZE_FLOAT, D, Direction::token, G, Fit>::run(p);                                   \
    }                                                                                                         \
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
KVPROF_QUANTIZE_KIVI(64, 16)
KVPROF_QUANTIZE_KIVI(64, 32)
KVPROF_QUANTIZE_KIVI(64, 64)
KVPROF_QUANTIZE_KIVI(128, 16)
KVPROF_QUANTIZE_KIVI(128, 32)
KVPROF_QUANTIZE_KIVI(128, 64)
