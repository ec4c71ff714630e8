// Decode attention over tiles of INT4 keys per-channel and INT2 values per-token, both in groups of 64: int4-hqq-kivi,v-bits=2.
// See include/kvprof/decode_attention.cuh.
#include "kvprof/decode_attention.cuh"

constexpr kvprof::Format kKey{4, 64, kvprof::Direction::channel};
constexpr kvprof::Format kValue{2, 64, kvprof::Direction::token};
KVPROF_DECODE_KERNELS(int4_c64_int2_t64, kKey, kValue)
