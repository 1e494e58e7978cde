// k-reciprocal re-ranking, device code; k_reciprocal.h has the maths. Free of torch headers: the tests also
// run this code on the CPU (tests/native/simt.h).
//
// A block of 256 threads owns one row of V, or one query. The candidates of a row are gathered in shared
// memory, sorted, and freed of duplicates. A row is computed twice, to count its entries and to write them,
// with a scan of the counts between. Additions have a fixed order and there are no atomics: deterministic.
//
// Cost for MSMT17 (93,820 images, k1 = 20): 256 keys to sort per row, some 25 distances of 512 dimensions,
// 1.2 G multiply-adds in all; a query's overlaps are some 10^3-10^4 additions, in as many steps as its row of
// V has entries. All of it is small beside the matrix products.
#pragma once

#include "../common/arithmetic.h"
#include "k_reciprocal.h"

namespace autoreid_fast {

constexpr int kThreads = 256;
constexpr int kWarps = kThreads / 32;
constexpr unsigned kAll = 0xffffffffu;
constexpr int32_t kNone = 0x7fffffff;  // sorts behind every image

__device__ __forceinline__ bool is_neighbor(const ReciprocalRows& p, int64_t image, int64_t count,
                                            int64_t other) {
  const int32_t* list = p.neighbors + image * p.count;
  bool found = false;
  for (int64_t k = 0; k < count; ++k) found |= list[k] == other;
  return found;
}

// Sorts `size` keys, a power of two, in ascending order (bitonic). Starts and ends with a barrier.
template <typename Key>
__device__ __forceinline__ void sort_keys(Key* keys, int size) {
  for (int run = 2; run <= size; run *= 2) {
    for (int step = run / 2; step > 0; step /= 2) {
      __syncthreads();
      for (int i = threadIdx.x; i < size; i += kThreads) {
        const int partner = i ^ step;
        const Key left = keys[i], right = keys[partner];
        if (partner > i && (left > right) == ((i & run) == 0)) {
          keys[i] = right;
          keys[partner] = left;
        }
      }
    }
  }
  __syncthreads();
}

// Calls emit(t, place) for every t < size with chosen(t), where `place` numbers them from 0 on; returns how
// many.
template <typename Chosen, typename Emit>
__device__ __forceinline__ int compact(int size, const Chosen& chosen, const Emit& emit) {
  __shared__ int counts[kWarps];
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  int total = 0;
  for (int start = 0; start < size; start += kThreads) {
    const int t = start + threadIdx.x;
    const bool is_chosen = t < size && chosen(t);
    const unsigned votes = __ballot_sync(kAll, is_chosen);
    if (lane == 0) counts[warp] = __popc(votes);
    __syncthreads();
    int before = total;
    for (int w = 0; w < kWarps; ++w) {
      before += w < warp ? counts[w] : 0;
      total += counts[w];
    }
    if (is_chosen) emit(t, before + __popc(votes & ((1u << lane) - 1)));
    __syncthreads();
  }
  return total;
}

__device__ __forceinline__ float warp_sum(float value) {
  for (int lanes = 16; lanes > 0; lanes /= 2) value += __shfl_xor_sync(kAll, value, lanes);
  return value;
}

// Thread i half + r of the grid: whether neighbour r of image i is in R(i, k1 / 2).
__device__ __forceinline__ void half_sets_block(const ReciprocalRows& p, uint8_t* mutual) {
  const int64_t k = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  if (k >= p.total * p.half) return;
  const int64_t i = k / p.half;
  mutual[k] = is_neighbor(p, p.neighbors[i * p.count + k % p.half], p.half, i);
}

// Block i: row i of V. FILL = false writes its length to out.offsets[i + 1], FILL = true its entries from
// out.offsets[i] on.
template <bool FILL>
__device__ void reciprocal_rows_block(const ReciprocalRows& p, const uint8_t* mutual, const RowsOut& out) {
  __shared__ int32_t keys[kMaxRowKeys];
  __shared__ int32_t members[kMaxRowKeys];
  __shared__ float weights[kMaxRowKeys];
  const int64_t i = blockIdx.x;
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  const int width = static_cast<int>(p.width), half = static_cast<int>(p.half);
  const int32_t* list = p.neighbors + i * p.count;
  int size = 1;
  while (size < width * (1 + half)) size *= 2;
  // The members of R(i, k1) at their rank, kNone elsewhere.
  for (int t = threadIdx.x; t < size; t += kThreads) {
    keys[t] = t < width && is_neighbor(p, list[t], width, i) ? list[t] : kNone;
  }
  __syncthreads();
  // One warp per member, one lane per neighbour of its half set; half <= kMaxHalf.
  for (int r = warp; r < width; r += kWarps) {
    const int32_t candidate = keys[r];
    if (candidate == kNone) continue;
    const int32_t* candidate_list = p.neighbors + candidate * p.count;
    const uint8_t* in_half = mutual + static_cast<int64_t>(candidate) * half;
    const bool counts = lane < half && in_half[lane];
    bool inside = false;
    for (int k = 0; counts && k < width; ++k) inside |= keys[k] == candidate_list[lane];
    const int members_of_half = __popc(__ballot_sync(kAll, counts));
    const int shared = __popc(__ballot_sync(kAll, inside));
    if (counts && 3 * shared > 2 * members_of_half) keys[width + r * half + lane] = candidate_list[lane];
  }
  sort_keys(keys, size);
  const int count = compact(
      size, [&](int t) { return keys[t] != kNone && (t == 0 || keys[t] != keys[t - 1]); },
      [&](int t, int place) { members[place] = keys[t]; });
  if constexpr (!FILL) {
    if (threadIdx.x == 0) out.offsets[i + 1] = count;
  } else {
    const float scale = p.farthest[i] > 0.0f ? p.farthest[i] : 1.0f;
    const float* row = p.features + i * p.dim;
    for (int k = warp; k < count; k += kWarps) {
      const float* other = p.features + members[k] * p.dim;
      float sum = 0.0f;
      for (int64_t d = lane; d < p.dim; d += 32) {
        const float difference = row[d] - other[d];
        sum = fmaf(difference, difference, sum);
      }
      sum = warp_sum(sum);
      if (lane == 0) weights[k] = expf(-sum / scale);
    }
    __syncthreads();
    float total = 0.0f;
    for (int k = 0; k < count; ++k) total += weights[k];
    for (int k = threadIdx.x; k < count; k += kThreads) {
      out.columns[out.offsets[i] + k] = members[k];
      out.values[out.offsets[i] + k] = weights[k] / total;
    }
  }
}

// Block i: row i of V after query expansion, FILL as above. A row with too many entries to sort gets the
// length kTooLong.
template <bool FILL>
__device__ void expand_block(const Expand& p, const RowsOut& out) {
  using Key = unsigned long long;  // column, then entry of V
  __shared__ Key keys[kMaxSumKeys];
  const int64_t i = blockIdx.x;
  const int32_t* list = p.neighbors + i * p.count;
  int64_t entries = 0;
  for (int64_t r = 0; r < p.k2; ++r) entries += p.rows.offsets[list[r] + 1] - p.rows.offsets[list[r]];
  if (entries > kMaxSumKeys) {
    if (!FILL && threadIdx.x == 0) out.offsets[i + 1] = kTooLong;
    return;
  }
  int size = 1;
  while (size < entries) size *= 2;
  int64_t first = 0;
  for (int64_t r = 0; r < p.k2; ++r) {
    const int64_t begin = p.rows.offsets[list[r]], end = p.rows.offsets[list[r] + 1];
    for (int64_t k = begin + threadIdx.x; k < end; k += kThreads) {
      keys[first + k - begin] = static_cast<Key>(p.rows.columns[k]) << 32 | static_cast<Key>(k);
    }
    first += end - begin;
  }
  for (int64_t t = entries + threadIdx.x; t < size; t += kThreads) keys[t] = ~Key{0};
  sort_keys(keys, size);
  const auto column = [&](int t) { return static_cast<int32_t>(keys[t] >> 32); };
  const int count = compact(
      static_cast<int>(entries), [&](int t) { return t == 0 || column(t) != column(t - 1); },
      [&](int t, int place) {
        if constexpr (FILL) {
          float sum = 0.0f;
          for (int e = t; e < entries && column(e) == column(t); ++e) {
            sum += p.rows.values[keys[e] & 0xffffffffu];
          }
          out.columns[out.offsets[i] + place] = column(t);
          out.values[out.offsets[i] + place] = sum / static_cast<float>(p.k2);
        }
      });
  if (!FILL && threadIdx.x == 0) out.offsets[i + 1] = count;
}

// One block: replaces the lengths in offsets[1] to offsets[total] by the offsets.
__device__ void scan_block(int64_t* offsets, int64_t total) {
  __shared__ long long sums[kThreads];
  const int64_t per_thread = ceil_div(total, kThreads);
  const int64_t begin = 1 + threadIdx.x * per_thread;
  const int64_t end = begin + per_thread < total + 1 ? begin + per_thread : total + 1;
  long long sum = 0;
  for (int64_t k = begin; k < end; ++k) sum += offsets[k];
  sums[threadIdx.x] = sum;
  __syncthreads();
  long long running = 0;
  for (unsigned t = 0; t < threadIdx.x; ++t) running += sums[t];
  for (int64_t k = begin; k < end; ++k) offsets[k] = running += offsets[k];
  if (threadIdx.x == 0) offsets[0] = 0;
}

// One warp per row: squared norms.
__device__ __forceinline__ void norms_block(const float* rows, int64_t count, int64_t dim, float* norms) {
  const int64_t row = static_cast<int64_t>(blockIdx.x) * kWarps + threadIdx.x / 32;
  if (row >= count) return;
  float sum = 0.0f;
  for (int64_t d = threadIdx.x % 32; d < dim; d += 32)
    sum = fmaf(rows[row * dim + d], rows[row * dim + d], sum);
  sum = warp_sum(sum);
  if (threadIdx.x % 32 == 0) norms[row] = sum;
}

// Block q: the final distances of query q; on entry p.final_distance holds its products with the gallery. A
// column of V has each gallery row at most once, so the threads of a step add to different overlaps.
__device__ void final_block(const Block& p, const BlockScratch& scratch) {
  const int64_t q = blockIdx.x;
  float* overlaps = scratch.overlaps + q * p.size;
  float* distances = p.final_distance + q * p.size;
  for (int64_t g = threadIdx.x; g < p.size; g += kThreads) overlaps[g] = 0.0f;
  for (int64_t k = p.rows.offsets[q]; k < p.rows.offsets[q + 1]; ++k) {
    const float query_value = p.rows.values[k];
    const int64_t begin = p.inverse.offsets[p.rows.columns[k]];
    const int64_t end = p.inverse.offsets[p.rows.columns[k] + 1];
    __syncthreads();
    for (int64_t e = begin + threadIdx.x; e < end; e += kThreads) {
      const float gallery_value = p.inverse.values[e];
      overlaps[p.inverse.columns[e]] += query_value < gallery_value ? query_value : gallery_value;
    }
  }
  __syncthreads();
  const float scale = p.farthest[q] > 0.0f ? p.farthest[q] : 1.0f;
  for (int64_t g = threadIdx.x; g < p.size; g += kThreads) {
    const float squared = scratch.query_norms[q] + scratch.gallery_norms[g] - 2.0f * distances[g];
    const float original = (squared > 0.0f ? squared : 0.0f) / scale;
    const float jaccard = 1.0f - overlaps[g] / (2.0f - overlaps[g]);
    distances[g] = p.lambda_value * original + (1.0f - p.lambda_value) * jaccard;
  }
}

}  // namespace autoreid_fast
