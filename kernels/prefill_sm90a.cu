// Entry points of prefill attention on Hopper (include/kvprof/prefill_hopper.cuh), named by float type.
#include "kvprof/prefill_hopper.cuh"

extern "C" __global__ void __launch_bounds__(kvprof::kHopperThreads, 1)
    prefill_hopper_f16_d128(const __grid_constant__ kvprof::HopperParams p) {
  kvprof::PrefillHopper<__half>::run(p);
}
extern "C" __global__ void __launch_bounds__(kvprof::kHopperThreads, 1)
    prefill_hopper_bf16_d128(const __grid_constant__ kvprof::HopperParams p) {
  kvprof::PrefillHopper<__nv_bfloat16>::run(p);
}
