// Decode attention over INT4 tiles, keys per-channel in groups of 64, values per-channel in groups of 64: int4-hqq.
// See include/kvprof/decode_attention.cuh.
#include "kvprof/decode_attention.cuh"

constexpr kvprof::Format kKey{4, 64, kvprof::Direction::channel};
constexpr kvprof::Format kValue{4, 64, kvprof::Direction::channel};
KVPROF_DECODE_KERNELS(int4_c64_c64, kKey, kValue)
