// Pixels times weights by register tiles; pixel_gemm.h has the maths.
#include "pixel_gemm.h"

#include <algorithm>
#include <type_traits>

#include "../common/vector.h"

namespace autoreid_fast {
namespace {

constexpr int kMaxRows = 12;  // of a tile
constexpr int tile_rows(int bytes) { return bytes == 64 ? kMaxRows : bytes == 32 ? 6 : 3; }

// ROWS rows of c = a b for one panel of VECTORS vectors, of which `columns` columns are written.
template <typename V, typename T, int ROWS, int VECTORS>
ALWAYS_INLINE void multiply_tile(Matrix<const T> a, const T* panel, int64_t depth, Matrix<T> c,
                                 int64_t columns) {
  constexpr int64_t lanes = sizeof(V) / sizeof(T);
  V sums[ROWS][VECTORS];
#pragma GCC unroll 12
  for (int i = 0; i < ROWS; ++i) {
#pragma GCC unroll 2
    for (int v = 0; v < VECTORS; ++v) sums[i][v] = V{};
  }
  for (int64_t k = 0; k < depth; ++k, panel += VECTORS * lanes) {
    V right[VECTORS];
#pragma GCC unroll 2
    for (int v = 0; v < VECTORS; ++v) load(right[v], panel + v * lanes);
#pragma GCC unroll 12
    for (int i = 0; i < ROWS; ++i) {
      const T left = a.data[i * a.stride + k];
#pragma GCC unroll 2
      for (int v = 0; v < VECTORS; ++v) sums[i][v] += left * right[v];
    }
  }
#pragma GCC unroll 12
  for (int i = 0; i < ROWS; ++i) {
#pragma GCC unroll 2
    for (int v = 0; v < VECTORS; ++v) {
      T* to = c.row(i) + v * lanes;
      if (columns >= (v + 1) * lanes) {
        store(to, sums[i][v]);
      } else {
        const V last = sums[i][v];  // a copy: the sums must have no address, or they leave the registers
        std::memcpy(to, &last, (columns - v * lanes) * sizeof(T));
      }
    }
  }
}

// ROWS rows and VECTORS vectors of c += a^T b.
template <typename V, typename T, int ROWS, int VECTORS>
ALWAYS_INLINE void outer_tile(Matrix<const T> a, Matrix<const T> b, int64_t pixels, Matrix<T> c) {
  constexpr int64_t lanes = sizeof(V) / sizeof(T);
  V sums[ROWS][VECTORS];
#pragma GCC unroll 12
  for (int i = 0; i < ROWS; ++i) {
#pragma GCC unroll 2
    for (int v = 0; v < VECTORS; ++v) load(sums[i][v], c.row(i) + v * lanes);
  }
  for (int64_t p = 0; p < pixels; ++p, a.data += a.stride, b.data += b.stride) {
    V right[VECTORS];
#pragma GCC unroll 2
    for (int v = 0; v < VECTORS; ++v) load(right[v], b.data + v * lanes);
#pragma GCC unroll 12
    for (int i = 0; i < ROWS; ++i) {
      const T left = a.data[i];
#pragma GCC unroll 2
      for (int v = 0; v < VECTORS; ++v) sums[i][v] += left * right[v];
    }
  }
#pragma GCC unroll 12
  for (int i = 0; i < ROWS; ++i) {
#pragma GCC unroll 2
    for (int v = 0; v < VECTORS; ++v) store(c.row(i) + v * lanes, sums[i][v]);
  }
}

// Calls use(first, height) for consecutive ranges of [0, rows). `height` is a compile-time constant: MOST
// while that many rows are left, then MOST / 3, then 1.
template <int MOST, typename Use>
ALWAYS_INLINE void for_heights(int64_t rows, const Use& use) {
  int64_t i = 0;
  for (; i + MOST <= rows; i += MOST) use(i, std::integral_constant<int, MOST>{});
  for (; i + MOST / 3 <= rows; i += MOST / 3) use(i, std::integral_constant<int, MOST / 3>{});
  for (; i < rows; ++i) use(i, std::integral_constant<int, 1>{});
}

// Calls use(j, vectors) for the panels of `columns` columns. `vectors` is a compile-time constant: 2, and 1
// for a last panel of at most one vector.
template <int64_t LANES, typename Use>
ALWAYS_INLINE void for_panels(int64_t columns, const Use& use) {
  int64_t j = 0;
  for (; j + LANES < columns; j += 2 * LANES) use(j, std::integral_constant<int, 2>{});
  if (j < columns) use(j, std::integral_constant<int, 1>{});
}

template <typename T>
struct MultiplyKernel {
  template <int BYTES>
  ALWAYS_INLINE static void run(const Multiply<T>& problem) {
    constexpr int64_t lanes = BYTES / sizeof(T);
    const Multiply<T> p = problem;  // a copy that stores cannot alias
    for_panels<lanes>(p.columns, [&](int64_t j, auto vectors) INLINE_LAMBDA {
      const T* panel = p.packed + j * p.depth;
      const int64_t columns = std::min(p.columns - j, vectors() * lanes);
      for_heights<tile_rows(BYTES)>(p.rows, [&](int64_t i, auto height) INLINE_LAMBDA {
        multiply_tile<Vector<T, BYTES>, T, height(), vectors()>(p.a.from(i, 0), panel, p.depth,
                                                                p.c.from(i, j), columns);
      });
    });
  }
};

template <typename T>
struct AddOuterKernel {
  template <int BYTES>
  ALWAYS_INLINE static void run(const AddOuter<T>& problem) {
    constexpr int64_t lanes = BYTES / sizeof(T);
    const AddOuter<T> p = problem;  // a copy that stores cannot alias
    for_panels<lanes>(p.columns, [&](int64_t j, auto vectors) INLINE_LAMBDA {
      for_heights<tile_rows(BYTES)>(p.rows, [&](int64_t i, auto height) INLINE_LAMBDA {
        outer_tile<Vector<T, BYTES>, T, height(), vectors()>(p.a.from(0, i), p.b.from(0, j), p.pixels,
                                                             p.c.from(i, j));
      });
    });
  }
};

}  // namespace

template <typename T>
void PixelGemm<T>::pack(const T* b, int64_t row_stride, int64_t column_stride, int64_t depth, int64_t columns,
                        T* packed) const {
  constexpr int64_t step = 16;  // rows of b whose cache lines stay in L1
  for (int64_t j = 0; j < columns;) {
    const int64_t width = columns - j > lanes ? 2 * lanes : lanes, count = std::min(width, columns - j);
    for (int64_t first = 0; first < depth; first += step) {
      for (int64_t k = first; k < std::min(first + step, depth); ++k) {
        T* row = packed + k * width;
        for (int64_t i = 0; i < count; ++i) row[i] = b[k * row_stride + (j + i) * column_stride];
        std::fill(row + count, row + width, T(0));
      }
    }
    packed += width * depth;
    j += width;
  }
}

template <typename T>
PixelGemm<T> pixel_gemm() {
  return {static_cast<int64_t>(vector_bytes(instruction_set()) / sizeof(T)), variant<MultiplyKernel<T>>(),
          variant<AddOuterKernel<T>>()};
}

template struct PixelGemm<float>;
template struct PixelGemm<double>;
template PixelGemm<float> pixel_gemm();
template PixelGemm<double> pixel_gemm();

}  // namespace autoreid_fast
