// Pixels times weights by register tiles; pixel_gemm.h has the maths.
#include "pixel_gemm.h"

#include <algorithm>

#include "../vector.h"

namespace autoreid_fast {
namespace {

// ROWS rows of c = a b for one panel of VECTORS vectors, of which `columns` columns are written.
template <typename V, typename T, int ROWS, int VECTORS>
ALWAYS_INLINE void multiply_tile(const T* a, int64_t a_step, const T* panel, int64_t depth, T* c,
                                 int64_t c_step, int64_t columns) {
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
      const T left = a[i * a_step + k];
#pragma GCC unroll 2
      for (int v = 0; v < VECTORS; ++v) sums[i][v] += left * right[v];
    }
  }
#pragma GCC unroll 12
  for (int i = 0; i < ROWS; ++i) {
#pragma GCC unroll 2
    for (int v = 0; v < VECTORS; ++v) {
      T* to = c + i * c_step + v * lanes;
      if (columns >= (v + 1) * lanes) {
        store(to, sums[i][v]);
      } else {
        const V last = sums[i][v];  // a copy: the sums themselves must have no address
        std::memcpy(to, &last, (columns - v * lanes) * sizeof(T));
      }
    }
  }
}

// ROWS rows and VECTORS vectors of c += a^T b.
template <typename V, typename T, int ROWS, int VECTORS>
ALWAYS_INLINE void outer_tile(const T* a, int64_t a_step, const T* b, int64_t b_step, int64_t pixels, T* c,
                              int64_t c_step) {
  constexpr int64_t lanes = sizeof(V) / sizeof(T);
  V sums[ROWS][VECTORS];
#pragma GCC unroll 12
  for (int i = 0; i < ROWS; ++i) {
#pragma GCC unroll 2
    for (int v = 0; v < VECTORS; ++v) load(sums[i][v], c + i * c_step + v * lanes);
  }
  for (int64_t p = 0; p < pixels; ++p, a += a_step, b += b_step) {
    V right[VECTORS];
#pragma GCC unroll 2
    for (int v = 0; v < VECTORS; ++v) load(right[v], b + v * lanes);
#pragma GCC unroll 12
    for (int i = 0; i < ROWS; ++i) {
      const T left = a[i];
#pragma GCC unroll 2
      for (int v = 0; v < VECTORS; ++v) sums[i][v] += left * right[v];
    }
  }
#pragma GCC unroll 12
  for (int i = 0; i < ROWS; ++i) {
#pragma GCC unroll 2
    for (int v = 0; v < VECTORS; ++v) store(c + i * c_step + v * lanes, sums[i][v]);
  }
}

// Calls use(first, height) for pieces of [0, rows), height a compile-time constant: MOST, then MOST / 3,
// then 1.
template <int MOST, typename Use>
ALWAYS_INLINE void for_heights(int64_t rows, const Use& use) {
  int64_t at = 0;
  for (; at + MOST <= rows; at += MOST) use(at, std::integral_constant<int, MOST>{});
  for (; at + MOST / 3 <= rows; at += MOST / 3) use(at, std::integral_constant<int, MOST / 3>{});
  for (; at < rows; ++at) use(at, std::integral_constant<int, 1>{});
}

template <typename V, typename T, int ROWS, int VECTORS>
ALWAYS_INLINE void multiply_panel(const T* a, int64_t a_step, int64_t rows, const T* panel, int64_t depth,
                                  T* c, int64_t c_step, int64_t columns) {
  for_heights<ROWS>(rows, [&](int64_t at, auto height) INLINE_LAMBDA {
    multiply_tile<V, T, height(), VECTORS>(a + at * a_step, a_step, panel, depth, c + at * c_step, c_step,
                                           columns);
  });
}

template <typename T, int BYTES, int ROWS>
ALWAYS_INLINE void multiply(const T* a, int64_t a_step, int64_t rows, const T* packed, int64_t depth, T* c,
                            int64_t c_step, int64_t columns) {
  using V = Vector<T, BYTES>;
  constexpr int64_t lanes = BYTES / sizeof(T);
  int64_t j = 0;
  for (; j + lanes < columns; j += 2 * lanes) {
    multiply_panel<V, T, ROWS, 2>(a, a_step, rows, packed + j * depth, depth, c + j, c_step,
                                  std::min(columns - j, 2 * lanes));
  }
  if (j < columns) {
    multiply_panel<V, T, ROWS, 1>(a, a_step, rows, packed + j * depth, depth, c + j, c_step, columns - j);
  }
}

template <typename V, typename T, int ROWS, int VECTORS>
ALWAYS_INLINE void outer_panel(const T* a, int64_t a_step, int64_t rows, const T* b, int64_t b_step,
                               int64_t pixels, T* c, int64_t c_step) {
  for_heights<ROWS>(rows, [&](int64_t at, auto height) INLINE_LAMBDA {
    outer_tile<V, T, height(), VECTORS>(a + at, a_step, b, b_step, pixels, c + at * c_step, c_step);
  });
}

template <typename T, int BYTES, int ROWS>
ALWAYS_INLINE void add_outer(const T* a, int64_t a_step, int64_t rows, const T* b, int64_t b_step,
                             int64_t pixels, T* c, int64_t c_step, int64_t columns) {
  using V = Vector<T, BYTES>;
  constexpr int64_t lanes = BYTES / sizeof(T);
  int64_t j = 0;
  for (; j + lanes < columns; j += 2 * lanes) {
    outer_panel<V, T, ROWS, 2>(a, a_step, rows, b + j, b_step, pixels, c + j, c_step);
  }
  if (j < columns) outer_panel<V, T, ROWS, 1>(a, a_step, rows, b + j, b_step, pixels, c + j, c_step);
}

#define GEMM_CODE(NAME, TARGET, BYTES, ROWS)                                                            \
  template <typename T>                                                                                 \
  TARGET void multiply_##NAME(const T* a, int64_t a_step, int64_t rows, const T* packed, int64_t depth, \
                              T* c, int64_t c_step, int64_t columns) {                                  \
    multiply<T, BYTES, ROWS>(a, a_step, rows, packed, depth, c, c_step, columns);                       \
  }                                                                                                     \
  template <typename T>                                                                                 \
  TARGET void add_outer_##NAME(const T* a, int64_t a_step, int64_t rows, const T* b, int64_t b_step,    \
                               int64_t pixels, T* c, int64_t c_step, int64_t columns) {                 \
    add_outer<T, BYTES, ROWS>(a, a_step, rows, b, b_step, pixels, c, c_step, columns);                  \
  }                                                                                                     \
  template <typename T>                                                                                 \
  constexpr PixelGemm<T> k_##NAME = {BYTES / sizeof(T), multiply_##NAME<T>, add_outer_##NAME<T>};

GEMM_CODE(avx512, AUTOREID_FAST_AVX512, 64, 12)
GEMM_CODE(avx2, AUTOREID_FAST_AVX2, 32, 6)
GEMM_CODE(portable, , 16, 3)

}  // namespace

template <typename T>
void PixelGemm<T>::pack(const T* b, int64_t row_step, int64_t column_step, int64_t depth, int64_t columns,
                        T* packed) const {
  constexpr int64_t step = 16;  // rows of b whose cache lines stay in the L1
  for (int64_t j = 0; j < columns;) {
    const int64_t width = columns - j > lanes ? 2 * lanes : lanes, count = std::min(width, columns - j);
    for (int64_t k = 0; k < depth; k += step) {
      for (int64_t at = k; at < std::min(k + step, depth); ++at) {
        T* row = packed + at * width;
        for (int64_t i = 0; i < count; ++i) row[i] = b[at * row_step + (j + i) * column_step];
        std::fill(row + count, row + width, T(0));
      }
    }
    packed += width * depth;
    j += width;
  }
}

template <typename T>
PixelGemm<T> pixel_gemm() {
  const InstructionSet set = instruction_set();
  return set == InstructionSet::avx512 ? k_avx512<T>
         : set == InstructionSet::avx2 ? k_avx2<T>
                                       : k_portable<T>;
}

template struct PixelGemm<float>;
template struct PixelGemm<double>;
template PixelGemm<float> pixel_gemm();
template PixelGemm<double> pixel_gemm();

}  // namespace autoreid_fast
