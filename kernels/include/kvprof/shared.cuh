// How much shared memory kernels are sized for.
//
// Each file is compiled twice (build.rs): to machine code for Hopper (9.0), and to PTX that every device since Ampere (8.0) runs, of which
// consumer cards have the least: 99 KiB a block, one such block a multiprocessor. The host asks the driver which of the two it has loaded
// (`Code` in src/device/kernels.rs, which mirrors the numbers).
#pragma once

namespace kvprof {

/// Shared memory of a multiprocessor, for blocks and the 1 KiB that each takes besides. (What is compiled for the host, a test that
/// launches kernels, is for Hopper.)
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ < 900
constexpr int kSharedOfMultiprocessor = 99 * 1024;
#else
constexpr int kSharedOfMultiprocessor = 227 * 1024;
#endif

}  // namespace kvprof
