// Decode attention over INT8 tiles, keys per-channel in groups of 64, values per-token in groups of 64: int8-hqq-kivi.
// See include/kvprof/decode_attention.cuh.
#include "kvprof/decode_attention.cuh"

constexpr kvprof::Format kKey{8, 64, kvprof::Direction::channel};
constexpr kvprof::Format kValue{8, 64, kvprof::Direction::token};
KVPROF_DECODE_KERNELS(int8_c64_t64, kKey, kValue)
