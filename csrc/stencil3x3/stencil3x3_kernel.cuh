// The 3x3 stencils, device code; stencil3x3.h has the maths. No torch header:
// the tests run this very text on the CPU (tests/native/simt.h).
//
// A block of 256 threads owns 8 x 8 outputs of 16 channels. A thread is one
// channel of four outputs below one another, so that a half warp reads 16
// neighbouring channels (64 bytes of float, two whole sectors) and the nine
// taps of four outputs come from 18 values (dilation 1, stride 1) that it loads
// once.
//
// Forward: x with a border of two goes to shared memory once (12 x 12 pixels
// for 64 at stride 1: 2.25 reads of x from L2, one from memory), and every
// output comes from there. The taps stay in registers over all filters of one
// dilation: per filter nine weights, 36 multiply-adds and four stores a thread.
//
// Backward: a block owns the S x S input pixels of each of its 8 x 8 outputs
// and gathers, so dx is written once and needs no atomics. x (border 2) stays
// in shared memory for ReLU's derivative, for dw, and for finding each window's
// maximum again (9 compares for each of 10 x 10 windows; saving the places
// would cost a byte an output instead). One dy after the other passes through a
// second tile; its taps serve dx and dw. dw: each thread's nine sums over its
// pixels, added over the 16 threads of a channel in shared memory in order,
// into the block's slab; a second launch adds the slabs in order.
// Deterministic; no atomics.
//
// Bytes at C = 32, N = 16, 96 x 32, float, F = 8 and both pools: forward
// reads 6.3 MB and writes 63 MB, 20 us at 3.4 TB/s; backward reads 69 MB and
// writes 6.3 (and slabs of 3.5 MB twice): 24 us. At stride 2 the two pixels of
// a warp share their banks (2-way conflicts on the tap loads, which four
// outputs share). This is arithmetic; nothing here has been timed on a GPU yet.
#pragma once

#include "stencil3x3.h"

namespace autoreid_fast {

constexpr int kThreads = 256;
constexpr int kGroup = 16;                // channels of a block
constexpr int kSlots = kThreads / kGroup; // threads of a channel
constexpr int kTile = 8;                  // outputs of a block, each way
constexpr int kColumn =
    kTile * kTile / kSlots; // outputs of a thread, below one another
constexpr int64_t kMaxSlabs = 512;

struct StencilTiles {
  int64_t down, across, total,
      groups; // of an image; of the batch; groups of channels
  explicit __device__ StencilTiles(const Stencil3x3Shape &s)
      : down((s.out_height + kTile - 1) / kTile),
        across((s.out_width + kTile - 1) / kTile),
        total(down * across * s.batch),
        groups((s.channels + kGroup - 1) / kGroup) {}
};

// What a thread is in tile `tile` of the batch.
struct StencilPlace {
  int64_t n, row, column; // image; the block's first output
  int64_t first;          // the block's first channel
  int lane, below,
      right; // this thread's channel, and its first output, in the block
  __device__ StencilPlace(const StencilTiles &tiles, int64_t tile,
                          int64_t group)
      : n(tile / (tiles.down * tiles.across)),
        row(tile / tiles.across % tiles.down * kTile),
        column(tile % tiles.across * kTile), first(group * kGroup),
        lane(threadIdx.x % kGroup),
        below(threadIdx.x / kGroup / kTile * kColumn),
        right(threadIdx.x / kGroup % kTile) {}
  __device__ int64_t channel() const { return first + lane; }
};

// Pixels [row, row + SIZE) x [column, column + SIZE) of an image (H, W, C) for
// 16 channels, as change(value, y, x); zeros outside.
template <int SIZE, typename T, typename Change>
__device__ __forceinline__ void
load_tile(float *tile, const T *image, int64_t height, int64_t width,
          int64_t channels, int64_t row, int64_t column, int64_t first,
          const Change &change) {
  for (int k = threadIdx.x; k < SIZE * SIZE * kGroup; k += kThreads) {
    const int pixel = k / kGroup;
    const int64_t y = row + pixel / SIZE, x = column + pixel % SIZE,
                  c = first + k % kGroup;
    const bool inside =
        y >= 0 && y < height && x >= 0 && x < width && c < channels;
    tile[k] =
        inside ? change(to_float(image[(y * width + x) * channels + c]), y, x)
               : 0.0f;
  }
}

template <typename T>
__device__ __forceinline__ void load_filter(float (&w)[9], const void *weights,
                                            int64_t f, int64_t channels,
                                            int64_t channel) {
  const T *from =
      static_cast<const T *>(weights) + (f * channels + channel) * 9;
#pragma unroll
  for (int t = 0; t < 9; ++t)
    w[t] = channel < channels ? to_float(from[t]) : 0.0f;
}

__device__ __forceinline__ bool is_dilated(const Stencil3x3Shape &s,
                                           int64_t f) {
  return s.dilated >> f & 1;
}

__device__ __forceinline__ float rectified(float value) {
  return value <= 0.0f ? 0.0f : value;
} // keeps NaN

// Pixels of the window of output row or column i (dilation 1) that are in the
// image.
__device__ __forceinline__ int in_window(int64_t i, int stride, int64_t size) {
  return 3 - (i == 0 ? 1 : 0) - (i * stride + 1 >= size ? 1 : 0);
}

// The filters of one dilation, for the outputs of a thread.
template <int S, int DILATION, typename T>
__device__ __forceinline__ void filter_column(const Stencil3x3Forward &p,
                                              const StencilPlace &at,
                                              const float *source) {
  constexpr int size = (kTile - 1) * S + 5,
                rows = (kColumn - 1) * S + 2 * DILATION + 1;
  const Stencil3x3Shape &s = p.shape;
  float taps[rows][3];
#pragma unroll
  for (int y = 0; y < rows; ++y) {
#pragma unroll
    for (int v = 0; v < 3; ++v) {
      const int down = at.below * S + y + 2 - DILATION,
                across = at.right * S + 2 + DILATION * (v - 1);
      const float value = source[(down * size + across) * kGroup + at.lane];
      taps[y][v] = s.relu ? rectified(value) : value;
    }
  }
  const int64_t j = at.column + at.right;
  for (int64_t f = 0; f < s.filters; ++f) {
    if (is_dilated(s, f) != (DILATION == 2))
      continue;
    float w[9];
    load_filter<T>(w, p.weights, f, s.channels, at.channel());
#pragma unroll
    for (int k = 0; k < kColumn; ++k) {
      const int64_t i = at.row + at.below + k;
      float sum = 0.0f;
#pragma unroll
      for (int t = 0; t < 9; ++t)
        sum = fmaf(w[t], taps[k * S + t / 3 * DILATION][t % 3], sum);
      if (i < s.out_height && j < s.out_width && at.channel() < s.channels) {
        const int64_t out =
            (((f * s.batch + at.n) * s.out_height + i) * s.out_width + j) *
            s.channels;
        static_cast<T *>(p.filtered)[out + at.channel()] = from_float<T>(sum);
      }
    }
  }
}

// Both pools, for the outputs of a thread.
template <int S, typename T>
__device__ __forceinline__ void pool_column(const Stencil3x3Forward &p,
                                            const StencilPlace &at,
                                            const float *source) {
  constexpr int size = (kTile - 1) * S + 5;
  const Stencil3x3Shape &s = p.shape;
  const int64_t j = at.column + at.right;
#pragma unroll
  for (int k = 0; k < kColumn; ++k) {
    const int64_t i = at.row + at.below + k;
    if (i >= s.out_height || j >= s.out_width || at.channel() >= s.channels)
      continue;
    float best = -HUGE_VALF, sum = 0.0f;
#pragma unroll
    for (int t = 0; t < 9; ++t) {
      const int64_t y = i * S + t / 3 - 1, x = j * S + t % 3 - 1;
      if (y < 0 || y >= s.height || x < 0 || x >= s.width)
        continue;
      const int down = (at.below + k) * S + t / 3 + 1,
                across = at.right * S + t % 3 + 1;
      const float value = source[(down * size + across) * kGroup + at.lane];
      if (value > best || value != value)
        best = value;
      sum += value;
    }
    const int64_t out =
        ((at.n * s.out_height + i) * s.out_width + j) * s.channels +
        at.channel();
    if (p.max_pool != nullptr)
      static_cast<T *>(p.max_pool)[out] = from_float<T>(best);
    if (p.avg_pool != nullptr) {
      const int count = in_window(i, S, s.height) * in_window(j, S, s.width);
      static_cast<T *>(p.avg_pool)[out] =
          from_float<T>(sum / static_cast<float>(count));
    }
  }
}

// Block b: channel group b % groups of the tiles b / groups, and on by
// gridDim.x / groups.
template <int S, typename T>
__device__ void stencil3x3_block(const Stencil3x3Forward &p) {
  constexpr int size = (kTile - 1) * S + 5;
  __shared__ float source[size * size * kGroup];
  const Stencil3x3Shape &s = p.shape;
  const StencilTiles tiles(s);
  const int64_t step = gridDim.x / tiles.groups;
  for (int64_t tile = blockIdx.x / tiles.groups; tile < tiles.total;
       tile += step) {
    const StencilPlace at(tiles, tile, blockIdx.x % tiles.groups);
    const T *image =
        static_cast<const T *>(p.x) + at.n * s.height * s.width * s.channels;
    load_tile<size>(source, image, s.height, s.width, s.channels,
                    at.row * S - 2, at.column * S - 2, at.first,
                    [](float value, int64_t, int64_t) { return value; });
    __syncthreads();
    if (p.max_pool != nullptr || p.avg_pool != nullptr)
      pool_column<S, T>(p, at, source);
    filter_column<S, 1, T>(p, at, source);
    if (s.dilated != 0)
      filter_column<S, 2, T>(p, at, source);
    __syncthreads();
  }
}

// Calls use(t, k, pixel, y, x) for every tap t = 3 u + v of the thread's S x S
// pixels of output k whose window is y below and x right of it.
template <int S, int DILATION, typename Use>
__device__ __forceinline__ void for_taps(const Use &use) {
#pragma unroll
  for (int k = 0; k < kColumn; ++k) {
#pragma unroll
    for (int pixel = 0; pixel < S * S; ++pixel) {
#pragma unroll
      for (int t = 0; t < 9; ++t) {
        // + 2 S keeps the remainders positive
        const int y = pixel / S + DILATION * (1 - t / 3) + 2 * S,
                  x = pixel % S + DILATION * (1 - t % 3) + 2 * S;
        if (y % S == 0 && x % S == 0)
          use(t, k, pixel, y / S - 2, x / S - 2);
      }
    }
  }
}

// Shared memory of the backward kernel.
template <int S> struct BackwardTiles {
  static constexpr int kBorder = 2 / S; // of dy: dilation / stride
  static constexpr int kGradSize = kTile + 2 * kBorder;
  static constexpr int kSourceBorder =
      S == 1 ? 2 : 1; // of x: the windows that hold a pixel of the tile
  static constexpr int kSourceSize = kTile * S + 3 + S % 2;
  static constexpr int kPlaces =
      kTile + (S == 1 ? 2 : 1); // these windows, each way
  static constexpr int kPlaceBorder = S == 1 ? 1 : 0;
  float source[kSourceSize * kSourceSize * kGroup];
  float grad[kGradSize * kGradSize * kGroup];
  float partial[9 * kThreads];
  unsigned char place[kPlaces * kPlaces * kGroup];
};

// dx and dw of one filter from its dy in tiles.grad.
template <int S, int DILATION, bool WEIGHTS>
__device__ __forceinline__ void
filter_backward(const BackwardTiles<S> &tiles, const StencilPlace &at,
                bool relu, const float (&w)[9], float (&sums)[9],
                float (&grad_x)[kColumn][S * S]) {
  using Tiles = BackwardTiles<S>;
  constexpr int size = Tiles::kSourceSize;
  for_taps<S, DILATION>([&](int t, int k, int pixel, int y, int x) {
    const int down = at.below + k + y + Tiles::kBorder,
              across = at.right + x + Tiles::kBorder;
    const float dy =
        tiles.grad[(down * Tiles::kGradSize + across) * kGroup + at.lane];
    grad_x[k][pixel] = fmaf(w[t], dy, grad_x[k][pixel]);
    if constexpr (WEIGHTS) {
      const int row = (at.below + k) * S + pixel / S + Tiles::kSourceBorder;
      const int column = at.right * S + pixel % S + Tiles::kSourceBorder;
      const float value =
          tiles.source[(row * size + column) * kGroup + at.lane];
      sums[t] = fmaf(relu ? rectified(value) : value, dy, sums[t]);
    }
  });
}

// The tap of each window's maximum into tiles.place: the first in row-major
// order; NaN: the last. 9: no window.
template <int S>
__device__ __forceinline__ void find_places(const Stencil3x3Shape &s,
                                            BackwardTiles<S> &tiles,
                                            const StencilPlace &at) {
  using Tiles = BackwardTiles<S>;
  constexpr int size = Tiles::kSourceSize;
  for (int k = threadIdx.x; k < Tiles::kPlaces * Tiles::kPlaces * kGroup;
       k += kThreads) {
    const int below = k / kGroup / Tiles::kPlaces - Tiles::kPlaceBorder;
    const int right = k / kGroup % Tiles::kPlaces - Tiles::kPlaceBorder;
    const int64_t i = at.row + below, j = at.column + right;
    float best = 0.0f;
    int place = 9;
    if (i >= 0 && i < s.out_height && j >= 0 && j < s.out_width) {
#pragma unroll
      for (int t = 0; t < 9; ++t) {
        const int64_t y = i * S + t / 3 - 1, x = j * S + t % 3 - 1;
        if (y < 0 || y >= s.height || x < 0 || x >= s.width)
          continue;
        const int down = below * S + t / 3 - 1 + Tiles::kSourceBorder;
        const int across = right * S + t % 3 - 1 + Tiles::kSourceBorder;
        const float value =
            tiles.source[(down * size + across) * kGroup + k % kGroup];
        if (place == 9 || value > best || value != value) {
          best = value;
          place = t;
        }
      }
    }
    tiles.place[k] = static_cast<unsigned char>(place);
  }
}

// Block b: channel group b % groups; slab b / groups, that is the tiles from
// there on by gridDim.x / groups.
template <int S, bool WEIGHTS, typename T>
__device__ void stencil3x3_backward_block(const Stencil3x3Backward &p) {
  using Tiles = BackwardTiles<S>;
  constexpr int size = Tiles::kSourceSize;
  __shared__ Tiles tiles;
  const Stencil3x3Shape &s = p.shape;
  const StencilTiles count(s);
  const int64_t slab = blockIdx.x / count.groups,
                step = gridDim.x / count.groups;
  const int64_t height = s.out_height, width = s.out_width;
  for (int64_t tile = slab; tile < count.total; tile += step) {
    const StencilPlace at(count, tile, blockIdx.x % count.groups);
    const auto same = [](float value, int64_t, int64_t) { return value; };
    const auto load_grad = [&](const void *all, int64_t n, const auto &change) {
      const T *image =
          static_cast<const T *>(all) + n * height * width * s.channels;
      load_tile<Tiles::kGradSize>(tiles.grad, image, height, width, s.channels,
                                  at.row - Tiles::kBorder,
                                  at.column - Tiles::kBorder, at.first, change);
    };
    const T *image =
        static_cast<const T *>(p.x) + at.n * s.height * s.width * s.channels;
    load_tile<size>(tiles.source, image, s.height, s.width, s.channels,
                    at.row * S - Tiles::kSourceBorder,
                    at.column * S - Tiles::kSourceBorder, at.first, same);
    float grad_x[kColumn][S * S] = {};
    for (int64_t f = 0; f < s.filters; ++f) {
      load_grad(p.grad_filtered, f * s.batch + at.n, same);
      float w[9], sums[9] = {};
      load_filter<T>(w, p.weights, f, s.channels, at.channel());
      __syncthreads();
      is_dilated(s, f)
          ? filter_backward<S, 2, WEIGHTS>(tiles, at, s.relu, w, sums, grad_x)
          : filter_backward<S, 1, WEIGHTS>(tiles, at, s.relu, w, sums, grad_x);
      if constexpr (WEIGHTS) {
#pragma unroll
        for (int t = 0; t < 9; ++t)
          tiles.partial[t * kThreads + threadIdx.x] = sums[t];
        __syncthreads();
        if (threadIdx.x < 9 * kGroup && at.channel() < s.channels) {
          const int t = threadIdx.x / kGroup;
          float sum = 0.0f;
          for (int slot = 0; slot < kSlots; ++slot) {
            sum += tiles.partial[t * kThreads + slot * kGroup + at.lane];
          }
          float *out = static_cast<float *>(p.slabs) +
                       ((slab * s.filters + f) * 9 + t) * s.channels +
                       at.channel();
          *out = tile == slab ? sum : *out + sum;
        }
      }
      __syncthreads();
    }
    if (s.relu) {
#pragma unroll
      for (int k = 0; k < kColumn * S * S; ++k) {
        const int pixel = k % (S * S), row = (at.below + k / (S * S)) * S +
                                             pixel / S + Tiles::kSourceBorder;
        const int column = at.right * S + pixel % S + Tiles::kSourceBorder;
        if (s.filters > 0 &&
            tiles.source[(row * size + column) * kGroup + at.lane] <= 0.0f) {
          grad_x[k / (S * S)][pixel] = 0.0f;
        }
      }
    }
    if (p.grad_avg != nullptr) {
      load_grad(p.grad_avg, at.n, [&](float value, int64_t i, int64_t j) {
        return value / static_cast<float>(in_window(i, S, s.height) *
                                          in_window(j, S, s.width));
      });
      __syncthreads();
      for_taps<S, 1>([&](int, int k, int pixel, int y, int x) {
        const int down = at.below + k + y + Tiles::kBorder,
                  across = at.right + x + Tiles::kBorder;
        grad_x[k][pixel] +=
            tiles.grad[(down * Tiles::kGradSize + across) * kGroup + at.lane];
      });
      __syncthreads();
    }
    if (p.grad_max != nullptr) {
      load_grad(p.grad_max, at.n, same);
      __syncthreads();
      find_places<S>(s, tiles, at);
      __syncthreads();
      for_taps<S, 1>([&](int t, int k, int pixel, int y, int x) {
        const int down = at.below + k + y, across = at.right + x;
        const int place =
            tiles.place[((down + Tiles::kPlaceBorder) * Tiles::kPlaces +
                         across + Tiles::kPlaceBorder) *
                            kGroup +
                        at.lane];
        const float dy =
            tiles.grad[((down + Tiles::kBorder) * Tiles::kGradSize + across +
                        Tiles::kBorder) *
                           kGroup +
                       at.lane];
        if (place == t)
          grad_x[k][pixel] += dy;
      });
    }
    if (p.grad_x != nullptr) {
#pragma unroll
      for (int k = 0; k < kColumn * S * S; ++k) {
        const int pixel = k % (S * S);
        const int64_t y = (at.row + at.below + k / (S * S)) * S + pixel / S;
        const int64_t x = (at.column + at.right) * S + pixel % S;
        if (y < s.height && x < s.width && at.channel() < s.channels) {
          const int64_t out =
              ((at.n * s.height + y) * s.width + x) * s.channels + at.channel();
          static_cast<T *>(p.grad_x)[out] =
              from_float<T>(grad_x[k / (S * S)][pixel]);
        }
      }
    }
    __syncthreads();
  }
}

// dw from the slabs (slabs, F, 9, C): block b has 16 of the F * 9 * C sums, 16
// threads each.
template <typename T>
__device__ void stencil3x3_add_slabs_block(const Stencil3x3Backward &p,
                                           int64_t slabs) {
  __shared__ float partial[kThreads];
  const int64_t channels = p.shape.channels,
                size = p.shape.filters * 9 * channels;
  const int64_t k =
      static_cast<int64_t>(blockIdx.x) * kGroup + threadIdx.x % kGroup;
  float sum = 0.0f;
  if (k < size) {
    for (int64_t slab = threadIdx.x / kGroup; slab < slabs; slab += kSlots) {
      sum += static_cast<const float *>(p.slabs)[slab * size + k];
    }
  }
  partial[threadIdx.x] = sum;
  __syncthreads();
  if (threadIdx.x < kGroup && k < size) {
    for (int slot = 1; slot < kSlots; ++slot)
      sum += partial[slot * kGroup + threadIdx.x];
    const int64_t f = k / (9 * channels), t = k / channels % 9,
                  c = k % channels;
    static_cast<T *>(p.grad_weights)[(f * channels + c) * 9 + t] =
        from_float<T>(sum);
  }
}

} // namespace autoreid_fast
