// Matrices in memory.
#pragma once

#include <cstdint>
#include <type_traits>

namespace autoreid_fast {

// A matrix whose columns are adjacent and whose rows are `stride` elements apart.
template <typename T>
struct Matrix {
  T* data;
  int64_t stride;

  T* row(int64_t i) const { return data + i * stride; }
  // The matrix from row i and column j on.
  Matrix from(int64_t i, int64_t j) const { return {row(i) + j, stride}; }
  operator Matrix<const T>() const
    requires(!std::is_const_v<T>)
  {
    return {data, stride};
  }
};

}  // namespace autoreid_fast
