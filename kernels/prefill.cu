// Entry points of prefill attention (include/kvprof/prefill.cuh), named by float type and head dimension.
#include "kvprof/prefill.cuh"

using namespace kvprof;

#define PREFILL_ENTRIES(NAME, TYPE, D)                                                           \
  extern "C" __global__ void __launch_bounds__(kPrefillThreads, 2)                               \
      prefill_##NAME##_d##D(const __grid_constant__ PrefillParams p) {                           \
    Prefill<TYPE, D>::run(p);                                                                    \
  }                                                                                              \
  extern "C" __global__ void __launch_bounds__(kPrefillThreads)                                  \
      prefill_merge_##NAME##_d##D(const __grid_constant__ PrefillParams p) {                     \
    Prefill<TYPE, D>::merge_splits(p);                                                           \
  }

PREFILL_ENTRIES(f16, __half, 64)
PREFILL_ENTRIES(f16, __half, 128)
PREFILL_ENTRIES(bf16, __nv_bfloat16, 64)
PREFILL_ENTRIES(bf16, __nv_bfloat16, 128)
