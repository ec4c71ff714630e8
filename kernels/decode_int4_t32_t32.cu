// Decode attention over INT4 tiles, keys per-token in groups of 32, values per-token in groups of 32: int4-quanto,group=32.
// See include/kvprof/decode_attention.cuh.
#include "kvprof/decode_attention.cuh"

constexpr kvprof::Format kKey{4, 32, kvprof::Direction::token};
constexpr kvprof::Format kValue{4, 32, kvprof::Direction::token};
KVPROF_DECODE_KERNELS(int4_t32_t32, kKey, kValue)
