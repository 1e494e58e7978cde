// Separable convolutions on the CPU, backward; separable_conv.h has the maths.
//
// dy = pointwise^T dz is computed for as many images as the cache holds, by the register tiles of pixel_gemm,
// and goes straight through the backward pass of stencil3x3: dy of the whole batch is never in memory.
// d pointwise is added up beside it, from the same dz and the depthwise rows computed again, in one slab per
// fixed range of units.
#include <torch/csrc/stable/ops.h>

#include "../common/scratch.h"
#include "../common/vector.h"
#include "../pixel_gemm/pixel_gemm.h"
#include "depthwise.h"

namespace autoreid_fast {

using namespace separable;

namespace {

constexpr int64_t kCachedBytes = 1 << 20;  // of dy
constexpr int64_t kSlabBytes = 8 << 20;    // of all slabs of d pointwise

Stencil3x3Shape with_images(Stencil3x3Shape shape, int64_t images) {
  shape.batch = images;
  return shape;
}

// The chunks of the batch, and the parts of the workspace in elements.
template <typename T>
struct Plan {
  int64_t images, chunks;         // images per chunk; chunks
  int64_t slabs, units_per_slab;  // per chunk; without d pointwise one unit per slab
  int64_t depthwise, pointwise;   // packed weights
  int64_t grad_filtered;          // (F, images, Ho, Wo, C): dy
  int64_t pointwise_slab;         // (F, D, padded C)
  int64_t depthwise_slabs;        // of stencil3x3, for one chunk
  int64_t depthwise_chunk;        // (F, C, 9): d depthwise of one chunk

  Plan(const SeparableConvShape& p, bool weights) {
    const Stencil3x3Shape& s = p.stencil;
    const int64_t image_size = s.filters * s.out_height * s.out_width * s.channels;
    images = std::clamp<int64_t>(kCachedBytes / static_cast<int64_t>(image_size * sizeof(T)), 1, s.batch);
    images = ceil_div(s.batch, ceil_div(s.batch, images));  // of equal size
    chunks = ceil_div(s.batch, images);
    const int64_t channels = padded<T>(s.channels), units = Units(s, images).count;
    pointwise_slab = s.filters * p.out_channels * channels;
    const int64_t max_slabs = kSlabBytes / static_cast<int64_t>(pointwise_slab * sizeof(T));
    units_per_slab =
        weights ? ceil_div(units, std::clamp<int64_t>(max_slabs, 1, std::min(units, kItems))) : 1;
    slabs = ceil_div(units, units_per_slab);
    depthwise = weights ? s.filters * 9 * channels : 0;
    pointwise = s.filters * p.out_channels * channels;
    grad_filtered = images * image_size;
    depthwise_slabs = weights ? stencil3x3_slabs_cpu(with_images(s, images)) * s.filters * 9 * s.channels : 0;
    depthwise_chunk = weights ? s.filters * s.channels * 9 : 0;
    if (!weights) pointwise_slab = 0;
  }
  int64_t size() const {
    return depthwise + pointwise + grad_filtered + slabs * pointwise_slab + depthwise_slabs +
           chunks * depthwise_chunk;
  }
};

// sums[k] = the sum over `count` parts of parts[i * stride + k], in order.
template <typename T>
void add_parts(const T* parts, int64_t count, int64_t stride, int64_t size, T* sums) {
  std::copy_n(parts, size, sums);
  for (int64_t i = 1; i < count; ++i) {
    for (int64_t k = 0; k < size; ++k) sums[k] += parts[i * stride + k];
  }
}

template <typename T>
class Backward {
 public:
  explicit Backward(const SeparableConvBackward& p)
      : p_(p),
        s_(p.shape.stencil),
        weights_(p.grad_pointwise != nullptr),
        plan_(p.shape, weights_),
        gemm_(pixel_gemm<T>()) {
    T* next = static_cast<T*>(p.workspace);
    const auto take = [&](int64_t size) {
      T* part = next;
      next += size;
      return part;
    };
    packed_depthwise_ = take(plan_.depthwise);
    packed_pointwise_ = take(plan_.pointwise);
    grad_filtered_ = take(plan_.grad_filtered);
    pointwise_slabs_ = take(plan_.slabs * plan_.pointwise_slab);
    depthwise_slabs_ = take(plan_.depthwise_slabs);
    depthwise_chunks_ = take(plan_.chunks * plan_.depthwise_chunk);
    depthwise_ = depthwise_of<T>(s_, p.x, packed_depthwise_);
  }

  void run() {
    pack_weights();
    for (int64_t chunk = 0; chunk < plan_.chunks; ++chunk) {
      const int64_t first = chunk * plan_.images, images = std::min(plan_.images, s_.batch - first);
      pointwise(first, images);
      stencil(chunk, first, images);
    }
    if (weights_) add_up();
  }

 private:
  int64_t packed_size() const { return plan_.pointwise / s_.filters; }

  void pack_weights() {
    const int64_t channels = s_.channels, out_channels = p_.shape.out_channels;
    torch::stable::parallel_for(0, s_.filters, 1, [&](int64_t begin, int64_t end) {
      for (int64_t f = begin; f < end; ++f) {
        if (weights_) pack(depthwise_, p_.depthwise, f, packed_depthwise_);
        const T* weights = static_cast<const T*>(p_.pointwise) + f * out_channels * channels;
        gemm_.pack(weights, channels, 1, out_channels, channels, packed_pointwise_ + f * packed_size());
      }
    });
  }

  // dy of these images; their d pointwise is added to the slabs.
  void pointwise(int64_t first, int64_t images) {
    const Units units(s_, images);
    const FilterGroups groups(s_.filters, plan_.slabs);
    const int64_t tile_size = weights_ ? depthwise_.tile_size(units.rows) : 0;
    torch::stable::parallel_for(0, plan_.slabs * groups.count, 1, [&](int64_t begin, int64_t end) {
      T* tile = thread_scratch<T>(tile_size + units.rows * units.width * depthwise_.padded_channels);
      T* y = tile + tile_size;
      for (int64_t item = begin; item < end; ++item) {
        const int64_t slab = item / groups.count, group = item % groups.count;
        const int64_t from = groups.first(group), to = groups.last(group);
        T* sums = pointwise_slabs_ + slab * plan_.pointwise_slab;
        const int64_t filter_size = plan_.pointwise_slab / s_.filters;
        if (first == 0) std::fill(sums + from * filter_size, sums + to * filter_size, T(0));
        const int64_t stop = std::min((slab + 1) * plan_.units_per_slab, units.count);
        for (int64_t u = slab * plan_.units_per_slab; u < stop; ++u) {
          Unit unit = units[u];
          unit.image += first;
          if (weights_) depthwise_.read(depthwise_, unit, tile);
          for (int64_t f = from; f < to; ++f) {
            filter(unit, f, first, images, tile, y, sums + f * filter_size);
          }
        }
      }
    });
  }

  // As `pointwise`, for one unit and filter; `sums` (D, padded C) is the filter's part of the slab.
  void filter(const Unit& unit, int64_t f, int64_t first, int64_t images, T* tile, T* y, T* sums) {
    const int64_t channels = s_.channels, out_channels = p_.shape.out_channels;
    const int64_t image_pixels = s_.out_height * s_.out_width;
    const T* grad =
        static_cast<const T*>(p_.grad) + ((f * s_.batch + first) * image_pixels + unit.first) * out_channels;
    gemm_.multiply({.rows = unit.pixels,
                    .depth = out_channels,
                    .columns = channels,
                    .a = {grad, out_channels},
                    .packed = packed_pointwise_ + f * packed_size(),
                    .c = {grad_filtered_ + (f * images * image_pixels + unit.first) * channels, channels}});
    if (!weights_) return;
    depthwise_.filter(depthwise_, unit, f, tile, y);
    const int64_t stride = depthwise_.padded_channels;
    gemm_.add_outer({.pixels = unit.pixels,
                     .rows = out_channels,
                     .columns = channels,
                     .a = {grad, out_channels},
                     .b = {y, stride},
                     .c = {sums, stride}});
  }

  // dx and d depthwise of these images, from dy.
  void stencil(int64_t chunk, int64_t first, int64_t images) {
    const int64_t start = first * s_.height * s_.width * s_.channels;
    T* grad_x = static_cast<T*>(p_.grad_x);
    stencil3x3_backward_cpu(
        {.shape = with_images(s_, images),
         .grad_max = nullptr,
         .grad_avg = nullptr,
         .grad_filtered = grad_filtered_,
         .x = static_cast<const T*>(p_.x) + start,
         .weights = p_.depthwise,
         .grad_x = grad_x == nullptr ? nullptr : grad_x + start,
         .grad_weights = weights_ ? depthwise_chunks_ + chunk * plan_.depthwise_chunk : nullptr,
         .slabs = weights_ ? depthwise_slabs_ : nullptr});
  }

  // The gradients of the weights, from the chunks and slabs.
  void add_up() {
    const int64_t channels = s_.channels, out_channels = p_.shape.out_channels;
    torch::stable::parallel_for(0, s_.filters, 1, [&](int64_t begin, int64_t end) {
      for (int64_t f = begin; f < end; ++f) {
        add_parts(depthwise_chunks_ + f * channels * 9, plan_.chunks, plan_.depthwise_chunk, channels * 9,
                  static_cast<T*>(p_.grad_depthwise) + f * channels * 9);
        for (int64_t row = f * out_channels; row < (f + 1) * out_channels; ++row) {
          add_parts(pointwise_slabs_ + row * depthwise_.padded_channels, plan_.slabs, plan_.pointwise_slab,
                    channels, static_cast<T*>(p_.grad_pointwise) + row * channels);
        }
      }
    });
  }

  const SeparableConvBackward& p_;
  const Stencil3x3Shape& s_;
  const bool weights_;
  const Plan<T> plan_;
  const PixelGemm<T> gemm_;
  Depthwise<T> depthwise_;
  T *packed_depthwise_, *packed_pointwise_, *grad_filtered_, *pointwise_slabs_, *depthwise_slabs_,
      *depthwise_chunks_;
};

}  // namespace

void separable_conv_backward_cpu(const SeparableConvBackward& p) {
  dispatch_cpu(p.shape.stencil.element, [&]<typename T>() { Backward<T>(p).run(); });
}

int64_t separable_conv_backward_workspace_cpu(const SeparableConvShape& shape, bool weights) {
  return dispatch_cpu(shape.stencil.element, [&]<typename T>() { return Plan<T>(shape, weights).size(); });
}

}  // namespace autoreid_fast
