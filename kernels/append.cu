// Entry points of the append (include/kvprof/append.cuh), named by float type.
#include "kvprof/append.cuh"

extern "C" __global__ void __launch_bounds__(kvprof::kAppendThreads)
    append_f16(const __grid_constant__ kvprof::AppendParams p) {
  kvprof::append<__half>(p);
}
extern "C" __global__ void __launch_bounds__(kvprof::kAppendThreads)
    append_bf16(const __grid_constant__ kvprof::AppendParams p) {
  kvprof::append<__nv_bfloat16>(p);
}
