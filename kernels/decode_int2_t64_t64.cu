// Decode attention over INT2 tiles, keys per-token in groups of 64, values per-token in groups of 64: int2-hqq-token, int2-quanto.
// See include/kvprof/decode_attention.cuh.
#include "kvprof/decode_attention.cuh"

constexpr kvprof::Format kKey{2, 64, kvprof::Direction::token};
constexpr kvprof::Format kValue{2, 64, kvprof::Direction::token};
KVPROF_DECODE_KERNELS(int2_t64_t64, kKey, kValue)
