// The depthwise half of a separable convolution on the CPU: unit by unit, as the left side of a product.
//
// Channels are worked on up to `step`, the next multiple of the vectors, so that no other code is needed for
// what is left over: x reads as zero there, and so do the weights.
#pragma once

#include "units.h"

namespace autoreid_fast::separable {

template <typename T>
struct Depthwise {
  Stencil3x3Shape shape;
  const T* x;        // (N, H, W, C) contiguous
  const T* weights;  // (F, 9, step), by `pack`
  int64_t step;

  // r(x) around a unit's rows into `tile`, of `tile_size` elements.
  void (*read)(const Depthwise& p, const Unit& unit, T* tile);
  // y of filter f, (pixels, step).
  void (*filter)(const Depthwise& p, const Unit& unit, int64_t f, T* tile, T* y);

  int64_t pad() const { return shape.dilated != 0 ? 2 : 1; }
  int64_t tile_size(int64_t rows) const {
    return ((rows - 1) * shape.stride + 1 + 2 * pad()) * (shape.width + 2 * pad()) * step;
  }
};

// For the instruction set in use; `weights` is (F, 9, step) and still to be packed.
template <typename T>
Depthwise<T> depthwise(const Stencil3x3Shape& shape, const void* x, const T* weights);

// Channels up to a multiple of the vectors in use.
template <typename T>
int64_t padded(int64_t channels);

// Filter f of (F, C, 3, 3).
template <typename T>
void pack(const Depthwise<T>& p, const void* from, int64_t f, T* weights);

}  // namespace autoreid_fast::separable
