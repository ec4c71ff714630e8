// Decode attention over tiles of INT8 keys per-token and INT4 values per-token, both in groups of 64: int4-quanto,k-bits=8.
// See include/kvprof/decode_attention.cuh.
#include "kvprof/decode_attention.cuh"

constexpr kvprof::Format kKey{8, 64, kvprof::Direction::token};
constexpr kvprof::Format kValue{4, 64, kvprof::Direction::token};
KVPROF_DECODE_KERNELS(int8_t64_int4_t64, kKey, kValue)
