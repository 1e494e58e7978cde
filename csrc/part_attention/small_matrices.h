// Products of small matrices on one core. Rows are padded with zeros to whole vectors, so that no loop has a
// tail; a matrix whose rows are whole vectors already is used where it lies.
#pragma once

#include <cstdint>
#include <cstring>
#include <vector>

#define ALWAYS_INLINE inline __attribute__((always_inline))

namespace autoreid_fast::part {

constexpr int64_t kLanes = 16;  // that every padded row is a multiple of: a vector of float, two of double

inline int64_t padded(int64_t columns) { return (columns + kLanes - 1) / kLanes * kLanes; }

// A matrix with padded rows: a view where it can be, else a copy.
template <typename T>
struct Padded {
  Padded(const T* from, int64_t rows, int64_t columns) : stride(padded(columns)), data(from) {
    if (stride == columns) return;
    copy.resize(rows * stride);
    for (int64_t i = 0; i < rows; ++i) {
      std::memcpy(&copy[i * stride], from + i * columns, columns * sizeof(T));
    }
    data = copy.data();
  }
  Padded(const Padded&) = delete;

  int64_t stride;
  const T* data;
  std::vector<T> copy;
};

// Where a product with padded rows goes, and then, without the padding, to `to`.
template <typename T>
struct Unpadded {
  Unpadded(T* to, int64_t rows, int64_t columns)
      : stride(padded(columns)), data(to), to_(to), rows_(rows), columns_(columns) {
    if (stride == columns) return;
    copy_.resize(rows * stride);
    data = copy_.data();
  }
  Unpadded(const Unpadded&) = delete;
  ~Unpadded() {
    for (int64_t i = 0; data != to_ && i < rows_; ++i) {
      std::memcpy(to_ + i * columns_, data + i * stride, columns_ * sizeof(T));
    }
  }

  int64_t stride;
  T* data;

 private:
  T* to_;
  int64_t rows_, columns_;
  std::vector<T> copy_;
};

template <typename T, int BYTES>
using Vector __attribute__((vector_size(BYTES))) = T;

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

// a[i * row + k * step]: a matrix or, by its strides, its transpose.
template <typename T>
struct Strided {
  const T* data;
  int64_t row, step;
};

template <typename T, int BYTES, int ROWS, int VECTORS>
ALWAYS_INLINE void multiply_block(int64_t depth, const T* a, int64_t row, int64_t step, const T* b,
                                  int64_t b_row, T* out, int64_t out_row, bool add) {
  using V = Vector<T, BYTES>;
  constexpr int64_t width = BYTES / sizeof(T);
  V sums[ROWS][VECTORS] = {};
  for (int64_t k = 0; k < depth; ++k) {
    V columns[VECTORS];
    std::memcpy(columns, b + k * b_row, sizeof(columns));
#pragma GCC unroll 4
    for (int i = 0; i < ROWS; ++i) {
#pragma GCC unroll 4
      for (int j = 0; j < VECTORS; ++j) sums[i][j] += a[i * row + k * step] * columns[j];
    }
  }
  for (int i = 0; i < ROWS; ++i) {
    for (int j = 0; j < VECTORS; ++j) {
      T* to = out + i * out_row + j * width;
      V before{};
      if (add) std::memcpy(&before, to, sizeof(V));
      before += sums[i][j];
      std::memcpy(to, &before, sizeof(V));
    }
  }
}

// out (rows, columns) = a (rows, depth) b (depth, columns), or added to it; `columns` whole vectors.
template <typename T, int BYTES>
ALWAYS_INLINE void multiply(int64_t rows, int64_t columns, int64_t depth, const Strided<T>& a, const T* b,
                            int64_t b_row, T* out, int64_t out_row, bool add = false) {
  constexpr int64_t width = BYTES / sizeof(T);
  int64_t j = 0;
  for (; j + 2 * width <= columns; j += 2 * width) {
    int64_t i = 0;
    for (; i + 4 <= rows; i += 4) {
      multiply_block<T, BYTES, 4, 2>(depth, a.data + i * a.row, a.row, a.step, b + j, b_row,
                                     out + i * out_row + j, out_row, add);
    }
    for (; i < rows; ++i) {
      multiply_block<T, BYTES, 1, 2>(depth, a.data + i * a.row, a.row, a.step, b + j, b_row,
                                     out + i * out_row + j, out_row, add);
    }
  }
  for (; j < columns; j += width) {
    int64_t i = 0;
    for (; i + 4 <= rows; i += 4) {
      multiply_block<T, BYTES, 4, 1>(depth, a.data + i * a.row, a.row, a.step, b + j, b_row,
                                     out + i * out_row + j, out_row, add);
    }
    for (; i < rows; ++i) {
      multiply_block<T, BYTES, 1, 1>(depth, a.data + i * a.row, a.row, a.step, b + j, b_row,
                                     out + i * out_row + j, out_row, add);
    }
  }
}

template <typename T, int BYTES, int ROWS, int COLUMNS>
ALWAYS_INLINE void dot_block(int64_t depth, const T* a, int64_t a_row, const T* b, int64_t b_row,
                             const T* start, T* out, int64_t out_row) {
  using V = Vector<T, BYTES>;
  V sums[ROWS][COLUMNS] = {};
  for (int64_t k = 0; k < depth; k += BYTES / sizeof(T)) {
    V rows[ROWS], columns[COLUMNS];
    for (int i = 0; i < ROWS; ++i) std::memcpy(&rows[i], a + i * a_row + k, sizeof(V));
    for (int j = 0; j < COLUMNS; ++j) std::memcpy(&columns[j], b + j * b_row + k, sizeof(V));
#pragma GCC unroll 4
    for (int i = 0; i < ROWS; ++i) {
#pragma GCC unroll 4
      for (int j = 0; j < COLUMNS; ++j) sums[i][j] += rows[i] * columns[j];
    }
  }
  for (int i = 0; i < ROWS; ++i) {
    for (int j = 0; j < COLUMNS; ++j) {
      out[i * out_row + j] = sum_of_lanes<T, BYTES>(sums[i][j]) + (start == nullptr ? T(0) : start[j]);
    }
  }
}

// out (rows, columns) = a (rows, depth) b^T + start (columns), b (columns, depth); `depth` whole vectors.
template <typename T, int BYTES>
ALWAYS_INLINE void multiply_transposed(int64_t rows, int64_t columns, int64_t depth, const T* a,
                                       int64_t a_row, const T* b, int64_t b_row, const T* start, T* out,
                                       int64_t out_row) {
  int64_t j = 0;
  for (; j + 2 <= columns; j += 2) {
    const T* first = start == nullptr ? nullptr : start + j;
    int64_t i = 0;
    for (; i + 4 <= rows; i += 4) {
      dot_block<T, BYTES, 4, 2>(depth, a + i * a_row, a_row, b + j * b_row, b_row, first,
                                out + i * out_row + j, out_row);
    }
    for (; i < rows; ++i) {
      dot_block<T, BYTES, 1, 2>(depth, a + i * a_row, a_row, b + j * b_row, b_row, first,
                                out + i * out_row + j, out_row);
    }
  }
  for (; j < columns; ++j) {
    const T* first = start == nullptr ? nullptr : start + j;
    for (int64_t i = 0; i < rows; ++i) {
      dot_block<T, BYTES, 1, 1>(depth, a + i * a_row, a_row, b + j * b_row, b_row, first,
                                out + i * out_row + j, out_row);
    }
  }
}

}  // namespace autoreid_fast::part
