// The 3x3 stencils on the CPU, forward; stencil3x3.h has the maths, vector_tile.h the division of the work.
//
// Filters: nine multiply-adds per pixel and vector, from a tile of r(x), with the weights in registers.
// Pools: maximum and sum of three rows first, then of three columns of the results, from x itself.
#include <torch/csrc/stable/ops.h>

#include <limits>

#include "../common/scratch.h"
#include "vector_tile.h"

namespace autoreid_fast {

using namespace stencil;

namespace {

// best = max(best, value), where NaN is the largest. Written so that GCC 12 keeps it in vectors: it would
// lower two comparisons combined in one choice to scalars, thirty times slower.
template <typename V>
ALWAYS_INLINE void keep_larger(V& best, const V& value) {
  const auto number = best == best;
  const V next = number ? value : best;
  best = ~(next <= best) ? next : best;
}

// Both pools of output row i of image n. `columns` is scratch for 2 (W + 2) vectors.
template <typename V, typename T>
ALWAYS_INLINE void pool_row(const Stencil3x3Forward& p, const Unit& u, int64_t n, int64_t i, T* columns) {
  const Stencil3x3Shape& s = p.shape;
  constexpr int64_t lanes = sizeof(V) / sizeof(T);
  const int64_t first = std::max<int64_t>(i * s.stride - 1, 0);
  const int64_t last = std::min(i * s.stride + 1, s.height - 1);
  const int64_t row_step = s.width * s.channels;
  const T* from = static_cast<const T*>(p.x) + (n * s.height + first) * row_step + u.channel;
  T* largest = columns + lanes;
  T* sums = largest + (s.width + 2) * lanes;
  const V lowest = V{} - std::numeric_limits<T>::infinity(), zero = {};
  for (const int64_t x : {int64_t{-1}, s.width}) {
    store(largest + x * lanes, lowest);
    store(sums + x * lanes, zero);
  }
  const auto reduce_rows = [&](int64_t rows) INLINE_LAMBDA {
    for (int64_t x = 0; x < s.width; ++x) {
      V value, best, sum;
      load(value, from + x * s.channels);
      best = sum = value;
      for (int64_t y = 1; y < rows; ++y) {
        load(value, from + y * row_step + x * s.channels);
        keep_larger(best, value);
        sum += value;
      }
      store(largest + x * lanes, best);
      store(sums + x * lanes, sum);
    }
  };
  if (last - first == 2) {
    reduce_rows(3);
  } else {
    reduce_rows(last - first + 1);
  }
  const int64_t out = ((n * s.out_height + i) * s.out_width) * s.channels + u.channel;
  for (int64_t j = 0; p.max_pool != nullptr && j < s.out_width; ++j) {
    const T* pixel = largest + j * s.stride * lanes;
    V best, centre, right;
    load(best, pixel - lanes);
    load(centre, pixel);
    load(right, pixel + lanes);
    keep_larger(best, centre);
    keep_larger(best, right);
    store(static_cast<T*>(p.max_pool) + out + j * s.channels, best);
  }
  for (int64_t j = 0; p.avg_pool != nullptr && j < s.out_width; ++j) {
    const T* pixel = sums + j * s.stride * lanes;
    const T weight = T(1) / static_cast<T>((last - first + 1) * in_window(j, s.stride, s.width));
    V left, centre, right;
    load(left, pixel - lanes);
    load(centre, pixel);
    load(right, pixel + lanes);
    centre = (left + centre + right) * weight;
    store(static_cast<T*>(p.avg_pool) + out + j * s.channels, centre);
  }
}

template <typename T>
struct ForwardUnit {
  template <int BYTES>
  ALWAYS_INLINE static void run(const Stencil3x3Forward& p, const Unit& u, T* scratch) {
    using V = Vector<T, BYTES>;
    constexpr int64_t lanes = BYTES / sizeof(T);
    const Stencil3x3Shape& s = p.shape;
    const int64_t pad = s.dilated != 0 ? 2 : 1;
    const Tile<T> tile{scratch, u.row * s.stride - pad, (u.row_end - 1) * s.stride + pad + 1, pad, s.width,
                       lanes};
    const V zero = {};
    for (int64_t n = u.image; n < u.image_end; ++n) {
      const T* image = static_cast<const T*>(p.x) + n * s.height * s.width * s.channels + u.channel;
      if (p.max_pool != nullptr || p.avg_pool != nullptr) {
        for (int64_t i = u.row; i < u.row_end; ++i) pool_row<V>(p, u, n, i, scratch);
      }
      if (s.filters == 0) continue;
      const auto fetch = [&](V& vector, const T* from, int64_t, int64_t) INLINE_LAMBDA {
        load(vector, from);
        if (s.relu) rectify(vector);
      };
      fill(tile, image, s.height, s.channels, zero, fetch);
      for (int64_t f = 0; f < s.filters; ++f) {
        V weights[9];
        load_weights(weights, static_cast<const T*>(p.weights), f, s.channels, u.channel);
        const int64_t first = ((f * s.batch + n) * s.out_height + u.row) * s.out_width;
        filter_rows(tile, weights, {dilation_of(s, f), s.stride, u.row, u.row_end, s.out_width},
                    static_cast<T*>(p.filtered) + first * s.channels + u.channel, s.channels);
      }
    }
  }
};

template <typename T>
void forward(const Stencil3x3Forward& p) {
  const Partition part(p.shape, sizeof(T), vector_bytes(instruction_set()));
  const auto forward_vector = variant<ForwardUnit<T>>();
  const auto forward_single = ForwardUnit<T>::template run<sizeof(T)>;
  const int64_t rows = (part.rows - 1) * p.shape.stride + 5;  // of the tile; the pools use two rows of it
  const int64_t count = rows * (p.shape.width + 4) * part.lanes;
  torch::stable::parallel_for(0, part.units(), 1, [&](int64_t begin, int64_t end) {
    T* scratch = thread_scratch<T>(count);
    for (int64_t k = begin; k < end; ++k) {
      const Unit unit(part, p.shape, k);
      (unit.single ? forward_single : forward_vector)(p, unit, scratch);
    }
  });
}

}  // namespace

void stencil3x3_cpu(const Stencil3x3Forward& p) {
  dispatch_cpu(p.shape.element, [&]<typename T>() { forward<T>(p); });
}

}  // namespace autoreid_fast
