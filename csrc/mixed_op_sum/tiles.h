// How the tensors of a node are cut into tiles on the CPU, and the loops over a tile.
//
// A tile stays in the L2: planes of one image where tensors are contiguous, rows of all channels where they
// are channels_last. For either, element i of a tile belongs to lane i % period, and what depends on the
// channel is one number a plane (contiguous) or `period` numbers (channels_last: the period is a multiple of
// C and of the vectors). So one set of loops serves both layouts.
#pragma once

#include <algorithm>
#include <cstdint>
#include <numeric>
#include <vector>

#include "mixed_op_sum.h"

namespace autoreid_fast::mixed_op {

constexpr int64_t kLanes = 64;        // what every period is a multiple of
constexpr int64_t kPlaneTile = 4096;  // elements
constexpr int64_t kRowTile = 16384;   // elements, where that is at most kRowTilePeriods periods
constexpr int64_t kRowTilePeriods = 64;

// `pieces` pieces of `length` adjacent elements, one after the other: planes of channels from `channel` on.
// With channels_last one piece, with all channels, from 0 on.
struct Tile {
  int64_t begin, length, pieces, channel;
};

// How the tensors of a node are cut.
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
        cuts_((plane_ + length_ - 1) / length_),
        groups_((planes_ + pieces_ - 1) / pieces_),
        count(cuts_ * groups_ * (channels_last ? 1 : node.images)) {}

  Tile operator[](int64_t t) const {
    const int64_t begin = t % cuts_ * length_, channel = t / cuts_ % groups_ * pieces_;
    const int64_t image = t / cuts_ / groups_;
    return {(image * planes_ + channel) * plane_ + begin, std::min(length_, plane_ - begin),
            std::min(pieces_, planes_ - channel), channel};
  }
  // Numbers that one candidate has for each thing that depends on the channel.
  int64_t width() const { return channels_last ? period : channels; }
  // Channels that a tile adds up to, at most.
  int64_t sums() const { return channels_last ? channels : pieces_; }
  // From one quantity's sums to the next in what `reduce` fills.
  int64_t stride() const { return std::max(period, sums()); }
  int64_t elements() const { return std::min(length_, plane_) * pieces_; }

  const int64_t channels, period;
  const bool channels_last;

 private:
  // Of each of `planes_` planes of `plane_` elements `cuts_` cuts of `length_`, and `pieces_` planes a tile.
  const int64_t plane_, planes_, length_, pieces_, cuts_, groups_;

 public:
  const int64_t count;  // of tiles
};

// A number for each candidate and channel, laid out for `parameter`: (K, tiling.width()).
template <typename T>
struct Parameters {
  Parameters(const Tiling& tiling, int64_t count)
      : channels(tiling.channels), width(tiling.width()), values(count * width) {}
  void set(int64_t k, int64_t c, T value) {
    for (int64_t j = c; j < width; j += channels) values[k * width + j] = value;
  }
  const T* at(int64_t k, const Tile& tile) const { return values.data() + k * width + tile.channel; }
  T get(int64_t k, int64_t c) const { return values[k * width + c]; }

  int64_t channels, width;
  std::vector<T> values;
};

// The sums of `quantities` things over each channel, from one partial sum a tile.
class ChannelSums {
 public:
  ChannelSums(const Tiling& tiling, int64_t quantities)
      : tiling_(tiling), quantities_(quantities), partial_(tiling.count * quantities * tiling.sums()) {}

  // A tile's sums of quantities from `first` on as the loops left them in `lanes`, ready for the next.
  void put(int64_t t, int64_t first, int64_t quantities, std::vector<double>& lanes) {
    double* sums = partial_.data() + (t * quantities_ + first) * tiling_.sums();
    for (int64_t q = 0; q < quantities; ++q, sums += tiling_.sums()) {
      double* from = lanes.data() + q * tiling_.stride();
      if (!tiling_.channels_last) {
        std::copy(from, from + tiling_.sums(), sums);
        continue;
      }
      for (int64_t j = 0; j < tiling_.period; j += tiling_.channels) {
        for (int64_t c = 0; c < tiling_.channels; ++c) sums[c] += from[j + c];
      }
      std::fill(from, from + tiling_.period, 0.0);
    }
  }
  // (C,) the sums of one quantity.
  void finish(int64_t quantity, double* sums) const {
    std::fill(sums, sums + tiling_.channels, 0.0);
    for (int64_t t = 0; t < tiling_.count; ++t) {
      const double* partial = partial_.data() + (t * quantities_ + quantity) * tiling_.sums();
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
  moments,    // sums += (z - mean), (z - mean)^2; any mean near the true one will do
  total,      // sums += grad
  dot,        // sums += grad * (z - mean)
  add_first,  // out = scale * (z - mean)
  add,        // out += scale * (z - mean)
  gradient,   // out = scale * grad + slope * (z - mean) + offset
  scaled      // out = scale * grad
};

// A tile of some tensors, and its channels' parameters; null what the loop has not.
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
  double* sums = nullptr;  // `stride` numbers a quantity, 0 before; read them by ChannelSums::put
};

template <typename T>
using Runner = void (*)(Loop, const Step<T>&);

// The loops for the instruction set in use and a layout; for float and double.
template <typename T>
Runner<T> runner(bool channels_last);

}  // namespace autoreid_fast::mixed_op
