// The parts of a decode step (one new token for each of B sequences) other than attention: what follows each linear layer
// is done where its sums are, so a layer is seven launches (eight where the model normalizes queries and keys).
//
//     rms_norm · qkv (bias, rotation, append) · [normalize_heads] · attention · linear_add · rms_norm · gate_up (SiLU, product) · linear_add
//
// and after the last layer rms_norm · logits (with the greedy choice) · next_token. Tokens, lengths and the choice stay in device
// memory, so a step is the same launches each time and can be replayed as a graph.
//
// Values are rounded to the model's float where a plain implementation stores them (after each linear layer, before and
// after the rotation, after SiLU), so that both agree to the order of summation.
//
// Reference  float64 loops in kernels/tests/step_check.cu; Decoder::forward in the Rust crate.
#pragma once

#include "kvprof/decode_params.cuh"
#include "kvprof/fault.cuh"
#include "kvprof/gemv.cuh"

namespace kvprof {

/// y = x + W·h, in place: the projections back into the residual stream.
struct LinearAddParams {
  GemvInput in;
  void* stream;  ///< [B, N], read and written
};

/// out = SiLU(gate) · up, where W stacks gate on up.
struct GateUpParams {
  GemvInput in;
  void* out;  ///< [B, N/2]
};

/// Query, key and value of the new token: W stacks them as Hq, Hkv and Hkv heads of D rows.
struct QkvParams {
  GemvInput in;
  const void* bias;            ///< [N], or null
  const float* cosine;         ///< [positions, D/2]: element i turns channels i and i + D/2
  const float* sine;           ///< the same shape
  void* query;                 ///< [B, Hq, D], rotated
  void* window;                ///< [2 (K, V), B, Hkv, W, D]: the token at position p goes to slot p % W, its key rotated
  const CacheLength* length;   ///< the new token's position is length->total - 1
  unsigned long long* not_finite;  ///< the earliest key or value that is not finite (fault.cuh)
  int32_t heads, kv_heads, head_dim, window_capacity, layer;
  int32_t unrotated;  ///< 1: queries and keys are left as they are, for HeadNormParams
};

/// Queries and the new keys that QkvParams left unrotated, in place: divided by the root mean square of their head, times gain, rotated.
struct HeadNormParams {
  const void* gain;           ///< [Hq + Hkv, D]
  const float* cosine;        ///< as in QkvParams, like the rest
  const float* sine;
  void* query;
  void* window;
  const CacheLength* length;
  unsigned long long* not_finite;
  int32_t batch, heads, kv_heads, head_dim, window_capacity, layer;
  float epsilon;
  int32_t reserved;  ///< 0
};

/// Logits, and the largest of each sequence as a key for next_token.
struct LogitsParams {
  GemvInput in;
  float* logits;             ///< [B, N]: rounded to the model's float
  unsigned long long* best;  ///< [B], zero before the launch
};

/// out = x / rms(x) · gain, one row a block. With `tokens`, row b of x is tokens[b] of an embedding table, copied to `stream`.
struct RmsNormParams {
  const void* x;          ///< [B, depth] or the table [V, depth]
  const void* gain;       ///< [depth]
  void* out;              ///< [B, depth]
  const int32_t* tokens;  ///< [B], or null
  void* stream;           ///< [B, depth], used with `tokens`
  int32_t depth;          ///< a multiple of 8, at most 8 · kNormThreads · kNormPieces
  float epsilon;
};

/// Turns the keys in `best` into the next tokens, notes them and moves on by one position.
struct NextTokenParams {
  unsigned long long* best;  ///< [B]; left zero
  int32_t* tokens;           ///< [B]
  int32_t* history;          ///< [capacity, B]: the token chosen to stand at position p, at row p
  CacheLength* lengths;      ///< [length_count], one for each way that layers keep their tokens; all totals are equal, and grow by one
  int32_t batch;
  int32_t capacity;
  int32_t length_count;
  int32_t reserved;  ///< 0
};

static_assert(sizeof(LinearAddParams) == 40 && sizeof(GateUpParams) == 40 && sizeof(QkvParams) == 112 &&
                  sizeof(HeadNormParams) == 88 && sizeof(LogitsParams) == 48 && sizeof(RmsNormParams) == 48 && sizeof(NextTokenParams) == 48,
              "mirrored in Rust");

template <typename Float>
__device__ __forceinline__ float to_float(Float x) { return static_cast<float>(x); }

/// Rounds to the model's float, as a store and a load would.
template <typename Float>
__device__ __forceinline__ float rounded(float x) { return to_float(static_cast<Float>(x)); }

template <typename Float, typename Shape>
__device__ __forceinline__ void linear_add(const LinearAddParams& p) {
  Float* const stream = static_cast<Float*>(p.stream);
  const int n = p.in.rows;
  gemv<Float, Shape>(p.in, ConsecutiveRows{}, [&](int row, int b, float low, float high) {
    Float* const at = stream + int64_t(b) * n + row;
    if (row < n) at[0] = static_cast<Float>(to_float(at[0]) + rounded<Float>(low));
    if (row + 8 < n) at[8] = static_cast<Float>(to_float(at[8]) + rounded<Float>(high));
  });
}

template <typename Float, typename Shape>
__device__ __forceinline__ void gate_up(const GateUpParams& p) {
  const int half = p.in.rows / 2;
  gemv<Float, Shape>(p.in, StackedHalves{half}, [&](int row, int b, float gate, float up) {
    if (row >= half) return;
    const float x = rounded<Float>(gate);
    const float silu = rounded<Float>(x / (1.f + __expf(-x)));
    static_cast<Float*>(p.out)[int64_t(b) * half + row] = static_cast<Float>(silu * rounded<Float>(up));
  });
}

template <typename Float, typename Shape>
__device__ __forceinline__ void qkv(const QkvParams& p) {
  const Float* const bias = static_cast<const Float*>(p.bias);
  const int half = p.head_dim / 2;
  gemv<Float, Shape>(p.in, HeadHalves{p.head_dim}, [&](int row, int b, float low, float high) {
    if (row >= p.in.rows) return;
    const int position = p.length->total - 1;
    const int head = row / p.head_dim, channel = row % p.head_dim;
    float first = rounded<Float>(low), second = rounded<Float>(high);
    if (bias != nullptr) {
      first = rounded<Float>(first + to_float(bias[row]));
      second = rounded<Float>(second + to_float(bias[row + half]));
    }
    if (head < p.heads + p.kv_heads && p.unrotated == 0) {
      const float c = p.cosine[int64_t(position) * half + channel], s = p.sine[int64_t(position) * half + channel];
      const float turned = first * c - second * s;
      second = second * c + first * s;
      first = turned;
    }
    Float* to;
    if (head < p.heads) {
      to = static_cast<Float*>(p.query) + (int64_t(b) * p.heads + head) * p.head_dim + channel;
    } else {
      const int kv = (head - p.heads) / p.kv_heads;  // 0: key, 1: value
      const int kv_head = (head - p.heads) % p.kv_heads;
      const int64_t row_of_window = ((int64_t(kv) * p.in.batch + b) * p.kv_heads + kv_head) * p.window_capacity + position % p.window_capacity;
      to = static_cast<Float*>(p.window) + row_of_window * p.head_dim + channel;
      if (!isfinite(rounded<Float>(first)) || !isfinite(rounded<Float>(second))) {
        note_not_finite(p.not_finite, position, p.layer);
      }
    }
    to[0] = static_cast<Float>(first);
    to[half] = static_cast<Float>(second);
  });
}

constexpr int kHeadNormThreads = 128;

/// A warp for each query head and each key head: grid ceil(B·(Hq + Hkv) / 4). D is 64 or 128. Bound: latency.
template <typename Float>
__device__ __forceinline__ void normalize_heads(const HeadNormParams& p) {
  allow_next_kernel();
  wait_for_previous_kernel();
  const int heads = p.heads + p.kv_heads;
  const int index = blockIdx.x * (kHeadNormThreads / 32) + threadIdx.x / 32, lane = threadIdx.x % 32;
  if (index >= p.batch * heads) return;
  const int b = index / heads, head = index % heads, half = p.head_dim / 2;
  const int position = p.length->total - 1;
  Float* const x = head < p.heads ? static_cast<Float*>(p.query) + (int64_t(b) * p.heads + head) * p.head_dim
                                  : static_cast<Float*>(p.window) + ((int64_t(b) * p.kv_heads + head - p.heads) * p.window_capacity +
                                                                     position % p.window_capacity) * p.head_dim;
  const Float* const gain = static_cast<const Float*>(p.gain) + int64_t(head) * p.head_dim;
  float first[2] = {}, second[2] = {}, sum = 0.f;
#pragma unroll
  for (int i = 0; i < 2; ++i) {
    const int channel = lane + 32 * i;
    if (channel >= half) continue;
    first[i] = to_float(x[channel]);
    second[i] = to_float(x[channel + half]);
    sum += first[i] * first[i] + second[i] * second[i];
  }
#pragma unroll
  for (int offset = 16; offset > 0; offset /= 2) sum += __shfl_xor_sync(kFullWarp, sum, offset);
  const float scale = rsqrtf(sum / p.head_dim + p.epsilon);
#pragma unroll
  for (int i = 0; i < 2; ++i) {
    const int channel = lane + 32 * i;
    if (channel >= half) continue;
    // Rounded where a plain implementation stores: after the division, after the gain, after the rotation.
    const float u = rounded<Float>(rounded<Float>(first[i] * scale) * to_float(gain[channel]));
    const float v = rounded<Float>(rounded<Float>(second[i] * scale) * to_float(gain[channel + half]));
    const float c = p.cosine[int64_t(position) * half + channel], s = p.sine[int64_t(position) * half + channel];
    const float turned[2] = {rounded<Float>(u * c - v * s), rounded<Float>(v * c + u * s)};
    x[channel] = static_cast<Float>(turned[0]);
    x[channel + half] = static_cast<Float>(turned[1]);
    // A gain may lift what was finite past the float's largest number.
    if (head >= p.heads && !(isfinite(turned[0]) && isfinite(turned[1]))) note_not_finite(p.not_finite, position, p.layer);
  }
}

/// Orders (logit, row) so that the greatest key is the greatest logit, the lowest row among equals; never 0.
__device__ __forceinline__ unsigned long long choice_key(float logit, int row) {
  const uint32_t bits = __float_as_uint(logit);
  const uint32_t ordered = bits & 0x80000000u ? ~bits : bits | 0x80000000u;
  return static_cast<unsigned long long>(ordered) << 32 | ~static_cast<uint32_t>(row);
}

template <typename Float, typename Shape>
__device__ __forceinline__ void logits(const LogitsParams& p) {
  // A thread sees one b only: its outputs are Shape::kThreads apart, a multiple of Shape::kBatch.
  static_assert(Shape::kThreads % Shape::kBatch == 0, "the running maximum of a thread belongs to one sequence");
  unsigned long long best = 0;
  int sequence = 0;
  const int n = p.in.rows;
  gemv<Float, Shape>(p.in, ConsecutiveRows{}, [&](int row, int b, float low, float high) {
    sequence = b;
    const float values[2] = {rounded<Float>(low), rounded<Float>(high)};
#pragma unroll
    for (int i = 0; i < 2; ++i)
      if (row + 8 * i < n) {
        p.logits[int64_t(b) * n + row + 8 * i] = values[i];
        best = max(best, choice_key(values[i], row + 8 * i));
      }
  });
  if (best != 0) atomicMax(p.best + sequence, best);
}

constexpr int kNormThreads = 512;
constexpr int kNormPieces = 4;

/// Grid B blocks of kNormThreads threads. Sums of squares in fp32, the quotient rounded once. Bound: latency.
template <typename Float>
__device__ __forceinline__ void rms_norm(const RmsNormParams& p) {
  __shared__ float warp_sums[kNormThreads / 32];
  allow_next_kernel();
  const int b = blockIdx.x;
  const int chunks = p.depth / 8;
  uint4 gain[kNormPieces], x[kNormPieces];
#pragma unroll
  for (int i = 0; i < kNormPieces; ++i) {
    const int chunk = i * kNormThreads + threadIdx.x;
    if (chunk < chunks) gain[i] = static_cast<const uint4*>(p.gain)[chunk];
  }
  wait_for_previous_kernel();
  const int64_t row = p.tokens != nullptr ? p.tokens[b] : b;
  float sum = 0.f;
#pragma unroll
  for (int i = 0; i < kNormPieces; ++i) {
    const int chunk = i * kNormThreads + threadIdx.x;
    if (chunk >= chunks) continue;
    x[i] = static_cast<const uint4*>(p.x)[row * chunks + chunk];
    if (p.tokens != nullptr) static_cast<uint4*>(p.stream)[int64_t(b) * chunks + chunk] = x[i];
    const uint32_t words[4] = {x[i].x, x[i].y, x[i].z, x[i].w};
#pragma unroll
    for (int w = 0; w < 4; ++w) {
      const float2 v = to_floats<Float>(words[w]);
      sum += v.x * v.x + v.y * v.y;
    }
  }
#pragma unroll
  for (int offset = 16; offset > 0; offset /= 2) sum += __shfl_xor_sync(kFullWarp, sum, offset);
  if (threadIdx.x % 32 == 0) warp_sums[threadIdx.x / 32] = sum;
  __syncthreads();
  sum = 0.f;
#pragma unroll
  for (int w = 0; w < kNormThreads / 32; ++w) sum += warp_sums[w];
  const float scale = rsqrtf(sum / p.depth + p.epsilon);
#pragma unroll
  for (int i = 0; i < kNormPieces; ++i) {
    const int chunk = i * kNormThreads + threadIdx.x;
    if (chunk >= chunks) continue;
    const uint32_t words[4] = {x[i].x, x[i].y, x[i].z, x[i].w}, gains[4] = {gain[i].x, gain[i].y, gain[i].z, gain[i].w};
    uint32_t out[4];
#pragma unroll
    for (int w = 0; w < 4; ++w) {
      const float2 v = to_floats<Float>(words[w]), a = to_floats<Float>(gains[w]);
      out[w] = to_pair<Float>(scale * v.x * a.x, scale * v.y * a.y);
    }
    static_cast<uint4*>(p.out)[int64_t(b) * chunks + chunk] = make_uint4(out[0], out[1], out[2], out[3]);
  }
}

/// Grid 1 block of at least B threads.
__device__ __forceinline__ void next_token(const NextTokenParams& p) {
  allow_next_kernel();
  wait_for_previous_kernel();
  const int position = p.lengths->total;
  const int b = threadIdx.x;
  if (b < p.batch) {
    const int32_t token = static_cast<int32_t>(~static_cast<uint32_t>(p.best[b]));
    p.tokens[b] = token;
    if (position < p.capacity) p.history[int64_t(position) * p.batch + b] = token;
    p.best[b] = 0;
  }
  __syncthreads();
  if (b < p.length_count) p.lengths[b].total = position + 1;
}

}  // namespace kvprof
