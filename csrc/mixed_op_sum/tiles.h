// The tiles of a node's tensors on the CPU, and the loops over a tile.
//
// A tile fits into the L2 cache: planes of one image where the tensors are contiguous, rows of all channels
// where they are channels_last. In both, element i of a tile belongs to lane i % period, and a value per
// channel is one number per plane (contiguous) or `period` numbers (channels_last: the period is a multiple
// of C and of the vectors). So one set of loops serves both layouts.
#pragma once

#include <algorithm>
#include <cstdint>
#include <numeric>
#include <vector>

#include "../common/arithmetic.h"
#include "mixed_op_sum.h"

namespace autoreid_fast::mixed_op {

constexpr int64_t kLanes = 64;        // divides every period
constexpr int64_t kPlaneTile = 4096;  // elements of a tile of planes
constexpr int64_t kRowTile = 16384;   // elements of a tile of rows, but at most kRowTilePeriods periods
constexpr int64_t kRowTilePeriods = 64;

// `pieces` pieces of `length` adjacent elements, one after the other: planes of the channels from `channel`
// on, or, channels_last, one piece of all channels.
struct Tile {
  int64_t begin, length, pieces, channel;
};

// The division of a node's tensors into tiles.
class Tiling {
 public:
  explicit Tiling(const MixedOpNode& node)
      : channels(node.channels),
        period(node.channels_last ? std::lcm(channels, kLanes) : kLanes),
        channels_last(node.channels_last),
        plane_(channels_last ? node.images * channels * node.positions : node.positions),
        planes_(channels_last ? 1 : channels),
        length_(channels_last ? period * std::clamp<int64_t>(kRowTile / period, 1, kRowTilePeriods)
                              : kPlaneTile),
        pieces_(std::clamp<int64_t>(length_ / plane_, 1, planes_)),
        cuts_(ceil_div(plane_, length_)),
        groups_(ceil_div(planes_, pieces_)),
        count(cuts_ * groups_ * (channels_last ? 1 : node.images)) {}

  Tile operator[](int64_t t) const {
    const int64_t begin = t % cuts_ * length_, channel = t / cuts_ % groups_ * pieces_;
    const int64_t image = t / cuts_ / groups_;
    return {(image * planes_ + channel) * plane_ + begin, std::min(length_, plane_ - begin),
            std::min(pieces_, planes_ - channel), channel};
  }
  // Numbers per candidate for a value per channel.
  int64_t width() const { return channels_last ? period : channels; }
  // The channels of a tile, at most.
  int64_t tile_channels() const { return channels_last ? channels : pieces_; }
  // The distance between the sums of two quantities that a loop writes.
  int64_t stride() const { return std::max(period, tile_channels()); }
  int64_t elements() const { return std::min(length_, plane_) * pieces_; }

  const int64_t channels, period;
  const bool channels_last;

 private:
  // `planes_` planes of `plane_` elements; each is cut into `cuts_` of `length_`; a tile has `pieces_`
  // planes, in `groups_` groups.
  const int64_t plane_, planes_, length_, pieces_, cuts_, groups_;

 public:
  const int64_t count;  // of tiles
};

// One number per candidate and channel, laid out for `parameter`: (K, tiling.width()).
template <typename T>
struct Parameters {
  Parameters(const Tiling& tiling, int64_t count)
      : channels(tiling.channels), width(tiling.width()), values(count * width) {}
  void set(int64_t k, int64_t c, T value) {
    for (int64_t j = c; j < width; j += channels) values[k * width + j] = value;
  }
  // From the first channel of a tile on.
  const T* from(int64_t k, const Tile& tile) const { return values.data() + k * width + tile.channel; }
  T get(int64_t k, int64_t c) const { return values[k * width + c]; }

  int64_t channels, width;
  std::vector<T> values;
};

// Sums of several quantities per channel, from one partial sum per tile.
class ChannelSums {
 public:
  ChannelSums(const Tiling& tiling, int64_t quantities)
      : tiling_(tiling),
        quantities_(quantities),
        partial_(tiling.count * quantities * tiling.tile_channels()) {}

  // Stores a tile's sums of the quantities from `first` on, which the loops left in `lanes`; clears `lanes`.
  void put(int64_t t, int64_t first, int64_t quantities, std::vector<double>& lanes) {
    double* sums = partial_.data() + (t * quantities_ + first) * tiling_.tile_channels();
    for (int64_t q = 0; q < quantities; ++q, sums += tiling_.tile_channels()) {
      double* quantity = lanes.data() + q * tiling_.stride();
      if (!tiling_.channels_last) {
        std::copy(quantity, quantity + tiling_.tile_channels(), sums);
        continue;
      }
      for (int64_t j = 0; j < tiling_.period; j += tiling_.channels) {
        for (int64_t c = 0; c < tiling_.channels; ++c) sums[c] += quantity[j + c];
      }
      std::fill(quantity, quantity + tiling_.period, 0.0);
    }
  }
  // Writes the sums of one quantity (C,), added in the order of the tiles.
  void finish(int64_t quantity, double* sums) const {
    std::fill(sums, sums + tiling_.channels, 0.0);
    for (int64_t t = 0; t < tiling_.count; ++t) {
      const double* partial = partial_.data() + (t * quantities_ + quantity) * tiling_.tile_channels();
      const Tile tile = tiling_[t];
      const int64_t channels = tiling_.channels_last ? tiling_.channels : tile.pieces;
      for (int64_t c = 0; c < channels; ++c) sums[tile.channel + c] += partial[c];
    }
  }

 private:
  const Tiling& tiling_;
  int64_t quantities_;
  std::vector<double> partial_;
};

enum class Loop {
  moments,    // sums += (z - mean), (z - mean)^2; `mean` need only be near the true mean
  total,      // sums += grad
  dot,        // sums += grad * (z - mean)
  add_first,  // out = scale * (z - mean)
  add,        // out += scale * (z - mean)
  gradient,   // out = scale * grad + slope * (z - mean) + offset
  scaled      // out = scale * grad
};

// The tensors of a tile, from its first element on, and the parameters of its channels; null where the loop
// does not use them.
template <typename T>
struct Step {
  Tile tile;
  int64_t period, stride;  // the tiling's
  const T* z = nullptr;
  const T* grad = nullptr;
  T* out = nullptr;
  const T* mean = nullptr;
  const T* scale = nullptr;
  const T* slope = nullptr;
  const T* offset = nullptr;
  double* sums = nullptr;  // `stride` numbers per quantity, 0 before; ChannelSums::put reads them
};

// Runs a loop over a tile.
template <typename T>
using Runner = void (*)(Loop, const Step<T>&);

// For the instruction set in use and a layout; for float and double.
template <typename T>
Runner<T> runner(bool channels_last);

}  // namespace autoreid_fast::mixed_op
