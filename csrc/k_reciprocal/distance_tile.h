// Squared distances in tiles, for the CPU: a strip of rows against a packed tile of kTile others.
//
// An inner product is one chain of multiply-adds in the order of the dimensions, and so is a norm: an entry
// does not depend on the tile it is in, equal rows are at distance 0 exactly, and d_ij = d_ji. A strip of 8
// rows x 3 vectors (AVX-512) needs 11 loads for 24 multiply-adds, all of whose sums stay in registers:
// 105-114 GFLOP/s a core on a Zen 4 at 3.7 GHz (peak 118), where torch.mm had 53-85.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <limits>
#include <vector>

#include "../instruction_set.h"

#define ALWAYS_INLINE inline __attribute__((always_inline))

namespace autoreid_fast {

constexpr int64_t kTile = 240;  // a multiple of every panel's width
constexpr int64_t kMaxStrip = 8;

template <int BYTES>
using Floats __attribute__((vector_size(BYTES))) = float;

// How an instruction set computes: strips of `rows` against panels of `vectors` vectors.
template <int BYTES, int ROWS, int VECTORS>
struct Shape {
  static constexpr int64_t lanes = BYTES / sizeof(float), rows = ROWS, vectors = VECTORS;
  static constexpr int64_t width = lanes * VECTORS;
  using V = Floats<BYTES>;
  static_assert(kTile % width == 0 && ROWS <= kMaxStrip);
};
using Avx512Shape = Shape<64, 8, 3>;
using Avx2Shape = Shape<32, 4, 3>;
using PortableShape = Shape<16, 4, 2>;

// Room for a packed tile, on a cache line.
class PackedTile {
 public:
  explicit PackedTile(int64_t dim) : storage_(kTile * dim + 16) {}
  float* data() {
    return storage_.data() + (64 - reinterpret_cast<uintptr_t>(storage_.data()) % 64) % 64 / 4;
  }

 private:
  std::vector<float> storage_;
};

// Squared norms of rows [begin, end).
ALWAYS_INLINE void norms_of(const float* rows, int64_t dim, int64_t begin, int64_t end, float* norms) {
  for (int64_t i = begin; i < end; ++i) {
    float sum = 0;
    for (int64_t d = 0; d < dim; ++d) sum += rows[i * dim + d] * rows[i * dim + d];
    norms[i] = sum;
  }
}

// kTile rows from `first` on, as panels of (dim, width); rows past `total` are zeros.
template <typename S>
ALWAYS_INLINE void pack(const float* rows, int64_t total, int64_t dim, int64_t first, float* packed) {
  constexpr int64_t step = 16;  // dimensions at a time: a line of each row
  for (int64_t panel = 0; panel < kTile; panel += S::width, packed += dim * S::width) {
    for (int64_t d = 0; d < dim; d += step) {
      for (int64_t c = 0; c < S::width; ++c) {
        const int64_t row = first + panel + c;
        for (int64_t k = d; k < std::min(d + step, dim); ++k) {
          packed[k * S::width + c] = row < total ? rows[row * dim + k] : 0.0f;
        }
      }
    }
  }
}

// squared[r][c] = squared distance, at least 0, of strip row r to row c of the packed tile.
template <typename S>
ALWAYS_INLINE void strip_distances(const float* const (&rows)[kMaxStrip], const float (&norms)[kMaxStrip],
                                   const float* packed, const float* packed_norms, int64_t dim,
                                   float (&squared)[kMaxStrip][kTile]) {
  using V = typename S::V;
  for (int64_t panel = 0; panel < kTile; panel += S::width, packed += dim * S::width) {
    V sums[S::rows][S::vectors] = {};
    for (int64_t d = 0; d < dim; ++d) {
      V right[S::vectors];
#pragma GCC unroll 8
      for (int v = 0; v < S::vectors; ++v) {
        std::memcpy(&right[v], packed + d * S::width + v * S::lanes, sizeof(V));
      }
#pragma GCC unroll 8
      for (int r = 0; r < S::rows; ++r) {
        const V left = V{} + rows[r][d];
#pragma GCC unroll 8
        for (int v = 0; v < S::vectors; ++v) sums[r][v] += left * right[v];
      }
    }
#pragma GCC unroll 8
    for (int r = 0; r < S::rows; ++r) {
#pragma GCC unroll 8
      for (int v = 0; v < S::vectors; ++v) {
        V theirs;
        std::memcpy(&theirs, packed_norms + panel + v * S::lanes, sizeof(V));
        const V value = (norms[r] + theirs) - 2.0f * sums[r][v];
        const V least = value > 0.0f ? value : V{};
        std::memcpy(&squared[r][panel + v * S::lanes], &least, sizeof(V));
      }
    }
  }
}

}  // namespace autoreid_fast
