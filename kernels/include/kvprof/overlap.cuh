// Letting a kernel start while the one before it on the stream still runs (programmatic dependent launch, sm_90).
//
// A kernel launched with the attribute "programmatic stream serialization" may begin once every block of its
// predecessor has called `allow_next_kernel` or ended. What it does before `wait_for_previous_kernel` must not read
// anything that a kernel may still be writing, nor write anything another reads. Here it fetches weights, which are constant, and
// attention fetches tiles that an earlier step wrote: `tiles_expected` counts no others (none with a sliding window, whose ring is
// written anew), and the kernel that quantizes is launched without the attribute, so that a step begins after all of the one before.
// The wait lasts until the predecessor has ended and its writes are visible; since every kernel here waits before
// it ends, "the predecessor has ended" holds for all kernels before it as well.
//
// Below sm_90, and for a launch without the attribute, both do nothing and stream order is the ordinary one.
#pragma once

namespace kvprof {

/// Blocks until everything earlier on the stream has finished and is visible. Every thread that reads earlier results,
/// and every thread that writes, calls it.
__device__ __forceinline__ void wait_for_previous_kernel() {
#if __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.wait;" ::: "memory");
#endif
}

/// Lets the next kernel's blocks come in as soon as there is room for them.
__device__ __forceinline__ void allow_next_kernel() {
#if __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.launch_dependents;" ::: "memory");
#endif
}

}  // namespace kvprof
