// Entry points of include/kvprof/causal_softmax.cuh, named by float type and elements a thread takes at once.
#include "kvprof/causal_softmax.cuh"

#define KVPROF_CAUSAL_SOFTMAX(NAME, TYPE, EACH)                                    \
  extern "C" __global__ void __launch_bounds__(kvprof::kSoftmaxThreads)            \
      softmax_causal_##NAME##_x##EACH(const __grid_constant__ kvprof::CausalSoftmaxParams p) { \
    kvprof::CausalSoftmax<TYPE, EACH>::run(p);                                     \
  }

KVPROF_CAUSAL_SOFTMAX(f16, __half, 1)
KVPROF_CAUSAL_SOFTMAX(f16, __half, 8)
KVPROF_CAUSAL_SOFTMAX(bf16, __nv_bfloat16, 1)
KVPROF_CAUSAL_SOFTMAX(bf16, __nv_bfloat16, 8)
