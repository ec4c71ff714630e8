// Entry points of quantization of f16 with HqqFit, named in kvprof/quantize_instances.cuh.
#define KVPROF_QUANTIZE_NAME quantize_hqq_f16
#define KVPROF_QUANTIZE_FLOAT __half
#define KVPROF_QUANTIZE_FIT HqqFit
#include "kvprof/quantize_instances.cuh"
