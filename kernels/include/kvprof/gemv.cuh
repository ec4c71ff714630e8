// y[b, n] = Σ_k W[n, k] · x[b, k] for a few rows b: the linear layers of a decode step, at the speed of reading W.
//
// Shapes   W [N, K] row-major, x [B, K], 1 <= B <= 16, FP16 or BF16; K a multiple of 8; sums in fp32.
// Grid     any number of blocks (one a multiprocessor is best); block i takes row tiles i, i + grid, ...
// Block    Warps warps. A tile is Rows rows of W. The warps share out its K in pieces of 64, each warp summing its own
//          pieces with mma.m16n8k16 (W is the 16-row operand, the batch its 8 columns), then the block adds up the
//          warps' sums and hands them to the epilogue.
// Shared   each warp has a ring of Stages pieces of its own ((Rows + Batch) x 128 bytes each: a piece of W and the same of x),
//          filled by cp.async without any barrier and running on from tile to tile; and twice Warps x Rows x Batch floats
//          for the sums.
// Overlap  the ring is filled with weights before the previous kernel has ended (kvprof/overlap.cuh). Only one block fits
//          Hopper's multiprocessor, on purpose: where two do, those of the next kernel come in unevenly while this one
//          ends, some multiprocessors get two of them, and the kernel takes as long as those (measured: 8 % of a step).
// Reference  float64 loops in kernels/tests/step_check.cu.
// Bound    memory: 2·N·K bytes over the card's read bandwidth (H200: 4550 GB/s for a pure read).
//
// Order of summation. Within a piece an mma sums over 16 columns; which columns is free as long as W and x agree, so
// lane (g, t) of a warp reads 16 contiguous bytes, columns 8t .. 8t+7 of 32, and gives them to two mma.
//
// Row order. A 16-row fragment is two runs of 8 rows, `low` and `high`; a lane holds row g of both. The row map says
// where the runs are, so that an epilogue has two rows that belong together (the two halves of a rotation, gate and up)
// in one thread.
#pragma once

#include "kvprof/overlap.cuh"
#include "kvprof/ptx.cuh"
#include "kvprof/shared.cuh"

namespace kvprof {

/// What is multiplied.
struct GemvInput {
  const void* weight;  ///< [N, K], 16-byte aligned
  const void* x;       ///< [B, K], 16-byte aligned
  int32_t rows;        ///< N
  int32_t depth;       ///< K, a multiple of 8
  int32_t batch;       ///< B, at most the kernel's Batch
  int32_t tiles;       ///< row tiles: N / Rows, rounded up
};
static_assert(sizeof(GemvInput) == 32, "mirrored in Rust");

/// The size of a block and its rings.
template <int kRows_, int kBatch_, int kWarps_, int kStages_>
struct GemvShape {
  static constexpr int kRows = kRows_;      ///< rows of a tile: a multiple of 16
  static constexpr int kBatch = kBatch_;    ///< most rows of x
  static constexpr int kWarps = kWarps_;
  static constexpr int kStages = kStages_;  ///< pieces in a warp's ring
  static constexpr int kThreads = 32 * kWarps;
  static constexpr int kDepth = 64;  ///< columns of a piece: 128 bytes of each row
  static constexpr int kStageBytes = (kRows + kBatch) * 128;
  static constexpr int kRingBytes = kStages * kStageBytes;
  static constexpr int kSumFloats = kWarps * kRows * kBatch;
  static constexpr int kSharedBytes = kWarps * kRingBytes + 2 * kSumFloats * 4;
  static_assert(2 * (kSharedBytes + 1024) > kSharedOfMultiprocessor && kSharedBytes <= kSharedOfMultiprocessor,
                "one block fits a multiprocessor, two do not");
  static constexpr int kFragments = kRows / 16;
  static constexpr int kColumnBlocks = (kBatch + 7) / 8;
};

/// Tile i holds rows Rows·i .. Rows·i + Rows - 1.
struct ConsecutiveRows {
  /// First row of run `run` (8 rows each) of a tile of `runs` runs.
  __device__ __forceinline__ int first(int tile, int run, int runs) const { return 8 * (tile * runs + run); }
};

/// The low run of fragment f holds rows 8f .. 8f + 7 of the first half of the matrix, the high run the same rows of the second:
/// a gate projection stacked on an up projection.
struct StackedHalves {
  int half;  ///< N / 2, a multiple of 8
  __device__ __forceinline__ int first(int tile, int run, int runs) const {
    return 8 * (tile * (runs / 2) + run / 2) + (run % 2) * half;
  }
};

/// The low and high run hold rows d and d + D/2 of one head: the pairs that a rotary embedding turns.
struct HeadHalves {
  int head_dim;  ///< D; D/2 a multiple of 8
  __device__ __forceinline__ int first(int tile, int run, int runs) const {
    const int fragment = tile * (runs / 2) + run / 2;
    const int per_head = head_dim / 16;
    return fragment / per_head * head_dim + fragment % per_head * 8 + (run % 2) * (head_dim / 2);
  }
};

/// Byte offset of 16-byte chunk `chunk` of row `row` in a piece: rows are 128 bytes, and odd rows swap their halves so that
/// the eight lanes which shared memory serves at once (two rows, four chunks) touch all banks.
__device__ __forceinline__ uint32_t piece_offset(int row, int chunk) { return row * 128 + ((chunk ^ ((row & 1) * 4)) * 16); }

__device__ __forceinline__ uint4 load_shared16(uint32_t address) {
  uint4 v;
  asm volatile("ld.shared.v4.u32 {%0,%1,%2,%3}, [%4];" : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w) : "r"(address) : "memory");
  return v;
}

/// A place in a warp's sequence of pieces: all tiles of the block, and in each the pieces warp, warp + Warps, ...
struct PieceCursor {
  int tile, piece;
};

/// Runs the product and calls `epilogue(row, b, low, high)` once for each pair of rows and each b < batch: `row` is the row of
/// the sum `low`, and `high` belongs to the row at the same place of the fragment's high run. Rows may be >= N when the
/// last tile is ragged: the epilogue drops those.
template <typename Float, typename Shape, typename RowMap, typename Epilogue>
__device__ __forceinline__ void gemv(const GemvInput& in, const RowMap& map, Epilogue&& epilogue) {
  extern __shared__ __align__(128) unsigned char shared[];
  constexpr int kRuns = Shape::kRows / 8;
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  const int g = lane / 4, t = lane % 4;
  const int pieces = (in.depth + Shape::kDepth - 1) / Shape::kDepth;
  const uint32_t ring = shared_address(shared) + warp * Shape::kRingBytes;
  float* const sums = reinterpret_cast<float*>(shared + Shape::kWarps * Shape::kRingBytes);
  const Float* const weight = static_cast<const Float*>(in.weight);
  const Float* const x = static_cast<const Float*>(in.x);

  allow_next_kernel();

  const auto advance = [&](PieceCursor& at) {
    at.piece += Shape::kWarps;
    if (at.piece >= pieces) {
      at.piece = warp;
      at.tile += gridDim.x;
    }
  };
  const auto fetch_weights = [&](const PieceCursor& at, int stage) {
    const int column = at.piece * Shape::kDepth + lane % 8 * 8;
    const uint32_t to = ring + stage * Shape::kStageBytes;
#pragma unroll
    for (int i = 0; i < Shape::kRows / 4; ++i) {
      const int row = i * 4 + lane / 8;
      const int n = min(map.first(at.tile, i / 2, kRuns) + row % 8, in.rows - 1);
      const bool wanted = column < in.depth;
      stream16_async(to + piece_offset(row, lane % 8), weight + int64_t(n) * in.depth + (wanted ? column : 0), wanted);
    }
  };
  const auto fetch_x = [&](const PieceCursor& at, int stage) {
    const int column = at.piece * Shape::kDepth + lane % 8 * 8;
    const uint32_t to = ring + stage * Shape::kStageBytes;
#pragma unroll
    for (int i = 0; i < (Shape::kBatch + 3) / 4; ++i) {
      const int b = i * 4 + lane / 8;
      if (b < Shape::kBatch) {
        const bool wanted = b < in.batch && column < in.depth;
        copy16_async(to + piece_offset(Shape::kRows + b, lane % 8), wanted ? x + int64_t(b) * in.depth + column : x, wanted);
      }
    }
  };

  // Before the previous kernel has ended: the first weights. After: the x that goes with them, which completes their groups.
  // A warp with no piece in a tile (K < 64·Warps) still takes part in the sums.
  const bool busy = warp < pieces;
  PieceCursor next{static_cast<int>(blockIdx.x), warp}, ahead = next;
#pragma unroll
  for (int stage = 0; stage < Shape::kStages - 1; ++stage) {
    if (busy && ahead.tile < in.tiles) fetch_weights(ahead, stage);
    advance(ahead);
  }
  wait_for_previous_kernel();
#pragma unroll
  for (int stage = 0; stage < Shape::kStages - 1; ++stage) {
    if (busy && next.tile < in.tiles) fetch_x(next, stage);
    commit_copies();
    advance(next);
  }

  int stage = 0, buffer = 0;
  for (int tile = blockIdx.x; tile < in.tiles; tile += gridDim.x, buffer ^= 1) {
    Accumulator total[Shape::kFragments][Shape::kColumnBlocks];
    for (int piece = warp; piece < pieces; piece += Shape::kWarps) {
      wait_copies<Shape::kStages - 2>();
      __syncwarp();  // every lane's copies have arrived, and every lane has read the piece that the next copies overwrite
      const int refill = stage == 0 ? Shape::kStages - 1 : stage - 1;
      if (next.tile < in.tiles) {
        fetch_weights(next, refill);
        fetch_x(next, refill);
      }
      commit_copies();
      advance(next);

      const uint32_t from = ring + stage * Shape::kStageBytes;
#pragma unroll
      for (int step = 0; step < 2; ++step) {
        uint4 column[Shape::kColumnBlocks];
#pragma unroll
        for (int c = 0; c < Shape::kColumnBlocks; ++c) {
          column[c] = make_uint4(0, 0, 0, 0);
          if (c * 8 + g < Shape::kBatch) column[c] = load_shared16(from + piece_offset(Shape::kRows + c * 8 + g, step * 4 + t));
        }
#pragma unroll
        for (int f = 0; f < Shape::kFragments; ++f) {
          const uint4 low = load_shared16(from + piece_offset(f * 16 + g, step * 4 + t));
          const uint4 high = load_shared16(from + piece_offset(f * 16 + 8 + g, step * 4 + t));
#pragma unroll
          for (int c = 0; c < Shape::kColumnBlocks; ++c) {
            mma<Float>(total[f][c], {low.x, high.x, low.y, high.y}, {column[c].x, column[c].y});
            mma<Float>(total[f][c], {low.z, high.z, low.w, high.w}, {column[c].z, column[c].w});
          }
        }
      }
      stage = stage + 1 == Shape::kStages ? 0 : stage + 1;
    }

    // Two buffers of sums take turns, so that one barrier a tile is enough: whoever writes a buffer again has passed the
    // barrier of the tile between, which the readers of that buffer reach only when they are done with it.
    float* const mine = sums + buffer * Shape::kSumFloats;
#pragma unroll
    for (int f = 0; f < Shape::kFragments; ++f)
#pragma unroll
      for (int c = 0; c < Shape::kColumnBlocks; ++c)
#pragma unroll
        for (int i = 0; i < 4; ++i) {
          const int row = f * 16 + (i / 2) * 8 + g, b = c * 8 + 2 * t + i % 2;
          if (b < Shape::kBatch) mine[(warp * Shape::kRows + row) * Shape::kBatch + b] = total[f][c][i];
        }
    __syncthreads();
    for (int i = threadIdx.x; i < Shape::kRows / 2 * Shape::kBatch; i += Shape::kThreads) {
      const int b = i % Shape::kBatch, pair = i / Shape::kBatch;
      const int row = pair / 8 * 16 + pair % 8;
      if (b < in.batch) {
        float low = 0.f, high = 0.f;
#pragma unroll
        for (int w = 0; w < Shape::kWarps; ++w) {
          low += mine[(w * Shape::kRows + row) * Shape::kBatch + b];
          high += mine[(w * Shape::kRows + row + 8) * Shape::kBatch + b];
        }
        epilogue(map.first(tile, pair / 8 * 2, kRuns) + pair % 8, b, low, high);
      }
    }
  }
}

}  // namespace kvprof
