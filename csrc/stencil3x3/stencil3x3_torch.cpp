// The 3x3 stencils: argument checks and allocation, compiled into both libraries.
#include "stencil3x3_torch.h"

#include <optional>
#include <tuple>

#include "../common/channels_last.h"

namespace autoreid_fast {
namespace {

constexpr Checks kCheck{"stencil3x3"};

// The gradient of an output of this shape with its channels last; without elements where it is None.
Tensor readable_grad(const char* name, const std::optional<Tensor>& grad, const Tensor& x,
                     const std::vector<int64_t>& shape) {
  if (!grad.has_value()) return torch::stable::new_empty(x, {0});
  kCheck.shape(name, *grad, shape);
  kCheck.dtype(name, *grad, x.scalar_type());
  kCheck.device(name, *grad, x, "x");
  return channels_last(*grad);
}

}  // namespace

std::tuple<Tensor, Tensor, Tensor> stencil3x3(const Tensor& x, const Tensor& weights,
                                              const std::vector<int64_t>& dilations, int64_t stride,
                                              bool relu, bool max_pool, bool avg_pool) {
  const Stencil3x3Shape s = checked_stencil_shape(kCheck, x, "weights", weights, dilations, stride, relu);
  const Tensor image = channels_last(x);
  const Tensor filters = contiguous_as(weights, image.scalar_type());
  const int64_t height = s.out_height, width = s.out_width;
  Tensor max_out = torch::stable::new_empty(image, {max_pool ? s.batch : 0, height, width, s.channels});
  Tensor avg_out = torch::stable::new_empty(image, {avg_pool ? s.batch : 0, height, width, s.channels});
  Tensor filtered = torch::stable::new_empty(image, {s.filters, s.batch, height, width, s.channels});
  const Stencil3x3Forward p{.shape = s,
                            .x = image.const_data_ptr(),
                            .weights = data_or_null(filters),
                            .max_pool = data_or_null(max_out),
                            .avg_pool = data_or_null(avg_out),
                            .filtered = data_or_null(filtered)};
#ifdef USE_CUDA
  launch_on(kCheck, x, [&](void* stream) { return stencil3x3_cuda(p, stream); });
#else
  stencil3x3_cpu(p);
#endif
  const ScalarType type = x.scalar_type();
  return {channels_first_view(max_out, type), channels_first_view(avg_out, type),
          channels_first_view(filtered, type)};
}

std::tuple<Tensor, Tensor> stencil3x3_backward(const std::optional<Tensor>& grad_max,
                                               const std::optional<Tensor>& grad_avg,
                                               const std::optional<Tensor>& grad_filtered, const Tensor& x,
                                               const Tensor& weights, const std::vector<int64_t>& dilations,
                                               int64_t stride, bool relu, bool need_x, bool need_weights) {
  Stencil3x3Shape s = checked_stencil_shape(kCheck, x, "weights", weights, dilations, stride, relu);
  const std::vector<int64_t> pooled = {s.batch, s.channels, s.out_height, s.out_width};
  const std::vector<int64_t> all_filtered = {s.filters, s.batch, s.channels, s.out_height, s.out_width};
  const Tensor max_grad = readable_grad("grad_max", grad_max, x, pooled);
  const Tensor avg_grad = readable_grad("grad_avg", grad_avg, x, pooled);
  const Tensor filtered_grad = readable_grad("grad_filtered", grad_filtered, x, all_filtered);
  const Tensor image = channels_last(x);
  const Tensor filters = contiguous_as(weights, image.scalar_type());
  Tensor grad_x = torch::stable::new_empty(image, {need_x ? s.batch : 0, s.height, s.width, s.channels});
  Tensor grad_weights = torch::stable::new_empty(image, {need_weights ? s.filters : 0, s.channels, 3, 3});
  if (!grad_filtered.has_value()) {  // only the pools have gradients
    s.filters = 0;
    s.dilated = 0;
    if (grad_weights.numel() > 0) torch::stable::zero_(grad_weights);
  }
  const bool reduces = grad_weights.numel() > 0 && s.filters > 0;
#ifdef USE_CUDA
  const int64_t slab_count = reduces ? stencil3x3_slabs_cuda(s) : 0;
#else
  const int64_t slab_count = reduces ? stencil3x3_slabs_cpu(s) : 0;
#endif
  Tensor slabs = torch::stable::new_empty(image, {slab_count, s.filters, 9, s.channels},
                                          accumulation_type(image.scalar_type()));
  const Stencil3x3Backward p{.shape = s,
                             .grad_max = data_or_null(max_grad),
                             .grad_avg = data_or_null(avg_grad),
                             .grad_filtered = data_or_null(filtered_grad),
                             .x = image.const_data_ptr(),
                             .weights = data_or_null(filters),
                             .grad_x = data_or_null(grad_x),
                             .grad_weights = reduces ? grad_weights.mutable_data_ptr() : nullptr,
                             .slabs = data_or_null(slabs)};
#ifdef USE_CUDA
  launch_on(kCheck, x, [&](void* stream) { return stencil3x3_backward_cuda(p, stream); });
#else
  stencil3x3_backward_cpu(p);
#endif
  const ScalarType type = x.scalar_type();
  return {channels_first_view(grad_x, type), contiguous_as(grad_weights, type)};
}

REGISTER_KERNELS(library) {
  library.impl("stencil3x3", TORCH_BOX(&stencil3x3));
  library.impl("stencil3x3_backward", TORCH_BOX(&stencil3x3_backward));
}

}  // namespace autoreid_fast
