// Products of pixels and weights on the CPU, by register tiles: what a 1x1 convolution with pixels last in
// memory is made of, for callers that hold their pixels in the cache.
//
//   multiply:   c = a b            a (rows, depth), b (depth, columns) packed once, c (rows, columns)
//   add_outer:  c += a^T b         a (pixels, rows), b (pixels, columns), c (rows, columns)
//
// a and c are read and written where they lie, rows any stride apart. A tile of 12 rows and two vectors of
// columns (AVX-512; 6 with AVX2, 4 without) stays in registers for the whole chain of multiply-adds over
// depth or pixels, which runs from the first to the last: one step is two loads, 12 broadcasts and 24
// multiply-adds, 2 FLOPs each for every lane. The result of an element depends on its row and column alone,
// not on the tiling.
#pragma once

#include <cstdint>

namespace autoreid_fast {

// The code of one instruction set for elements T, float or double.
template <typename T>
struct PixelGemm {
  int64_t lanes;  // of a vector

  // The least multiple of a vector that holds `count` columns.
  int64_t padded(int64_t count) const { return (count + lanes - 1) / lanes * lanes; }

  // Element (k, j) of b is b[k * row_step + j * column_step]; `packed` has depth * padded(columns) elements.
  void pack(const T* b, int64_t row_step, int64_t column_step, int64_t depth, int64_t columns,
            T* packed) const;

  void (*multiply)(const T* a, int64_t a_step, int64_t rows, const T* packed, int64_t depth, T* c,
                   int64_t c_step, int64_t columns);

  // Reads rows of b and writes rows of c up to padded(columns).
  void (*add_outer)(const T* a, int64_t a_step, int64_t rows, const T* b, int64_t b_step, int64_t pixels,
                    T* c, int64_t c_step, int64_t columns);
};

// For the instruction set in use.
template <typename T>
PixelGemm<T> pixel_gemm();

}  // namespace autoreid_fast
