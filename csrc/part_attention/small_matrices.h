// Products of small matrices on one core. Rows are padded with zeros to whole vectors, so that no loop has a
// tail; a matrix whose rows are whole vectors anyway is used where it is.
#pragma once

#include <vector>

#include "../common/arithmetic.h"
#include "../common/matrix.h"
#include "../common/vector.h"

namespace autoreid_fast::part {

constexpr int64_t kLanes = 16;  // divides every padded row: one vector of float, two of double

inline int64_t padded(int64_t columns) { return round_up(columns, kLanes); }

// A contiguous matrix with its rows padded: a view where the rows are whole vectors, else a copy.
template <typename T>
class Padded {
 public:
  Padded(const T* from, int64_t rows, int64_t columns) : matrix_{from, padded(columns)} {
    if (matrix_.stride == columns) return;
    copy_.resize(rows * matrix_.stride);
    for (int64_t i = 0; i < rows; ++i) {
      std::memcpy(&copy_[i * matrix_.stride], from + i * columns, columns * sizeof(T));
    }
    matrix_.data = copy_.data();
  }
  Padded(const Padded&) = delete;

  Matrix<const T> matrix() const { return matrix_; }

 private:
  Matrix<const T> matrix_;
  std::vector<T> copy_;
};

// A matrix with padded rows to write a product to, for the contiguous output `to`: the destructor copies the
// rows there without their padding. Where the rows of `to` are whole vectors the product is written there directly.
template <typename T>
class PaddedOutput {
 public:
  PaddedOutput(T* to, int64_t rows, int64_t columns)
      : matrix_{to, padded(columns)}, to_(to), rows_(rows), columns_(columns) {
    if (matrix_.stride == columns) return;
    copy_.resize(rows * matrix_.stride);
    matrix_.data = copy_.data();
  }
  PaddedOutput(const PaddedOutput&) = delete;
  ~PaddedOutput() {
    for (int64_t i = 0; matrix_.data != to_ && i < rows_; ++i) {
      std::memcpy(to_ + i * columns_, matrix_.row(i), columns_ * sizeof(T));
    }
  }

  Matrix<T> matrix() const { return matrix_; }

 private:
  Matrix<T> matrix_;
  T* to_;
  int64_t rows_, columns_;
  std::vector<T> copy_;
};

template <typename T, int BYTES>
ALWAYS_INLINE T sum_of_lanes(const Vector<T, BYTES>& vector) {
  if constexpr (BYTES == 16) {
    T sum = vector[0];
    for (int lane = 1; lane < static_cast<int>(16 / sizeof(T)); ++lane) sum += vector[lane];
    return sum;
  } else {
    Vector<T, BYTES / 2> halves[2];
    std::memcpy(halves, &vector, BYTES);
    return sum_of_lanes<T, BYTES / 2>(halves[0] + halves[1]);
  }
}

// A matrix with any strides: a transpose is {data, 1, stride}.
template <typename T>
struct Strided {
  const T* data;
  int64_t row_stride, column_stride;

  Strided from_row(int64_t i) const { return {data + i * row_stride, row_stride, column_stride}; }
};

struct ProductSize {
  int64_t rows, columns, depth;
};

template <typename T, int BYTES, int ROWS, int VECTORS>
ALWAYS_INLINE void multiply_block(int64_t depth, Strided<T> a, Matrix<const T> b, Matrix<T> out, bool add) {
  using V = Vector<T, BYTES>;
  constexpr int64_t lanes = BYTES / sizeof(T);
  V sums[ROWS][VECTORS] = {};
  for (int64_t k = 0; k < depth; ++k) {
    V columns[VECTORS];
    std::memcpy(columns, b.row(k), sizeof(columns));
#pragma GCC unroll 4
    for (int i = 0; i < ROWS; ++i) {
#pragma GCC unroll 4
      for (int j = 0; j < VECTORS; ++j) {
        sums[i][j] += a.data[i * a.row_stride + k * a.column_stride] * columns[j];
      }
    }
  }
  for (int i = 0; i < ROWS; ++i) {
    for (int j = 0; j < VECTORS; ++j) {
      T* to = out.row(i) + j * lanes;
      V before{};
      if (add) load(before, to);
      before += sums[i][j];
      store(to, before);
    }
  }
}

template <typename T, int BYTES, int VECTORS>
ALWAYS_INLINE void multiply_columns(int64_t rows, int64_t depth, Strided<T> a, Matrix<const T> b,
                                    Matrix<T> out, bool add) {
  int64_t i = 0;
  for (; i + 4 <= rows; i += 4) {
    multiply_block<T, BYTES, 4, VECTORS>(depth, a.from_row(i), b, out.from(i, 0), add);
  }
  for (; i < rows; ++i) {
    multiply_block<T, BYTES, 1, VECTORS>(depth, a.from_row(i), b, out.from(i, 0), add);
  }
}

// out (rows, columns) = a (rows, depth) b (depth, columns), or added to it; `columns` is a multiple of
// kLanes.
template <typename T, int BYTES>
ALWAYS_INLINE void multiply(ProductSize size, Strided<T> a, Matrix<const T> b, Matrix<T> out,
                            bool add = false) {
  constexpr int64_t lanes = BYTES / sizeof(T);
  int64_t j = 0;
  for (; j + 2 * lanes <= size.columns; j += 2 * lanes) {
    multiply_columns<T, BYTES, 2>(size.rows, size.depth, a, b.from(0, j), out.from(0, j), add);
  }
  for (; j < size.columns; j += lanes) {
    multiply_columns<T, BYTES, 1>(size.rows, size.depth, a, b.from(0, j), out.from(0, j), add);
  }
}

template <typename T, int BYTES, int ROWS, int COLUMNS>
ALWAYS_INLINE void dot_block(int64_t depth, Matrix<const T> a, Matrix<const T> b, const T* bias,
                             Matrix<T> out) {
  using V = Vector<T, BYTES>;
  V sums[ROWS][COLUMNS] = {};
  for (int64_t k = 0; k < depth; k += BYTES / sizeof(T)) {
    V rows[ROWS], columns[COLUMNS];
    for (int i = 0; i < ROWS; ++i) load(rows[i], a.row(i) + k);
    for (int j = 0; j < COLUMNS; ++j) load(columns[j], b.row(j) + k);
#pragma GCC unroll 4
    for (int i = 0; i < ROWS; ++i) {
#pragma GCC unroll 4
      for (int j = 0; j < COLUMNS; ++j) sums[i][j] += rows[i] * columns[j];
    }
  }
  for (int i = 0; i < ROWS; ++i) {
    for (int j = 0; j < COLUMNS; ++j) {
      out.row(i)[j] = sum_of_lanes<T, BYTES>(sums[i][j]) + (bias == nullptr ? T(0) : bias[j]);
    }
  }
}

// out (rows, columns) = a (rows, depth) b^T + bias, for b (columns, depth), bias (columns,) or null; `depth`
// is a multiple of kLanes.
template <typename T, int BYTES>
ALWAYS_INLINE void multiply_transposed(ProductSize size, Matrix<const T> a, Matrix<const T> b, const T* bias,
                                       Matrix<T> out) {
  int64_t j = 0;
  for (; j + 2 <= size.columns; j += 2) {
    const T* column_bias = bias == nullptr ? nullptr : bias + j;
    int64_t i = 0;
    for (; i + 4 <= size.rows; i += 4) {
      dot_block<T, BYTES, 4, 2>(size.depth, a.from(i, 0), b.from(j, 0), column_bias, out.from(i, j));
    }
    for (; i < size.rows; ++i) {
      dot_block<T, BYTES, 1, 2>(size.depth, a.from(i, 0), b.from(j, 0), column_bias, out.from(i, j));
    }
  }
  for (; j < size.columns; ++j) {
    const T* column_bias = bias == nullptr ? nullptr : bias + j;
    for (int64_t i = 0; i < size.rows; ++i) {
      dot_block<T, BYTES, 1, 1>(size.depth, a.from(i, 0), b.from(j, 0), column_bias, out.from(i, j));
    }
  }
}

}  // namespace autoreid_fast::part
