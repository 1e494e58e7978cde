// A node's weighted sum on the CPU; mixed_op_sum.h has the maths, tiles.h the tiles.
//
// Forward: moments of the candidates that need them, then the sum, tile by tile. Backward: d_k, then the
// gradients. Partial sums are kept per tile and added in the order of the tiles: the same for any number of
// threads.
#include <torch/csrc/stable/ops.h>

#include <cmath>

#include "tiles.h"

namespace autoreid_fast {
namespace {

using namespace mixed_op;

constexpr int64_t kSamples = 8;      // of a channel: their mean is near the channel's
constexpr int64_t kGrain = 1 << 15;  // elements that are worth a thread

// Calls body(t, tile, lanes) for every tile, in parallel; `lanes` is scratch for the sums of two quantities,
// 0 before.
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

bool has_batch_statistics(int64_t kind) { return kind == kBatch || kind == kGiven; }

// Writes p.used.
template <typename T>
void statistics_used(const MixedOpForward& p, const Tiling& tiling, Runner<T> run_loop) {
  const MixedOpNode& node = p.node;
  const int64_t channels = node.channels, count = node.count;
  T* mean = static_cast<T*>(p.used);
  T* variance = mean + count * channels;
  std::vector<int64_t> batch;
  for (int64_t k = 0; k < count; ++k) {
    if (node.kinds[k] == kBatch) batch.push_back(k);
    for (int64_t c = k * channels; c < (k + 1) * channels; ++c) {
      const T* given = static_cast<const T*>(p.statistics);
      const bool is_given = node.kinds[k] == kGiven || node.kinds[k] == kFixed;
      mean[c] = is_given ? given[c] : T(0);
      variance[c] = is_given ? given[count * channels + c] : T(1);
    }
  }
  if (batch.empty()) return;
  const int64_t batches = static_cast<int64_t>(batch.size());
  // Moments about a number near the mean, so that the squares do not cancel.
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
      run_loop(Loop::moments, {.tile = tile,
                               .period = tiling.period,
                               .stride = tiling.stride(),
                               .z = candidate<T>(node, batch[b], tile),
                               .mean = near.from(b, tile),
                               .sums = lanes.data()});
      sums.put(t, 2 * b, 2, lanes);
    }
  });
  const double reciprocal_count = 1.0 / static_cast<double>(node.images * node.positions);
  torch::stable::parallel_for(0, batches, 1, [&](int64_t begin, int64_t end) {
    std::vector<double> sum(channels), squares(channels);
    for (int64_t b = begin; b < end; ++b) {
      sums.finish(2 * b, sum.data());
      sums.finish(2 * b + 1, squares.data());
      for (int64_t c = 0; c < channels; ++c) {
        const double shift = sum[c] * reciprocal_count;
        mean[batch[b] * channels + c] = static_cast<T>(near.get(b, c) + shift);
        const double biased = squares[c] * reciprocal_count - shift * shift;
        // Not std::max, which would hide a NaN.
        variance[batch[b] * channels + c] = static_cast<T>(biased < 0 ? 0 : biased);
      }
    }
  });
}

// rstd_k of a channel; 1 for plain candidates.
template <typename T>
double reciprocal_deviation(const MixedOpNode& node, const T* variance, int64_t k, int64_t c) {
  if (node.kinds[k] == kPlain) return 1.0;
  return 1.0 / std::sqrt(static_cast<double>(variance[k * node.channels + c]) + node.eps);
}

template <typename T>
void forward(const MixedOpForward& p) {
  const MixedOpNode& node = p.node;
  const Tiling tiling(node);
  const Runner<T> run_loop = runner<T>(node.channels_last);
  statistics_used<T>(p, tiling, run_loop);
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
      run_loop(k == 0 ? Loop::add_first : Loop::add, {.tile = tile,
                                                      .period = tiling.period,
                                                      .stride = tiling.stride(),
                                                      .z = candidate<T>(node, k, tile),
                                                      .out = static_cast<T*>(p.total) + tile.begin,
                                                      .mean = mean.from(k, tile),
                                                      .scale = scale.from(k, tile)});
    }
  });
}

template <typename T>
void backward(const MixedOpBackward& p) {
  const MixedOpNode& node = p.node;
  const Tiling tiling(node);
  const Runner<T> run_loop = runner<T>(node.channels_last);
  const int64_t count = node.count, channels = node.channels;
  const T* used = static_cast<const T*>(p.statistics);
  Parameters<T> mean(tiling, count), scale(tiling, count), slope(tiling, count), offset(tiling, count);
  for (int64_t k = 0; k < count; ++k) {
    for (int64_t c = 0; c < channels; ++c) mean.set(k, c, used[k * channels + c]);
  }
  const auto step = [&](int64_t k, const Tile& tile) {
    return Step<T>{.tile = tile,
                   .period = tiling.period,
                   .stride = tiling.stride(),
                   .z = candidate<T>(node, k, tile),
                   .grad = static_cast<const T*>(p.grad) + tile.begin,
                   .mean = mean.from(k, tile),
                   .scale = scale.from(k, tile),
                   .slope = slope.from(k, tile),
                   .offset = offset.from(k, tile)};
  };

  ChannelSums sums(tiling, count + 1);
  for_tiles(tiling, count, [&](int64_t t, const Tile& tile, std::vector<double>& lanes) {
    for (int64_t k = 0; k <= count; ++k) {
      Step<T> s = step(std::min(k, count - 1), tile);
      s.sums = lanes.data();
      run_loop(k == count ? Loop::total : Loop::dot, s);
      sums.put(t, k, 1, lanes);
    }
  });

  std::vector<double> grad_sum(channels), d(channels);
  sums.finish(count, grad_sum.data());
  const double reciprocal_count = 1.0 / static_cast<double>(node.images * node.positions);
  for (int64_t k = 0; k < count; ++k) {
    const bool batch = has_batch_statistics(node.kinds[k]);
    const double weight = static_cast<const T*>(node.weights)[k];
    double grad_weight = 0;
    sums.finish(k, d.data());
    for (int64_t c = 0; c < channels; ++c) {
      const double rstd = reciprocal_deviation(node, used + count * channels, k, c);
      const double a = weight * rstd;
      grad_weight += rstd * d[c];
      scale.set(k, c, static_cast<T>(a));
      slope.set(k, c, static_cast<T>(batch ? -a * rstd * rstd * d[c] * reciprocal_count : 0));
      offset.set(k, c, static_cast<T>(batch ? -a * grad_sum[c] * reciprocal_count : 0));
    }
    static_cast<T*>(p.grad_weights)[k] = static_cast<T>(grad_weight);
  }

  for_tiles(tiling, count, [&](int64_t, const Tile& tile, std::vector<double>&) {
    for (int64_t k = 0; k < count; ++k) {
      if (p.grads[k] == nullptr) continue;
      Step<T> s = step(k, tile);
      s.out = static_cast<T*>(p.grads[k]) + tile.begin;
      run_loop(has_batch_statistics(node.kinds[k]) ? Loop::gradient : Loop::scaled, s);
    }
  });
}

}  // namespace

void mixed_op_sum_cpu(const MixedOpForward& p) {
  dispatch_cpu(p.node.element, [&]<typename T>() { forward<T>(p); });
}

void mixed_op_sum_backward_cpu(const MixedOpBackward& p) {
  dispatch_cpu(p.node.element, [&]<typename T>() { backward<T>(p); });
}

}  // namespace autoreid_fast
