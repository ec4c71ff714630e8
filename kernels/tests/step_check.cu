// Checks every entry point of kernels/step.cu against float64 on the GPU: ragged and real shapes, every batch size, both
// floats, outputs poisoned first, with and without overlap. Prints the worst relative error; exit code 1 above the bound.
// `./step_check small` leaves out the large shapes, for compute-sanitizer.
//
//     nvcc -O2 -std=c++17 -arch=sm_90 -I kernels/include -I kernels/tests kernels/tests/step_check.cu -o step_check && ./step_check
#include <cmath>

#include "../step.cu"
#include "harness.cuh"

using namespace kvprof;
using harness::Buffer;

namespace {

/// Σ_k W[n, k] · x[b, k] in float64.
template <typename Float>
__global__ void reference_product(const Float* w, const Float* x, double* y, int n, int k, int batch) {
  const int64_t i = blockIdx.x * int64_t(blockDim.x) + threadIdx.x;
  if (i >= int64_t(n) * batch) return;
  const int row = i % n, b = i / n;
  double sum = 0;
  for (int j = 0; j < k; ++j) sum += double(float(w[int64_t(row) * k + j])) * double(float(x[int64_t(b) * k + j]));
  y[i] = sum;
}

/// ‖out - ref‖ / ‖ref‖; infinite if anything is not finite.
struct Distance {
  double difference = 0, norm = 0;
  void add(double out, double ref) {
    difference += std::isfinite(out) ? (out - ref) * (out - ref) : INFINITY;
    norm += ref * ref;
  }
  double value() const { return std::sqrt(difference / norm); }
};

double worst = 0;
int failures = 0;
bool small_only = false;

void report(const char* what, const char* type, int n, int k, int batch, double error, double bound) {
  worst = std::max(worst, error / bound);
  if (!(error <= bound)) {
    ++failures;
    std::printf("FAIL %s %s N %d K %d B %d: relative error %.3g, bound %.3g\n", what, type, n, k, batch, error, bound);
  }
}

template <typename Float>
struct Traits;
template <>
struct Traits<__half> {
  static constexpr const char* name = "f16";
  static constexpr double bound = 1e-3;
};
template <>
struct Traits<__nv_bfloat16> {
  static constexpr const char* name = "bf16";
  static constexpr double bound = 8e-3;
};

template <typename Float>
struct Problem {
  int n, k, batch;
  Buffer<Float> w, x;
  std::vector<double> y;  ///< [B, N]
  Problem(int n, int k, int batch, uint64_t seed)
      : n(n), k(k), batch(batch), w(harness::random<Float>(size_t(n) * k, seed, 0.05f)), x(harness::random<Float>(size_t(batch) * k, seed + 1, 1.f)) {
    Buffer<double> product(size_t(batch) * n);
    reference_product<<<unsigned((int64_t(n) * batch + 127) / 128), 128>>>(w.data, x.data, product.data, n, k, batch);
    CHECK(cudaDeviceSynchronize());
    y = product.host();
  }
  GemvInput input(int rows_of_tile) const { return {w.data, x.data, n, k, batch, (n + rows_of_tile - 1) / rows_of_tile}; }
};

template <typename Float>
double value(Float x) { return double(float(x)); }

template <typename Shape, typename Params>
void run(void (*kernel)(Params), const Params& params, bool overlap) {
  harness::allow_shared(kernel, Shape::kSharedBytes);
  harness::launch(0, kernel, std::min(params.in.tiles, harness::multiprocessors()), Shape::kThreads, Shape::kSharedBytes, params, overlap);
  CHECK(cudaGetLastError());
  CHECK(cudaDeviceSynchronize());
}

template <typename Float, typename Shape>
void check_linear_add(void (*kernel)(LinearAddParams), int n, int k, int batch, bool overlap) {
  if (small_only && int64_t(n) * k > 1000000) return;
  Problem<Float> problem(n, k, batch, 11 * n + k + batch);
  Buffer<Float> stream = harness::random<Float>(size_t(batch) * n, 5, 1.f);
  const auto before = stream.host();
  run<Shape>(kernel, {problem.input(Shape::kRows), stream.data}, overlap);
  const auto out = stream.host();
  Distance d;
  for (size_t i = 0; i < out.size(); ++i) d.add(value(out[i]), value(before[i]) + problem.y[i]);
  report("linear_add", Traits<Float>::name, n, k, batch, d.value(), Traits<Float>::bound);
}

template <typename Float, typename Shape>
void check_gate_up(void (*kernel)(GateUpParams), int n, int k, int batch, bool overlap) {
  if (small_only && int64_t(n) * k > 1000000) return;
  Problem<Float> problem(n, k, batch, 13 * n + k + batch);
  Buffer<Float> out(size_t(batch) * n / 2);
  out.poison();
  run<Shape>(kernel, {problem.input(Shape::kRows), out.data}, overlap);
  const auto got = out.host();
  Distance d;
  for (int b = 0; b < batch; ++b)
    for (int i = 0; i < n / 2; ++i) {
      const double gate = problem.y[size_t(b) * n + i], up = problem.y[size_t(b) * n + n / 2 + i];
      d.add(value(got[size_t(b) * n / 2 + i]), gate / (1 + std::exp(-gate)) * up);
    }
  report("gate_up", Traits<Float>::name, n, k, batch, d.value(), 2 * Traits<Float>::bound);
}

template <typename Float, typename Shape>
void check_qkv(void (*kernel)(QkvParams), int heads, int kv_heads, int dim, int k, int batch, bool bias, bool overlap) {
  if (small_only && k > 1000) return;
  const int n = (heads + 2 * kv_heads) * dim, slots = 24, position = 61, positions = 64;
  Problem<Float> problem(n, k, batch, 17 * n + k + batch);
  Buffer<Float> biases = harness::random<Float>(n, 3, 2.f), query(size_t(batch) * heads * dim), window(size_t(2) * batch * kv_heads * slots * dim);
  query.poison();
  window.poison();
  const int half = dim / 2;
  std::vector<float> cosine(positions * half), sine(positions * half);
  for (int p = 0; p < positions; ++p)
    for (int i = 0; i < half; ++i) {
      const double angle = p * std::pow(10000.0, -double(i) / half);
      cosine[p * half + i] = float(std::cos(angle));
      sine[p * half + i] = float(std::sin(angle));
    }
  Buffer<float> cosines(cosine.size()), sines(sine.size());
  cosines.set(cosine);
  sines.set(sine);
  Buffer<CacheLength> length(1);
  length.set({CacheLength{0, position + 1}});
  Buffer<unsigned long long> not_finite(1);
  not_finite.zero();
  run<Shape>(kernel, {problem.input(Shape::kRows), bias ? biases.data : nullptr, cosines.data, sines.data, query.data, window.data, length.data, not_finite.data, heads, kv_heads, dim, slots, 4, 0}, overlap);
  const auto q = query.host(), kv = window.host(), bs = biases.host();
  Distance d;
  size_t written = 0;
  for (int b = 0; b < batch; ++b)
    for (int head = 0; head < heads + 2 * kv_heads; ++head)
      for (int c = 0; c < dim; ++c) {
        const auto plain = [&](int channel) { return problem.y[size_t(b) * n + head * dim + channel] + (bias ? value(bs[head * dim + channel]) : 0.0); };
        double ref = plain(c);
        if (head < heads + kv_heads) {
          const double co = cosine[position * half + c % half], si = sine[position * half + c % half];
          ref = c < half ? plain(c) * co - plain(c + half) * si : plain(c) * co + plain(c - half) * si;
        }
        if (head < heads) {
          d.add(value(q[(size_t(b) * heads + head) * dim + c]), ref);
        } else {
          const int side = (head - heads) / kv_heads, kv_head = (head - heads) % kv_heads;
          d.add(value(kv[(((size_t(side) * batch + b) * kv_heads + kv_head) * slots + position % slots) * dim + c]), ref);
        }
      }
  for (const Float x : kv) written += !std::isnan(value(x));
  report("qkv", Traits<Float>::name, n, k, batch, d.value(), 2 * Traits<Float>::bound);
  if (written != size_t(2) * batch * kv_heads * dim || not_finite.host()[0] != 0) {
    ++failures;
    std::printf("FAIL qkv writes %zu values of the window, flag %llx\n", written, not_finite.host()[0]);
  }

  // A key that is not finite is reported with its layer and position.
  std::vector<Float> bad = bs;
  bad[heads * dim + 1] = static_cast<Float>(INFINITY);
  biases.set(bad);
  run<Shape>(kernel, {problem.input(Shape::kRows), biases.data, cosines.data, sines.data, query.data, window.data, length.data, not_finite.data, heads, kv_heads, dim, slots, 4, 0}, overlap);
  if (not_finite.host()[0] != (61ull << 32 | 5)) {
    ++failures;
    std::printf("FAIL qkv reports %llx for an infinite key\n", not_finite.host()[0]);
  }
}

template <typename Float, typename Shape>
void check_logits(void (*kernel)(LogitsParams), int n, int k, int batch, bool overlap) {
  if (small_only && int64_t(n) * k > 1000000) return;
  Problem<Float> problem(n, k, batch, 19 * n + k + batch);
  Buffer<float> out(size_t(batch) * n);
  Buffer<unsigned long long> best(batch);
  out.poison();
  best.zero();
  run<Shape>(kernel, {problem.input(Shape::kRows), out.data, best.data}, overlap);
  Buffer<int32_t> tokens(batch), history(80 * size_t(batch));
  Buffer<CacheLength> length(1);
  length.set({CacheLength{0, 70}});
  tokens.poison();
  history.poison();
  harness::launch(0, kvprof_next_token, 1, 32, 0, NextTokenParams{best.data, tokens.data, history.data, length.data, batch, 80, 1, 0}, overlap);
  CHECK(cudaDeviceSynchronize());
  const auto got = out.host();
  const auto chosen = tokens.host(), noted = history.host();
  Distance d;
  bool same = length.host()[0].total == 71;
  for (int b = 0; b < batch; ++b) {
    for (int i = 0; i < n; ++i) d.add(got[size_t(b) * n + i], problem.y[size_t(b) * n + i]);
    const int first_largest = int(std::max_element(got.begin() + size_t(b) * n, got.begin() + size_t(b + 1) * n) - got.begin() - size_t(b) * n);
    same = same && chosen[b] == first_largest && noted[70 * batch + b] == first_largest && best.host()[b] == 0;
  }
  report("logits", Traits<Float>::name, n, k, batch, d.value(), Traits<Float>::bound);
  if (!same) {
    ++failures;
    std::printf("FAIL next_token N %d B %d does not choose the first of the largest logits\n", n, batch);
  }
}

template <typename Float>
void check_rms_norm(void (*kernel)(RmsNormParams), int depth, int batch, bool embed, bool overlap) {
  const int table = 50;
  Buffer<Float> x = harness::random<Float>(size_t(table) * depth, 1, 3.f), gain = harness::random<Float>(depth, 2, 1.f), out(size_t(batch) * depth), stream(size_t(batch) * depth);
  Buffer<int32_t> tokens(batch);
  std::vector<int32_t> ids(batch);
  for (int b = 0; b < batch; ++b) ids[b] = (b * 7 + 3) % table;
  tokens.set(ids);
  out.poison();
  stream.poison();
  harness::launch(0, kernel, batch, kNormThreads, 0, RmsNormParams{x.data, gain.data, out.data, embed ? tokens.data : nullptr, stream.data, depth, 1e-5f}, overlap);
  CHECK(cudaDeviceSynchronize());
  const auto xs = x.host(), gains = gain.host(), got = out.host(), copy = stream.host();
  Distance d;
  bool copied = true;
  for (int b = 0; b < batch; ++b) {
    const Float* row = xs.data() + size_t(embed ? ids[b] : b) * depth;
    double sum = 0;
    for (int i = 0; i < depth; ++i) sum += value(row[i]) * value(row[i]);
    for (int i = 0; i < depth; ++i) {
      d.add(value(got[size_t(b) * depth + i]), value(row[i]) / std::sqrt(sum / depth + 1e-5) * value(gains[i]));
      copied = copied && (!embed || value(copy[size_t(b) * depth + i]) == value(row[i]));
    }
  }
  report("rms_norm", Traits<Float>::name, 0, depth, batch, d.value(), Traits<Float>::bound);
  if (!copied) {
    ++failures;
    std::printf("FAIL rms_norm does not copy the embedding\n");
  }
}

struct Size {
  int n, k;
};

#define CHECK_LINEAR(Float, name, N)                                                                                   \
  for (int batch : {N, N / 2 + 1})                                                                                     \
    for (bool overlap : {false, true}) {                                                                               \
      for (const Size s : {Size{4096, 4096}, Size{576, 1536}, Size{64, 40}, Size{1000, 14336}, Size{24, 8}})           \
        check_linear_add<Float, Gemv##N>(kvprof_linear_add_##name##_b##N, s.n, s.k, batch, overlap);                   \
      for (const Size s : {Size{28672, 4096}, Size{3072, 576}, Size{48, 104}})                                         \
        check_gate_up<Float, Gemv##N>(kvprof_gate_up_##name##_b##N, s.n, s.k, batch, overlap);                         \
      check_qkv<Float, Gemv##N>(kvprof_qkv_##name##_b##N, 32, 8, 128, 4096, batch, false, overlap);                    \
      check_qkv<Float, Gemv##N>(kvprof_qkv_##name##_b##N, 28, 4, 128, 3584, batch, true, overlap);                     \
      check_qkv<Float, Gemv##N>(kvprof_qkv_##name##_b##N, 9, 3, 64, 576, batch, false, overlap);                       \
      for (const Size s : {Size{32000, 4096}, Size{49152, 576}, Size{50257, 64}})                                      \
        check_logits<Float, Gemv##N>(kvprof_logits_##name##_b##N, s.n, s.k, batch, overlap);                           \
    }

#define CHECK_ALL(Float, name)                                                         \
  CHECK_LINEAR(Float, name, 1)                                                         \
  CHECK_LINEAR(Float, name, 2)                                                         \
  CHECK_LINEAR(Float, name, 4)                                                         \
  CHECK_LINEAR(Float, name, 8)                                                         \
  CHECK_LINEAR(Float, name, 16)                                                        \
  for (int depth : {8, 576, 3584, 4096, 8192, 16384})                                  \
    for (int batch : {1, 5, 16})                                                       \
      for (bool embed : {false, true}) check_rms_norm<Float>(kvprof_rms_norm_##name, depth, batch, embed, batch > 1);

}  // namespace

int main(int argc, char**) {
  small_only = argc > 1;
  CHECK_ALL(__half, f16)
  CHECK_ALL(__nv_bfloat16, bf16)
  std::printf("step_check: %d failures, worst error %.2f of its bound\n", failures, worst);
  return failures != 0;
}
