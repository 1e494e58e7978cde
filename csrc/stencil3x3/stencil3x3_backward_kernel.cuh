// The 3x3 stencils, device code, backward; stencil3x3.h has the maths, stencil3x3_tile.cuh the division of
// the work.
//
// A block owns the S x S input pixels of each of its 8 x 8 outputs and gathers, so dx is written once and
// needs no atomics. x with a border stays in shared memory for ReLU's derivative, for dw, and for finding the
// maximum of each window again (9 comparisons for each of 10 x 10 windows; saving the places would cost a
// byte per output instead). One dy after the other goes through a second tile; its taps serve both dx and dw.
// dw: the nine sums of each thread over its pixels are added over the 16 threads of a channel in shared
// memory, in order, into the block's slab; a second launch adds the slabs in a fixed order. Deterministic.
//
// Cost at C = 32, N = 16, 96 x 32, float32, F = 8 and both pools (an estimate, not measured): reads 69 MB and
// writes 6.3 MB (and slabs of 3.5 MB twice): 24 us at 3.4 TB/s.
#pragma once

#include "stencil3x3_tile.cuh"

namespace autoreid_fast {

// Calls use(t, k, pixel, y, x) for every tap t = 3 u + v through which the window y rows below and x columns
// to the right of this thread's output k holds one of the output's S x S input pixels.
template <int S, int DILATION, typename Use>
__device__ __forceinline__ void for_taps(const Use& use) {
#pragma unroll
  for (int k = 0; k < kColumn; ++k) {
#pragma unroll
    for (int pixel = 0; pixel < S * S; ++pixel) {
#pragma unroll
      for (int t = 0; t < 9; ++t) {
        // 2 S keeps the remainders positive
        const int y = pixel / S + DILATION * (1 - t / 3) + 2 * S;
        const int x = pixel % S + DILATION * (1 - t % 3) + 2 * S;
        if (y % S == 0 && x % S == 0) use(t, k, pixel, y / S - 2, x / S - 2);
      }
    }
  }
}

// Shared memory of the backward kernel.
template <int S>
struct BackwardTiles {
  static constexpr int kBorder = 2 / S;  // of dy: largest dilation / stride
  static constexpr int kGradSize = kTile + 2 * kBorder;
  static constexpr int kSourceBorder = S == 1 ? 2 : 1;  // of x: the windows that hold a pixel of the tile
  static constexpr int kSourceSize = kTile * S + 3 + S % 2;
  static constexpr int kPlaces = kTile + (S == 1 ? 2 : 1);  // of these windows, in each direction
  static constexpr int kPlaceBorder = S == 1 ? 1 : 0;
  float source[kSourceSize * kSourceSize * kGroup];
  float grad[kGradSize * kGradSize * kGroup];
  float partial[9 * kThreads];
  unsigned char place[kPlaces * kPlaces * kGroup];
};

// Adds dx and dw of one filter, from its dy in tiles.grad.
template <int S, int DILATION, bool WEIGHTS>
__device__ __forceinline__ void filter_backward(const BackwardTiles<S>& tiles, const ThreadOutputs& thread,
                                                bool relu, const float (&w)[9], float (&sums)[9],
                                                float (&grad_x)[kColumn][S * S]) {
  using Tiles = BackwardTiles<S>;
  constexpr int size = Tiles::kSourceSize;
  for_taps<S, DILATION>([&](int t, int k, int pixel, int y, int x) {
    const int down = thread.below + k + y + Tiles::kBorder, across = thread.right + x + Tiles::kBorder;
    const float dy = tiles.grad[(down * Tiles::kGradSize + across) * kGroup + thread.lane];
    grad_x[k][pixel] = fmaf(w[t], dy, grad_x[k][pixel]);
    if constexpr (WEIGHTS) {
      const int row = (thread.below + k) * S + pixel / S + Tiles::kSourceBorder;
      const int column = thread.right * S + pixel % S + Tiles::kSourceBorder;
      const float value = tiles.source[(row * size + column) * kGroup + thread.lane];
      sums[t] = fmaf(relu ? rectified(value) : value, dy, sums[t]);
    }
  });
}

// Writes the tap of each window's maximum to tiles.place: the first of equal ones, the last NaN; 9 where
// there is no window.
template <int S>
__device__ __forceinline__ void find_places(const Stencil3x3Shape& s, BackwardTiles<S>& tiles,
                                            const ThreadOutputs& thread) {
  using Tiles = BackwardTiles<S>;
  constexpr int size = Tiles::kSourceSize;
  for (int k = threadIdx.x; k < Tiles::kPlaces * Tiles::kPlaces * kGroup; k += kThreads) {
    const int below = k / kGroup / Tiles::kPlaces - Tiles::kPlaceBorder;
    const int right = k / kGroup % Tiles::kPlaces - Tiles::kPlaceBorder;
    const int64_t i = thread.row + below, j = thread.column + right;
    float best = 0.0f;
    int place = 9;
    if (i >= 0 && i < s.out_height && j >= 0 && j < s.out_width) {
#pragma unroll
      for (int t = 0; t < 9; ++t) {
        const int64_t y = i * S + t / 3 - 1, x = j * S + t % 3 - 1;
        if (y < 0 || y >= s.height || x < 0 || x >= s.width) continue;
        const int down = below * S + t / 3 - 1 + Tiles::kSourceBorder;
        const int across = right * S + t % 3 - 1 + Tiles::kSourceBorder;
        const float value = tiles.source[(down * size + across) * kGroup + k % kGroup];
        if (place == 9 || value > best || value != value) {
          best = value;
          place = t;
        }
      }
    }
    tiles.place[k] = static_cast<unsigned char>(place);
  }
}

// Block b: channel group b % groups of slab b / groups, which has that tile and every (gridDim.x / groups)-th
// after it.
template <int S, bool WEIGHTS, typename T>
__device__ void stencil3x3_backward_block(const Stencil3x3Backward& p) {
  using Tiles = BackwardTiles<S>;
  constexpr int size = Tiles::kSourceSize;
  __shared__ Tiles tiles;
  const Stencil3x3Shape& s = p.shape;
  const StencilTiles count(s);
  const int64_t slab = blockIdx.x / count.groups, step = gridDim.x / count.groups;
  const int64_t height = s.out_height, width = s.out_width;
  for (int64_t tile = slab; tile < count.total; tile += step) {
    const ThreadOutputs thread(count, tile, blockIdx.x % count.groups);
    const auto same = [](float value, int64_t, int64_t) { return value; };
    const auto load_grad = [&](const void* all, int64_t n, const auto& change) {
      const T* image = static_cast<const T*>(all) + n * height * width * s.channels;
      load_tile<Tiles::kGradSize>(tiles.grad, image, height, width, s.channels, thread.row - Tiles::kBorder,
                                  thread.column - Tiles::kBorder, thread.first_channel, change);
    };
    const T* image = static_cast<const T*>(p.x) + thread.n * s.height * s.width * s.channels;
    load_tile<size>(tiles.source, image, s.height, s.width, s.channels, thread.row * S - Tiles::kSourceBorder,
                    thread.column * S - Tiles::kSourceBorder, thread.first_channel, same);
    float grad_x[kColumn][S * S] = {};
    for (int64_t f = 0; f < s.filters; ++f) {
      load_grad(p.grad_filtered, f * s.batch + thread.n, same);
      float w[9], sums[9] = {};
      load_filter<T>(w, p.weights, f, s.channels, thread.channel());
      __syncthreads();
      is_dilated(s, f) ? filter_backward<S, 2, WEIGHTS>(tiles, thread, s.relu, w, sums, grad_x)
                       : filter_backward<S, 1, WEIGHTS>(tiles, thread, s.relu, w, sums, grad_x);
      if constexpr (WEIGHTS) {
#pragma unroll
        for (int t = 0; t < 9; ++t) tiles.partial[t * kThreads + threadIdx.x] = sums[t];
        __syncthreads();
        if (threadIdx.x < 9 * kGroup && thread.channel() < s.channels) {
          const int t = threadIdx.x / kGroup;
          float sum = 0.0f;
          for (int slot = 0; slot < kSlots; ++slot) {
            sum += tiles.partial[t * kThreads + slot * kGroup + thread.lane];
          }
          float* out =
              static_cast<float*>(p.slabs) + ((slab * s.filters + f) * 9 + t) * s.channels + thread.channel();
          *out = tile == slab ? sum : *out + sum;
        }
      }
      __syncthreads();
    }
    if (s.relu) {
#pragma unroll
      for (int k = 0; k < kColumn * S * S; ++k) {
        const int pixel = k % (S * S),
                  row = (thread.below + k / (S * S)) * S + pixel / S + Tiles::kSourceBorder;
        const int column = thread.right * S + pixel % S + Tiles::kSourceBorder;
        if (s.filters > 0 && tiles.source[(row * size + column) * kGroup + thread.lane] <= 0.0f) {
          grad_x[k / (S * S)][pixel] = 0.0f;
        }
      }
    }
    if (p.grad_avg != nullptr) {
      load_grad(p.grad_avg, thread.n, [&](float value, int64_t i, int64_t j) {
        return value / static_cast<float>(in_window(i, S, s.height) * in_window(j, S, s.width));
      });
      __syncthreads();
      for_taps<S, 1>([&](int, int k, int pixel, int y, int x) {
        const int down = thread.below + k + y + Tiles::kBorder, across = thread.right + x + Tiles::kBorder;
        grad_x[k][pixel] += tiles.grad[(down * Tiles::kGradSize + across) * kGroup + thread.lane];
      });
      __syncthreads();
    }
    if (p.grad_max != nullptr) {
      load_grad(p.grad_max, thread.n, same);
      __syncthreads();
      find_places<S>(s, tiles, thread);
      __syncthreads();
      for_taps<S, 1>([&](int t, int k, int pixel, int y, int x) {
        const int down = thread.below + k + y, across = thread.right + x;
        const int place =
            tiles.place[((down + Tiles::kPlaceBorder) * Tiles::kPlaces + across + Tiles::kPlaceBorder) *
                            kGroup +
                        thread.lane];
        const float dy =
            tiles.grad[((down + Tiles::kBorder) * Tiles::kGradSize + across + Tiles::kBorder) * kGroup +
                       thread.lane];
        if (place == t) grad_x[k][pixel] += dy;
      });
    }
    if (p.grad_x != nullptr) {
#pragma unroll
      for (int k = 0; k < kColumn * S * S; ++k) {
        const int pixel = k % (S * S);
        const int64_t y = (thread.row + thread.below + k / (S * S)) * S + pixel / S;
        const int64_t x = (thread.column + thread.right) * S + pixel % S;
        if (y < s.height && x < s.width && thread.channel() < s.channels) {
          const int64_t out = ((thread.n * s.height + y) * s.width + x) * s.channels + thread.channel();
          static_cast<T*>(p.grad_x)[out] = from_float<T>(grad_x[k / (S * S)][pixel]);
        }
      }
    }
    __syncthreads();
  }
}

// dw from the slabs (slabs, F, 9, C). A block has 16 of the F 9 C sums, with 16 threads per sum.
template <typename T>
__device__ void stencil3x3_add_slabs_block(const Stencil3x3Backward& p, int64_t slabs) {
  __shared__ float partial[kThreads];
  const int64_t channels = p.shape.channels, size = p.shape.filters * 9 * channels;
  const int64_t k = static_cast<int64_t>(blockIdx.x) * kGroup + threadIdx.x % kGroup;
  float sum = 0.0f;
  if (k < size) {
    for (int64_t slab = threadIdx.x / kGroup; slab < slabs; slab += kSlots) {
      sum += static_cast<const float*>(p.slabs)[slab * size + k];
    }
  }
  partial[threadIdx.x] = sum;
  __syncthreads();
  if (threadIdx.x < kGroup && k < size) {
    for (int slot = 1; slot < kSlots; ++slot) sum += partial[slot * kGroup + threadIdx.x];
    const int64_t f = k / (9 * channels), t = k / channels % 9, c = k % channels;
    static_cast<T*>(p.grad_weights)[(f * channels + c) * 9 + t] = from_float<T>(sum);
  }
}

}  // namespace autoreid_fast
