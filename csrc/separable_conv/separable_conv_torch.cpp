// Separable convolutions: argument checks and allocation, CPU only (on CUDA the op is Triton). The schemas
// are defined in autoreid_fast/ops/separable_conv.py.
#ifndef USE_CUDA

#include <tuple>
#include <vector>

#include "../pixels_last.h"
#include "separable_conv.h"

namespace autoreid_fast {
namespace {

#define CHECK(condition, ...) STD_TORCH_CHECK(condition, "separable_conv: ", __VA_ARGS__)

SeparableConvShape shape_of(const Tensor& x, const Tensor& depthwise, const Tensor& pointwise,
                            const std::vector<int64_t>& dilations, int64_t stride) {
  CHECK(x.dim() == 4 && x.numel() > 0, "x must be (N, C, H, W), none of them 0");
  CHECK(depthwise.dim() == 4 && depthwise.size(1) == x.size(1) && depthwise.size(2) == 3 &&
            depthwise.size(3) == 3,
        "depthwise must be (F, C, 3, 3)");
  const int64_t filters = depthwise.size(0);
  CHECK(1 <= filters && filters <= kMaxFilters, "from 1 to ", kMaxFilters, " filters");
  CHECK(pointwise.dim() == 3 && pointwise.size(0) == filters && pointwise.size(1) > 0 &&
            pointwise.size(2) == x.size(1),
        "pointwise must be (F, D, C)");
  for (const Tensor* weights : {&depthwise, &pointwise}) {
    CHECK(weights->scalar_type() == x.scalar_type() && weights->device() == x.device(),
          "weights must have the dtype and device of x");
  }
  CHECK(static_cast<int64_t>(dilations.size()) == filters, "dilations must be one a filter");
  CHECK(stride == 1 || stride == 2, "stride must be 1 or 2");
  uint64_t dilated = 0;
  for (int64_t f = 0; f < filters; ++f) {
    CHECK(dilations[f] == 1 || dilations[f] == 2, "dilations must be 1 or 2");
    if (dilations[f] == 2) dilated |= uint64_t{1} << f;
  }
  const bool is_double = element_of(x, "separable_conv", "x") == Element::float64;
  return {.stencil = {.element = is_double ? Element::float64 : Element::float32,
                      .batch = x.size(0),
                      .channels = x.size(1),
                      .height = x.size(2),
                      .width = x.size(3),
                      .filters = filters,
                      .dilated = dilated,
                      .stride = stride,
                      .out_height = (x.size(2) + stride - 1) / stride,
                      .out_width = (x.size(3) + stride - 1) / stride,
                      .relu = true},
          .out_channels = pointwise.size(1)};
}

}  // namespace

std::tuple<Tensor, Tensor> separable_conv(const Tensor& x, const Tensor& depthwise, const Tensor& pointwise,
                                          const std::vector<int64_t>& dilations, int64_t stride,
                                          bool statistics) {
  const SeparableConvShape shape = shape_of(x, depthwise, pointwise, dilations, stride);
  const Stencil3x3Shape& s = shape.stencil;
  const Tensor image = pixels_last(x);
  const Tensor first = plain(depthwise, image.scalar_type()), second = plain(pointwise, image.scalar_type());
  Tensor z =
      torch::stable::new_empty(image, {s.filters, s.batch, s.out_height, s.out_width, shape.out_channels});
  Tensor moments = torch::stable::new_empty(image, {statistics ? s.filters : 0, 2, shape.out_channels});
  Tensor workspace = torch::stable::new_empty(image, {separable_conv_workspace_cpu(shape, statistics)});
  separable_conv_cpu({.shape = shape,
                      .x = image.const_data_ptr(),
                      .depthwise = first.const_data_ptr(),
                      .pointwise = second.const_data_ptr(),
                      .z = z.mutable_data_ptr(),
                      .statistics = statistics ? moments.mutable_data_ptr() : nullptr,
                      .workspace = workspace.mutable_data_ptr()});
  return {pixels_first(z, x.scalar_type()), moments};
}

std::tuple<Tensor, Tensor, Tensor> separable_conv_backward(const Tensor& grad, const Tensor& x,
                                                           const Tensor& depthwise, const Tensor& pointwise,
                                                           const std::vector<int64_t>& dilations,
                                                           int64_t stride, bool need_x, bool need_weights) {
  const SeparableConvShape shape = shape_of(x, depthwise, pointwise, dilations, stride);
  const Stencil3x3Shape& s = shape.stencil;
  const std::vector<int64_t> sizes = {s.filters, s.batch, shape.out_channels, s.out_height, s.out_width};
  CHECK(grad.dim() == 5 && grad.scalar_type() == x.scalar_type() && grad.device() == x.device(),
        "grad must have the dimensions, dtype and device of z");
  for (int64_t d = 0; d < 5; ++d) CHECK(grad.size(d) == sizes[d], "grad must have the shape of z");
  const Tensor image = pixels_last(x), grad_z = pixels_last(grad);
  const Tensor first = plain(depthwise, image.scalar_type()), second = plain(pointwise, image.scalar_type());
  const int64_t filters = need_weights ? s.filters : 0;
  Tensor grad_x = torch::stable::new_empty(image, {need_x ? s.batch : 0, s.height, s.width, s.channels});
  Tensor grad_depthwise = torch::stable::new_empty(image, {filters, s.channels, 3, 3});
  Tensor grad_pointwise = torch::stable::new_empty(image, {filters, shape.out_channels, s.channels});
  Tensor workspace =
      torch::stable::new_empty(image, {separable_conv_backward_workspace_cpu(shape, need_weights)});
  if (need_x || need_weights) {
    separable_conv_backward_cpu({.shape = shape,
                                 .grad = grad_z.const_data_ptr(),
                                 .x = image.const_data_ptr(),
                                 .depthwise = first.const_data_ptr(),
                                 .pointwise = second.const_data_ptr(),
                                 .grad_x = need_x ? grad_x.mutable_data_ptr() : nullptr,
                                 .grad_depthwise = need_weights ? grad_depthwise.mutable_data_ptr() : nullptr,
                                 .grad_pointwise = need_weights ? grad_pointwise.mutable_data_ptr() : nullptr,
                                 .workspace = workspace.mutable_data_ptr()});
  }
  const ScalarType type = x.scalar_type();
  return {pixels_first(grad_x, type), plain(grad_depthwise, type), plain(grad_pointwise, type)};
}

STABLE_TORCH_LIBRARY_IMPL(autoreid_fast, CPU, library) {
  library.impl("separable_conv", TORCH_BOX(&separable_conv));
  library.impl("separable_conv_backward", TORCH_BOX(&separable_conv_backward));
}

}  // namespace autoreid_fast

#endif
