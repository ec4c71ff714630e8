// Entry points of quantization of bf16 with HqqFit, named in kvprof/quantize_instances.cuh.
#define KVPROF_QUANTIZE_NAME quantize_hqq_bf16
#define KVPROF_QUANTIZE_FLOAT __nv_bfloat16
#define KVPROF_QUANTIZE_FIT HqqFit
#include "kvprof/quantize_instances.cuh"
