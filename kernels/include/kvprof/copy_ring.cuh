// A warp's ring of slots in shared memory, filled ahead of use by asynchronous copies from device memory.
//
// Two mechanisms behind one interface. From sm_90 on, one lane asks the bulk copy engine for a whole piece and an mbarrier
// of the slot counts its bytes; before, every lane issues 16-byte cp.async and waits for its own. Both leave the lanes
// free while bytes arrive; the first costs one instruction a piece.
//
// All lanes of one warp together: fill a slot (begin, copies, end), fill the next ones, wait for the oldest, read it,
// release it.
#pragma once

#include "kvprof/ptx.cuh"

#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900 && !defined(KVPROF_NO_BULK_COPY)
#define KVPROF_BULK_COPY 1
#else
#define KVPROF_BULK_COPY 0
#endif

namespace kvprof {

template <int kStagesOfRing, int kBytesOfSlot>
struct CopyRing {
  static constexpr int kStages = kStagesOfRing, kSlotBytes = kBytesOfSlot;
  static constexpr bool kBulk = KVPROF_BULK_COPY;
  static_assert(kSlotBytes % 16 == 0, "copies are of whole 16 bytes");
  /// Shared memory of a ring: the slots, then an mbarrier for each.
  static constexpr int kBytes = kStages * kSlotBytes + (8 * kStages + 15) / 16 * 16;

  uint32_t start;       ///< shared address of the first slot, a multiple of 16
  int slot = 0;         ///< the slot that is read next
  uint32_t parity = 0;  ///< of the phase of its mbarrier

  __device__ __forceinline__ explicit CopyRing(uint8_t* shared) : start(shared_address(shared)) {
#if KVPROF_BULK_COPY
    if (threadIdx.x % 32 == 0) {
#pragma unroll
      for (int s = 0; s < kStages; ++s) asm volatile("mbarrier.init.shared.b64 [%0], 1;" ::"r"(barrier(s)) : "memory");
      asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
    }
    __syncwarp();
#endif
  }

  __device__ __forceinline__ uint32_t at(int s) const { return start + s * kSlotBytes; }
  __device__ __forceinline__ uint32_t barrier(int s) const { return start + kStages * kSlotBytes + 8 * s; }
  /// The slot that was released last.
  __device__ __forceinline__ int freed() const { return slot == 0 ? kStages - 1 : slot - 1; }

  /// Announces that copies of `bytes` in all to slot `s` follow.
  __device__ __forceinline__ void begin(int s, int bytes) const {
#if KVPROF_BULK_COPY
    if (threadIdx.x % 32 == 0)
      asm volatile("mbarrier.arrive.expect_tx.shared.b64 _, [%0], %1;" ::"r"(barrier(s)), "r"(bytes) : "memory");
    __syncwarp();
#endif
  }

  /// One lane's copy of a whole piece; sm_90 and newer.
  __device__ __forceinline__ void copy_bulk(int s, uint32_t to, const void* from, int bytes) const {
#if KVPROF_BULK_COPY
    asm volatile("cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1], %2, [%3];" ::"r"(to),
                 "l"(from), "r"(bytes), "r"(barrier(s))
                 : "memory");
#endif
  }

  /// The warp's copy of kPiece contiguous bytes to `offset` in slot `s`.
  template <int kPiece>
  __device__ __forceinline__ void copy(int s, int offset, const uint8_t* from) const {
    static_assert(kPiece % 16 == 0, "copies are of whole 16 bytes");
    const int lane = threadIdx.x % 32;
    const uint32_t to = at(s) + offset;
    if constexpr (kBulk) {
      if (lane == 0) copy_bulk(s, to, from, kPiece);
    } else {
#pragma unroll
      for (int i = 0; i < kPiece; i += 512)
        if (kPiece - i >= 512 || lane * 16 < kPiece - i) copy16_async(to + i + lane * 16, from + i + lane * 16);
    }
  }

  /// Ends the copies to a slot; also for a slot to which nothing was left to copy.
  __device__ __forceinline__ void end() const {
    if constexpr (!kBulk) commit_copies();
  }

  /// Waits for the bytes of the current slot; the kStages - 1 slots after it have been begun.
  __device__ __forceinline__ void wait() const {
#if KVPROF_BULK_COPY
    uint32_t done = 0;
    while (!done)
      asm volatile("{ .reg .pred p; mbarrier.try_wait.parity.shared.b64 p, [%1], %2; selp.u32 %0, 1, 0, p; }"
                   : "=r"(done)
                   : "r"(barrier(slot)), "r"(parity)
                   : "memory");
#else
    wait_copies<kStages - 1>();
#endif
    __syncwarp();
  }

  /// Frees the current slot, once all lanes have read it, and moves to the next.
  __device__ __forceinline__ void release() {
    __syncwarp();
    if (++slot == kStages) {
      slot = 0;
      parity ^= 1;
    }
  }

  /// Waits for whatever is under way. (Bulk copies are all waited for by those who asked for them.)
  __device__ __forceinline__ void drain() const {
    if constexpr (!kBulk) wait_copies<0>();
  }
};

}  // namespace kvprof
