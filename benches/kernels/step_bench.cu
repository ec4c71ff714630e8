// Times the linear layers of a decode step and a whole step without attention, against the card's own ceilings.
//
//     nvcc -O3 -std=c++20 -arch=sm_90 -I kernels/include -I kernels/tests benches/kernels/step_bench.cu -o step_bench
//     ./step_bench          entry points: every 7B shape and batch, then a step of Mistral-7B's shape
//     ./step_bench sweep    also other block shapes
//
// Weights are random and rotated so that no launch finds its own in the L2.
#include <cstring>
#include <string>

#include "../../kernels/decode_dense.cu"
#include "../../kernels/decode_int4_c64_c64.cu"
#include "../../kernels/step.cu"
#include "harness.cuh"

using namespace kvprof;
using harness::Buffer;

namespace {

struct Layer {
  const char* name;
  int n, k;
};
const Layer kMistral[] = {{"qkv", 6144, 4096}, {"o", 4096, 4096}, {"gate_up", 28672, 4096}, {"down", 4096, 14336}, {"lm_head", 32000, 4096}};
const Layer kQwen[] = {{"qkv", 4608, 3584}, {"o", 3584, 3584}, {"gate_up", 37888, 3584}, {"down", 3584, 18944}, {"lm_head", 152064, 3584}};

template <typename Shape>
__global__ void __launch_bounds__(Shape::kThreads, 1) bench_add(const __grid_constant__ LinearAddParams p) {
  linear_add<__half, Shape>(p);
}
template <typename Shape>
__global__ void __launch_bounds__(Shape::kThreads, 1) bench_gate_up(const __grid_constant__ GateUpParams p) {
  gate_up<__half, Shape>(p);
}
template <typename Shape>
__global__ void __launch_bounds__(Shape::kThreads, 1) bench_qkv(const __grid_constant__ QkvParams p) {
  qkv<__half, Shape>(p);
}
template <typename Shape>
__global__ void __launch_bounds__(Shape::kThreads, 1) bench_logits(const __grid_constant__ LogitsParams p) {
  logits<__half, Shape>(p);
}

/// Microseconds of one product, over enough copies of W to pass the L2 several times.
template <typename Shape>
float product_us(const Layer& layer, int batch, bool overlap, const __half* pool, size_t pool_size, const __half* x, __half* stream) {
  const size_t weight = size_t(layer.n) * layer.k;
  const int copies = int(std::min<size_t>(pool_size / weight, 24));
  const auto kernel = bench_add<Shape>;
  harness::allow_shared(kernel, Shape::kSharedBytes);
  const int tiles = (layer.n + Shape::kRows - 1) / Shape::kRows;
  const float ms = harness::graph_ms([&](cudaStream_t s) {
    for (int i = 0; i < copies; ++i)
      harness::launch(s, kernel, std::min(tiles, harness::multiprocessors()), Shape::kThreads, Shape::kSharedBytes,
                      LinearAddParams{{pool + i * weight, x, layer.n, layer.k, batch, tiles}, stream}, overlap);
  });
  return ms * 1e3f / copies;
}

const __half* pool;
size_t pool_size;
__half *x, *stream_buffer;

/// One line: the product without and with overlap of consecutive launches.
template <typename Shape>
void row(const Layer& layer, float read_gbps) {
  const double bytes = 2.0 * layer.n * layer.k;
  const float plain = product_us<Shape>(layer, Shape::kBatch, false, pool, pool_size, x, stream_buffer);
  const float overlapped = product_us<Shape>(layer, Shape::kBatch, true, pool, pool_size, x, stream_buffer);
  std::printf("%-8s %2dx%-2d w%-2d s%d  %7.2f us %5.0f GB/s %5.1f %%   overlapped %7.2f us %5.0f GB/s %5.1f %%\n", layer.name, Shape::kRows, Shape::kBatch, Shape::kWarps,
              Shape::kStages, plain, bytes / plain / 1e3, bytes / plain / 10 / read_gbps, overlapped, bytes / overlapped / 1e3,
              bytes / overlapped / 10 / read_gbps);
}

/// The caches of 32 layers, 8 KV heads of 128 channels, in full precision or INT4 (per-channel, groups of 64, a window of
/// 128), and what attention needs besides.
struct Attention {
  static constexpr int kLayers = 32, kKvHeads = 8, kDim = 128;
  static constexpr TileLayout kTile = k128int4_c64_c64;
  using Dense = DecodeAttention<__half, k128dense, 4>;
  using Packed = DecodeAttention<__half, kTile, 4>;
  int batch, context, splits, slots, tile_capacity;
  bool packed;
  void (*kernel)(DecodeParams);
  int threads, shared;
  Buffer<__half> window;
  Buffer<uint8_t> tiles;
  Buffer<__half> out{size_t(16) * 4096};
  Buffer<float> partial_out;
  Buffer<float2> partial_sums;
  Buffer<uint32_t> arrivals{16 * kKvHeads};

  Attention(int batch, int context, bool packed) : batch(batch), context(context), packed(packed) {
    kernel = packed ? decode_int4_c64_c64_f16_d128_r4 : decode_dense_f16_d128_r4;
    threads = packed ? Packed::kThreads : Dense::kThreads;
    shared = packed ? Packed::kSharedBytes : Dense::kSharedBytes;
    harness::allow_shared(kernel, shared);
    splits = std::max(1, harness::multiprocessors() / (batch * kKvHeads));
    slots = packed ? 192 : context + 64;
    tile_capacity = packed ? context / 64 : 1;
    partial_out = Buffer<float>(size_t(batch) * 32 * splits * kDim);
    partial_sums = Buffer<float2>(size_t(batch) * 32 * splits);
    window = harness::random<__half>(size_t(kLayers) * layer_window(), 21, 1.f);
    tiles = Buffer<uint8_t>(packed ? size_t(kLayers) * layer_tiles() : 16);
    // Codes and parameters as random small floats: finite whatever they are taken for.
    harness::fill_random<<<1024, 256>>>(reinterpret_cast<__half*>(tiles.data), tiles.size / 2, 22, 1.f);
    arrivals.zero();
  }
  size_t layer_window() const { return size_t(2) * batch * kKvHeads * slots * kDim; }
  size_t layer_tiles() const { return size_t(batch) * kKvHeads * tile_capacity * kTile.bytes(); }
  CacheLength length() const { return packed ? CacheLength{context - 128, context} : CacheLength{0, context}; }
  /// Bytes that one step reads.
  double bytes() const {
    const double heads = double(kLayers) * batch * kKvHeads;
    return packed ? heads * ((context - 128) / 64 * double(kTile.bytes()) + 128 * 4 * kDim) : heads * context * 4 * kDim;
  }
  void enqueue(cudaStream_t s, int layer, const __half* query, const CacheLength* length, bool overlap) const {
    DecodeParams p{};
    p.query = query;
    p.out = out.data;
    p.tiles = tiles.data + (packed ? layer * layer_tiles() : 0);
    p.window = window.data + layer * layer_window();
    p.length = length;
    p.partial_out = partial_out.data;
    p.partial_sums = partial_sums.data;
    p.arrivals = arrivals.data;
    p.query_batch_stride = p.out_batch_stride = 32 * kDim;
    p.query_head_stride = p.out_head_stride = kDim;
    p.query_token_stride = p.out_token_stride = kDim;
    p.kv_heads = kKvHeads;
    p.heads_per_kv = 4;
    p.tokens = 1;
    p.tile_capacity = tile_capacity;
    p.window_capacity = slots;
    p.softmax_scale = 0.088388f;
    harness::launch(s, kernel, dim3(splits, kKvHeads, batch), threads, shared, p, overlap);
  }
};

/// A decode step at Mistral-7B's shape, with or without attention.
template <typename Shape>
struct Step {
  static constexpr int kLayers = 32, kHidden = 4096, kInner = 14336, kHeads = 32, kKvHeads = 8, kDim = 128, kVocabulary = 32000, kPositions = 33000;
  int batch;
  const __half* weights;
  Buffer<__half> table = harness::random<__half>(size_t(kVocabulary) * kHidden, 9, 0.1f), gain = harness::random<__half>(kHidden, 3, 1.f);
  Buffer<__half> x{size_t(16) * kHidden}, h{size_t(16) * kHidden}, inner{size_t(16) * kInner}, q{size_t(16) * kHidden}, window{size_t(2) * 16 * kKvHeads * 64 * kDim};
  Buffer<float> cosine = harness::random<float>(kPositions * 64, 4, 1.f), sine = harness::random<float>(kPositions * 64, 4, 1.f), scores{size_t(16) * kVocabulary};
  Buffer<CacheLength> length{1};
  Buffer<unsigned long long> best{16}, flag{1};
  Buffer<int32_t> tokens{16}, history{16 * 64};

  static constexpr size_t kLayerWeights = size_t(kHidden) * (6144 + 4096 + 3 * kInner);
  static double bytes() { return 2.0 * (double(kLayers) * kLayerWeights + double(kVocabulary) * kHidden); }

  template <typename Params>
  void linear(cudaStream_t s, void (*kernel)(Params), const Params& p, bool overlap) {
    harness::launch(s, kernel, std::min(p.in.tiles, harness::multiprocessors()), Shape::kThreads, Shape::kSharedBytes, p, overlap);
  }
  GemvInput input(const __half* w, const __half* in, int n, int k) const { return {w, in, n, k, batch, (n + Shape::kRows - 1) / Shape::kRows}; }
  void norm(cudaStream_t s, const int32_t* ids, bool overlap) {
    harness::launch(s, kvprof_rms_norm_f16, batch, kNormThreads, 0, RmsNormParams{ids ? table.data : x.data, gain.data, h.data, ids, x.data, kHidden, 1e-5f}, overlap);
  }
  void enqueue(cudaStream_t s, bool overlap, const Attention* attention) {
    const int slots = attention ? attention->slots : 64;
    for (int l = 0; l < kLayers; ++l) {
      const __half* w_qkv = weights + l * kLayerWeights;
      const __half* w_o = w_qkv + size_t(6144) * kHidden;
      const __half* w_gate = w_o + size_t(kHidden) * kHidden;
      const __half* w_down = w_gate + size_t(2) * kInner * kHidden;
      norm(s, l == 0 ? tokens.data : nullptr, overlap);
      linear(s, bench_qkv<Shape>, QkvParams{input(w_qkv, h.data, 6144, kHidden), nullptr, cosine.data, sine.data, q.data, attention ? attention->window.data + l * attention->layer_window() : window.data, length.data, flag.data, kHeads, kKvHeads, kDim, slots, l, 0}, overlap);
      if (attention) attention->enqueue(s, l, q.data, length.data, overlap);
      linear(s, bench_add<Shape>, LinearAddParams{input(w_o, attention ? attention->out.data : q.data, kHidden, kHidden), x.data}, overlap);
      norm(s, nullptr, overlap);
      linear(s, bench_gate_up<Shape>, GateUpParams{input(w_gate, h.data, 2 * kInner, kHidden), inner.data}, overlap);
      linear(s, bench_add<Shape>, LinearAddParams{input(w_down, inner.data, kHidden, kInner), x.data}, overlap);
    }
    norm(s, nullptr, overlap);
    linear(s, bench_logits<Shape>, LogitsParams{input(weights + kLayers * kLayerWeights, h.data, kVocabulary, kHidden), scores.data, best.data}, overlap);
    harness::launch(s, kvprof_next_token, 1, 32, 0, NextTokenParams{best.data, tokens.data, history.data, length.data, batch, 64, 1, 0}, overlap);
  }
  void time(const char* what, const harness::Ceilings& ceilings, const Attention* attention, bool overlap) {
    harness::allow_shared(bench_qkv<Shape>, Shape::kSharedBytes);
    harness::allow_shared(bench_add<Shape>, Shape::kSharedBytes);
    harness::allow_shared(bench_gate_up<Shape>, Shape::kSharedBytes);
    harness::allow_shared(bench_logits<Shape>, Shape::kSharedBytes);
    harness::allow_shared(kvprof_rms_norm_f16, 0);
    best.zero();
    flag.zero();
    tokens.zero();
    length.set({attention ? attention->length() : CacheLength{0, 1}});
    const float ms = harness::graph_ms([&](cudaStream_t s) { enqueue(s, overlap, attention); }, 20);
    const double moved = bytes() + (attention ? attention->bytes() : 0);
    std::printf("step B %2d %-5s S %5d  %2dx%-2d w%d s%d  %-11s %7.3f ms  %5.0f GB/s  %5.1f %% of read, %5.1f %% of copy; over the copy's floor %.3f\n", batch,
                !attention ? "none" : attention->packed ? "int4" : "fp16", attention ? attention->context : 0, Shape::kRows, Shape::kBatch, Shape::kWarps, Shape::kStages, what, ms,
                moved / ms / 1e6, moved / ms / 1e4 / ceilings.read_gbps, moved / ms / 1e4 / ceilings.copy_gbps, ms / (moved / ceilings.copy_gbps / 1e6));
  }
  void run(const harness::Ceilings& ceilings, bool all = true) {
    time("overlapped", ceilings, nullptr, true);
    if (!all) return;
    time("in turn", ceilings, nullptr, false);
    for (bool packed : {false, true})
      for (int context : {4096, 32768}) {
        // All of a full-precision cache must fit the card beside the weights.
        if (!packed && double(batch) * context > 16 * 32768) continue;
        const Attention attention(batch, context, packed);
        time("in turn", ceilings, &attention, false);
        time("overlapped", ceilings, &attention, true);
      }
  }
};

}  // namespace

int main(int argc, char** argv) {
  const bool sweep = argc > 1 && !std::strcmp(argv[1], "sweep");
  const auto ceilings = harness::ceilings();
  std::printf("copy %.0f GB/s (read + written), pure read %.0f GB/s; percentages below are of the pure read\n", ceilings.copy_gbps, ceilings.read_gbps);
  const float read = ceilings.read_gbps;
  using Any = Step<Gemv1>;
  pool_size = Any::kLayers * Any::kLayerWeights + size_t(Any::kVocabulary) * Any::kHidden;
  const Buffer<__half> weights = harness::random<__half>(pool_size, 1, 0.02f);
  const Buffer<__half> xs = harness::random<__half>(16 * 18944, 2, 1.f);
  Buffer<__half> out = harness::random<__half>(size_t(16) * 152064, 2, 1.f);
  pool = weights.data;
  x = xs.data;
  stream_buffer = out.data;

  for (const auto& layers : {kMistral, kQwen})
    for (int i = 0; i < 5; ++i) {
      row<Gemv1>(layers[i], read);
      row<Gemv2>(layers[i], read);
      row<Gemv4>(layers[i], read);
      row<Gemv8>(layers[i], read);
      row<Gemv16>(layers[i], read);
    }
  Step<Gemv1>{1, pool}.run(ceilings);
  Step<Gemv4>{4, pool}.run(ceilings);
  Step<Gemv8>{8, pool}.run(ceilings, false);
  Step<Gemv16>{16, pool}.run(ceilings);

  if (sweep) {
    Step<GemvShape<16, 1, 16, 4>>{1, pool}.run(ceilings, false);
    Step<GemvShape<16, 1, 12, 8>>{1, pool}.run(ceilings, false);
    Step<GemvShape<32, 1, 16, 3>>{1, pool}.run(ceilings, false);
    Step<GemvShape<32, 4, 16, 2>>{4, pool}.run(ceilings, false);
    Step<GemvShape<16, 8, 16, 4>>{8, pool}.run(ceilings, false);
    Step<GemvShape<32, 16, 8, 3>>{16, pool}.run(ceilings, false);
    Step<GemvShape<32, 16, 6, 5>>{16, pool}.run(ceilings, false);
  }
  return 0;
}
