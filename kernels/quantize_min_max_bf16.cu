// Entry points of quantization of bf16 with MinMaxFit, named in kvprof/quantize_instances.cuh.
#define KVPROF_QUANTIZE_NAME quantize_min_max_bf16
#define KVPROF_QUANTIZE_FLOAT __nv_bfloat16
#define KVPROF_QUANTIZE_FIT MinMaxFit
#include "kvprof/quantize_instances.cuh"
