// Counting closer entries, device code; rank_gallery.h has the maths. Free of torch headers: the tests also
// run this code on the CPU (tests/native/simt.h).
//
// counts[t] first holds the number of entries between threshold t - 1 and threshold t, added by integer
// atomics: deterministic.
//   From features: behind key_tile_block, without a matrix of keys. A key, still in a register, is compared
//   with its query's largest threshold, which settles most keys; the others find their place by bisection of
//   the thresholds, which are in L1.
//   From given keys: grid (query, 8192 entries). The query's thresholds and counts are in shared memory, 1024
//   at a time, so a key costs one read: 4 Q G bytes, memory bound.
// Excluded entries, of which there are few, are counted like all others and then taken back, one thread each:
// a key has the same bits wherever it is computed. At the end one thread per query adds up the counts.
#pragma once

#include "../key_tiles/key_tiles_kernel.cuh"
#include "rank_gallery.h"

namespace autoreid_fast {

using Count = unsigned long long;

constexpr int kTileThresholds = 1024;
constexpr int64_t kBlockEntries = 8192;

__device__ __forceinline__ bool is_before(float key, int64_t index, float threshold,
                                          int64_t threshold_index) {
  return key < threshold || (key == threshold && index < threshold_index);
}

// The first of `count` thresholds that the entry is before, or `count`.
__device__ __forceinline__ int64_t first_after(float key, int64_t index, const float* keys,
                                               const int64_t* indices, int64_t count) {
  int64_t low = 0, high = count;
  while (low < high) {
    const int64_t middle = (low + high) / 2;
    if (is_before(key, index, keys[middle], indices[middle])) {
      high = middle;
    } else {
      low = middle + 1;
    }
  }
  return low;
}

// Counts the keys of one query. It has little state, as the 64 sums of a tile leave few registers.
struct CountRow {
  const Counting& p;
  int64_t query;
  float limit;  // the largest threshold, or NaN if there is none

  __device__ CountRow(const Counting& p, int64_t query) : p(p), query(query), limit(NAN) {
    if (p.offsets[query] < p.offsets[query + 1]) limit = p.keys[p.offsets[query + 1] - 1];
  }

  __device__ __forceinline__ void operator()(int64_t column, float key) const {
    if (key <= limit && p.valid[column]) count(column, key, Count{1});
  }

  // Counts an entry; takes it back where `step` is -1.
  __device__ __forceinline__ void count(int64_t column, float key, Count step) const {
    const int64_t first = p.offsets[query], count = p.offsets[query + 1] - first;
    const int64_t t = first_after(key, p.gallery_offset + column, p.keys + first, p.indices + first, count);
    if (t < count) atomicAdd(reinterpret_cast<Count*>(p.counts) + first + t, step);
  }

  __device__ __forceinline__ void take_back(int64_t column, float key) const {
    if (key <= limit && p.valid[column]) count(column, key, ~Count{0});
  }
};

struct CountSink {
  const Counting& p;
  __device__ CountRow row(int64_t query) const { return {p, query}; }
};

// The query to whose list an entry belongs, or -1 past the end of the lists.
__device__ inline int64_t query_of(const int64_t* offsets, int64_t query_count, int64_t entry) {
  int64_t low = 0, high = query_count;
  while (low < high) {
    const int64_t middle = (low + high) / 2;
    if (offsets[middle + 1] > entry) {
      high = middle;
    } else {
      low = middle + 1;
    }
  }
  return low < query_count ? low : -1;
}

__device__ __forceinline__ int64_t thread_of_grid() {
  return static_cast<int64_t>(blockIdx.x) * kKeyThreads + threadIdx.x;
}

// Thread t of the grid takes back excluded entry t, with its key from the features.
template <typename T>
__device__ void take_back_thread(const KeyProblem& problem, const KeyTerms& terms, const Counting& p) {
  const int64_t entry = thread_of_grid();
  if (entry >= p.excluded_count) return;
  const int64_t query = query_of(p.excluded_offsets, p.query_count, entry), column = p.excluded[entry];
  CountRow(p, query).take_back(column, pair_key<T>(problem, terms, query, column));
}

// Thread t of the grid takes back excluded entry t, with its key from the block.
__device__ inline void take_back_given_thread(const KeyBlock& block, const Counting& p) {
  const int64_t entry = thread_of_grid();
  if (entry >= p.excluded_count) return;
  const int64_t query = query_of(p.excluded_offsets, p.query_count, entry), column = p.excluded[entry];
  CountRow(p, query).take_back(column, block.keys[query * block.row_stride + column]);
}

// Thread t of the grid adds up the counts of query t.
__device__ inline void add_up_thread(const Counting& p) {
  const int64_t query = thread_of_grid();
  if (query >= p.query_count) return;
  int64_t sum = 0;
  for (int64_t t = p.offsets[query]; t < p.offsets[query + 1]; ++t) p.counts[t] = sum += p.counts[t];
}

// Thread t of the grid computes the key of match t.
template <typename T>
__device__ void match_key_thread(const MatchKeys& p, const KeyTerms& terms) {
  const int64_t match = thread_of_grid();
  if (match >= p.match_count) return;
  const int64_t query = query_of(p.offsets, p.problem.query.count, match);
  p.keys[match] = pair_key<T>(p.problem, terms, query, p.matches[match]);
}

// Block (x, y): query x, entries from y kBlockEntries on.
__device__ inline void count_closer_given_block(const KeyBlock& block, const Counting& p) {
  __shared__ float keys[kTileThresholds];
  __shared__ int64_t indices[kTileThresholds];
  __shared__ unsigned counts[kTileThresholds];
  const int64_t query = blockIdx.x, begin = static_cast<int64_t>(blockIdx.y) * kBlockEntries;
  const int64_t end =
      begin + kBlockEntries < block.gallery_count ? begin + kBlockEntries : block.gallery_count;
  const float* row = block.keys + query * block.row_stride;
  const int64_t last = p.offsets[query + 1];
  for (int64_t first = p.offsets[query], tile = first; tile < last; tile += kTileThresholds) {
    const int64_t size = last - tile < kTileThresholds ? last - tile : kTileThresholds;
    for (int64_t t = threadIdx.x; t < size; t += kKeyThreads) {
      keys[t] = p.keys[tile + t];
      indices[t] = p.indices[tile + t];
      counts[t] = 0;
    }
    __syncthreads();
    const float limit = keys[size - 1];
    for (int64_t column = begin + threadIdx.x; column < end; column += kKeyThreads) {
      const float key = row[column];
      if (!(key <= limit) || !p.valid[column]) continue;
      const int64_t index = p.gallery_offset + column;
      if (tile > first && is_before(key, index, p.keys[tile - 1], p.indices[tile - 1])) continue;
      const int64_t t = first_after(key, index, keys, indices, size);
      if (t < size) atomicAdd(counts + t, 1u);
    }
    __syncthreads();
    for (int64_t t = threadIdx.x; t < size; t += kKeyThreads) {
      if (counts[t] != 0) atomicAdd(reinterpret_cast<Count*>(p.counts) + tile + t, Count{counts[t]});
    }
    __syncthreads();
  }
}

}  // namespace autoreid_fast
