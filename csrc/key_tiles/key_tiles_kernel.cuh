// Keys in tiles, device code; key_tiles.h has the maths. Free of torch headers: the tests also run this code
// on the CPU (tests/native/simt.h).
//
// A block of 256 threads owns 128 queries x 128 gallery entries and hands each key to a sink. Eight columns
// of both at a time go through shared memory, transposed and double-buffered (17 KB), while the next eight
// wait in registers. A thread keeps 8 x 8 sums: 4 loads of 16 bytes from shared memory feed 64 multiply-adds.
// It is plain FP32 on purpose: TF32, or a chain split over the columns, would change the bits of the keys.
//
// Cost for MSMT17, 11,659 x 82,161 x 512 (an estimate, not measured): 0.98 TFLOP, 15 ms at 67 TFLOP/s. The
// grid's fastest index is the tile of queries: the queries (24 MB) stay in L2 and the gallery is read from
// memory once.
#pragma once

#include "key_tiles.h"

namespace autoreid_fast {

constexpr int kKeyThreads = 256;
constexpr int kKeyTile = 128;            // queries and gallery entries of a block
constexpr int kKeyDepth = 8;             // columns at a time
constexpr int kKeyPitch = kKeyTile + 4;  // of rows in shared memory: 16-byte aligned, no bank conflicts

// One term per row: its squared norm; for the cosine its norm, or 1 for a zero vector.
struct KeyTerms {
  const float* query;    // (Q,)
  const float* gallery;  // (G,)
};

template <typename T, int COUNT>
struct alignas(sizeof(T) * COUNT) Aligned {
  T values[COUNT];
};

// Thread t of the grid: the term of row t of the features.
template <typename T>
__device__ void key_terms_thread(const Features& features, int64_t dim, bool cosine, float* terms) {
  const int64_t row = static_cast<int64_t>(blockIdx.x) * kKeyThreads + threadIdx.x;
  if (row >= features.count) return;
  const T* x = static_cast<const T*>(features.data) + row * features.row_stride;
  float sum = 0.0f;
  for (int64_t k = 0; k < dim; ++k) sum = fmaf(to_float(x[k]), to_float(x[k]), sum);
  terms[row] = !cosine ? sum : sum > 0.0f ? sqrtf(sum) : 1.0f;
}

__device__ __forceinline__ float key_from(float dot, float query_term, float gallery_term, bool cosine) {
  if (cosine) return 0.0f - dot;
  const float key = (query_term + gallery_term) - 2.0f * dot;
  return key < 0.0f ? 0.0f : key;
}

// The key of one pair, computed by one thread.
template <typename T>
__device__ float pair_key(const KeyProblem& p, const KeyTerms& terms, int64_t row, int64_t column) {
  const T* q = static_cast<const T*>(p.query.data) + row * p.query.row_stride;
  const T* g = static_cast<const T*>(p.gallery.data) + column * p.gallery.row_stride;
  const float query_term = terms.query[row], gallery_term = terms.gallery[column];
  const float query_divisor = p.cosine ? query_term : 1.0f, gallery_divisor = p.cosine ? gallery_term : 1.0f;
  float dot = 0.0f;
  for (int64_t k = 0; k < p.dim; ++k)
    dot = fmaf(to_float(q[k]) / query_divisor, to_float(g[k]) / gallery_divisor, dot);
  return key_from(dot, query_term, gallery_term, p.cosine);
}

// Loads four columns of one row at a time from global memory.
template <typename T>
struct KeyLoader {
  const T* row;  // null past the last row, which reads as zeros
  float divisor;
  bool aligned;

  __device__ KeyLoader(const Features& features, int64_t index, const float* terms, bool cosine)
      : row(index < features.count ? static_cast<const T*>(features.data) + index * features.row_stride
                                   : nullptr),
        divisor(cosine && index < features.count ? terms[index] : 1.0f),
        aligned(reinterpret_cast<uintptr_t>(features.data) % (4 * sizeof(T)) == 0 &&
                features.row_stride % 4 == 0) {}

  __device__ __forceinline__ void load(int k, int dim, bool cosine, float (&out)[4]) const {
    if (row != nullptr && aligned && k + 4 <= dim) {
      const Aligned<T, 4> four = *reinterpret_cast<const Aligned<T, 4>*>(row + k);
#pragma unroll
      for (int i = 0; i < 4; ++i) out[i] = to_float(four.values[i]);
    } else {
#pragma unroll
      for (int i = 0; i < 4; ++i) out[i] = row != nullptr && k + i < dim ? to_float(row[k + i]) : 0.0f;
    }
    if (!cosine) return;
#pragma unroll
    for (int i = 0; i < 4; ++i) out[i] /= divisor;
  }
};

// Block (x, y): query tile x, gallery tile y. Calls sink.row(query)(entry, key) for each pair.
template <typename T, typename Sink>
__device__ void key_tile_block(const KeyProblem& p, const KeyTerms& terms, const Sink& sink) {
  alignas(16) __shared__ float left[2][kKeyDepth][kKeyPitch];
  alignas(16) __shared__ float right[2][kKeyDepth][kKeyPitch];
  const int thread = threadIdx.x;
  const int64_t first_row = static_cast<int64_t>(blockIdx.x) * kKeyTile;
  const int64_t first_column = static_cast<int64_t>(blockIdx.y) * kKeyTile;
  const int dim = static_cast<int>(p.dim);  // 64 bits would cost registers
  const int load_row = thread / 2, load_k = thread % 2 * 4;
  const KeyLoader<T> query(p.query, first_row + load_row, terms.query, p.cosine);
  const KeyLoader<T> gallery(p.gallery, first_column + load_row, terms.gallery, p.cosine);
  const int row4 = thread / 16 * 4, column4 = thread % 16 * 4;  // first of four; four more are 64 further on

  float sums[8][8] = {};
  float next_left[4], next_right[4];
  query.load(load_k, dim, p.cosine, next_left);
  gallery.load(load_k, dim, p.cosine, next_right);
  int stage = 0;
  for (int k = 0; k < dim; k += kKeyDepth, stage ^= 1) {
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      left[stage][load_k + i][load_row] = next_left[i];
      right[stage][load_k + i][load_row] = next_right[i];
    }
    __syncthreads();  // one per step is enough: the other stage is written only after all have passed it
    if (k + kKeyDepth < dim) {
      query.load(k + kKeyDepth + load_k, dim, p.cosine, next_left);
      gallery.load(k + kKeyDepth + load_k, dim, p.cosine, next_right);
    }
#pragma unroll
    for (int d = 0; d < kKeyDepth; ++d) {
      using Four = Aligned<float, 4>;
      Four a[2], b[2];
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        a[half] = *reinterpret_cast<const Four*>(&left[stage][d][row4 + 64 * half]);
        b[half] = *reinterpret_cast<const Four*>(&right[stage][d][column4 + 64 * half]);
      }
#pragma unroll
      for (int i = 0; i < 8; ++i) {
#pragma unroll
        for (int j = 0; j < 8; ++j) {
          sums[i][j] = fmaf(a[i / 4].values[i % 4], b[j / 4].values[j % 4], sums[i][j]);
        }
      }
    }
  }

#pragma unroll
  for (int i = 0; i < 8; ++i) {
    const int64_t row = first_row + row4 + i % 4 + 64 * (i / 4);
    if (row >= p.query.count) continue;
    const float query_term = terms.query[row];
    const auto row_sink = sink.row(row);
#pragma unroll
    for (int j = 0; j < 8; ++j) {
      const int64_t column = first_column + column4 + j % 4 + 64 * (j / 4);
      if (column >= p.gallery.count) continue;
      row_sink(column, key_from(sums[i][j], query_term, terms.gallery[column], p.cosine));
    }
  }
}

}  // namespace autoreid_fast
