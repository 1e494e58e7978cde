// The 3x3 stencils: argument checks and allocation, compiled once into each library. The schemas are defined
// in autoreid_fast/ops/stencil3x3.py.
#include <optional>
#include <tuple>
#include <vector>

#include "../pixels_last.h"
#include "stencil3x3.h"

namespace autoreid_fast {
namespace {

using Optional = std::optional<Tensor>;

#define CHECK(condition, ...) STD_TORCH_CHECK(condition, "stencil3x3: ", __VA_ARGS__)

Stencil3x3Shape shape_of(const Tensor& x, const Tensor& weights, const std::vector<int64_t>& dilations,
                         int64_t stride, bool relu) {
  CHECK(x.dim() == 4 && x.numel() > 0, "x must be (N, C, H, W), none of them 0");
  CHECK(weights.dim() == 4 && weights.size(1) == x.size(1) && weights.size(2) == 3 && weights.size(3) == 3,
        "weights must be (F, C, 3, 3)");
  CHECK(weights.scalar_type() == x.scalar_type() && weights.device() == x.device(),
        "weights must have the dtype and device of x");
  const int64_t filters = weights.size(0);
  CHECK(filters <= kMaxFilters, "at most ", kMaxFilters, " filters");
  CHECK(static_cast<int64_t>(dilations.size()) == filters, "dilations must be one a filter");
  CHECK(stride == 1 || stride == 2, "stride must be 1 or 2");
  uint64_t dilated = 0;
  for (int64_t f = 0; f < filters; ++f) {
    CHECK(dilations[f] == 1 || dilations[f] == 2, "dilations must be 1 or 2");
    if (dilations[f] == 2) dilated |= uint64_t{1} << f;
  }
  Element element = element_of(x, "stencil3x3", "x");
#ifdef USE_CUDA
  CHECK(element != Element::float64, "x is float64: the CUDA kernel takes float32, float16 and bfloat16");
#else
  if (element != Element::float64) element = Element::float32;
#endif
  return {.element = element,
          .batch = x.size(0),
          .channels = x.size(1),
          .height = x.size(2),
          .width = x.size(3),
          .filters = filters,
          .dilated = dilated,
          .stride = stride,
          .out_height = (x.size(2) + stride - 1) / stride,
          .out_width = (x.size(3) + stride - 1) / stride,
          .relu = relu};
}

// dy of a pool as the kernels read it.
Tensor gradient(const Optional& grad, const Tensor& x, const std::vector<int64_t>& sizes, const char* name) {
  if (!grad.has_value()) return torch::stable::new_empty(x, {0});
  CHECK(grad->dim() == static_cast<int64_t>(sizes.size()) && grad->scalar_type() == x.scalar_type() &&
            grad->device() == x.device(),
        name, " must have the dimensions, dtype and device of its output");
  for (size_t k = 0; k < sizes.size(); ++k) {
    CHECK(grad->size(k) == sizes[k], name, " must have the shape of its output");
  }
  return pixels_last(*grad);
}

const void* data_or_null(const Tensor& tensor) {
  return tensor.numel() > 0 ? tensor.const_data_ptr() : nullptr;
}
void* data_or_null(Tensor& tensor) { return tensor.numel() > 0 ? tensor.mutable_data_ptr() : nullptr; }

}  // namespace

std::tuple<Tensor, Tensor, Tensor> stencil3x3(const Tensor& x, const Tensor& weights,
                                              const std::vector<int64_t>& dilations, int64_t stride,
                                              bool relu, bool max_pool, bool avg_pool) {
  const Stencil3x3Shape s = shape_of(x, weights, dilations, stride, relu);
  const Tensor image = pixels_last(x);
  const Tensor filters = plain(weights, image.scalar_type());
  const int64_t height = s.out_height, width = s.out_width;
  const auto pool = [&](bool wanted) {
    return wanted ? torch::stable::new_empty(image, {s.batch, height, width, s.channels})
                  : torch::stable::new_empty(image, {0, height, width, s.channels});
  };
  Tensor largest = pool(max_pool), mean = pool(avg_pool);
  Tensor filtered = torch::stable::new_empty(image, {s.filters, s.batch, height, width, s.channels});
  const Stencil3x3Forward p{.shape = s,
                            .x = image.const_data_ptr(),
                            .weights = data_or_null(filters),
                            .max_pool = data_or_null(largest),
                            .avg_pool = data_or_null(mean),
                            .filtered = data_or_null(filtered)};
#ifdef USE_CUDA
  const torch::stable::accelerator::DeviceGuard guard(x.get_device_index());
  const char* error = stencil3x3_cuda(p, current_stream(x));
  CHECK(error == nullptr, error);
#else
  stencil3x3_cpu(p);
#endif
  const ScalarType type = x.scalar_type();
  return {pixels_first(largest, type), pixels_first(mean, type), pixels_first(filtered, type)};
}

std::tuple<Tensor, Tensor> stencil3x3_backward(const Optional& grad_max, const Optional& grad_avg,
                                               const Optional& grad_filtered, const Tensor& x,
                                               const Tensor& weights, const std::vector<int64_t>& dilations,
                                               int64_t stride, bool relu, bool need_x, bool need_weights) {
  Stencil3x3Shape s = shape_of(x, weights, dilations, stride, relu);
  const ScalarType type = x.scalar_type();
  const Tensor image = pixels_last(x);
  const Tensor filters = plain(weights, image.scalar_type());
  const int64_t height = s.out_height, width = s.out_width;
  const std::vector<int64_t> pooled = {s.batch, s.channels, height, width};
  const Tensor d_max = gradient(grad_max, x, pooled, "grad_max");
  const Tensor d_avg = gradient(grad_avg, x, pooled, "grad_avg");
  const Tensor d_filtered =
      gradient(grad_filtered, x, {s.filters, s.batch, s.channels, height, width}, "grad_filtered");
  Tensor grad_x = torch::stable::new_empty(image, {need_x ? s.batch : 0, s.height, s.width, s.channels});
  const int64_t gradients = need_weights ? s.filters : 0;
  Tensor grad_weights = torch::stable::new_empty(image, {gradients, s.channels, 3, 3});
  if (!grad_filtered.has_value()) {  // no filter has a gradient: pools alone
    s.filters = 0;
    s.dilated = 0;
    if (gradients > 0) torch::stable::zero_(grad_weights);
  }
  const bool reduces = gradients > 0 && s.filters > 0;
#ifdef USE_CUDA
  const int64_t count = reduces ? stencil3x3_slabs_cuda(s) : 0;
  Tensor slabs = torch::stable::new_empty(image, {count, s.filters, 9, s.channels}, ScalarType::Float);
#else
  const int64_t count = reduces ? stencil3x3_slabs_cpu(s) : 0;
  Tensor slabs = torch::stable::new_empty(image, {count, s.filters, 9, s.channels});
#endif
  const Stencil3x3Backward p{.shape = s,
                             .grad_max = data_or_null(d_max),
                             .grad_avg = data_or_null(d_avg),
                             .grad_filtered = data_or_null(d_filtered),
                             .x = image.const_data_ptr(),
                             .weights = data_or_null(filters),
                             .grad_x = data_or_null(grad_x),
                             .grad_weights = reduces ? grad_weights.mutable_data_ptr() : nullptr,
                             .slabs = data_or_null(slabs)};
#ifdef USE_CUDA
  const torch::stable::accelerator::DeviceGuard guard(x.get_device_index());
  const char* error = stencil3x3_backward_cuda(p, current_stream(x));
  CHECK(error == nullptr, error);
#else
  stencil3x3_backward_cpu(p);
#endif
  return {pixels_first(grad_x, type), plain(grad_weights, type)};
}

#ifdef USE_CUDA
STABLE_TORCH_LIBRARY_IMPL(autoreid_fast, CUDA, library) {
#else
STABLE_TORCH_LIBRARY_IMPL(autoreid_fast, CPU, library) {
#endif
  library.impl("stencil3x3", TORCH_BOX(&stencil3x3));
  library.impl("stencil3x3_backward", TORCH_BOX(&stencil3x3_backward));
}

}  // namespace autoreid_fast
