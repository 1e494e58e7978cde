// Division of the work, padded tiles and vectors over channels of the 3x3 stencils on the CPU.
//
// Channels are last in memory, so a vector holds one pixel of 16 channels (float32, AVX-512) whatever the
// width of the image. A unit of work is some rows of some images for one such vector of channels. It copies
// the rows that it reads into a tile with the border around them, contiguous whatever C is, so no inner loop
// handles borders. Channels that do not fill a vector are units of one channel.
#pragma once

#include <algorithm>

#include "../common/arithmetic.h"
#include "../common/vector.h"
#include "stencil3x3.h"

namespace autoreid_fast::stencil {

// The division into units; it depends only on the shape and the vectors.
struct Partition {
  int64_t lanes;                 // channels per vector
  int64_t vectors, leftover;     // C = vectors * lanes + leftover
  int64_t rows, row_tiles;       // output rows per tile; tiles per image
  int64_t images, image_groups;  // images per unit; groups of images in the batch

  Partition(const Stencil3x3Shape& s, int64_t element_bytes, int64_t vector_bytes) {
    constexpr int64_t tile_bytes = 64 << 10;  // a few tiles fit into the L2 cache
    constexpr int64_t unit_pixels = 256;  // so that a slab, 9 numbers per channel and filter, costs little
    lanes = vector_bytes / element_bytes;
    vectors = s.channels / lanes;
    leftover = s.channels % lanes;
    const int64_t input_rows = tile_bytes / ((s.width + 4) * vector_bytes);
    rows = std::clamp<int64_t>((input_rows - 4) / s.stride, 1, s.out_height);
    row_tiles = ceil_div(s.out_height, rows);
    rows = ceil_div(s.out_height, row_tiles);  // of equal height
    row_tiles = ceil_div(s.out_height, rows);
    const int64_t pixels = rows * s.out_width;
    images = std::clamp<int64_t>(unit_pixels / pixels, 1, s.batch);
    image_groups = ceil_div(s.batch, images);
  }
  int64_t slabs() const { return image_groups * row_tiles; }
  int64_t units() const { return slabs() * (vectors + leftover); }
};

// One unit: a vector of channels from `channel` on, or only that channel, of rows [row, row_end) of the
// outputs of images [image, image_end).
struct Unit {
  int64_t slab, channel, row, row_end, image, image_end;
  bool single;

  Unit(const Partition& part, const Stencil3x3Shape& s, int64_t index) {
    const int64_t columns = part.vectors + part.leftover;
    const int64_t column = index % columns;
    slab = index / columns;
    single = column >= part.vectors;
    channel = single ? part.vectors * part.lanes + column - part.vectors : column * part.lanes;
    row = slab % part.row_tiles * part.rows;
    row_end = std::min(row + part.rows, s.out_height);
    image = slab / part.row_tiles * part.images;
    image_end = std::min(image + part.images, s.batch);
  }
};

// Rows [first, last) of an image, for one vector of channels, with `pad` columns on either side.
template <typename T>
struct Tile {
  T* data;
  int64_t first, last, pad, columns, lanes;

  int64_t pitch() const { return (columns + 2 * pad) * lanes; }
  T* row(int64_t y) const { return data + (y - first) * pitch() + pad * lanes; }  // column 0 of row y
};

// Fills a tile from an image of `height` rows of tile.columns pixels, `step` elements apart, by fetch(vector,
// from, y, x). Pixels outside the image become `outside`.
template <typename V, typename T, typename Fetch>
ALWAYS_INLINE void fill(const Tile<T>& tile, const T* image, int64_t height, int64_t step, const V& outside,
                        const Fetch& fetch) {
  for (int64_t y = tile.first; y < tile.last; ++y) {
    T* row = tile.row(y);
    const bool inside = y >= 0 && y < height;
    for (int64_t x = -tile.pad; x < 0; ++x) store(row + x * tile.lanes, outside);
    for (int64_t x = tile.columns; x < tile.columns + tile.pad; ++x) store(row + x * tile.lanes, outside);
    if (inside) {
      const T* from = image + y * tile.columns * step;
      for (int64_t x = 0; x < tile.columns; ++x) {
        V vector;
        fetch(vector, from + x * step, y, x);
        store(row + x * tile.lanes, vector);
      }
    } else {
      for (int64_t x = 0; x < tile.columns; ++x) store(row + x * tile.lanes, outside);
    }
  }
}

// The nine weights of filter f as vectors over channels.
template <typename V, typename T>
ALWAYS_INLINE void load_weights(V (&weights)[9], const T* all, int64_t f, int64_t channels, int64_t channel) {
  constexpr int64_t lanes = sizeof(V) / sizeof(T);
  const T* from = all + (f * channels + channel) * 9;
  alignas(V) T transposed[9 * lanes];
  for (int64_t k = 0; k < lanes; ++k) {
    for (int t = 0; t < 9; ++t) transposed[t * lanes + k] = from[k * 9 + t];
  }
  for (int t = 0; t < 9; ++t) load(weights[t], transposed + t * lanes);
}

inline int64_t dilation_of(const Stencil3x3Shape& s, int64_t f) { return 1 + (s.dilated >> f & 1); }

// Rows [row, row_end) of the output of one filter.
struct FilterRows {
  int64_t dilation, stride, row, row_end, out_width;
};

// Filters a tile into `out`, whose pixels are `step` elements apart.
template <typename V, typename T>
ALWAYS_INLINE void filter_rows(const Tile<T>& tile, const V (&w)[9], const FilterRows& rows, T* out,
                               int64_t step) {
  constexpr int64_t lanes = sizeof(V) / sizeof(T);
  const int64_t stride = rows.stride, dilation = rows.dilation, out_width = rows.out_width;
  const int64_t side = dilation * lanes, pixel_step = stride * lanes;
  for (int64_t i = rows.row; i < rows.row_end; ++i) {
    const T* above = tile.row(i * stride - dilation);
    const T* middle = tile.row(i * stride);
    const T* below = tile.row(i * stride + dilation);
    for (int64_t j = 0; j < out_width; ++j, out += step) {
      V sum = {};
      const auto add_row = [&](const T* pixel, int t) INLINE_LAMBDA {
        V left, centre, right;
        load(left, pixel - side);
        load(centre, pixel);
        load(right, pixel + side);
        sum += w[t] * left;
        sum += w[t + 1] * centre;
        sum += w[t + 2] * right;
      };
      add_row(above + j * pixel_step, 0);
      add_row(middle + j * pixel_step, 3);
      add_row(below + j * pixel_step, 6);
      store(out, sum);
    }
  }
}

// The number of rows (or columns) of the window of output row (or column) i that lie in the image, for
// dilation 1.
ALWAYS_INLINE int64_t in_window(int64_t i, int64_t stride, int64_t size) {
  return 3 - (i == 0 ? 1 : 0) - (i * stride + 1 >= size ? 1 : 0);
}

// ReLU; NaN stays NaN.
template <typename V>
ALWAYS_INLINE void rectify(V& vector) {
  vector = vector <= V{} ? V{} : vector;
}

}  // namespace autoreid_fast::stencil
