// Decode attention over FP8 (E4M3) tiles, one scale for the keys and one for the values of a tile (fp8).
// See include/kvprof/decode_attention.cuh.
#include "kvprof/decode_attention.cuh"

KVPROF_DECODE_KERNELS(fp8, kvprof::kFp8, kvprof::kFp8)
