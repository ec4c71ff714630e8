// What the stand-alone kernel tests and benchmarks share: checked calls, buffers, random numbers, launches, timing.
#pragma once

#include <cuda_runtime.h>

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <vector>

#define CHECK(call)                                                                                     \
  do {                                                                                                  \
    const cudaError_t status = (call);                                                                  \
    if (status != cudaSuccess) {                                                                        \
      std::fprintf(stderr, "%s:%d: %s: %s\n", __FILE__, __LINE__, #call, cudaGetErrorString(status));   \
      std::exit(1);                                                                                     \
    }                                                                                                   \
  } while (0)

namespace harness {

/// A device array that frees itself.
template <typename T>
struct Buffer {
  T* data = nullptr;
  size_t size = 0;
  Buffer() = default;
  explicit Buffer(size_t n) : size(n) { CHECK(cudaMalloc(&data, std::max<size_t>(n, 1) * sizeof(T))); }
  Buffer(Buffer&& other) noexcept : data(other.data), size(other.size) { other.data = nullptr; }
  Buffer& operator=(Buffer&& other) noexcept {
    std::swap(data, other.data);
    std::swap(size, other.size);
    return *this;
  }
  ~Buffer() { cudaFree(data); }
  std::vector<T> host() const {
    std::vector<T> out(size);
    CHECK(cudaMemcpy(out.data(), data, size * sizeof(T), cudaMemcpyDeviceToHost));
    return out;
  }
  void set(const std::vector<T>& from) { CHECK(cudaMemcpy(data, from.data(), from.size() * sizeof(T), cudaMemcpyHostToDevice)); }
  /// Every byte 0xff: not a number in every float format.
  void poison() { CHECK(cudaMemset(data, 0xff, size * sizeof(T))); }
  void zero() { CHECK(cudaMemset(data, 0, size * sizeof(T))); }
};

/// Uniform in [-scale, scale), a function of (seed, index) only.
template <typename T>
__global__ void fill_random(T* out, size_t n, uint64_t seed, float scale) {
  for (size_t i = blockIdx.x * size_t(blockDim.x) + threadIdx.x; i < n; i += size_t(gridDim.x) * blockDim.x) {
    uint64_t z = (i + seed * 0x9e3779b97f4a7c15ull) + 0x9e3779b97f4a7c15ull;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
    z ^= z >> 31;
    out[i] = static_cast<T>((float(z >> 40) * (2.f / 16777216.f) - 1.f) * scale);
  }
}

template <typename T>
Buffer<T> random(size_t n, uint64_t seed, float scale) {
  Buffer<T> out(n);
  fill_random<<<1024, 256>>>(out.data, n, seed, scale);
  CHECK(cudaGetLastError());
  return out;
}

/// Launches with or without leave to start before the previous kernel has ended.
template <typename Params>
void launch(cudaStream_t stream, void (*kernel)(Params), dim3 grid, int threads, int shared, const Params& params, bool overlap) {
  cudaLaunchConfig_t config{};
  config.gridDim = grid;
  config.blockDim = threads;
  config.dynamicSmemBytes = shared;
  config.stream = stream;
  cudaLaunchAttribute attribute{};
  attribute.id = cudaLaunchAttributeProgrammaticStreamSerialization;
  attribute.val.programmaticStreamSerializationAllowed = 1;
  config.attrs = &attribute;
  config.numAttrs = overlap ? 1 : 0;
  CHECK(cudaLaunchKernelEx(&config, kernel, params));
}

/// Lets a kernel have `shared` bytes and asks for as much of the multiprocessor's memory as can be shared memory, so that
/// blocks of two kernels fit side by side.
template <typename Kernel>
void allow_shared(Kernel kernel, int shared) {
  CHECK(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, shared));
  CHECK(cudaFuncSetAttribute(kernel, cudaFuncAttributePreferredSharedMemoryCarveout, 100));
}

/// Median milliseconds of `repeats` replays of what `enqueue(stream)` launches, captured as a graph.
template <typename Enqueue>
float graph_ms(Enqueue&& enqueue, int repeats = 20) {
  cudaStream_t stream;
  CHECK(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking));
  CHECK(cudaStreamBeginCapture(stream, cudaStreamCaptureModeRelaxed));
  enqueue(stream);
  cudaGraph_t graph;
  CHECK(cudaStreamEndCapture(stream, &graph));
  cudaGraphExec_t replay;
  CHECK(cudaGraphInstantiate(&replay, graph, 0));
  CHECK(cudaGraphUpload(replay, stream));
  std::vector<cudaEvent_t> marks(repeats + 1);
  for (auto& mark : marks) CHECK(cudaEventCreate(&mark));
  for (int i = 0; i < 3; ++i) CHECK(cudaGraphLaunch(replay, stream));
  CHECK(cudaEventRecord(marks[0], stream));
  for (int i = 0; i < repeats; ++i) {
    CHECK(cudaGraphLaunch(replay, stream));
    CHECK(cudaEventRecord(marks[i + 1], stream));
  }
  CHECK(cudaStreamSynchronize(stream));
  std::vector<float> ms(repeats);
  for (int i = 0; i < repeats; ++i) CHECK(cudaEventElapsedTime(&ms[i], marks[i], marks[i + 1]));
  std::sort(ms.begin(), ms.end());
  for (auto& mark : marks) CHECK(cudaEventDestroy(mark));
  CHECK(cudaGraphExecDestroy(replay));
  CHECK(cudaGraphDestroy(graph));
  CHECK(cudaStreamDestroy(stream));
  return ms[repeats / 2];
}

inline int multiprocessors() {
  int count;
  CHECK(cudaDeviceGetAttribute(&count, cudaDevAttrMultiProcessorCount, 0));
  return count;
}

/// Sums what it reads so that nothing is left out; 16-byte loads.
__global__ void read_all(const uint4* from, size_t n, uint32_t* sink) {
  uint32_t sum = 0;
  const size_t step = size_t(gridDim.x) * blockDim.x;
  size_t i = blockIdx.x * size_t(blockDim.x) + threadIdx.x;
  for (; i + 7 * step < n; i += 8 * step) {
    uint4 v[8];
#pragma unroll
    for (int j = 0; j < 8; ++j) v[j] = __ldcs(from + i + j * step);
#pragma unroll
    for (int j = 0; j < 8; ++j) sum += v[j].x ^ v[j].y ^ v[j].z ^ v[j].w;
  }
  for (; i < n; i += step) sum += from[i].x;
  if (sum == 0x12345678) *sink = sum;
}

struct Ceilings {
  float copy_gbps;  ///< bytes read plus bytes written
  float read_gbps;
};

/// Device-to-device copy and pure read of 4 GiB.
inline Ceilings ceilings() {
  const size_t bytes = size_t(4) << 30;
  Buffer<uint4> a(bytes / 16), b(bytes / 16);
  Buffer<uint32_t> sink(1);
  fill_random<<<1024, 256>>>(reinterpret_cast<float*>(a.data), bytes / 4, 7, 1.f);
  // Not as a graph: there the copy is left to the copy engines, which are slower.
  std::vector<float> copies(10);
  cudaEvent_t start, end;
  CHECK(cudaEventCreate(&start));
  CHECK(cudaEventCreate(&end));
  for (float& ms : copies) {
    CHECK(cudaEventRecord(start));
    CHECK(cudaMemcpyAsync(b.data, a.data, bytes, cudaMemcpyDeviceToDevice));
    CHECK(cudaEventRecord(end));
    CHECK(cudaEventSynchronize(end));
    CHECK(cudaEventElapsedTime(&ms, start, end));
  }
  CHECK(cudaEventDestroy(start));
  CHECK(cudaEventDestroy(end));
  std::sort(copies.begin(), copies.end());
  const float copy = copies[5];
  const float read = graph_ms([&](cudaStream_t s) { read_all<<<132 * 8, 512, 0, s>>>(a.data, bytes / 16, sink.data); }, 10);
  return {2 * bytes / copy / 1e6f, bytes / read / 1e6f};
}

}  // namespace harness
