// What the device code of the 3x3 stencils shares: the division of the work, and tiles in shared memory. No
// torch header: the tests run this very text on the CPU (tests/native/simt.h).
//
// A block of 256 threads owns 8 x 8 outputs of 16 channels. A thread is one channel of four outputs below one
// another, so that a half warp reads 16 neighbouring channels (64 bytes of float, two whole sectors).
#pragma once

#include "stencil3x3.h"

namespace autoreid_fast {

constexpr int kThreads = 256;
constexpr int kGroup = 16;                       // channels of a block
constexpr int kSlots = kThreads / kGroup;        // threads of a channel
constexpr int kTile = 8;                         // outputs of a block, each way
constexpr int kColumn = kTile * kTile / kSlots;  // outputs of a thread, below one another
constexpr int64_t kMaxSlabs = 512;

struct StencilTiles {
  int64_t down, across;  // tiles of an image
  int64_t total;         // tiles of the batch
  int64_t groups;        // of channels
  explicit __device__ StencilTiles(const Stencil3x3Shape& s)
      : down((s.out_height + kTile - 1) / kTile),
        across((s.out_width + kTile - 1) / kTile),
        total(down * across * s.batch),
        groups((s.channels + kGroup - 1) / kGroup) {}
};

// What a thread is in tile `tile` of the batch.
struct StencilPlace {
  int64_t n, row, column;  // image; the block's first output
  int64_t first;           // the block's first channel
  int lane, below, right;  // this thread's channel, and its first output, in the block
  __device__ StencilPlace(const StencilTiles& tiles, int64_t tile, int64_t group)
      : n(tile / (tiles.down * tiles.across)),
        row(tile / tiles.across % tiles.down * kTile),
        column(tile % tiles.across * kTile),
        first(group * kGroup),
        lane(threadIdx.x % kGroup),
        below(threadIdx.x / kGroup / kTile * kColumn),
        right(threadIdx.x / kGroup % kTile) {}
  __device__ int64_t channel() const { return first + lane; }
};

// Pixels [row, row + SIZE) x [column, column + SIZE) of an image (H, W, C) for 16 channels, as change(value,
// y, x); zeros outside.
template <int SIZE, typename T, typename Change>
__device__ __forceinline__ void load_tile(float* tile, const T* image, int64_t height, int64_t width,
                                          int64_t channels, int64_t row, int64_t column, int64_t first,
                                          const Change& change) {
  for (int k = threadIdx.x; k < SIZE * SIZE * kGroup; k += kThreads) {
    const int pixel = k / kGroup;
    const int64_t y = row + pixel / SIZE, x = column + pixel % SIZE, c = first + k % kGroup;
    const bool inside = y >= 0 && y < height && x >= 0 && x < width && c < channels;
    tile[k] = inside ? change(to_float(image[(y * width + x) * channels + c]), y, x) : 0.0f;
  }
}

template <typename T>
__device__ __forceinline__ void load_filter(float (&w)[9], const void* weights, int64_t f, int64_t channels,
                                            int64_t channel) {
  const T* from = static_cast<const T*>(weights) + (f * channels + channel) * 9;
#pragma unroll
  for (int t = 0; t < 9; ++t) w[t] = channel < channels ? to_float(from[t]) : 0.0f;
}

__device__ __forceinline__ bool is_dilated(const Stencil3x3Shape& s, int64_t f) { return s.dilated >> f & 1; }

__device__ __forceinline__ float rectified(float value) { return value <= 0.0f ? 0.0f : value; }  // keeps NaN

// Pixels of the window of output row or column i (dilation 1) that are in the image.
__device__ __forceinline__ int in_window(int64_t i, int stride, int64_t size) {
  return 3 - (i == 0 ? 1 : 0) - (i * stride + 1 >= size ? 1 : 0);
}

}  // namespace autoreid_fast
