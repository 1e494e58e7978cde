// The 3x3 stencils, device code, forward; stencil3x3.h has the maths, stencil3x3_tile.cuh the division of the
// work.
//
// x with a border of two pixels goes to shared memory once (12 x 12 pixels for 64 outputs at stride 1: 2.25
// reads of x from L2, one from memory), and every output is computed from there. The nine taps of a thread's
// four outputs are 18 values (dilation 1, stride 1), which it loads once and keeps in registers for all
// filters of that dilation; per filter nine weights, 36 multiply-adds and four stores per thread.
//
// Cost at C = 32, N = 16, 96 x 32, float32, F = 8 and both pools (an estimate, not measured): reads 6.3 MB
// and writes 63 MB, 20 us at 3.4 TB/s. At stride 2 the two pixels of a warp share their banks: 2-way
// conflicts on the loads of the taps, which four outputs share.
#pragma once

#include "stencil3x3_tile.cuh"

namespace autoreid_fast {

// The filters of one dilation, for the outputs of this thread.
template <int S, int DILATION, typename T>
__device__ __forceinline__ void filter_column(const Stencil3x3Forward& p, const ThreadOutputs& thread,
                                              const float* source) {
  constexpr int size = (kTile - 1) * S + 5, rows = (kColumn - 1) * S + 2 * DILATION + 1;
  const Stencil3x3Shape& s = p.shape;
  float taps[rows][3];
#pragma unroll
  for (int y = 0; y < rows; ++y) {
#pragma unroll
    for (int v = 0; v < 3; ++v) {
      const int down = thread.below * S + y + 2 - DILATION,
                across = thread.right * S + 2 + DILATION * (v - 1);
      const float value = source[(down * size + across) * kGroup + thread.lane];
      taps[y][v] = s.relu ? rectified(value) : value;
    }
  }
  const int64_t j = thread.column + thread.right;
  for (int64_t f = 0; f < s.filters; ++f) {
    if (is_dilated(s, f) != (DILATION == 2)) continue;
    float w[9];
    load_filter<T>(w, p.weights, f, s.channels, thread.channel());
#pragma unroll
    for (int k = 0; k < kColumn; ++k) {
      const int64_t i = thread.row + thread.below + k;
      float sum = 0.0f;
#pragma unroll
      for (int t = 0; t < 9; ++t) sum = fmaf(w[t], taps[k * S + t / 3 * DILATION][t % 3], sum);
      if (i < s.out_height && j < s.out_width && thread.channel() < s.channels) {
        const int64_t out = (((f * s.batch + thread.n) * s.out_height + i) * s.out_width + j) * s.channels;
        static_cast<T*>(p.filtered)[out + thread.channel()] = from_float<T>(sum);
      }
    }
  }
}

// Both pools, for the outputs of this thread.
template <int S, typename T>
__device__ __forceinline__ void pool_column(const Stencil3x3Forward& p, const ThreadOutputs& thread,
                                            const float* source) {
  constexpr int size = (kTile - 1) * S + 5;
  const Stencil3x3Shape& s = p.shape;
  const int64_t j = thread.column + thread.right;
#pragma unroll
  for (int k = 0; k < kColumn; ++k) {
    const int64_t i = thread.row + thread.below + k;
    if (i >= s.out_height || j >= s.out_width || thread.channel() >= s.channels) continue;
    float best = -HUGE_VALF, sum = 0.0f;
#pragma unroll
    for (int t = 0; t < 9; ++t) {
      const int64_t y = i * S + t / 3 - 1, x = j * S + t % 3 - 1;
      if (y < 0 || y >= s.height || x < 0 || x >= s.width) continue;
      const int down = (thread.below + k) * S + t / 3 + 1, across = thread.right * S + t % 3 + 1;
      const float value = source[(down * size + across) * kGroup + thread.lane];
      if (value > best || value != value) best = value;
      sum += value;
    }
    const int64_t out = ((thread.n * s.out_height + i) * s.out_width + j) * s.channels + thread.channel();
    if (p.max_pool != nullptr) static_cast<T*>(p.max_pool)[out] = from_float<T>(best);
    if (p.avg_pool != nullptr) {
      const int count = in_window(i, S, s.height) * in_window(j, S, s.width);
      static_cast<T*>(p.avg_pool)[out] = from_float<T>(sum / static_cast<float>(count));
    }
  }
}

// Block b: channel group b % groups of tile b / groups and of every (gridDim.x / groups)-th tile after it.
template <int S, typename T>
__device__ void stencil3x3_block(const Stencil3x3Forward& p) {
  constexpr int size = (kTile - 1) * S + 5;
  __shared__ float source[size * size * kGroup];
  const Stencil3x3Shape& s = p.shape;
  const StencilTiles tiles(s);
  const int64_t step = gridDim.x / tiles.groups;
  for (int64_t tile = blockIdx.x / tiles.groups; tile < tiles.total; tile += step) {
    const ThreadOutputs thread(tiles, tile, blockIdx.x % tiles.groups);
    const T* image = static_cast<const T*>(p.x) + thread.n * s.height * s.width * s.channels;
    load_tile<size>(source, image, s.height, s.width, s.channels, thread.row * S - 2, thread.column * S - 2,
                    thread.first_channel, [](float value, int64_t, int64_t) { return value; });
    __syncthreads();
    if (p.max_pool != nullptr || p.avg_pool != nullptr) pool_column<S, T>(p, thread, source);
    filter_column<S, 1, T>(p, thread, source);
    if (s.dilated != 0) filter_column<S, 2, T>(p, thread, source);
    __syncthreads();
  }
}

}  // namespace autoreid_fast
