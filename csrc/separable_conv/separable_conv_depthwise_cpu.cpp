// The depthwise rows of a unit on the CPU, with stencil3x3's vectors over channels and padded tiles.
#include "../stencil3x3/vector_tile.h"
#include "depthwise.h"

namespace autoreid_fast::separable {

using namespace stencil;

namespace {

// The tile of the vector of channels from `channel` on; one follows the other.
template <typename T>
ALWAYS_INLINE Tile<T> tile_of(const Depthwise<T>& p, const Unit& u, T* tiles, int64_t channel,
                              int64_t lanes) {
  const int64_t pad = p.pad(), stride = p.shape.stride;
  Tile<T> tile{tiles, u.row * stride - pad, (u.row_end - 1) * stride + pad + 1, pad, p.shape.width, lanes};
  tile.data += channel / lanes * (tile.last - tile.first) * tile.pitch();
  return tile;
}

template <typename T, int BYTES>
ALWAYS_INLINE void read(const Depthwise<T>& p, const Unit& u, T* tiles) {
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

template <typename T, int BYTES>
ALWAYS_INLINE void filter(const Depthwise<T>& p, const Unit& u, int64_t f, T* tiles, T* y) {
  using V = Vector<T, BYTES>;
  constexpr int64_t lanes = BYTES / sizeof(T);
  const int64_t dilation = 1 + (p.shape.dilated >> f & 1);
  for (int64_t channel = 0; channel < p.step; channel += lanes) {
    V w[9];
    for (int t = 0; t < 9; ++t) load(w[t], p.weights + (f * 9 + t) * p.step + channel);
    filter_rows(tile_of(p, u, tiles, channel, lanes), w, dilation, p.shape.stride, u.row, u.row_end,
                p.shape.out_width, y + channel, p.step);
  }
}

#define DEPTHWISE_CODE(NAME, TARGET, BYTES)                                                   \
  template <typename T>                                                                       \
  TARGET void read_##NAME(const Depthwise<T>& p, const Unit& u, T* tile) {                    \
    read<T, BYTES>(p, u, tile);                                                               \
  }                                                                                           \
  template <typename T>                                                                       \
  TARGET void filter_##NAME(const Depthwise<T>& p, const Unit& u, int64_t f, T* tile, T* y) { \
    filter<T, BYTES>(p, u, f, tile, y);                                                       \
  }

DEPTHWISE_CODE(avx512, AUTOREID_FAST_AVX512, 64)
DEPTHWISE_CODE(avx2, AUTOREID_FAST_AVX2, 32)
DEPTHWISE_CODE(portable, , 16)

}  // namespace

template <typename T>
int64_t padded(int64_t channels) {
  const int64_t lanes = vector_bytes(instruction_set()) / sizeof(T);
  return divide_up(channels, lanes) * lanes;
}

template <typename T>
Depthwise<T> depthwise(const Stencil3x3Shape& shape, const void* x, const T* weights) {
  const InstructionSet set = instruction_set();
  const bool avx512 = set == InstructionSet::avx512, avx2 = set == InstructionSet::avx2;
  return {shape,
          static_cast<const T*>(x),
          weights,
          padded<T>(shape.channels),
          avx512 ? read_avx512<T>
          : avx2 ? read_avx2<T>
                 : read_portable<T>,
          avx512 ? filter_avx512<T>
          : avx2 ? filter_avx2<T>
                 : filter_portable<T>};
}

template <typename T>
void pack(const Depthwise<T>& p, const void* from, int64_t f, T* weights) {
  const int64_t channels = p.shape.channels;
  T* to = weights + f * 9 * p.step;
  const T* source = static_cast<const T*>(from) + f * channels * 9;
  for (int t = 0; t < 9; ++t, to += p.step) {
    for (int64_t c = 0; c < channels; ++c) to[c] = source[c * 9 + t];
    std::fill(to + channels, to + p.step, T(0));
  }
}

template int64_t padded<float>(int64_t);
template int64_t padded<double>(int64_t);
template Depthwise<float> depthwise(const Stencil3x3Shape&, const void*, const float*);
template Depthwise<double> depthwise(const Stencil3x3Shape&, const void*, const double*);
template void pack(const Depthwise<float>&, const void*, int64_t, float*);
template void pack(const Depthwise<double>&, const void*, int64_t, double*);

}  // namespace autoreid_fast::separable
