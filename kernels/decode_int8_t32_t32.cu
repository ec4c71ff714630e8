// Decode attention over INT8 tiles, keys per-token in groups of 32, values per-token in groups of 32: int8-hqq-token,group=32.
// See include/kvprof/decode_attention.cuh.
#include "kvprof/decode_attention.cuh"

constexpr kvprof::Format kKey{8, 32, kvprof::Direction::token};
constexpr kvprof::Format kValue{8, 32, kvprof::Direction::token};
KVPROF_DECODE_KERNELS(int8_t32_t32, kKey, kValue)
