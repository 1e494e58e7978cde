// The 3x3 stencils on the CPU, backward; stencil3x3.h has the maths, vector_tile.h the division of the work.
//
// x and one dy after the other go through tiles, each read once. Filters: the nine dy around a pixel serve
// both gradients, dx += w dy and dw += r(x) dy, with dw in registers over all rows of an image in the unit.
// Pools: the place of each window's maximum is found again from x, then every pixel takes dy from the windows
// that chose it. dx is summed in a tile and written once.
#include <torch/csrc/stable/ops.h>

#include <limits>

#include "../common/scratch.h"
#include "backward_tiles.h"

namespace autoreid_fast {

using namespace stencil;

namespace {

// Adds dx and dw of filter f, whose dy is in tiles.grad.
template <int STRIDE, int DILATION, bool WEIGHTS, typename V, typename T>
ALWAYS_INLINE void filter_backward(const Stencil3x3Backward& p, const Unit& u, const Tiles<T>& tiles,
                                   int64_t f) {
  const Stencil3x3Shape& s = p.shape;
  constexpr int64_t lanes = sizeof(V) / sizeof(T);
  const int64_t pitch = tiles.grad.pitch();
  V w[9], sums[9];
  load_weights(w, static_cast<const T*>(p.weights), f, s.channels, u.channel);
  T* grad_weights = tiles.grad_weights + f * 9 * lanes;
  if constexpr (WEIGHTS) {
#pragma GCC unroll 9
    for (int t = 0; t < 9; ++t) load(sums[t], grad_weights + t * lanes);
  }
  for_pixels<STRIDE, DILATION>(s, u, [&](int64_t i, int64_t j, auto row, auto column) INLINE_LAMBDA {
    constexpr bool in_a_window = STRIDE == 1 || DILATION == 1 || (row() == 0 && column() == 0);
    if constexpr (in_a_window) {
      const int64_t y = STRIDE * i + row(), x = STRIDE * j + column();
      const T* grad = tiles.grad.row(i) + j * lanes;
      T* out = tiles.grad_x.row(y) + x * lanes;
      V sum, value;
      load(sum, out);
      if constexpr (WEIGHTS) {
        load(value, tiles.x.row(y) + x * lanes);
        if (s.relu) rectify(value);
      }
      for_taps<STRIDE, DILATION, row(), column()>([&](int t, int down, int right) INLINE_LAMBDA {
        V dy;
        load(dy, grad + down * pitch + right * lanes);
        sum += w[t] * dy;
        if constexpr (WEIGHTS) sums[t] += value * dy;
      });
      store(out, sum);
    }
  });
  if constexpr (WEIGHTS) {
#pragma GCC unroll 9
    for (int t = 0; t < 9; ++t) store(grad_weights + t * lanes, sums[t]);
  }
}

// Writes the tap of each window's maximum to tiles.place: the first of equal ones, the last NaN; -1 where
// there is no window.
template <int STRIDE, typename V, typename T>
ALWAYS_INLINE void find_places(const Stencil3x3Shape& s, const Tiles<T>& tiles) {
  constexpr int64_t lanes = sizeof(V) / sizeof(T);
  const V infinity = V{} + std::numeric_limits<T>::infinity(), lowest = -infinity;
  const Tile<T>& place = tiles.place;
  for (int64_t i = place.first; i < place.last; ++i) {
    T* out = place.row(i);
    const V none = V{} - T(1);
    store(out - lanes, none);
    store(out + place.columns * lanes, none);
    if (i < 0 || i >= s.out_height) {
      for (int64_t j = 0; j < place.columns; ++j) store(out + j * lanes, none);
      continue;
    }
    for (int64_t j = 0; j < place.columns; ++j) {
      // The first pixel of the window in the image, which stays where all are minus infinity.
      V best = lowest, tap = V{} + static_cast<T>((i == 0 ? 3 : 0) + (j == 0 ? 1 : 0));
#pragma GCC unroll 3
      for (int u = 0; u < 3; ++u) {
        const T* pixel = tiles.x.row(i * STRIDE + u - 1) + j * STRIDE * lanes;
#pragma GCC unroll 3
        for (int v = 0; v < 3; ++v) {
          V value;
          load(value, pixel + (v - 1) * lanes);
          // NaN is kept as infinity: no number is larger, and the next NaN is.
          const auto larger = ~(value <= best);
          best = larger ? (value < infinity ? value : infinity) : best;
          tap = larger ? V{} + static_cast<T>(3 * u + v) : tap;
        }
      }
      store(out + j * lanes, tap);
    }
  }
}

// Writes dx of image n: tiles.grad_x, plus the gradient of the maximum from tiles.grad and tiles.place.
template <int STRIDE, typename V, typename T>
ALWAYS_INLINE void write_grad_x(const Stencil3x3Backward& p, const Unit& u, const Tiles<T>& tiles,
                                int64_t n) {
  const Stencil3x3Shape& s = p.shape;
  constexpr int64_t lanes = sizeof(V) / sizeof(T);
  const int64_t start = n * s.height * s.width * s.channels + u.channel;
  T* grad_x = static_cast<T*>(p.grad_x) + start;
  const int64_t pitch = tiles.grad.pitch(), place_pitch = tiles.place.pitch();
  for_pixels<STRIDE, 1>(s, u, [&](int64_t i, int64_t j, auto row, auto column) INLINE_LAMBDA {
    const int64_t y = STRIDE * i + row(), x = STRIDE * j + column();
    V sum;
    load(sum, tiles.grad_x.row(y) + x * lanes);
    if (p.grad_max != nullptr) {
      const T* grad = tiles.grad.row(i) + j * lanes;
      const T* tap = tiles.place.row(i) + j * lanes;
      for_taps<STRIDE, 1, row(), column()>([&](int t, int down, int right) INLINE_LAMBDA {
        V dy, place;
        load(dy, grad + down * pitch + right * lanes);
        load(place, tap + down * place_pitch + right * lanes);
        sum += place == V{} + static_cast<T>(t) ? dy : V{};
      });
    }
    store(grad_x + (y * s.width + x) * s.channels, sum);
  });
}

// Adds the gradient of the average to tiles.grad_x; tiles.grad holds its dy / count.
template <int STRIDE, typename V, typename T>
ALWAYS_INLINE void average_backward(const Stencil3x3Shape& s, const Unit& u, const Tiles<T>& tiles) {
  constexpr int64_t lanes = sizeof(V) / sizeof(T);
  const int64_t pitch = tiles.grad.pitch();
  for_pixels<STRIDE, 1>(s, u, [&](int64_t i, int64_t j, auto row, auto column) INLINE_LAMBDA {
    const T* grad = tiles.grad.row(i) + j * lanes;
    T* out = tiles.grad_x.row(STRIDE * i + row()) + (STRIDE * j + column()) * lanes;
    V sum;
    load(sum, out);
    for_taps<STRIDE, 1, row(), column()>([&](int, int down, int right) INLINE_LAMBDA {
      V dy;
      load(dy, grad + down * pitch + right * lanes);
      sum += dy;
    });
    store(out, sum);
  });
}

// Multiplies tiles.grad_x, so far the sum of the filters, by ReLU's derivative.
template <typename V, typename T>
ALWAYS_INLINE void rectify_backward(const Stencil3x3Shape& s, const Tiles<T>& tiles) {
  constexpr int64_t lanes = sizeof(V) / sizeof(T);
  for (int64_t y = tiles.grad_x.first; y < tiles.grad_x.last; ++y) {
    for (int64_t x = 0; x < s.width; ++x) {
      V sum, value;
      load(value, tiles.x.row(y) + x * lanes);
      load(sum, tiles.grad_x.row(y) + x * lanes);
      sum = value <= V{} ? V{} : sum;
      store(tiles.grad_x.row(y) + x * lanes, sum);
    }
  }
}

template <typename T, int BYTES, int STRIDE>
ALWAYS_INLINE void backward_strided(const Stencil3x3Backward& p, const Unit& u, const Tiles<T>& tiles) {
  using V = Vector<T, BYTES>;
  constexpr int64_t lanes = BYTES / sizeof(T);
  const Stencil3x3Shape& s = p.shape;
  const int64_t out_pixels = s.out_height * s.out_width, pixels = s.height * s.width;
  const V zero = {}, lowest = zero - std::numeric_limits<T>::infinity();
  const auto copy = [](V& vector, const T* from, int64_t, int64_t) INLINE_LAMBDA { load(vector, from); };
  const auto grad_of = [&](const void* all, int64_t n) {
    return static_cast<const T*>(all) + n * out_pixels * s.channels + u.channel;
  };
  for (int64_t k = 0; k < s.filters * 9; ++k) store(tiles.grad_weights + k * lanes, zero);
  for (int64_t n = u.image; n < u.image_end; ++n) {
    const T* image = static_cast<const T*>(p.x) + n * pixels * s.channels + u.channel;
    fill(tiles.x, image, s.height, s.channels, lowest, copy);
    const Tile<T>& dx = tiles.grad_x;
    std::memset(dx.data, 0, (dx.last - dx.first) * dx.pitch() * sizeof(T));
    for (int64_t f = 0; f < s.filters; ++f) {
      fill(tiles.grad, grad_of(p.grad_filtered, f * s.batch + n), s.out_height, s.channels, zero, copy);
      const bool dilated = s.dilated >> f & 1;
      if (p.grad_weights != nullptr) {
        dilated ? filter_backward<STRIDE, 2, true, V>(p, u, tiles, f)
                : filter_backward<STRIDE, 1, true, V>(p, u, tiles, f);
      } else {
        dilated ? filter_backward<STRIDE, 2, false, V>(p, u, tiles, f)
                : filter_backward<STRIDE, 1, false, V>(p, u, tiles, f);
      }
    }
    if (p.grad_x == nullptr) continue;
    if (s.relu && s.filters > 0) rectify_backward<V>(s, tiles);
    if (p.grad_avg != nullptr) {
      fill(tiles.grad, grad_of(p.grad_avg, n), s.out_height, s.channels, zero,
           [&](V& vector, const T* from, int64_t i, int64_t j) INLINE_LAMBDA {
             load(vector, from);
             vector *= T(1) / static_cast<T>(in_window(i, STRIDE, s.height) * in_window(j, STRIDE, s.width));
           });
      average_backward<STRIDE, V>(s, u, tiles);
    }
    if (p.grad_max != nullptr) {
      fill(tiles.grad, grad_of(p.grad_max, n), s.out_height, s.channels, zero, copy);
      find_places<STRIDE, V>(s, tiles);
    }
    write_grad_x<STRIDE, V>(p, u, tiles, n);
  }
  if (p.grad_weights == nullptr) return;
  T* slab = static_cast<T*>(p.slabs) + u.slab * s.filters * 9 * s.channels + u.channel;
  for (int64_t k = 0; k < s.filters * 9; ++k) {
    V vector;
    load(vector, tiles.grad_weights + k * lanes);
    store(slab + k * s.channels, vector);
  }
}

template <typename T>
struct BackwardUnit {
  template <int BYTES>
  ALWAYS_INLINE static void run(const Stencil3x3Backward& p, const Unit& u, const Tiles<T>& tiles) {
    p.shape.stride == 1 ? backward_strided<T, BYTES, 1>(p, u, tiles)
                        : backward_strided<T, BYTES, 2>(p, u, tiles);
  }
};

// dw (F, C, 9) from the slabs (slabs, F, 9, C), added in order.
template <typename T>
void add_slabs(const Stencil3x3Backward& p, int64_t slabs) {
  const int64_t channels = p.shape.channels, size = p.shape.filters * 9 * channels;
  torch::stable::parallel_for(0, p.shape.filters, 1, [&](int64_t begin, int64_t end) {
    T* sums = thread_scratch<T>(channels);
    for (int64_t k = begin * 9; k < end * 9; ++k) {
      const T* from = static_cast<const T*>(p.slabs) + k * channels;
      std::copy_n(from, channels, sums);
      for (int64_t slab = 1; slab < slabs; ++slab) {
        for (int64_t c = 0; c < channels; ++c) sums[c] += from[slab * size + c];
      }
      T* out = static_cast<T*>(p.grad_weights) + k / 9 * 9 * channels + k % 9;
      for (int64_t c = 0; c < channels; ++c) out[c * 9] = sums[c];
    }
  });
}

template <typename T>
void backward(const Stencil3x3Backward& p) {
  const Partition part(p.shape, sizeof(T), vector_bytes(instruction_set()));
  const auto backward_vector = variant<BackwardUnit<T>>();
  const auto backward_single = BackwardUnit<T>::template run<sizeof(T)>;
  const int64_t count = Tiles<T>(p.shape, Unit(part, p.shape, 0), part.lanes, nullptr).count;
  torch::stable::parallel_for(0, part.units(), 1, [&](int64_t begin, int64_t end) {
    T* scratch = thread_scratch<T>(count);
    for (int64_t k = begin; k < end; ++k) {
      const Unit unit(part, p.shape, k);
      const Tiles<T> tiles(p.shape, unit, unit.single ? 1 : part.lanes, scratch);
      (unit.single ? backward_single : backward_vector)(p, unit, tiles);
    }
  });
  if (p.grad_weights != nullptr) add_slabs<T>(p, part.slabs());
}

}  // namespace

void stencil3x3_backward_cpu(const Stencil3x3Backward& p) {
  dispatch_cpu(p.shape.element, [&]<typename T>() { backward<T>(p); });
}

int64_t stencil3x3_slabs_cpu(const Stencil3x3Shape& shape) {
  return Partition(shape, element_bytes(shape.element), vector_bytes(instruction_set())).slabs();
}

}  // namespace autoreid_fast
