// Decode attention over INT2 tiles, keys per-channel in groups of 16, values per-channel in groups of 16: int2-hqq.
// See include/kvprof/decode_attention.cuh.
#include "kvprof/decode_attention.cuh"

constexpr kvprof::Format kKey{2, 16, kvprof::Direction::channel};
constexpr kvprof::Format kValue{2, 16, kvprof::Direction::channel};
KVPROF_DECODE_KERNELS(int2_c16_c16, kKey, kValue)
