// What the CPU stencils share: vectors over channels, the division of the work, and padded tiles.
//
// Pixels are last in memory, so that a vector holds one pixel of 16 channels (float, AVX-512) whatever the
// image's width. A unit of work is some rows of some images for one such vector of channels: it copies the
// rows it reads into a tile with the border around them, contiguous whatever C is, and no inner loop knows of
// borders. Channels that fill no vector are units of one channel.
#pragma once

#include <algorithm>

#include "../vector.h"
#include "stencil3x3.h"

namespace autoreid_fast::stencil {

// The units of work, by shape and vector width alone.
struct Partition {
  int64_t lanes;                 // channels of a vector
  int64_t vectors, leftover;     // C = vectors * lanes + leftover
  int64_t rows, row_tiles;       // output rows of a tile; tiles of an image
  int64_t images, image_groups;  // images of a unit; groups of the batch

  Partition(const Stencil3x3Shape& s, int64_t element_bytes, int64_t vector_bytes) {
    constexpr int64_t tile_bytes = 64 << 10;  // a few of them stay in the L2 cache
    constexpr int64_t unit_pixels = 256;      // a slab of 9 a channel and filter then costs little
    lanes = vector_bytes / element_bytes;
    vectors = s.channels / lanes;
    leftover = s.channels % lanes;
    const int64_t input_rows = tile_bytes / ((s.width + 4) * vector_bytes);
    rows = std::clamp<int64_t>((input_rows - 4) / s.stride, 1, s.out_height);
    row_tiles = (s.out_height + rows - 1) / rows;
    rows = (s.out_height + row_tiles - 1) / row_tiles;  // of equal height
    row_tiles = (s.out_height + rows - 1) / rows;
    const int64_t pixels = rows * s.out_width;
    images = std::clamp<int64_t>(unit_pixels / pixels, 1, s.batch);
    image_groups = (s.batch + images - 1) / images;
  }
  int64_t slabs() const { return image_groups * row_tiles; }
  int64_t units() const { return slabs() * (vectors + leftover); }
};

// One unit: channels from `channel` on (a vector, or a single one), rows [row, row_end) of the outputs of
// images [image, image_end).
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

// Rows [first, last) of an image of one vector of channels with `pad` columns on either side.
template <typename T>
struct Tile {
  T* data;
  int64_t first, last, pad, columns, lanes;

  int64_t pitch() const { return (columns + 2 * pad) * lanes; }
  T* row(int64_t y) const { return data + (y - first) * pitch() + pad * lanes; }  // at column 0
};

// Fill a tile from an image (pixels `step` elements apart, `height` rows of tile.columns) by fetch(vector,
// source, y, x); what is outside the image becomes `outside`.
template <typename V, typename T, typename Fetch>
ALWAYS_INLINE void fill(const Tile<T>& tile, const T* image, int64_t height, int64_t step, const V& outside,
                        const Fetch& fetch) {
  for (int64_t y = tile.first; y < tile.last; ++y) {
    T* row = tile.row(y);
    const bool inside = y >= 0 && y < height;
    for (int64_t x = -tile.pad; x < 0; ++x) store(row + x * tile.lanes, outside);
    for (int64_t x = tile.columns; x < tile.columns + tile.pad; ++x) store(row + x * tile.lanes, outside);
    if (inside) {
      const T* source = image + y * tile.columns * step;
      for (int64_t x = 0; x < tile.columns; ++x) {
        V vector;
        fetch(vector, source + x * step, y, x);
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

// Rows [row, row_end) of one filter's output from a tile, its pixels `step` elements apart.
template <typename V, typename T>
ALWAYS_INLINE void filter_rows(const Tile<T>& tile, const V (&w)[9], int64_t dilation, int64_t stride,
                               int64_t row, int64_t row_end, int64_t out_width, T* out, int64_t step) {
  constexpr int64_t lanes = sizeof(V) / sizeof(T);
  const int64_t side = dilation * lanes, along = stride * lanes;
  for (int64_t i = row; i < row_end; ++i) {
    const T* above = tile.row(i * stride - dilation);
    const T* middle = tile.row(i * stride);
    const T* below = tile.row(i * stride + dilation);
    for (int64_t j = 0; j < out_width; ++j, out += step) {
      V sum = {};
      const auto three = [&](const T* at, int t) INLINE_LAMBDA {
        V left, centre, right;
        load(left, at - side);
        load(centre, at);
        load(right, at + side);
        sum += w[t] * left;
        sum += w[t + 1] * centre;
        sum += w[t + 2] * right;
      };
      three(above + j * along, 0);
      three(middle + j * along, 3);
      three(below + j * along, 6);
      store(out, sum);
    }
  }
}

// Pixels of the window of output row or column i (dilation 1) that are in the image.
ALWAYS_INLINE int64_t in_window(int64_t i, int64_t stride, int64_t size) {
  return 3 - (i == 0 ? 1 : 0) - (i * stride + 1 >= size ? 1 : 0);
}

template <typename V>
ALWAYS_INLINE void rectify(V& vector) {
  vector = vector <= V{} ? V{} : vector;  // NaN stays
}

}  // namespace autoreid_fast::stencil
