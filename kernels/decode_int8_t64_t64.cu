// Decode attention over INT8 tiles, keys per-token in groups of 64, values per-token in groups of 64: int8-hqq-token.
// See include/kvprof/decode_attention.cuh.
#include "kvprof/decode_attention.cuh"

constexpr kvprof::Format kKey{8, 64, kvprof::Direction::token};
constexpr kvprof::Format kValue{8, 64, kvprof::Direction::token};
KVPROF_DECODE_KERNELS(int8_t64_t64, kKey, kValue)
