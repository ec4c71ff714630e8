// A warp's ring of slots in shared memory, filled ahead of use by cp.async.
//
// All lanes of a warp together: fill all slots (copies, then `end` for each); then for each slot in turn wait for it, read
// it, fill it again, advance. A lane waits for its own copies, then for the other lanes.
#pragma once

#include "kvprof/ptx.cuh"

namespace kvprof {

template <int kSlots, int kBytesOfSlot>
struct CopyRing {
  static constexpr int kSlotBytes = kBytesOfSlot;
  static constexpr int kBytes = kSlots * kSlotBytes;
  static_assert(kSlotBytes % 16 == 0, "copies are of whole 16 bytes");

  uint32_t start;  ///< of the first slot, in shared memory
  int slot = 0;    ///< the current one

  __device__ __forceinline__ explicit CopyRing(const uint8_t* shared) : start(kept(shared_address(shared))) {}

  __device__ __forceinline__ const uint8_t* current() const {
    return static_cast<const uint8_t*>(__cvta_shared_to_generic(at(slot)));
  }
  __device__ __forceinline__ uint32_t at(int s) const { return start + s * kSlotBytes; }

  /// Ends the copies to a slot; also for a slot to which nothing was left to copy.
  __device__ __forceinline__ void end() const { commit_copies(); }

  /// Waits for the bytes of the current slot, the kSlots - 1 slots after it having been ended.
  __device__ __forceinline__ void wait() const {
    wait_copies<kSlots - 1>();
    __syncwarp();
  }

  __device__ __forceinline__ void advance() { slot = slot == kSlots - 1 ? 0 : slot + 1; }

  /// Waits for whatever is under way.
  __device__ __forceinline__ void drain() const {
    wait_copies<0>();
    __syncwarp();
  }
};

/// A warp's copy of kBytes contiguous bytes to shared memory, from byte kOffset on. `from` is where this lane's first 16 bytes are.
template <int kBytes, int kOffset = 0>
__device__ __forceinline__ void copy_to_warp(uint32_t to, const uint8_t* from) {
  static_assert(kBytes % 16 == 0, "copies are of whole 16 bytes");
  const int mine = threadIdx.x % 32 * 16;
  if (kBytes - kOffset >= 512 || mine < kBytes - kOffset) stream16_async_between<kOffset, kOffset>(to + mine, from);
  if constexpr (kOffset + 512 < kBytes) copy_to_warp<kBytes, kOffset + 512>(to, from);
}

}  // namespace kvprof
