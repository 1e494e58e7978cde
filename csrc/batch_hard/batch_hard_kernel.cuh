// Batch-hard triplet loss, device code; batch_hard.h has the maths. Free of torch headers: the tests also run
// this code on the CPU (tests/native/simt.h).
//
// Forward, one launch after a memset of the workspace. A block of 256 threads owns TILE x TILE pairs of rows
// of the upper triangle, over all of D. Each thread reads 16-byte slices of the 2 TILE rows and keeps TILE^2
// partial sums in registers. The sums are reduced by shuffles that halve the number of values at every step
// (16 shuffles for 16 values instead of 80), then over the warps in shared memory. 2 TILE threads pick each
// anchor's hardest pair of the tile and merge it into the anchor's slot by a 64-bit atomicMax, whose result
// does not depend on the order. The last block to finish reads the slots and reduces the loss in a fixed
// order. So the result is deterministic, and there is no N x N matrix.
//
// A slot is the maximum of (hardness, ~index) in one word: the harder pair and, of equal ones, the lower
// index. Hardness is the bits of the squared distance for positives, those of infinity minus them for
// negatives, and NaN above all; the word 0 means that there is no pair.
//
// Backward, one launch, grid (columns, rows). A block owns 256 slices of columns of one row, finds the
// anchors whose pairs contain the row by ballots over chunks of 256 anchors, and adds their terms in the
// order of the anchors. No atomics; each gradient is written once.
//
// Cost at N = 64, D = 2048, TILE = 4 (an estimate, not measured): 136 blocks for the 132 multiprocessors of
// an H100, 8.9 MB from L2 and 8.4 M multiply-adds, 1-2 us each; latency (loads, atomic, last block: ~3 us)
// decides. TILE = 8 halves the reads from L2 and fills the GPU from N = 128 on.
#pragma once

#include "batch_hard.h"

namespace autoreid_fast {

constexpr int kThreads = 256;
constexpr int kWarps = kThreads / 32;
using Slot = unsigned long long;

template <typename T>
constexpr int kSlice = 16 / sizeof(T);  // elements of one 16-byte load

template <typename T>
struct alignas(16) Slice {
  T values[kSlice<T>];
};

// Elements c.. of a row as floats, zeros past dim. `aligned`: every row starts at a multiple of 16 bytes.
template <typename T>
__device__ __forceinline__ void load_slice(const T* row, int64_t c, int64_t dim, bool aligned,
                                           float (&out)[kSlice<T>]) {
  if (aligned && c + kSlice<T> <= dim) {
    const Slice<T> slice = *reinterpret_cast<const Slice<T>*>(row + c);
#pragma unroll
    for (int k = 0; k < kSlice<T>; ++k) out[k] = to_float(slice.values[k]);
  } else {
#pragma unroll
    for (int k = 0; k < kSlice<T>; ++k) out[k] = c + k < dim ? to_float(row[c + k]) : 0.0f;
  }
}

__device__ __forceinline__ bool is_aligned(const void* base, int64_t row_bytes) {
  return reinterpret_cast<uintptr_t>(base) % 16 == 0 && row_bytes % 16 == 0;
}

// Sums each of VALUES values over the warp. Afterwards the front of `values` holds, in lane l, the sums from
// l * VALUES / 32 on; where VALUES < 32, 32 / VALUES neighbouring lanes hold the same sum.
template <int VALUES>
__device__ __forceinline__ void warp_reduce_scatter(float (&values)[VALUES]) {
  const int lane = threadIdx.x % 32;
#pragma unroll
  for (int offset = 16, kept = VALUES; offset > 0; offset /= 2) {
    if (kept > 1) {
      kept /= 2;
      const bool upper = (lane & offset) != 0;
#pragma unroll
      for (int k = 0; k < VALUES / 2; ++k) {
        if (k < kept) {
          const float sent = upper ? values[k] : values[k + kept];
          const float own = upper ? values[k + kept] : values[k];
          values[k] = own + __shfl_xor_sync(0xffffffffu, sent, offset);
        }
      }
    } else {
      values[0] += __shfl_xor_sync(0xffffffffu, values[0], offset);
    }
  }
}

// Bits of floats: those of non-negative numbers order like the numbers.
constexpr unsigned kInfinityBits = 0x7f800000u;
constexpr unsigned kNanBits = 0x7fc00000u;

__device__ __forceinline__ Slot slot_of(float squared, int64_t index, bool positive) {
  const unsigned bits = __float_as_uint(squared);
  const unsigned hardness = squared != squared ? kNanBits : positive ? bits : kInfinityBits - bits;
  return static_cast<Slot>(hardness) << 32 | static_cast<unsigned>(~index);
}
__device__ __forceinline__ int64_t slot_index(Slot slot) { return ~static_cast<unsigned>(slot); }
__device__ __forceinline__ float slot_distance(Slot slot, bool positive) {
  const unsigned hardness = static_cast<unsigned>(slot >> 32);
  return sqrtf(__uint_as_float(positive || hardness == kNanBits ? hardness : kInfinityBits - hardness));
}

// The end of the forward pass, by the last block: indices, distances and the loss from the slots.
__device__ inline void batch_hard_finish(const BatchHardForward& p) {
  __shared__ float sums[kThreads];
  __shared__ int counts[kThreads];
  const Slot* slots = static_cast<const Slot*>(p.workspace);
  const float margin = static_cast<float>(p.margin);
  const int thread = threadIdx.x;
  float sum = 0.0f;
  int valid_count = 0;
  for (int64_t i = thread; i < p.count; i += kThreads) {
    const Slot positive = __ldcg(slots + i), negative = __ldcg(slots + p.count + i);
    const bool valid = positive != 0 && negative != 0;
    const float positive_distance = valid ? slot_distance(positive, true) : 0.0f;
    const float negative_distance = valid ? slot_distance(negative, false) : 0.0f;
    p.positive[i] = valid ? slot_index(positive) : -1;
    p.negative[i] = valid ? slot_index(negative) : -1;
    static_cast<float*>(p.positive_distance)[i] = positive_distance;
    static_cast<float*>(p.negative_distance)[i] = negative_distance;
    if (!valid) continue;
    const float excess = positive_distance - negative_distance;
    if (p.printed) {
      sum += excess <= margin ? margin : excess;
    } else {
      sum += margin + excess <= 0.0f ? 0.0f : margin + excess;
    }
    ++valid_count;
  }
  sums[thread] = sum;
  counts[thread] = valid_count;
  for (int width = kThreads / 2; width > 0; width /= 2) {
    __syncthreads();
    if (thread < width) {
      sums[thread] += sums[thread + width];
      counts[thread] += counts[thread + width];
    }
  }
  if (thread == 0) *static_cast<float*>(p.loss) = sums[0] / static_cast<float>(counts[0] > 0 ? counts[0] : 1);
}

// Block (x, y) of a square grid: tile (y, x) of the pairs. Tiles below the diagonal are skipped.
template <int TILE, typename T>
__device__ void batch_hard_block(const BatchHardForward& p) {
  constexpr int values = TILE * TILE;
  __shared__ float partial[kWarps][values];
  __shared__ float squared[values];
  __shared__ bool last;
  if (blockIdx.x < blockIdx.y) return;
  const int64_t first_row = static_cast<int64_t>(blockIdx.y) * TILE;
  const int64_t first_column = static_cast<int64_t>(blockIdx.x) * TILE;
  const T* features = static_cast<const T*>(p.features);
  const bool aligned = is_aligned(features, p.row_stride * static_cast<int64_t>(sizeof(T)));
  const int thread = threadIdx.x, lane = thread % 32, warp = thread / 32;
  const auto row = [&](int64_t index) {
    return features + (index < p.count ? index : p.count - 1) * p.row_stride;
  };

  float sums[values] = {};
  for (int64_t c = static_cast<int64_t>(thread) * kSlice<T>; c < p.dim; c += kThreads * kSlice<T>) {
    float left[TILE][kSlice<T>];
#pragma unroll
    for (int i = 0; i < TILE; ++i) load_slice(row(first_row + i), c, p.dim, aligned, left[i]);
#pragma unroll
    for (int j = 0; j < TILE; ++j) {
      float right[kSlice<T>];
      load_slice(row(first_column + j), c, p.dim, aligned, right);
#pragma unroll
      for (int i = 0; i < TILE; ++i) {
#pragma unroll
        for (int k = 0; k < kSlice<T>; ++k) {
          const float difference = left[i][k] - right[k];
          sums[i * TILE + j] = fmaf(difference, difference, sums[i * TILE + j]);
        }
      }
    }
  }
  warp_reduce_scatter(sums);
  if constexpr (values >= 32) {
#pragma unroll
    for (int k = 0; k < values / 32; ++k) partial[warp][lane * (values / 32) + k] = sums[k];
  } else {
    if (lane % (32 / values) == 0) partial[warp][lane / (32 / values)] = sums[0];
  }
  __syncthreads();
  if (thread < values) {
    float sum = 0.0f;
    for (int w = 0; w < kWarps; ++w) sum += partial[w][thread];
    squared[thread] = sum;
  }
  __syncthreads();

  // Thread t < TILE: anchor t of the rows against the columns. The next TILE threads: anchors of the columns
  // against the rows.
  const bool by_row = thread < TILE;
  const int64_t anchor = by_row ? first_row + thread : first_column + thread - TILE;
  if (thread < 2 * TILE && anchor < p.count && (by_row || blockIdx.x != blockIdx.y)) {
    Slot positive = 0, negative = 0;
    for (int k = 0; k < TILE; ++k) {
      const int64_t other = (by_row ? first_column : first_row) + k;
      if (other >= p.count || other == anchor) continue;
      const bool same = p.labels[other] == p.labels[anchor];
      const float value = squared[by_row ? thread * TILE + k : k * TILE + thread - TILE];
      const Slot slot = slot_of(value, other, same);
      if (same && slot > positive) positive = slot;
      if (!same && slot > negative) negative = slot;
    }
    Slot* slots = static_cast<Slot*>(p.workspace);
    if (positive != 0) atomicMax(slots + anchor, positive);
    if (negative != 0) atomicMax(slots + p.count + anchor, negative);
    __threadfence();
  }
  __syncthreads();
  if (thread == 0) {
    const Slot tiles = gridDim.x;
    Slot* ticket = static_cast<Slot*>(p.workspace) + 2 * p.count;
    last = atomicAdd(ticket, Slot{1}) == tiles * (tiles + 1) / 2 - 1;
    __threadfence();
  }
  __syncthreads();
  if (last) batch_hard_finish(p);
}

// Block (x, y): row y, 256 slices of columns from slice 256 x on.
template <typename T>
__device__ void batch_hard_backward_block(const BatchHardBackward& p) {
  __shared__ int pair[2][kThreads];
  __shared__ float weight[2][kThreads];
  __shared__ unsigned
      touching[kWarps];  // bit l of warp w: an active pair of anchor 32 w + l contains the row
  const T* features = static_cast<const T*>(p.features);
  const float* positive_distance = static_cast<const float*>(p.positive_distance);
  const float* negative_distance = static_cast<const float*>(p.negative_distance);
  const bool aligned = is_aligned(features, p.row_stride * static_cast<int64_t>(sizeof(T)));
  const float threshold = static_cast<float>(p.printed ? p.margin : -p.margin);
  const int thread = threadIdx.x, lane = thread % 32, warp = thread / 32;
  const int row = blockIdx.y;
  const int64_t c = (static_cast<int64_t>(blockIdx.x) * kThreads + thread) * kSlice<T>;

  float values[kSlice<T>], sums[kSlice<T>] = {};
  load_slice(features + row * p.row_stride, c, p.dim, aligned, values);
  const auto add_term = [&](int other, float pair_weight) {
    float other_values[kSlice<T>];
    load_slice(features + other * p.row_stride, c, p.dim, aligned, other_values);
#pragma unroll
    for (int k = 0; k < kSlice<T>; ++k) sums[k] = fmaf(pair_weight, values[k] - other_values[k], sums[k]);
  };

  int valid = 0;
  for (int64_t base = 0; base < p.count; base += kThreads) {
    const int64_t anchor = base + thread;
    int positive = -1, negative = -1;
    bool active = false;
    if (anchor < p.count) {
      positive = static_cast<int>(p.positive[anchor]);
      negative = static_cast<int>(p.negative[anchor]);
      const float d_positive = positive_distance[anchor], d_negative = negative_distance[anchor];
      active = positive >= 0 && !(d_positive - d_negative <= threshold);
      weight[0][thread] = d_positive == 0.0f ? 0.0f : 1.0f / d_positive;
      weight[1][thread] = d_negative == 0.0f ? 0.0f : -1.0f / d_negative;
    }
    pair[0][thread] = positive;
    pair[1][thread] = negative;
    const bool touches = active && (anchor == row || positive == row || negative == row);
    const unsigned mask = __ballot_sync(0xffffffffu, touches);
    if (lane == 0) touching[warp] = mask;
    valid += __syncthreads_count(positive >= 0);
    for (int w = 0; w < kWarps; ++w) {
      for (unsigned rest = touching[w]; rest != 0; rest &= rest - 1) {
        const int k = w * 32 + __ffs(rest) - 1;
        const int anchor_index = static_cast<int>(base) + k;
        if (anchor_index == row) {
          add_term(pair[0][k], weight[0][k]);
          add_term(pair[1][k], weight[1][k]);
        } else {
          add_term(anchor_index, weight[pair[0][k] == row ? 0 : 1][k]);
        }
      }
    }
    __syncthreads();
  }

  const float scale = *static_cast<const float*>(p.grad_loss) / static_cast<float>(valid > 0 ? valid : 1);
  T* grad = static_cast<T*>(p.grad_features) + row * p.dim + c;
  if (c + kSlice<T> <= p.dim && is_aligned(p.grad_features, p.dim * static_cast<int64_t>(sizeof(T)))) {
    Slice<T> slice;
#pragma unroll
    for (int k = 0; k < kSlice<T>; ++k) slice.values[k] = from_float<T>(scale * sums[k]);
    *reinterpret_cast<Slice<T>*>(grad) = slice;
  } else {
#pragma unroll
    for (int k = 0; k < kSlice<T>; ++k) {
      if (c + k < p.dim) grad[k] = from_float<T>(scale * sums[k]);
    }
  }
}

}  // namespace autoreid_fast
