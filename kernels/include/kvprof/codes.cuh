// Packed codes to operands of the mma: a mask each, no arithmetic (see tile.cuh for the layout).
//
// A masked code stays where a fp16 mantissa is, so that the operand reads as the subnormal number code·2^-24 (or a
// higher power, by row); `code_unit` is the factor that undoes it. 4-bit codes of rows g + 8 are left with those of rows g beneath
// them, since a byte takes one operation where its high half would take two: `separate_rows` takes the sums of rows g out of theirs.
// E4M3 codes become the fp16 numbers that they stand for.
#pragma once

#include "kvprof/ptx.cuh"
#include "kvprof/tile.cuh"

namespace kvprof {

/// How many m-tiles (16 rows) the words of a lane's 16-byte piece interleave.
KVPROF_HOST_DEVICE constexpr int interleaved_rows(Format format) { return format.bits == 2 ? 2 : 1; }
/// How many k-steps (16 columns) a lane's 16-byte piece covers.
KVPROF_HOST_DEVICE constexpr int steps_per_piece(Format format) { return format.bits == 8 ? 2 : 4; }

/// What an operand made of codes must be multiplied by, in m-tiles of parity `r % 2` and rows g (hi = 0) or g+8 (1).
KVPROF_HOST_DEVICE constexpr float code_unit(Format format, int r, int hi) {
  return format.direction == Direction::tile ? 1.f
         : format.bits == 8                  ? 16777216.f
         : format.bits == 4                  ? (hi ? 1048576.f : 16777216.f)
                                             : 16777216.f / (1 << (4 * (r % 2) + 2 * hi));
}

/// Four E4M3 codes as fp16 numbers: the two of the word's low half, then those of its high half.
__device__ __forceinline__ uint2 e4m3_to_half2(uint32_t codes) {
  uint2 out;
#if __CUDA_ARCH__ >= 890
  asm("{ .reg .b16 low, high; mov.b32 {low, high}, %2; cvt.rn.f16x2.e4m3x2 %0, low; cvt.rn.f16x2.e4m3x2 %1, high; }"
      : "=r"(out.x), "=r"(out.y)
      : "r"(codes));
#else
  // Sign, exponent and mantissa where fp16 has them; what its larger bias makes of that is smaller by 2^8.
  const auto widen = [](uint32_t high_bytes) {
    const uint32_t small = (high_bytes & 0x80008000u) | ((high_bytes >> 1) & 0x3f803f80u);
    return bits_of(__hmul2(half2_of(small), __float2half2_rn(256.f)));
  };
  out = {widen(__byte_perm(codes, 0, 0x1404)), widen(__byte_perm(codes, 0, 0x3424))};
#endif
  return out;
}

/// The operand of m-tile parity `r % 2` and k-step `i` of a piece.
template <Format kFormat>
__device__ __forceinline__ RowOperand unpack(const uint4& piece, int r, int i) {
  const uint32_t words[4] = {piece.x, piece.y, piece.z, piece.w};
  if constexpr (kFormat.direction == Direction::tile) {
    const uint2 g = e4m3_to_half2(words[2 * i]), g8 = e4m3_to_half2(words[2 * i + 1]);
    return {g.x, g8.x, g.y, g8.y};
  } else if constexpr (kFormat.bits == 8) {
    const uint32_t g = words[2 * i], g8 = words[2 * i + 1];
    return {g & 0x00ff00ffu, g8 & 0x00ff00ffu, __byte_perm(g, 0, 0x4341), __byte_perm(g8, 0, 0x4341)};
  } else if constexpr (kFormat.bits == 4) {
    const uint32_t low = words[i] & 0x00ff00ffu, high = __byte_perm(words[i], 0, 0x4341);
    return {low & 0x000f000fu, low, high & 0x000f000fu, high};
  } else {
    const uint32_t low = words[i], high = low >> 8;
    const uint32_t g = r % 2 ? 0x00300030u : 0x00030003u, g8 = g << 2;
    return {low & g, low & g8, high & g, high & g8};
  }
}

/// Takes out of the sums of rows g + 8 what `unpack` leaves in their operands of rows g.
template <Format kFormat>
__device__ __forceinline__ void separate_rows(Accumulator& sum) {
  if constexpr (kFormat.bits == 4) {
    sum[2] -= sum[0];
    sum[3] -= sum[1];
  }
}

/// The operand that is summed against codes, in the order in which `unpack` leaves them: FP8 codes are converted by
/// neighbouring bytes, which swaps `half` and `odd` of their columns (tile.cuh).
template <Format kFormat>
__device__ __forceinline__ ColumnOperand in_code_order(const ColumnOperand& x) {
  if constexpr (kFormat.direction != Direction::tile) return x;
  return {__byte_perm(x.low_half, x.high_half, 0x5410), __byte_perm(x.low_half, x.high_half, 0x7632)};
}

}  // namespace kvprof
