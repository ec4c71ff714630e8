// Packed codes to operands of the mma: a mask each, no arithmetic (see tile.cuh for the layout).
//
// A masked code stays where a fp16 mantissa is, so that the operand reads as the subnormal number code·2^-24 (or a
// higher power, by row); `code_unit` is the factor that undoes it. E4M3 codes become fp16 numbers smaller by 2^8.
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
  return format.direction == Direction::tile ? 256.f
         : format.bits == 8                  ? 16777216.f
         : format.bits == 4                  ? (hi ? 1048576.f : 16777216.f)
                                             : 16777216.f / (1 << (4 * (r % 2) + 2 * hi));
}

/// Two E4M3 codes in the high bytes of the halves of a word, as fp16 numbers divided by 2^8.
__device__ __forceinline__ uint32_t e4m3_to_half2(uint32_t high_bytes) {
  return (high_bytes & 0x80008000u) | ((high_bytes >> 1) & 0x3f803f80u);
}

/// The operand of m-tile parity `r % 2` and k-step `i` of a piece.
template <Format kFormat>
__device__ __forceinline__ RowOperand unpack(const uint4& piece, int r, int i) {
  const uint32_t words[4] = {piece.x, piece.y, piece.z, piece.w};
  if constexpr (kFormat.direction == Direction::tile) {
    const uint32_t g = words[2 * i], g8 = words[2 * i + 1];
    return {e4m3_to_half2(g << 8), e4m3_to_half2(g8 << 8), e4m3_to_half2(g), e4m3_to_half2(g8)};
  } else if constexpr (kFormat.bits == 8) {
    const uint32_t g = words[2 * i], g8 = words[2 * i + 1];
    return {g & 0x00ff00ffu, g8 & 0x00ff00ffu, __byte_perm(g, 0, 0x4341), __byte_perm(g8, 0, 0x4341)};
  } else if constexpr (kFormat.bits == 4) {
    const uint32_t low = words[i], high = low >> 8;
    return {low & 0x000f000fu, low & 0x00f000f0u, high & 0x000f000fu, high & 0x00f000f0u};
  } else {
    const uint32_t low = words[i], high = low >> 8;
    const uint32_t g = r % 2 ? 0x00300030u : 0x00030003u, g8 = g << 2;
    return {low & g, low & g8, high & g, high & g8};
  }
}

}  // namespace kvprof
