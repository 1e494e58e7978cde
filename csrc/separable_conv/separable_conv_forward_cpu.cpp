// Separable convolutions on the CPU, forward; separable_conv.h has the maths.
//
// A unit reads r(x) once for all filters. For each filter the depthwise rows go to a buffer in the cache,
// from there through the register tiles of pixel_gemm to z, and the moments of z are taken while it is in the
// cache.
#include <torch/csrc/stable/ops.h>

#include <vector>

#include "../common/scratch.h"
#include "../common/vector.h"
#include "../pixel_gemm/pixel_gemm.h"
#include "depthwise.h"

namespace autoreid_fast {

using namespace separable;

namespace {

// Moments per channel of `pixels` rows of z, `stride` elements apart: three rows of `stride` elements with a
// value k near the mean, the sum of z - k, and the sum of (z - k)^2. Subtracting k keeps the sums exact where
// the mean is large; summing in blocks keeps them exact where there are many pixels.
template <typename T, int BYTES>
ALWAYS_INLINE void moments_of(const T* z, int64_t pixels, int64_t stride, int64_t channels, T* moments) {
  using V = Vector<T, BYTES>;
  constexpr int64_t lanes = BYTES / sizeof(T), block = 64;
  constexpr int chains = 4, samples = 8;
  for (int64_t d = 0; d + lanes <= channels; d += lanes) {
    V near = {}, sum = {}, square = {};
    for (int i = 0; i < samples; ++i) {
      V value;
      load(value, z + i * pixels / samples * stride + d);
      near += value;
    }
    near *= T(1) / samples;
    for (int64_t start = 0; start < pixels; start += block) {
      V sums[chains] = {}, squares[chains] = {};
      const auto add = [&](int64_t p, int chain) INLINE_LAMBDA {
        V value;
        load(value, z + p * stride + d);
        value -= near;
        sums[chain] += value;
        squares[chain] += value * value;
      };
      const int64_t stop = std::min(start + block, pixels);
      int64_t p = start;
      for (; p + chains <= stop; p += chains) {
#pragma GCC unroll 4
        for (int chain = 0; chain < chains; ++chain) add(p + chain, chain);
      }
      for (; p < stop; ++p) add(p, 0);
      sum += (sums[0] + sums[1]) + (sums[2] + sums[3]);
      square += (squares[0] + squares[1]) + (squares[2] + squares[3]);
    }
    store(moments + d, near);
    store(moments + stride + d, sum);
    store(moments + 2 * stride + d, square);
  }
}

template <typename T>
struct Moments {
  template <int BYTES>
  ALWAYS_INLINE static void run(const T* z, int64_t pixels, int64_t channels, T* moments) {
    constexpr int64_t lanes = BYTES / sizeof(T);
    const int64_t full = channels / lanes * lanes;
    moments_of<T, BYTES>(z, pixels, channels, full, moments);
    moments_of<T, sizeof(T)>(z + full, pixels, channels, channels - full, moments + full);
  }
};

// Mean and biased variance of one filter, from the moments (units, F, 3, D) of its units, in their order.
template <typename T>
void finish_statistics(const Units& units, int64_t filters, int64_t f, int64_t channels, const T* moments,
                       T* statistics) {
  const double total = static_cast<double>(units.count / units.row_tiles * units.height * units.width);
  const auto of_unit = [&](int64_t u) { return moments + (u * filters + f) * 3 * channels; };
  std::vector<double> means(channels, 0.0), squares(channels, 0.0);
  for (int64_t u = 0; u < units.count; ++u) {
    const T* first = of_unit(u);
    const double count = static_cast<double>(units[u].pixels);
    for (int64_t d = 0; d < channels; ++d) means[d] += count * first[d] + first[channels + d];
  }
  for (int64_t d = 0; d < channels; ++d) means[d] /= total;
  for (int64_t u = 0; u < units.count; ++u) {
    const T* first = of_unit(u);
    const double count = static_cast<double>(units[u].pixels);
    for (int64_t d = 0; d < channels; ++d) {
      // sum of (z - mean)^2 = sum of (z - k)^2 + 2 (k - mean) sum of (z - k) + count (k - mean)^2
      const double shift = static_cast<double>(first[d]) - means[d];
      squares[d] += first[2 * channels + d] + shift * (2.0 * first[channels + d] + count * shift);
    }
  }
  T* mean = statistics + f * 2 * channels;
  for (int64_t d = 0; d < channels; ++d) {
    mean[d] = static_cast<T>(means[d]);
    mean[channels + d] = static_cast<T>(std::max(squares[d], 0.0) / total);
  }
}

// The parts of the workspace, in elements.
template <typename T>
struct Workspace {
  int64_t depthwise, pointwise;  // packed weights
  int64_t moments;

  Workspace(const SeparableConvShape& p, bool statistics) {
    const Stencil3x3Shape& s = p.stencil;
    depthwise = s.filters * 9 * padded<T>(s.channels);
    pointwise = s.filters * s.channels * padded<T>(p.out_channels);
    moments = statistics ? Units(s, s.batch).count * s.filters * 3 * p.out_channels : 0;
  }
  int64_t size() const { return depthwise + pointwise + moments; }
};

template <typename T>
void forward(const SeparableConvForward& p) {
  const Stencil3x3Shape& s = p.shape.stencil;
  const int64_t filters = s.filters, channels = s.channels, out_channels = p.shape.out_channels;
  const Workspace<T> parts(p.shape, p.statistics != nullptr);
  T* packed_depthwise = static_cast<T*>(p.workspace);
  T* packed_pointwise = packed_depthwise + parts.depthwise;
  T* moments = packed_pointwise + parts.pointwise;
  const int64_t packed_size = parts.pointwise / filters;

  const auto take_moments = variant<Moments<T>>();
  const PixelGemm<T> gemm = pixel_gemm<T>();
  const Depthwise<T> depthwise = depthwise_of(s, p.x, packed_depthwise);
  torch::stable::parallel_for(0, filters, 1, [&](int64_t begin, int64_t end) {
    for (int64_t f = begin; f < end; ++f) {
      pack(depthwise, p.depthwise, f, packed_depthwise);
      const T* weights = static_cast<const T*>(p.pointwise) + f * out_channels * channels;
      gemm.pack(weights, 1, channels, channels, out_channels, packed_pointwise + f * packed_size);
    }
  });

  const Units units(s, s.batch);
  const FilterGroups groups(filters, units.count);
  const int64_t pixels = s.batch * s.out_height * s.out_width, tile_size = depthwise.tile_size(units.rows);
  torch::stable::parallel_for(0, units.count * groups.count, 1, [&](int64_t begin, int64_t end) {
    T* tile = thread_scratch<T>(tile_size + units.rows * units.width * depthwise.padded_channels);
    T* y = tile + tile_size;
    for (int64_t item = begin; item < end; ++item) {
      const int64_t u = item / groups.count, group = item % groups.count;
      const Unit unit = units[u];
      depthwise.read(depthwise, unit, tile);
      for (int64_t f = groups.first(group); f < groups.last(group); ++f) {
        depthwise.filter(depthwise, unit, f, tile, y);
        T* z = static_cast<T*>(p.z) + (f * pixels + unit.first) * out_channels;
        gemm.multiply({.rows = unit.pixels,
                       .depth = channels,
                       .columns = out_channels,
                       .a = {y, depthwise.padded_channels},
                       .packed = packed_pointwise + f * packed_size,
                       .c = {z, out_channels}});
        if (p.statistics != nullptr) {
          take_moments(z, unit.pixels, out_channels, moments + (u * filters + f) * 3 * out_channels);
        }
      }
    }
  });
  if (p.statistics == nullptr) return;
  torch::stable::parallel_for(0, filters, 1, [&](int64_t begin, int64_t end) {
    for (int64_t f = begin; f < end; ++f) {
      finish_statistics(units, filters, f, out_channels, moments, static_cast<T*>(p.statistics));
    }
  });
}

}  // namespace

void separable_conv_cpu(const SeparableConvForward& p) {
  dispatch_cpu(p.shape.stencil.element, [&]<typename T>() { forward<T>(p); });
}

int64_t separable_conv_workspace_cpu(const SeparableConvShape& shape, bool statistics) {
  return dispatch_cpu(shape.stencil.element,
                      [&]<typename T>() { return Workspace<T>(shape, statistics).size(); });
}

}  // namespace autoreid_fast
