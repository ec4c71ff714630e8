// Decode attention over tiles of INT8 keys per-channel and INT4 values per-channel, both in groups of 64: int4-hqq,k-bits=8.
// See include/kvprof/decode_attention.cuh.
#include "kvprof/decode_attention.cuh"

constexpr kvprof::Format kKey{8, 64, kvprof::Direction::channel};
constexpr kvprof::Format kValue{4, 64, kvprof::Direction::channel};
KVPROF_DECODE_KERNELS(int8_c64_int4_c64, kKey, kValue)
