// Separable convolutions: argument checks and allocation, CPU only.
#include <tuple>
#include <vector>

#include "../common/channels_last.h"
#include "../stencil3x3/stencil3x3_torch.h"
#include "separable_conv.h"

namespace autoreid_fast {
namespace {

constexpr Checks kCheck{"separable_conv"};

SeparableConvShape checked_shape(const Tensor& x, const Tensor& depthwise, const Tensor& pointwise,
                                 const std::vector<int64_t>& dilations, int64_t stride) {
  const Stencil3x3Shape stencil =
      checked_stencil_shape(kCheck, x, "depthwise", depthwise, dilations, stride, true);
  kCheck.require(stencil.filters >= 1, "`depthwise` has no filter");
  kCheck.shape("pointwise", pointwise, {stencil.filters, kPositiveSize, stencil.channels});
  kCheck.dtype("pointwise", pointwise, x.scalar_type());
  kCheck.device("pointwise", pointwise, x, "x");
  return {.stencil = stencil, .out_channels = pointwise.size(1)};
}

}  // namespace

std::tuple<Tensor, Tensor> separable_conv(const Tensor& x, const Tensor& depthwise, const Tensor& pointwise,
                                          const std::vector<int64_t>& dilations, int64_t stride,
                                          bool statistics) {
  const SeparableConvShape shape = checked_shape(x, depthwise, pointwise, dilations, stride);
  const Stencil3x3Shape& s = shape.stencil;
  const Tensor image = channels_last(x);
  const ScalarType type = image.scalar_type();
  const Tensor depthwise_weights = contiguous_as(depthwise, type);
  const Tensor pointwise_weights = contiguous_as(pointwise, type);
  Tensor z =
      torch::stable::new_empty(image, {s.filters, s.batch, s.out_height, s.out_width, shape.out_channels});
  Tensor moments = torch::stable::new_empty(image, {statistics ? s.filters : 0, 2, shape.out_channels});
  Tensor workspace = torch::stable::new_empty(image, {separable_conv_workspace_cpu(shape, statistics)});
  separable_conv_cpu({.shape = shape,
                      .x = image.const_data_ptr(),
                      .depthwise = depthwise_weights.const_data_ptr(),
                      .pointwise = pointwise_weights.const_data_ptr(),
                      .z = z.mutable_data_ptr(),
                      .statistics = data_or_null(moments),
                      .workspace = workspace.mutable_data_ptr()});
  return {channels_first_view(z, x.scalar_type()), moments};
}

std::tuple<Tensor, Tensor, Tensor> separable_conv_backward(const Tensor& grad, const Tensor& x,
                                                           const Tensor& depthwise, const Tensor& pointwise,
                                                           const std::vector<int64_t>& dilations,
                                                           int64_t stride, bool need_x, bool need_weights) {
  const SeparableConvShape shape = checked_shape(x, depthwise, pointwise, dilations, stride);
  const Stencil3x3Shape& s = shape.stencil;
  kCheck.shape("grad", grad, {s.filters, s.batch, shape.out_channels, s.out_height, s.out_width});
  kCheck.dtype("grad", grad, x.scalar_type());
  kCheck.device("grad", grad, x, "x");
  const Tensor image = channels_last(x), grad_z = channels_last(grad);
  const ScalarType type = image.scalar_type();
  const Tensor depthwise_weights = contiguous_as(depthwise, type);
  const Tensor pointwise_weights = contiguous_as(pointwise, type);
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
                                 .depthwise = depthwise_weights.const_data_ptr(),
                                 .pointwise = pointwise_weights.const_data_ptr(),
                                 .grad_x = data_or_null(grad_x),
                                 .grad_depthwise = data_or_null(grad_depthwise),
                                 .grad_pointwise = data_or_null(grad_pointwise),
                                 .workspace = workspace.mutable_data_ptr()});
  }
  const ScalarType dtype = x.scalar_type();
  return {channels_first_view(grad_x, dtype), contiguous_as(grad_depthwise, dtype),
          contiguous_as(grad_pointwise, dtype)};
}

REGISTER_KERNELS(library) {
  library.impl("separable_conv", TORCH_BOX(&separable_conv));
  library.impl("separable_conv_backward", TORCH_BOX(&separable_conv_backward));
}

}  // namespace autoreid_fast
