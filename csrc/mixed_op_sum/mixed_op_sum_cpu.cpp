// A node's weighted sum on the CPU; mixed_op_sum.h has the maths.
//
// A tensor is cut into tiles that stay in the L2: pieces of one channel's plane where it is contiguous, rows
// of all channels where it is channels_last. For either, element i of a tile belongs to lane i % period, and
// what depends on the channel is one number (contiguous) or `period` numbers (channels_last: the period is a
// multiple of C and of the vectors). So one set of loops serves both layouts. Sums are kept in float for 16
// terms and then in double, a partial sum a tile, added up in the order of the tiles: the same for any number
// of threads.
#include "mixed_op_sum.h"

#include <torch/csrc/stable/ops.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <numeric>
#include <vector>

#include "../instruction_set.h"

#define ALWAYS_INLINE inline __attribute__((always_inline))
#define INLINE_LAMBDA __attribute__((always_inline))

namespace autoreid_fast {
namespace {

constexpr int64_t kLanes = 64;        // what every period is a multiple of
constexpr int64_t kPlaneTile = 4096;  // elements
constexpr int64_t kRowTile = 16384;   // elements, where that is at most kRowTilePeriods periods
constexpr int64_t kRowTilePeriods = 64;
constexpr int64_t kTerms = 16;       // added in float before they go to double
constexpr int64_t kSamples = 8;      // of a channel, whose mean is near its own
constexpr int64_t kGrain = 1 << 15;  // elements worth a thread

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

template <typename T, int BYTES>
using Vector __attribute__((vector_size(BYTES))) = T;

// The first `count` elements at `from`, the rest as they are.
template <typename V, typename T>
ALWAYS_INLINE void load(V& vector, const T* from, int64_t count) {
  if (count >= static_cast<int64_t>(sizeof(V) / sizeof(T))) {
    std::memcpy(&vector, from, sizeof(V));
  } else {
    std::memcpy(&vector, from, count * sizeof(T));
  }
}
// The numbers of lanes j.. of a channel's (or of all channels') parameter.
template <bool LAST, typename V, typename T>
ALWAYS_INLINE void parameter(V& vector, const T* values, int64_t j) {
  if constexpr (LAST) {
    std::memcpy(&vector, values + j, sizeof(V));
  } else {
    vector = *values - V{};
  }
}

template <typename T, int BYTES>
using Wide = Vector<double, BYTES / sizeof(T) * sizeof(double)>;

// sums += vector, lane by lane.
template <typename T, int BYTES>
ALWAYS_INLINE void add_lanes(const Vector<T, BYTES>& vector, double* sums) {
  Wide<T, BYTES> wide;
  std::memcpy(&wide, sums, sizeof(wide));
  wide += __builtin_convertvector(vector, Wide<T, BYTES>);
  std::memcpy(sums, &wide, sizeof(wide));
}

// The sums of f(i) over the elements i of a piece, for QUANTITIES f at once. term(i, count, j, out) makes the
// terms of a vector of `count` elements from i on, whose lanes begin at j; 0 past the count.
// channels_last: sums[q * stride + lane] += those of each lane; else sums[q * stride] = those of all.
template <int QUANTITIES, typename T, int BYTES, bool LAST, typename Term>
ALWAYS_INLINE void reduce(int64_t length, int64_t period, int64_t stride, double* sums, const Term& term) {
  using V = Vector<T, BYTES>;
  constexpr int64_t width = BYTES / sizeof(T);
  constexpr int unroll = QUANTITIES == 1 ? 4 : 2;
  static_assert(kLanes % (unroll * width) == 0);
  const int64_t step = LAST ? period : unroll * width;
  const int64_t full = length / step * step;
  Wide<T, BYTES> all[QUANTITIES] = {};
  for (int64_t j = 0; full > 0 && j < step; j += unroll * width) {
    for (int64_t first = j; first < full; first += kTerms * step) {
      const int64_t end = std::min(full, first + kTerms * step);
      V partial[QUANTITIES][unroll] = {};
      for (int64_t i = first; i < end; i += step) {
#pragma GCC unroll 4
        for (int u = 0; u < unroll; ++u) {
          V terms[QUANTITIES];
          term(i + u * width, width, j + u * width, terms);
#pragma GCC unroll 4
          for (int q = 0; q < QUANTITIES; ++q) partial[q][u] += terms[q];
        }
      }
#pragma GCC unroll 4
      for (int q = 0; q < QUANTITIES; ++q) {
#pragma GCC unroll 4
        for (int u = 0; u < unroll; ++u) {
          if constexpr (LAST) {
            add_lanes<T, BYTES>(partial[q][u], sums + q * stride + j + u * width);
          } else {
            all[q] += __builtin_convertvector(partial[q][u], Wide<T, BYTES>);
          }
        }
      }
    }
  }
  for (int64_t i = full; i < length; i += width) {
    V terms[QUANTITIES];
    term(i, length - i, i - full, terms);
#pragma GCC unroll 4
    for (int q = 0; q < QUANTITIES; ++q) {
      if constexpr (LAST) {
        add_lanes<T, BYTES>(terms[q], sums + q * stride + i - full);
      } else {
        all[q] += __builtin_convertvector(terms[q], Wide<T, BYTES>);
      }
    }
  }
  if constexpr (!LAST) {
    for (int q = 0; q < QUANTITIES; ++q) {
      double lanes[width];
      std::memcpy(lanes, &all[q], sizeof(lanes));
      for (int64_t half = width / 2; half > 0; half /= 2) {
        for (int64_t lane = 0; lane < half; ++lane) lanes[lane] += lanes[lane + half];
      }
      sums[q * stride] = lanes[0];
    }
  }
}

// One call of the loops below: a tile of some tensors, and its channels' parameters.
template <typename T>
struct Step {
  const T *z, *grad;
  T* out;
  Tile tile;
  int64_t period, stride;
  const T *mean, *scale, *slope, *offset;
  double* sums;
};

// sums += (z - mean), (z - mean)^2; any `mean` near the true one will do.
template <typename T, int BYTES, bool LAST>
ALWAYS_INLINE void moments(const Step<T>& s) {
  using V = Vector<T, BYTES>;
  reduce<2, T, BYTES, LAST>(s.tile.length, s.period, s.stride, s.sums,
                            [&](int64_t i, int64_t count, int64_t j, V* terms) INLINE_LAMBDA {
                              V mean;
                              parameter<LAST>(mean, s.mean, j);
                              V z = mean;
                              load(z, s.z + i, count);
                              terms[0] = z - mean;
                              terms[1] = terms[0] * terms[0];
                            });
}

// sums += grad
template <typename T, int BYTES, bool LAST>
ALWAYS_INLINE void total(const Step<T>& s) {
  using V = Vector<T, BYTES>;
  reduce<1, T, BYTES, LAST>(s.tile.length, s.period, s.stride, s.sums,
                            [&](int64_t i, int64_t count, int64_t, V* terms) INLINE_LAMBDA {
                              terms[0] = V{};
                              load(terms[0], s.grad + i, count);
                            });
}

// sums += grad * (z - mean)
template <typename T, int BYTES, bool LAST>
ALWAYS_INLINE void dot(const Step<T>& s) {
  using V = Vector<T, BYTES>;
  reduce<1, T, BYTES, LAST>(s.tile.length, s.period, s.stride, s.sums,
                            [&](int64_t i, int64_t count, int64_t j, V* terms) INLINE_LAMBDA {
                              V mean, grad{};
                              parameter<LAST>(mean, s.mean, j);
                              V z = mean;
                              load(z, s.z + i, count);
                              load(grad, s.grad + i, count);
                              terms[0] = grad * (z - mean);
                            });
}

// out = f(i) over the elements of a piece: value(i, count, held, result) with the parameters that
// parameters(j, held) loads.
template <typename T, int BYTES, bool LAST, typename Parameters, typename Value>
ALWAYS_INLINE void map(const Step<T>& s, const Parameters& parameters, const Value& value) {
  using V = Vector<T, BYTES>;
  constexpr int64_t width = BYTES / sizeof(T);
  constexpr int unroll = 4;
  const int64_t length = s.tile.length, step = LAST ? s.period : unroll * width;
  const int64_t full = length / step * step;
  for (int64_t j = 0; full > 0 && j < step; j += unroll * width) {
    V held[unroll][4] = {};
#pragma GCC unroll 4
    for (int u = 0; u < unroll; ++u) parameters(j + u * width, held[u]);
    for (int64_t i = j; i < full; i += step) {
#pragma GCC unroll 4
      for (int u = 0; u < unroll; ++u) {
        V result;
        value(i + u * width, width, held[u], result);
        std::memcpy(s.out + i + u * width, &result, sizeof(V));
      }
    }
  }
  for (int64_t i = full; i < length; i += width) {
    V held[4] = {}, result;
    const int64_t count = length - i;
    parameters(i - full, held);
    value(i, count, held, result);
    if (count >= width) {
      std::memcpy(s.out + i, &result, sizeof(V));
    } else {
      std::memcpy(s.out + i, &result, count * sizeof(T));
    }
  }
}

// out (+)= scale * (z - mean)
template <typename T, int BYTES, bool LAST, bool FIRST>
ALWAYS_INLINE void add(const Step<T>& s) {
  using V = Vector<T, BYTES>;
  map<T, BYTES, LAST>(
      s,
      [&](int64_t j, V* held) INLINE_LAMBDA {
        parameter<LAST>(held[0], s.mean, j);
        parameter<LAST>(held[1], s.scale, j);
      },
      [&](int64_t i, int64_t count, const V* held, V& result) INLINE_LAMBDA {
        V z{};
        result = V{};
        load(z, s.z + i, count);
        if constexpr (!FIRST) load(result, s.out + i, count);
        result += held[1] * (z - held[0]);
      });
}

// out = scale * grad + slope * (z - mean) + offset
template <typename T, int BYTES, bool LAST>
ALWAYS_INLINE void gradient(const Step<T>& s) {
  using V = Vector<T, BYTES>;
  map<T, BYTES, LAST>(
      s,
      [&](int64_t j, V* held) INLINE_LAMBDA {
        parameter<LAST>(held[0], s.mean, j);
        parameter<LAST>(held[1], s.scale, j);
        parameter<LAST>(held[2], s.slope, j);
        parameter<LAST>(held[3], s.offset, j);
      },
      [&](int64_t i, int64_t count, const V* held, V& result) INLINE_LAMBDA {
        V z{}, grad{};
        load(z, s.z + i, count);
        load(grad, s.grad + i, count);
        result = held[1] * grad + held[2] * (z - held[0]) + held[3];
      });
}

// out = scale * grad
template <typename T, int BYTES, bool LAST>
ALWAYS_INLINE void scaled(const Step<T>& s) {
  using V = Vector<T, BYTES>;
  map<T, BYTES, LAST>(
      s, [&](int64_t j, V* held) INLINE_LAMBDA { parameter<LAST>(held[1], s.scale, j); },
      [&](int64_t i, int64_t count, const V* held, V& result) INLINE_LAMBDA {
        V grad{};
        load(grad, s.grad + i, count);
        result = held[1] * grad;
      });
}

enum class Loop { moments, total, dot, add_first, add, gradient, scaled };

template <typename T, int BYTES, bool LAST>
ALWAYS_INLINE void run_piece(Loop loop, const Step<T>& s) {
  switch (loop) {
    case Loop::moments:
      return moments<T, BYTES, LAST>(s);
    case Loop::total:
      return total<T, BYTES, LAST>(s);
    case Loop::dot:
      return dot<T, BYTES, LAST>(s);
    case Loop::add_first:
      return add<T, BYTES, LAST, true>(s);
    case Loop::add:
      return add<T, BYTES, LAST, false>(s);
    case Loop::gradient:
      return gradient<T, BYTES, LAST>(s);
    case Loop::scaled:
      return scaled<T, BYTES, LAST>(s);
  }
}

// All pieces of a tile; those of a contiguous one have a channel each.
template <typename T, int BYTES, bool LAST>
ALWAYS_INLINE void run(Loop loop, Step<T> s) {
  run_piece<T, BYTES, LAST>(loop, s);
  for (int64_t piece = 1; piece < s.tile.pieces; ++piece) {
    for (const T** tensor : {&s.z, &s.grad}) {
      if (*tensor != nullptr) *tensor += s.tile.length;
    }
    if (s.out != nullptr) s.out += s.tile.length;
    for (const T** values : {&s.mean, &s.scale, &s.slope, &s.offset}) {
      if (*values != nullptr) ++*values;
    }
    if (s.sums != nullptr) ++s.sums;
    run_piece<T, BYTES, LAST>(loop, s);
  }
}

template <typename T, bool LAST>
AUTOREID_FAST_AVX512 void run_avx512(Loop loop, const Step<T>& s) {
  run<T, 64, LAST>(loop, s);
}
template <typename T, bool LAST>
AUTOREID_FAST_AVX2 void run_avx2(Loop loop, const Step<T>& s) {
  run<T, 32, LAST>(loop, s);
}
template <typename T, bool LAST>
void run_portable(Loop loop, const Step<T>& s) {
  run<T, 16, LAST>(loop, s);
}

template <typename T>
using Runner = void (*)(Loop, const Step<T>&);

template <typename T>
Runner<T> runner(bool last) {
  switch (instruction_set()) {
    case InstructionSet::avx512:
      return last ? run_avx512<T, true> : run_avx512<T, false>;
    case InstructionSet::avx2:
      return last ? run_avx2<T, true> : run_avx2<T, false>;
    default:
      return last ? run_portable<T, true> : run_portable<T, false>;
  }
}

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

  // A tile's sums of quantities from `first` on as the loops left them in `lanes`, which become 0.
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

template <typename Body>
void for_tiles(const Tiling& tiling, int64_t candidates, const Body& body) {
  const int64_t grain = std::max<int64_t>(1, kGrain / (tiling.elements() * candidates));
  torch::stable::parallel_for(0, tiling.count, grain, [&](int64_t begin, int64_t end) {
    std::vector<double> lanes(2 * tiling.stride());
    for (int64_t t = begin; t < end; ++t) body(t, tiling[t], lanes);
  });
}

template <typename T>
const T* candidate(const MixedOpNode& node, int64_t k, const Tile& tile) {
  return static_cast<const T*>(node.candidates[k]) + tile.begin;
}

// (2, K, C) of what the candidates are normalised by.
template <typename T>
void statistics_used(const MixedOpForward& p, const Tiling& tiling, Runner<T> go) {
  const MixedOpNode& node = p.node;
  const int64_t channels = node.channels, count = node.count;
  T* mean = static_cast<T*>(p.used);
  T* variance = mean + count * channels;
  std::vector<int64_t> batch;
  for (int64_t k = 0; k < count; ++k) {
    if (node.kinds[k] == kBatch) batch.push_back(k);
    for (int64_t c = k * channels; c < (k + 1) * channels; ++c) {
      const T* given = static_cast<const T*>(p.statistics);
      const bool has = node.kinds[k] == kGiven || node.kinds[k] == kFixed;
      mean[c] = has ? given[c] : T(0);
      variance[c] = has ? given[count * channels + c] : T(1);
    }
  }
  if (batch.empty()) return;
  const int64_t batches = static_cast<int64_t>(batch.size());
  // Moments about a number near the mean, which keeps it out of the squares.
  Parameters<T> near(tiling, batches);
  for (int64_t b = 0; b < batches; ++b) {
    const T* z = static_cast<const T*>(node.candidates[batch[b]]);
    for (int64_t c = 0; c < channels; ++c) {
      double sum = 0;
      for (int64_t sample = 0; sample < kSamples; ++sample) {
        const int64_t position = sample * node.positions / kSamples;
        sum += z[node.channels_last ? position * channels + c : c * node.positions + position];
      }
      near.set(b, c, static_cast<T>(sum / kSamples));
    }
  }
  ChannelSums sums(tiling, 2 * batches);
  for_tiles(tiling, batches, [&](int64_t t, const Tile& tile, std::vector<double>& lanes) {
    for (int64_t b = 0; b < batches; ++b) {
      go(Loop::moments, {.z = candidate<T>(node, batch[b], tile),
                         .grad = nullptr,
                         .out = nullptr,
                         .tile = tile,
                         .period = tiling.period,
                         .stride = tiling.stride(),
                         .mean = near.at(b, tile),
                         .scale = nullptr,
                         .slope = nullptr,
                         .offset = nullptr,
                         .sums = lanes.data()});
      sums.put(t, 2 * b, 2, lanes);
    }
  });
  const double over = 1.0 / static_cast<double>(node.images * node.positions);
  torch::stable::parallel_for(0, batches, 1, [&](int64_t begin, int64_t end) {
    std::vector<double> sum(channels), squares(channels);
    for (int64_t b = begin; b < end; ++b) {
      sums.finish(2 * b, sum.data());
      sums.finish(2 * b + 1, squares.data());
      for (int64_t c = 0; c < channels; ++c) {
        const double off = sum[c] * over;
        mean[batch[b] * channels + c] = static_cast<T>(near.get(b, c) + off);
        // Not std::max, which would hide a NaN.
        const double v = squares[c] * over - off * off;
        variance[batch[b] * channels + c] = static_cast<T>(v < 0 ? 0 : v);
      }
    }
  });
}

template <typename T>
double reciprocal_deviation(const MixedOpNode& node, const T* variance, int64_t k, int64_t c) {
  if (node.kinds[k] == kPlain) return 1.0;
  return 1.0 / std::sqrt(static_cast<double>(variance[k * node.channels + c]) + node.eps);
}

template <typename T>
void forward(const MixedOpForward& p) {
  const MixedOpNode& node = p.node;
  const Tiling tiling(node);
  const Runner<T> go = runner<T>(node.channels_last);
  statistics_used<T>(p, tiling, go);
  const T* used = static_cast<const T*>(p.used);
  Parameters<T> mean(tiling, node.count), scale(tiling, node.count);
  for (int64_t k = 0; k < node.count; ++k) {
    for (int64_t c = 0; c < node.channels; ++c) {
      const double rstd = reciprocal_deviation(node, used + node.count * node.channels, k, c);
      mean.set(k, c, used[k * node.channels + c]);
      scale.set(k, c, static_cast<T>(static_cast<const T*>(node.weights)[k] * rstd));
    }
  }
  for_tiles(tiling, node.count, [&](int64_t, const Tile& tile, std::vector<double>&) {
    for (int64_t k = 0; k < node.count; ++k) {
      go(k == 0 ? Loop::add_first : Loop::add, {.z = candidate<T>(node, k, tile),
                                                .grad = nullptr,
                                                .out = static_cast<T*>(p.total) + tile.begin,
                                                .tile = tile,
                                                .period = tiling.period,
                                                .stride = tiling.stride(),
                                                .mean = mean.at(k, tile),
                                                .scale = scale.at(k, tile),
                                                .slope = nullptr,
                                                .offset = nullptr,
                                                .sums = nullptr});
    }
  });
}

template <typename T>
void backward(const MixedOpBackward& p) {
  const MixedOpNode& node = p.node;
  const Tiling tiling(node);
  const Runner<T> go = runner<T>(node.channels_last);
  const int64_t count = node.count, channels = node.channels;
  const T* used = static_cast<const T*>(p.statistics);
  Parameters<T> mean(tiling, count), scale(tiling, count), slope(tiling, count), offset(tiling, count);
  for (int64_t k = 0; k < count; ++k) {
    for (int64_t c = 0; c < channels; ++c) mean.set(k, c, used[k * channels + c]);
  }
  const auto step = [&](int64_t k, const Tile& tile) {
    return Step<T>{.z = candidate<T>(node, k, tile),
                   .grad = static_cast<const T*>(p.grad) + tile.begin,
                   .out = nullptr,
                   .tile = tile,
                   .period = tiling.period,
                   .stride = tiling.stride(),
                   .mean = mean.at(k, tile),
                   .scale = scale.at(k, tile),
                   .slope = slope.at(k, tile),
                   .offset = offset.at(k, tile),
                   .sums = nullptr};
  };

  ChannelSums sums(tiling, count + 1);
  for_tiles(tiling, count, [&](int64_t t, const Tile& tile, std::vector<double>& lanes) {
    for (int64_t k = 0; k <= count; ++k) {
      Step<T> s = step(std::min(k, count - 1), tile);
      s.sums = lanes.data();
      go(k == count ? Loop::total : Loop::dot, s);
      sums.put(t, k, 1, lanes);
    }
  });

  std::vector<double> grad_sum(channels), d(channels);
  sums.finish(count, grad_sum.data());
  const double over = 1.0 / static_cast<double>(node.images * node.positions);
  for (int64_t k = 0; k < count; ++k) {
    const bool batch = node.kinds[k] == kBatch || node.kinds[k] == kGiven;
    const double weight = static_cast<const T*>(node.weights)[k];
    double grad_weight = 0;
    sums.finish(k, d.data());
    for (int64_t c = 0; c < channels; ++c) {
      const double rstd = reciprocal_deviation(node, used + count * channels, k, c);
      const double a = weight * rstd;
      grad_weight += rstd * d[c];
      scale.set(k, c, static_cast<T>(a));
      slope.set(k, c, static_cast<T>(batch ? -a * rstd * rstd * d[c] * over : 0));
      offset.set(k, c, static_cast<T>(batch ? -a * grad_sum[c] * over : 0));
    }
    static_cast<T*>(p.grad_weights)[k] = static_cast<T>(grad_weight);
  }

  for_tiles(tiling, count, [&](int64_t, const Tile& tile, std::vector<double>&) {
    for (int64_t k = 0; k < count; ++k) {
      if (p.grads[k] == nullptr) continue;
      Step<T> s = step(k, tile);
      s.out = static_cast<T*>(p.grads[k]) + tile.begin;
      go(node.kinds[k] == kBatch || node.kinds[k] == kGiven ? Loop::gradient : Loop::scaled, s);
    }
  });
}

}  // namespace

void mixed_op_sum_cpu(const MixedOpForward& p) {
  p.node.element == Element::float64 ? forward<double>(p) : forward<float>(p);
}

void mixed_op_sum_backward_cpu(const MixedOpBackward& p) {
  p.node.element == Element::float64 ? backward<double>(p) : backward<float>(p);
}

}  // namespace autoreid_fast
