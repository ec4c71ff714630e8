// Thin wrappers over the instructions of compute capability 9.0a: warpgroup products, barriers in shared memory, tensor
// copies, register budgets. Nothing here knows what is computed.
#pragma once

#include "kvprof/ptx.cuh"

namespace kvprof {

/// A matrix in shared memory as wgmma reads it: rows of 128 bytes whose 16-byte pieces are permuted (piece ^ row % 8), eight
/// rows after each other, so that 1024 bytes are a unit. `next_columns` is the distance in bytes to the next 64 columns, for
/// operands whose rows are the summed index.
__device__ __forceinline__ uint64_t matrix_descriptor(uint32_t shared, uint32_t next_columns) {
  constexpr uint64_t kSwizzle128 = 1ull << 62;
  constexpr uint64_t kNextRows = 1024 >> 4;
  return kSwizzle128 | kNextRows << 32 | static_cast<uint64_t>(next_columns >> 4) << 16 | (shared & 0x3ffff) >> 4;
}

/// Orders a warpgroup's own register writes before the products that follow.
__device__ __forceinline__ void wgmma_fence() { asm volatile("wgmma.fence.sync.aligned;" ::: "memory"); }
__device__ __forceinline__ void wgmma_commit() { asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory"); }
/// Waits until at most `kPending` committed groups are under way.
template <int kPending>
__device__ __forceinline__ void wgmma_wait() {
  asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(kPending) : "memory");
}

/// Keeps the compiler from moving uses of an accumulator above the wait for it.
template <int N>
__device__ __forceinline__ void pin(float (&c)[N]) {
#pragma unroll
  for (int i = 0; i < N; ++i) asm volatile("" : "+f"(c[i])::"memory");
}

#define KVPROF_C64                                                                                                    \
  "{%0,%1,%2,%3,%4,%5,%6,%7,%8,%9,%10,%11,%12,%13,%14,%15,%16,%17,%18,%19,%20,%21,%22,%23,%24,%25,%26,%27,%28,%29,"    \
  "%30,%31,%32,%33,%34,%35,%36,%37,%38,%39,%40,%41,%42,%43,%44,%45,%46,%47,%48,%49,%50,%51,%52,%53,%54,%55,%56,%57," \
  "%58,%59,%60,%61,%62,%63}"
#define KVPROF_C8(i) \
  "+f"(c[i]), "+f"(c[i + 1]), "+f"(c[i + 2]), "+f"(c[i + 3]), "+f"(c[i + 4]), "+f"(c[i + 5]), "+f"(c[i + 6]), "+f"(c[i + 7])
#define KVPROF_C64_OPERANDS \
  KVPROF_C8(0), KVPROF_C8(8), KVPROF_C8(16), KVPROF_C8(24), KVPROF_C8(32), KVPROF_C8(40), KVPROF_C8(48), KVPROF_C8(56)

#define KVPROF_WGMMA(TYPE, NAME)                                                                                     \
  /* c (64x128) = a · bᵀ, or added to c; a 64x16 and b 128x16 in shared memory, the summed index along their rows. */  \
  template <>                                                                                                        \
  __device__ __forceinline__ void wgmma_rows<TYPE>(float (&c)[64], uint64_t a, uint64_t b, bool add) {               \
    asm volatile(                                                                                                    \
        "{.reg .pred p; setp.ne.b32 p, %66, 0; wgmma.mma_async.sync.aligned.m64n128k16.f32." NAME "." NAME           \
        " " KVPROF_C64 ", %64, %65, p, 1, 1, 0, 0;}"                                                                 \
        : KVPROF_C64_OPERANDS                                                                                        \
        : "l"(a), "l"(b), "r"(static_cast<int>(add)));                                                               \
  }                                                                                                                  \
  /* c (64x128) += a · b; a 64x16 in registers, b 16x128 in shared memory, the summed index across its rows. */        \
  template <>                                                                                                        \
  __device__ __forceinline__ void wgmma_columns<TYPE>(float (&c)[64], const RowOperand& a, uint64_t b) {             \
    asm volatile("wgmma.mma_async.sync.aligned.m64n128k16.f32." NAME "." NAME " " KVPROF_C64                         \
                 ", {%64,%65,%66,%67}, %68, 1, 1, 1, 1;"                                                             \
                 : KVPROF_C64_OPERANDS                                                                               \
                 : "r"(a.low_half_g), "r"(a.low_half_g8), "r"(a.high_half_g), "r"(a.high_half_g8), "l"(b));          \
  }

template <typename T>
__device__ __forceinline__ void wgmma_rows(float (&c)[64], uint64_t a, uint64_t b, bool add);
template <typename T>
__device__ __forceinline__ void wgmma_columns(float (&c)[64], const RowOperand& a, uint64_t b);
KVPROF_WGMMA(__half, "f16")
KVPROF_WGMMA(__nv_bfloat16, "bf16")

#undef KVPROF_WGMMA
#undef KVPROF_C64_OPERANDS
#undef KVPROF_C8
#undef KVPROF_C64

/// Makes writes to shared memory that this thread has seen (its own, or others' by way of a barrier) visible to wgmma and to the copy engine.
__device__ __forceinline__ void fence_for_async_proxy() { asm volatile("fence.proxy.async.shared::cta;" ::: "memory"); }

template <int kRegisters>
__device__ __forceinline__ void give_registers() {
  asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(kRegisters));
}
template <int kRegisters>
__device__ __forceinline__ void take_registers() {
  asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(kRegisters));
}

/// A barrier in shared memory that is passed, phase by phase, when `count` arrivals have come.
struct SharedBarrier {
  uint32_t address;

  __device__ __forceinline__ void init(int count) const {
    asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(address), "r"(count) : "memory");
  }
  __device__ __forceinline__ void arrive() const {
    asm volatile("{.reg .b64 state; mbarrier.arrive.shared::cta.b64 state, [%0];}" ::"r"(address) : "memory");
  }
  /// Arrives, and has the phase also wait for `bytes` of tensor copies.
  __device__ __forceinline__ void arrive_expecting(uint32_t bytes) const {
    asm volatile("{.reg .b64 state; mbarrier.arrive.expect_tx.shared::cta.b64 state, [%0], %1;}" ::"r"(address), "r"(bytes)
                 : "memory");
  }
  /// Arrives once the copies that this thread has started are done, without waiting for them.
  __device__ __forceinline__ void arrive_when_copied() const {
    asm volatile("cp.async.mbarrier.arrive.noinc.shared::cta.b64 [%0];" ::"r"(address) : "memory");
  }
  /// Waits for the end of the phase of this parity.
  __device__ __forceinline__ void wait(uint32_t parity) const {
    asm volatile(
        "{\n.reg .pred p;\nagain:\nmbarrier.try_wait.parity.shared::cta.b64 p, [%0], %1;\n@!p bra again;\n}\n" ::"r"(
            address),
        "r"(parity)
        : "memory");
  }
};

/// A CUtensorMap of the driver: where a tensor lies, and what boxes of it are copied in which order.
struct alignas(128) TensorMap {
  uint8_t opaque[128];
};

/// Starts copying the box at (c0, c1, c2) of a tensor of three dimensions to shared memory; `barrier` counts the bytes.
__device__ __forceinline__ void copy_box(uint32_t shared, const TensorMap& map, int c0, int c1, int c2, SharedBarrier barrier) {
  asm volatile("cp.async.bulk.tensor.3d.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1, {%2, %3, %4}], [%5];" ::
                   "r"(shared),
               "l"(&map), "r"(c0), "r"(c1), "r"(c2), "r"(barrier.address)
               : "memory");
}

/// A barrier of some of the block's warps, by number (0 is __syncthreads).
__device__ __forceinline__ void named_barrier_sync(int id, int threads) {
  asm volatile("bar.sync %0, %1;" ::"r"(id), "r"(threads) : "memory");
}
__device__ __forceinline__ void named_barrier_arrive(int id, int threads) {
  asm volatile("bar.arrive %0, %1;" ::"r"(id), "r"(threads) : "memory");
}

}  // namespace kvprof
