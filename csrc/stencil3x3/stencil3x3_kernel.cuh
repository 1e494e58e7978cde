// The 3x3 stencils, device code, forward; stencil3x3.h has the maths, stencil3x3_tile.cuh the division of the
// work.
//
// x with a border of two goes to shared memory once (12 x 12 pixels for 64 at stride 1: 2.25 reads of x from
// L2, one from memory), and every output comes from there. The nine taps of a thread's four outputs are 18
// values (dilation 1, stride 1) that it loads once and keeps in registers over all filters of that dilation:
// per filter nine weights, 36 multiply-adds and four stores a thread.
//
// Bytes at C = 32, N = 16, 96 x 32, float, F = 8 and both pools: reads 6.3 MB and writes 63 MB, 20 us at
// 3.4 TB/s. At stride 2 the two pixels of a warp share their banks: 2-way conflicts on the tap loads, which
// four outputs share. This is arithmetic; nothing here has been timed on a GPU yet.
#pragma once

#include "stencil3x3_tile.cuh"

namespace autoreid_fast {

// The filters of one dilation, for the outputs of a thread.
template <int S, int DILATION, typename T>
__device__ __forceinline__ void filter_column(const Stencil3x3Forward& p, const StencilPlace& at,
                                              const float* source) {
  constexpr int size = (kTile - 1) * S + 5, rows = (kColumn - 1) * S + 2 * DILATION + 1;
  const Stencil3x3Shape& s = p.shape;
  float taps[rows][3];
#pragma unroll
  for (int y = 0; y < rows; ++y) {
#pragma unroll
    for (int v = 0; v < 3; ++v) {
      const int down = at.below * S + y + 2 - DILATION, across = at.right * S + 2 + DILATION * (v - 1);
      const float value = source[(down * size + across) * kGroup + at.lane];
      taps[y][v] = s.relu ? rectified(value) : value;
    }
  }
  const int64_t j = at.column + at.right;
  for (int64_t f = 0; f < s.filters; ++f) {
    if (is_dilated(s, f) != (DILATION == 2)) continue;
    float w[9];
    load_filter<T>(w, p.weights, f, s.channels, at.channel());
#pragma unroll
    for (int k = 0; k < kColumn; ++k) {
      const int64_t i = at.row + at.below + k;
      float sum = 0.0f;
#pragma unroll
      for (int t = 0; t < 9; ++t) sum = fmaf(w[t], taps[k * S + t / 3 * DILATION][t % 3], sum);
      if (i < s.out_height && j < s.out_width && at.channel() < s.channels) {
        const int64_t out = (((f * s.batch + at.n) * s.out_height + i) * s.out_width + j) * s.channels;
        static_cast<T*>(p.filtered)[out + at.channel()] = from_float<T>(sum);
      }
    }
  }
}

// Both pools, for the outputs of a thread.
template <int S, typename T>
__device__ __forceinline__ void pool_column(const Stencil3x3Forward& p, const StencilPlace& at,
                                            const float* source) {
  constexpr int size = (kTile - 1) * S + 5;
  const Stencil3x3Shape& s = p.shape;
  const int64_t j = at.column + at.right;
#pragma unroll
  for (int k = 0; k < kColumn; ++k) {
    const int64_t i = at.row + at.below + k;
    if (i >= s.out_height || j >= s.out_width || at.channel() >= s.channels) continue;
    float best = -HUGE_VALF, sum = 0.0f;
#pragma unroll
    for (int t = 0; t < 9; ++t) {
      const int64_t y = i * S + t / 3 - 1, x = j * S + t % 3 - 1;
      if (y < 0 || y >= s.height || x < 0 || x >= s.width) continue;
      const int down = (at.below + k) * S + t / 3 + 1, across = at.right * S + t % 3 + 1;
      const float value = source[(down * size + across) * kGroup + at.lane];
      if (value > best || value != value) best = value;
      sum += value;
    }
    const int64_t out = ((at.n * s.out_height + i) * s.out_width + j) * s.channels + at.channel();
    if (p.max_pool != nullptr) static_cast<T*>(p.max_pool)[out] = from_float<T>(best);
    if (p.avg_pool != nullptr) {
      const int count = in_window(i, S, s.height) * in_window(j, S, s.width);
      static_cast<T*>(p.avg_pool)[out] = from_float<T>(sum / static_cast<float>(count));
    }
  }
}

// Block b: channel group b % groups of the tiles b / groups, and on by gridDim.x / groups.
template <int S, typename T>
__device__ void stencil3x3_block(const Stencil3x3Forward& p) {
  constexpr int size = (kTile - 1) * S + 5;
  __shared__ float source[size * size * kGroup];
  const Stencil3x3Shape& s = p.shape;
  const StencilTiles tiles(s);
  const int64_t step = gridDim.x / tiles.groups;
  for (int64_t tile = blockIdx.x / tiles.groups; tile < tiles.total; tile += step) {
    const StencilPlace at(tiles, tile, blockIdx.x % tiles.groups);
    const T* image = static_cast<const T*>(p.x) + at.n * s.height * s.width * s.channels;
    load_tile<size>(source, image, s.height, s.width, s.channels, at.row * S - 2, at.column * S - 2, at.first,
                    [](float value, int64_t, int64_t) { return value; });
    __syncthreads();
    if (p.max_pool != nullptr || p.avg_pool != nullptr) pool_column<S, T>(p, at, source);
    filter_column<S, 1, T>(p, at, source);
    if (s.dilated != 0) filter_column<S, 2, T>(p, at, source);
    __syncthreads();
  }
}

}  // namespace autoreid_fast
