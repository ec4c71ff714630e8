// Decode attention over INT2 tiles, keys per-channel in groups of 64, values per-channel in groups of 64: int2-hqq,group=64.
// See include/kvprof/decode_attention.cuh.
#include "kvprof/decode_attention.cuh"

constexpr kvprof::Format kKey{2, 64, kvprof::Direction::channel};
constexpr kvprof::Format kValue{2, 64, kvprof::Direction::channel};
KVPROF_DECODE_KERNELS(int2_c64_c64, kKey, kValue)
