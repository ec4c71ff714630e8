// Decode attention over a dense cache: all of it is the window (none). See include/kvprof/decode_attention.cuh.
#include "kvprof/decode_attention.cuh"

KVPROF_DECODE_KERNELS(dense, kvprof::kDense, kvprof::kDense)
