// The division of a separable convolution into units of work on the CPU; it depends only on the shape.
#pragma once

#include <algorithm>
#include <cstdint>

#include "../common/arithmetic.h"
#include "separable_conv.h"

namespace autoreid_fast::separable {

constexpr int64_t kUnitPixels = 192;  // whose y stays in the cache between depthwise and pointwise
constexpr int64_t kItems = 32;        // work items to aim at, where there are enough filters

// Some output rows of one image.
struct Unit {
  int64_t image, row, row_end;
  int64_t pixels;  // in these rows
  int64_t first;   // the first of them in (images, Ho, Wo)
};

// The units of some images. All have `rows` rows but the last one of an image.
struct Units {
  int64_t height, width, rows, row_tiles, count;

  Units(const Stencil3x3Shape& s, int64_t images) : height(s.out_height), width(s.out_width) {
    rows = ceil_div(height, std::min(height, ceil_div(height * width, kUnitPixels)));
    row_tiles = ceil_div(height, rows);
    count = images * row_tiles;
  }
  Unit operator[](int64_t index) const {
    const int64_t image = index / row_tiles, row = index % row_tiles * rows;
    const int64_t end = std::min(row + rows, height);
    return {image, row, end, (end - row) * width, (image * height + row) * width};
  }
};

// The filters, in `count` groups of `size`. There is one group, unless there would be too few work items.
struct FilterGroups {
  int64_t filters, size, count;

  FilterGroups(int64_t filters, int64_t items) : filters(filters) {
    size = ceil_div(filters, std::clamp<int64_t>(ceil_div(kItems, items), 1, filters));
    count = ceil_div(filters, size);
  }
  int64_t first(int64_t group) const { return group * size; }
  int64_t last(int64_t group) const { return std::min((group + 1) * size, filters); }
};

}  // namespace autoreid_fast::separable
