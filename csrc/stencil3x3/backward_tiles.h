// Pixels, taps and tiles of a unit of the backward pass on the CPU.
#pragma once

#include <type_traits>

#include "vector_tile.h"

namespace autoreid_fast::stencil {

// Calls use(t, y, x) for every tap t = 3 u + v through which the window at (i + y, j + x) holds pixel (STRIDE
// i + ROW, STRIDE j + COLUMN).
template <int STRIDE, int DILATION, int ROW, int COLUMN, typename Use>
ALWAYS_INLINE void for_taps(const Use& use) {
#pragma GCC unroll 3
  for (int u = 0; u < 3; ++u) {
#pragma GCC unroll 3
    for (int v = 0; v < 3; ++v) {
      constexpr int shift = 2 * STRIDE;  // keeps the remainders positive
      const int y = ROW + DILATION * (1 - u) + shift, x = COLUMN + DILATION * (1 - v) + shift;
      if (y % STRIDE == 0 && x % STRIDE == 0) use(3 * u + v, y / STRIDE - 2, x / STRIDE - 2);
    }
  }
}

// Calls visit(i, j, row, column) for every pixel (STRIDE i + row, STRIDE j + column) of the unit; row and
// column are compile-time constants.
template <int STRIDE, int DILATION, typename Visit>
ALWAYS_INLINE void for_pixels(const Stencil3x3Shape& s, const Unit& u, const Visit& visit) {
  const auto visit_row = [&](int64_t i, auto row) INLINE_LAMBDA {
    using Zero = std::integral_constant<int, 0>;
    using One = std::integral_constant<int, 1>;
    if constexpr (STRIDE == 1) {
      for (int64_t j = 0; j < s.width; ++j) visit(i, j, row, Zero{});
    } else {
      for (int64_t j = 0; j < s.width / 2; ++j) {
        visit(i, j, row, Zero{});
        visit(i, j, row, One{});
      }
      if (s.width % 2 != 0) visit(i, s.width / 2, row, Zero{});
    }
  };
  for (int64_t i = u.row; i < u.row_end; ++i) {
    visit_row(i, std::integral_constant<int, 0>{});
    if constexpr (STRIDE == 2) {
      if (2 * i + 1 < s.height) visit_row(i, std::integral_constant<int, 1>{});
    }
  }
}

// The tiles of a unit, in one block of memory.
template <typename T>
struct Tiles {
  Tile<T> grad_x;   // input rows, no border
  Tile<T> grad;     // output rows with a border: dy of one output
  Tile<T> place;    // output rows with a border: the tap of each window's maximum
  Tile<T> x;        // input rows with a border of minus infinity
  T* grad_weights;  // (F, 9) vectors
  int64_t count;    // elements in all

  Tiles(const Stencil3x3Shape& s, const Unit& u, int64_t lanes, T* memory) : grad_weights(memory) {
    const int64_t pad = s.dilated != 0 ? 2 : 1;
    T* next = memory + s.filters * 9 * lanes;
    const auto tile = [&](int64_t first, int64_t last, int64_t border, int64_t columns) {
      const Tile<T> result{next, first, last, border, columns, lanes};
      next += (last - first) * result.pitch();
      return result;
    };
    const int64_t first = u.row * s.stride, last = std::min(u.row_end * s.stride, s.height);
    grad_x = tile(first, last, 0, s.width);
    grad = tile(u.row - pad, u.row_end + pad, pad, s.out_width);
    place = tile(u.row - 1, u.row_end + 1, 1, s.out_width);
    x = tile((u.row - 1) * s.stride - 1, u.row_end * s.stride + 2, 1, s.width);
    count = next - memory;
  }
};

}  // namespace autoreid_fast::stencil
