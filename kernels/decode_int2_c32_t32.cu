// Decode attention over INT2 tiles, keys per-channel in groups of 32, values per-token in groups of 32: int2-kivi.
// See include/kvprof/decode_attention.cuh.
#include "kvprof/decode_attention.cuh"

constexpr kvprof::Format kKey{2, 32, kvprof::Direction::channel};
constexpr kvprof::Format kValue{2, 32, kvprof::Direction::token};
KVPROF_DECODE_KERNELS(int2_c32_t32, kKey, kValue)
