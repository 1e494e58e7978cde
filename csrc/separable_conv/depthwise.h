// The depthwise half of a separable convolution on the CPU, unit by unit: the left side of a matrix product.
//
// Channels are padded to `padded_channels`, the next multiple of the vectors, so that no loop has a tail: x
// and the weights are zero there.
#pragma once

#include "units.h"

namespace autoreid_fast::separable {

template <typename T>
struct Depthwise {
  Stencil3x3Shape shape;
  const T* x;               // (N, H, W, C) contiguous
  const T* packed_weights;  // (F, 9, padded_channels), by `pack`
  int64_t padded_channels;

  // Reads r(x) around a unit's rows into `tile`, which has tile_size elements.
  void (*read)(const Depthwise& p, const Unit& unit, T* tile);
  // Computes y of filter f, (pixels, padded_channels).
  void (*filter)(const Depthwise& p, const Unit& unit, int64_t f, T* tile, T* y);

  int64_t pad() const { return shape.dilated != 0 ? 2 : 1; }
  int64_t tile_size(int64_t rows) const {
    return ((rows - 1) * shape.stride + 1 + 2 * pad()) * (shape.width + 2 * pad()) * padded_channels;
  }
};

// For the instruction set in use. `packed_weights` may be filled later.
template <typename T>
Depthwise<T> depthwise_of(const Stencil3x3Shape& shape, const void* x, const T* packed_weights);

// The least multiple of the vectors in use that holds `channels`.
template <typename T>
int64_t padded(int64_t channels);

// Packs filter f of `depthwise` (F, C, 3, 3) into its place in `packed_weights`.
template <typename T>
void pack(const Depthwise<T>& p, const void* depthwise, int64_t f, T* packed_weights);

}  // namespace autoreid_fast::separable
