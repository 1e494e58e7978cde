// The depthwise half of a separable convolution on the CPU; vectors over channels and padded tiles as in
// stencil3x3.
#include "../stencil3x3/vector_tile.h"
#include "depthwise.h"

namespace autoreid_fast::separable {

using namespace stencil;

namespace {

// The tile of the vector of channels from `channel` on. The tiles of a unit follow one another in memory.
template <typename T>
ALWAYS_INLINE Tile<T> tile_of(const Depthwise<T>& p, const Unit& u, T* tiles, int64_t channel,
                              int64_t lanes) {
  const int64_t pad = p.pad(), stride = p.shape.stride;
  Tile<T> tile{tiles, u.row * stride - pad, (u.row_end - 1) * stride + pad + 1, pad, p.shape.width, lanes};
  tile.data += channel / lanes * (tile.last - tile.first) * tile.pitch();
  return tile;
}

template <typename T>
struct ReadKernel {
  template <int BYTES>
  ALWAYS_INLINE static void run(const Depthwise<T>& p, const Unit& u, T* tiles) {
    using V = Vector<T, BYTES>;
    constexpr int64_t lanes = BYTES / sizeof(T);
    const Stencil3x3Shape& s = p.shape;
    const T* image = p.x + u.image * s.height * s.width * s.channels;
    for (int64_t channel = 0; channel < s.channels; channel += lanes) {
      const Tile<T> tile = tile_of(p, u, tiles, channel, lanes);
      const int64_t count = s.channels - channel;
      if (count >= lanes) {
        fill(tile, image + channel, s.height, s.channels, V{},
             [](V& vector, const T* from, int64_t, int64_t) INLINE_LAMBDA {
               load(vector, from);
               rectify(vector);
             });
      } else {
        fill(tile, image + channel, s.height, s.channels, V{},
             [count](V& vector, const T* from, int64_t, int64_t) INLINE_LAMBDA {
               vector = V{};
               std::memcpy(&vector, from, count * sizeof(T));
               rectify(vector);
             });
      }
    }
  }
};

template <typename T>
struct FilterKernel {
  template <int BYTES>
  ALWAYS_INLINE static void run(const Depthwise<T>& p, const Unit& u, int64_t f, T* tiles, T* y) {
    using V = Vector<T, BYTES>;
    constexpr int64_t lanes = BYTES / sizeof(T);
    const FilterRows rows{dilation_of(p.shape, f), p.shape.stride, u.row, u.row_end, p.shape.out_width};
    for (int64_t channel = 0; channel < p.padded_channels; channel += lanes) {
      V weights[9];
      for (int t = 0; t < 9; ++t) {
        load(weights[t], p.packed_weights + (f * 9 + t) * p.padded_channels + channel);
      }
      filter_rows(tile_of(p, u, tiles, channel, lanes), weights, rows, y + channel, p.padded_channels);
    }
  }
};

}  // namespace

template <typename T>
int64_t padded(int64_t channels) {
  return round_up(channels, vector_bytes(instruction_set()) / sizeof(T));
}

template <typename T>
Depthwise<T> depthwise_of(const Stencil3x3Shape& shape, const void* x, const T* packed_weights) {
  return {shape,
          static_cast<const T*>(x),
          packed_weights,
          padded<T>(shape.channels),
          variant<ReadKernel<T>>(),
          variant<FilterKernel<T>>()};
}

template <typename T>
void pack(const Depthwise<T>& p, const void* depthwise, int64_t f, T* packed_weights) {
  const int64_t channels = p.shape.channels;
  T* to = packed_weights + f * 9 * p.padded_channels;
  const T* from = static_cast<const T*>(depthwise) + f * channels * 9;
  for (int t = 0; t < 9; ++t, to += p.padded_channels) {
    for (int64_t c = 0; c < channels; ++c) to[c] = from[c * 9 + t];
    std::fill(to + channels, to + p.padded_channels, T(0));
  }
}

template int64_t padded<float>(int64_t);
template int64_t padded<double>(int64_t);
template Depthwise<float> depthwise_of(const Stencil3x3Shape&, const void*, const float*);
template Depthwise<double> depthwise_of(const Stencil3x3Shape&, const void*, const double*);
template void pack(const Depthwise<float>&, const void*, int64_t, float*);
template void pack(const Depthwise<double>&, const void*, int64_t, double*);

}  // namespace autoreid_fast::separable
