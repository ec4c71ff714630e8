// Decode attention over INT4 tiles, keys per-channel in groups of 32, values per-channel in groups of 32: int4-hqq,group=32.
// See include/kvprof/decode_attention.cuh.
#include "kvprof/decode_attention.cuh"

constexpr kvprof::Format kKey{4, 32, kvprof::Direction::channel};
constexpr kvprof::Format kValue{4, 32, kvprof::Direction::channel};
KVPROF_DECODE_KERNELS(int4_c32_c32, kKey, kValue)
