// Thin wrappers around the PTX instructions that the attention kernels are made of (sm_80 and newer). No policy here.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include <cstdint>

namespace kvprof {

constexpr uint32_t kFullWarp = 0xffffffffu;

/// One lane's share of the 16x8 result of an mma: [0], [1] are row g, columns 2t and 2t+1; [2], [3] row g+8.
struct Accumulator {
  float v[4] = {0.f, 0.f, 0.f, 0.f};
  __device__ float& operator[](int i) { return v[i]; }
  __device__ float operator[](int i) const { return v[i]; }
};

/// One lane's share of the 16x16 operand: rows g and g+8 of columns 2t, 2t+1, then of columns 2t+8, 2t+9.
struct RowOperand {
  uint32_t low_half_g, low_half_g8, high_half_g, high_half_g8;
};

/// One lane's share of the 16x8 operand: rows (the summed index) 2t, 2t+1, then 2t+8, 2t+9, of column g.
struct ColumnOperand {
  uint32_t low_half, high_half;
};

template <typename Float>
__device__ __forceinline__ void mma(Accumulator& c, const RowOperand& a, const ColumnOperand& b);

template <>
__device__ __forceinline__ void mma<__half>(Accumulator& c, const RowOperand& a, const ColumnOperand& b) {
  // The sum so far is an operand of its own: one that is known to be zero then costs no moves.
  asm("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%10,%11,%12,%13};"
      : "=f"(c.v[0]), "=f"(c.v[1]), "=f"(c.v[2]), "=f"(c.v[3])
      : "r"(a.low_half_g), "r"(a.low_half_g8), "r"(a.high_half_g), "r"(a.high_half_g8), "r"(b.low_half),
        "r"(b.high_half), "f"(c.v[0]), "f"(c.v[1]), "f"(c.v[2]), "f"(c.v[3]));
}

template <>
__device__ __forceinline__ void mma<__nv_bfloat16>(Accumulator& c, const RowOperand& a, const ColumnOperand& b) {
  // The sum so far is an operand of its own: one that is known to be zero then costs no moves.
  asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%10,%11,%12,%13};"
      : "=f"(c.v[0]), "=f"(c.v[1]), "=f"(c.v[2]), "=f"(c.v[3])
      : "r"(a.low_half_g), "r"(a.low_half_g8), "r"(a.high_half_g), "r"(a.high_half_g8), "r"(b.low_half),
        "r"(b.high_half), "f"(c.v[0]), "f"(c.v[1]), "f"(c.v[2]), "f"(c.v[3]));
}

/// Transposes an 8x8 matrix of 16-bit values held as pairs (row g, columns 2t and 2t+1) by the lanes of a warp.
__device__ __forceinline__ uint32_t transpose8x8(uint32_t pair) {
  uint32_t out;
  asm("movmatrix.sync.aligned.m8n8.trans.b16 %0, %1;" : "=r"(out) : "r"(pair));
  return out;
}

/// Keeps a number in a register: the compiler would compute it anew, from its parts, at each use.
__device__ __forceinline__ uint32_t kept(uint32_t x) {
  asm volatile("" : "+r"(x));
  return x;
}

__device__ __forceinline__ uint32_t shared_address(const void* pointer) {
  return static_cast<uint32_t>(__cvta_generic_to_shared(pointer));
}

/// 16-bit floats 1, 1 in a word.
template <typename Float>
constexpr uint32_t kOnes = __is_same(Float, __half) ? 0x3c003c00u : 0x3f803f80u;

/// c += sums of the columns of b, in all rows.
template <typename Float>
__device__ __forceinline__ void add_column_sums(Accumulator& c, const ColumnOperand& b) {
  mma<Float>(c, {kOnes<Float>, kOnes<Float>, kOnes<Float>, kOnes<Float>}, b);
}

/// Four 8x8 matrices of 16-bit values from shared memory; lane l gives the address of row l%8 of matrix l/8.
__device__ __forceinline__ uint4 load_matrices(uint32_t address) {
  uint4 m;
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
               : "=r"(m.x), "=r"(m.y), "=r"(m.z), "=r"(m.w)
               : "r"(address)
               : "memory");
  return m;
}

__device__ __forceinline__ uint4 load_matrices_transposed(uint32_t address) {
  uint4 m;
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];"
               : "=r"(m.x), "=r"(m.y), "=r"(m.z), "=r"(m.w)
               : "r"(address)
               : "memory");
  return m;
}

/// Starts copying 16 bytes to shared memory, or writing 16 zero bytes where `wanted` is false.
__device__ __forceinline__ void copy16_async(uint32_t shared, const void* global, bool wanted = true) {
  const int bytes = wanted ? 16 : 0;
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(shared), "l"(global), "r"(bytes) : "memory");
}

/// The same with a constant offset on each side, which costs no instruction.
template <int kSharedOffset, int kGlobalOffset>
__device__ __forceinline__ void copy16_async_between(uint32_t shared, const void* global) {
  asm volatile("cp.async.cg.shared.global [%0 + %2], [%1 + %3], 16;" ::"r"(shared), "l"(global), "n"(kSharedOffset),
               "n"(kGlobalOffset)
               : "memory");
}

/// For bytes that are read once and not again until much else was read (weights, a cache): the L2 gives them up first.
__device__ __forceinline__ uint64_t read_once() {
#if __CUDA_ARCH__ >= 900
  // What the instruction below gives there: as a constant it is part of each copy, and takes no registers on the way.
  return 0x12f0000000000000ull;
#else
  uint64_t policy;
  asm("createpolicy.fractional.L2::evict_first.b64 %0, 1.0;" : "=l"(policy));
  return policy;
#endif
}

/// As `copy16_async`, of bytes that are read once.
__device__ __forceinline__ void stream16_async(uint32_t shared, const void* global, bool wanted = true) {
  const int bytes = wanted ? 16 : 0;
  asm volatile("cp.async.cg.shared.global.L2::cache_hint [%0], [%1], 16, %2, %3;" ::"r"(shared), "l"(global), "r"(bytes),
               "l"(read_once())
               : "memory");
}

/// As `copy16_async_between`, of bytes that are read once.
template <int kSharedOffset, int kGlobalOffset>
__device__ __forceinline__ void stream16_async_between(uint32_t shared, const void* global) {
  asm volatile("cp.async.cg.shared.global.L2::cache_hint [%0 + %2], [%1 + %3], 16, %4;" ::"r"(shared), "l"(global),
               "n"(kSharedOffset), "n"(kGlobalOffset), "l"(read_once())
               : "memory");
}

__device__ __forceinline__ void commit_copies() { asm volatile("cp.async.commit_group;" ::: "memory"); }

/// Waits until at most `kPending` of the calling thread's committed groups of copies are under way.
template <int kPending>
__device__ __forceinline__ void wait_copies() {
  asm volatile("cp.async.wait_group %0;" ::"n"(kPending) : "memory");
}

/// Writes 16 zero bytes to shared memory.
__device__ __forceinline__ void store_zeros(uint32_t shared) {
  asm volatile("st.shared.v4.u32 [%0], {%1, %1, %1, %1};" ::"r"(shared), "r"(0) : "memory");
}

/// Adds 1 to a counter in device memory, or sets it to 0 if it was `last`; returns what it was. Orders what the calling
/// thread can see before with what it sees after, on the whole device.
__device__ __forceinline__ uint32_t atomic_increment(uint32_t* counter, uint32_t last) {
  uint32_t before;
  asm volatile("atom.inc.acq_rel.gpu.global.u32 %0, [%1], %2;" : "=r"(before) : "l"(counter), "r"(last) : "memory");
  return before;
}

/// 2^x; relative error about 2^-22. -inf gives 0.
__device__ __forceinline__ float exp2_fast(float x) {
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}

__device__ __forceinline__ uint32_t bits_of(__half2 x) { return reinterpret_cast<const uint32_t&>(x); }
__device__ __forceinline__ uint32_t bits_of(__nv_bfloat162 x) { return reinterpret_cast<const uint32_t&>(x); }
__device__ __forceinline__ __half2 half2_of(uint32_t x) { return reinterpret_cast<const __half2&>(x); }
__device__ __forceinline__ __nv_bfloat162 bfloat162_of(uint32_t x) {
  return reinterpret_cast<const __nv_bfloat162&>(x);
}

/// The low and high 16 bits of a word as fp32.
template <typename Float>
__device__ __forceinline__ float2 to_floats(uint32_t pair);
template <>
__device__ __forceinline__ float2 to_floats<__half>(uint32_t pair) {
  return __half22float2(half2_of(pair));
}
template <>
__device__ __forceinline__ float2 to_floats<__nv_bfloat16>(uint32_t pair) {
  return make_float2(__uint_as_float(pair << 16), __uint_as_float(pair & 0xffff0000u));
}

/// Two fp32 numbers rounded to a word of 16-bit floats.
template <typename Float>
__device__ __forceinline__ uint32_t to_pair(float low, float high);
template <>
__device__ __forceinline__ uint32_t to_pair<__half>(float low, float high) {
  return bits_of(__floats2half2_rn(low, high));
}
template <>
__device__ __forceinline__ uint32_t to_pair<__nv_bfloat16>(float low, float high) {
  return bits_of(__floats2bfloat162_rn(low, high));
}

/// The larger of two numbers, in each half of a word of 16-bit floats.
template <typename Float>
__device__ __forceinline__ uint32_t larger_halves(uint32_t a, uint32_t b) {
  if constexpr (__is_same(Float, __half))
    return bits_of(__hmax2(half2_of(a), half2_of(b)));
  else
    return bits_of(__hmax2(bfloat162_of(a), bfloat162_of(b)));
}

/// Whether either half of `a` is greater than that of `b`.
template <typename Float>
__device__ __forceinline__ bool any_half_greater(uint32_t a, uint32_t b) {
  if constexpr (__is_same(Float, __half))
    return __hgt2_mask(half2_of(a), half2_of(b)) != 0;
  else
    return __hgt2_mask(bfloat162_of(a), bfloat162_of(b)) != 0;
}

/// A pair of the cache's floats as fp16. bfloat16 beyond fp16's range becomes infinite.
template <typename Float>
__device__ __forceinline__ uint32_t as_half(uint32_t pair) {
  if constexpr (__is_same(Float, __half)) return pair;
  const float2 x = to_floats<Float>(pair);
  return to_pair<__half>(x.x, x.y);
}

}  // namespace kvprof
