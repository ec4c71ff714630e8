// Entry points of the Hadamard transform (include/kvprof/hadamard.cuh), named by float type and head dimension; for a decode step by
// float type alone.
#include "kvprof/hadamard.cuh"

#define KVPROF_HADAMARD(NAME, TYPE, D)                                                   \
  extern "C" __global__ void __launch_bounds__(kvprof::kHadamardThreads)                 \
      hadamard_##NAME##_d##D(const __grid_constant__ kvprof::HadamardParams p) {         \
    kvprof::hadamard<TYPE, D>(p);                                                        \
  }
#define KVPROF_STEP_HADAMARD(NAME, TYPE)                                                 \
  extern "C" __global__ void __launch_bounds__(kvprof::kHadamardThreads)                 \
      hadamard_step_##NAME(const __grid_constant__ kvprof::StepHadamardParams p) {       \
    kvprof::step_hadamard<TYPE>(p);                                                      \
  }

KVPROF_HADAMARD(f16, __half, 64)
KVPROF_HADAMARD(f16, __half, 128)
KVPROF_HADAMARD(bf16, __nv_bfloat16, 64)
KVPROF_HADAMARD(bf16, __nv_bfloat16, 128)
KVPROF_STEP_HADAMARD(f16, __half)
KVPROF_STEP_HADAMARD(bf16, __nv_bfloat16)
