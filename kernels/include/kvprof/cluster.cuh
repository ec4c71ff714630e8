// Thread block clusters (sm_90 and newer): blocks that run side by side and read each other's shared memory. Before sm_90
// a cluster is one block, and so it is in a launch that asks for none.
#pragma once

#include "kvprof/ptx.cuh"

namespace kvprof {

#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
__device__ __forceinline__ int cluster_size() {
  uint32_t n;
  asm("mov.u32 %0, %%cluster_nctarank;" : "=r"(n));
  return n;
}
__device__ __forceinline__ int cluster_rank() {
  uint32_t rank;
  asm("mov.u32 %0, %%cluster_ctarank;" : "=r"(rank));
  return rank;
}
/// A barrier of all threads of the cluster that orders their accesses to shared memory.
__device__ __forceinline__ void cluster_barrier() {
  asm volatile("barrier.cluster.arrive.release.aligned;\nbarrier.cluster.wait.acquire.aligned;" ::: "memory");
}
__device__ __forceinline__ uint32_t remote_address(uint32_t shared, int rank) {
  uint32_t remote;
  asm("mapa.shared::cluster.u32 %0, %1, %2;" : "=r"(remote) : "r"(shared), "r"(rank));
  return remote;
}
/// 16 and 8 bytes of the shared memory of block `rank`, at what is `shared` in this block.
__device__ __forceinline__ float4 load_remote4(uint32_t shared, int rank) {
  float4 x;
  asm volatile("ld.shared::cluster.v4.f32 {%0,%1,%2,%3}, [%4];"
               : "=f"(x.x), "=f"(x.y), "=f"(x.z), "=f"(x.w)
               : "r"(remote_address(shared, rank))
               : "memory");
  return x;
}
__device__ __forceinline__ float2 load_remote2(uint32_t shared, int rank) {
  float2 x;
  asm volatile("ld.shared::cluster.v2.f32 {%0,%1}, [%2];"
               : "=f"(x.x), "=f"(x.y)
               : "r"(remote_address(shared, rank))
               : "memory");
  return x;
}
#else
__device__ __forceinline__ int cluster_size() { return 1; }
__device__ __forceinline__ int cluster_rank() { return 0; }
__device__ __forceinline__ void cluster_barrier() {}
__device__ __forceinline__ float4 load_remote4(uint32_t, int) { return {}; }
__device__ __forceinline__ float2 load_remote2(uint32_t, int) { return {}; }
#endif

}  // namespace kvprof
