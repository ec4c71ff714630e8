// A warp's ring of slots in shared memory, filled ahead of use by cp.async.
//
// All lanes of a warp together: fill all slots but one (copies, then `end`); then for each slot in turn wait for it, read
// it, fill the previous one, advance. The previous slot can still be read until it is filled. A lane waits for its own
// copies, then for the other lanes.
#pragma once

#include "kvprof/ptx.cuh"

namespace kvprof {

template <int kStagesOfRing, int kBytesOfSlot>
struct CopyRing {
  static constexpr int kStages = kStagesOfRing, kSlotBytes = kBytesOfSlot;
  static constexpr int kBytes = kStages * kSlotBytes;
  static_assert(kSlotBytes % 16 == 0, "copies are of whole 16 bytes");

  uint8_t* start;  ///< the first slot
  int slot = 0;    ///< the slot that is read next

  __device__ __forceinline__ explicit CopyRing(uint8_t* shared) : start(shared) {}

  __device__ __forceinline__ const uint8_t* current() const { return start + slot * kSlotBytes; }
  /// The slot before the current one, which is the last to be read again.
  __device__ __forceinline__ int previous() const { return slot == 0 ? kStages - 1 : slot - 1; }
  __device__ __forceinline__ uint32_t at(int s) const { return shared_address(start) + s * kSlotBytes; }

  /// Starts copying kPiece contiguous bytes to slot `s`.
  template <int kPiece>
  __device__ __forceinline__ void copy(int s, const uint8_t* from) const {
    static_assert(kPiece % 16 == 0 && kPiece <= kSlotBytes, "copies are of whole 16 bytes");
    const int mine = threadIdx.x % 32 * 16;
    copy_from<kPiece, 0>(at(s) + mine, from + mine, mine);
  }

  /// Ends the copies to a slot; also for a slot to which nothing was left to copy.
  __device__ __forceinline__ void end() const { commit_copies(); }

  /// Waits for the bytes of the current slot, of the kStages - 2 slots after it having been ended.
  __device__ __forceinline__ void wait() const {
    wait_copies<kStages - 2>();
    __syncwarp();
  }

  /// Moves to the next slot.
  __device__ __forceinline__ void advance() { slot = slot == kStages - 1 ? 0 : slot + 1; }

  /// Waits for whatever is under way.
  __device__ __forceinline__ void drain() const { wait_copies<0>(); }

 private:
  template <int kPiece, int kOffset>
  static __device__ __forceinline__ void copy_from(uint32_t to, const uint8_t* from, int mine) {
    if (kPiece - kOffset >= 512 || mine < kPiece - kOffset) copy16_async_at<kOffset>(to, from);
    if constexpr (kOffset + 512 < kPiece) copy_from<kPiece, kOffset + 512>(to, from, mine);
  }
};

}  // namespace kvprof
