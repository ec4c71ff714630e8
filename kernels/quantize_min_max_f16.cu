// Entry points of quantization of f16 with MinMaxFit, named in kvprof/quantize_instances.cuh.
#define KVPROF_QUANTIZE_NAME quantize_min_max_f16
#define KVPROF_QUANTIZE_FLOAT __half
#define KVPROF_QUANTIZE_FIT MinMaxFit
#include "kvprof/quantize_instances.cuh"
