// Decode attention over INT4 tiles, keys per-token in groups of 64, values per-token in groups of 64: int4-hqq-token, int4-quanto.
// See include/kvprof/decode_attention.cuh.
#include "kvprof/decode_attention.cuh"

constexpr kvprof::Format kKey{4, 64, kvprof::Direction::token};
constexpr kvprof::Format kValue{4, 64, kvprof::Direction::token};
KVPROF_DECODE_KERNELS(int4_t64_t64, kKey, kValue)
