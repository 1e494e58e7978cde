// How the work of a separable convolution is divided on the CPU: by the shape alone.
#pragma once

#include <algorithm>
#include <cstdint>

#include "separable_conv.h"

namespace autoreid_fast::separable {

constexpr int64_t kUnitPixels = 192;  // y of these stays in the cache between depthwise and pointwise
constexpr int64_t kItems = 32;        // of work at least, where there are filters enough

inline int64_t divide_up(int64_t count, int64_t by) { return (count + by - 1) / by; }

// Some output rows of one image.
struct Unit {
  int64_t image, row, row_end;
  int64_t pixels;  // of all its rows
  int64_t first;   // the first of them, in (images, Ho, Wo)
};

// The units of some images, all of `rows` rows but an image's last one.
struct Units {
  int64_t height, width, rows, row_tiles, count;

  Units(const Stencil3x3Shape& s, int64_t images) : height(s.out_height), width(s.out_width) {
    rows = divide_up(height, std::min(height, divide_up(height * width, kUnitPixels)));
    row_tiles = divide_up(height, rows);
    count = images * row_tiles;
  }
  Unit operator[](int64_t index) const {
    const int64_t image = index / row_tiles, row = index % row_tiles * rows;
    const int64_t end = std::min(row + rows, height);
    return {image, row, end, (end - row) * width, (image * height + row) * width};
  }
};

// The filters, in `count` groups of `size`: one, unless there are too few items of work otherwise.
struct FilterGroups {
  int64_t filters, size, count;

  FilterGroups(int64_t filters, int64_t items) : filters(filters) {
    size = divide_up(filters, std::clamp<int64_t>(divide_up(kItems, items), 1, filters));
    count = divide_up(filters, size);
  }
  int64_t first(int64_t group) const { return group * size; }
  int64_t last(int64_t group) const { return std::min((group + 1) * size, filters); }
};

}  // namespace autoreid_fast::separable
