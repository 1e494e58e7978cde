// The division of the work and the shared-memory tiles of the 3x3 stencils, device code. Free of torch
// headers: the tests also run this code on the CPU (tests/native/simt.h).
//
// A block of 256 threads owns 8 x 8 outputs of 16 channels. A thread owns one channel of four outputs below
// one another, so that half a warp reads 16 neighbouring channels (64 bytes of float32, two whole sectors).
#pragma once

#include "../common/arithmetic.h"
#include "stencil3x3.h"

namespace autoreid_fast {

constexpr int kThreads = 256;
constexpr int kGroup = 16;                       // channels of a block
constexpr int kSlots = kThreads / kGroup;        // threads of a channel
constexpr int kTile = 8;                         // outputs of a block in each direction
constexpr int kColumn = kTile * kTile / kSlots;  // outputs of a thread, below one another
constexpr int64_t kMaxSlabs = 512;

struct StencilTiles {
  int64_t down, across;  // tiles of an image
  int64_t total;         // tiles of the batch
  int64_t groups;        // of channels
  explicit __device__ StencilTiles(const Stencil3x3Shape& s)
      : down(ceil_div(s.out_height, kTile)),
        across(ceil_div(s.out_width, kTile)),
        total(down * across * s.batch),
        groups(ceil_div(s.channels, kGroup)) {}
};

// The part of tile `tile` of the batch and of channel group `group` that this thread owns.
struct ThreadOutputs {
  int64_t n, row, column;  // image, and the first output of the block
  int64_t first_channel;   // of the block
  int lane, below, right;  // channel and first output of this thread, relative to the block
  __device__ ThreadOutputs(const StencilTiles& tiles, int64_t tile, int64_t group)
      : n(tile / (tiles.down * tiles.across)),
        row(tile / tiles.across % tiles.down * kTile),
        column(tile % tiles.across * kTile),
        first_channel(group * kGroup),
        lane(threadIdx.x % kGroup),
        below(threadIdx.x / kGroup / kTile * kColumn),
        right(threadIdx.x / kGroup % kTile) {}
  __device__ int64_t channel() const { return first_channel + lane; }
};

// Loads change(value, y, x) of pixels [row, row + SIZE) x [column, column + SIZE) of an image (H, W, C), for
// the 16 channels from `first_channel` on; zeros outside the image.
template <int SIZE, typename T, typename Change>
__device__ __forceinline__ void load_tile(float* tile, const T* image, int64_t height, int64_t width,
                                          int64_t channels, int64_t row, int64_t column,
                                          int64_t first_channel, const Change& change) {
  for (int k = threadIdx.x; k < SIZE * SIZE * kGroup; k += kThreads) {
    const int pixel = k / kGroup;
    const int64_t y = row + pixel / SIZE, x = column + pixel % SIZE, c = first_channel + k % kGroup;
    const bool inside = y >= 0 && y < height && x >= 0 && x < width && c < channels;
    tile[k] = inside ? change(to_float(image[(y * width + x) * channels + c]), y, x) : 0.0f;
  }
}

// The nine weights of filter f for one channel; zeros past the last channel.
template <typename T>
__device__ __forceinline__ void load_filter(float (&w)[9], const void* weights, int64_t f, int64_t channels,
                                            int64_t channel) {
  const T* filter = static_cast<const T*>(weights) + (f * channels + channel) * 9;
#pragma unroll
  for (int t = 0; t < 9; ++t) w[t] = channel < channels ? to_float(filter[t]) : 0.0f;
}

__device__ __forceinline__ bool is_dilated(const Stencil3x3Shape& s, int64_t f) { return s.dilated >> f & 1; }

// ReLU; NaN stays NaN.
__device__ __forceinline__ float rectified(float value) { return value <= 0.0f ? 0.0f : value; }

// The number of rows (or columns) of the window of output row (or column) i that lie in the image, for
// dilation 1.
__device__ __forceinline__ int in_window(int64_t i, int stride, int64_t size) {
  return 3 - (i == 0 ? 1 : 0) - (i * stride + 1 >= size ? 1 : 0);
}

}  // namespace autoreid_fast
