// Products of pixels and weights on the CPU, by register tiles: the 1x1 convolution of an image with its
// channels last in memory, for callers that hold their pixels in the cache.
//
//   multiply:   c = a b            a (rows, depth), b (depth, columns) packed once, c (rows, columns)
//   add_outer:  c += a^T b         a (pixels, rows), b (pixels, columns), c (rows, columns)
//
// A tile of 12 rows and two vectors of columns (AVX-512; 6 rows with AVX2, 3 without) stays in registers for
// the whole chain of multiply-adds over depth or pixels, which runs from the first to the last. One step is
// two loads, 12 broadcasts and 24 vector multiply-adds. An element of the result depends only on its row and
// column, not on the tiling.
//
// Work: 2 rows depth columns FLOPs; add_outer 2 pixels rows columns. Bytes: a and c once, b once per 12 rows
// (from the cache).
#pragma once

#include "../common/arithmetic.h"
#include "../common/matrix.h"

namespace autoreid_fast {

template <typename T>
struct Multiply {
  int64_t rows, depth, columns;
  Matrix<const T> a;
  const T* packed;  // b, by PixelGemm::pack
  Matrix<T> c;
};

template <typename T>
struct AddOuter {
  int64_t pixels, rows, columns;
  Matrix<const T> a;
  Matrix<const T> b;  // rows are read up to PixelGemm::padded(columns)
  Matrix<T> c;        // rows are read and written up to PixelGemm::padded(columns)
};

// The functions of one instruction set for elements T, float or double.
template <typename T>
struct PixelGemm {
  int64_t lanes;  // of a vector

  // The least multiple of a vector that holds `count` columns.
  int64_t padded(int64_t count) const { return round_up(count, lanes); }

  // Packs b (depth, columns), whose element (k, j) is b[k * row_stride + j * column_stride]; `packed` holds
  // depth * padded(columns) elements.
  void pack(const T* b, int64_t row_stride, int64_t column_stride, int64_t depth, int64_t columns,
            T* packed) const;

  void (*multiply)(const Multiply<T>& p);
  void (*add_outer)(const AddOuter<T>& p);
};

// For the instruction set in use.
template <typename T>
PixelGemm<T> pixel_gemm();

}  // namespace autoreid_fast
