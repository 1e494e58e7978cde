// Argument checks that stencil3x3 and separable_conv share.
#pragma once

#include <vector>

#include "../common/arithmetic.h"
#include "../common/torch_tensor.h"
#include "stencil3x3.h"

namespace autoreid_fast {

// The shape of stencils on x (N, C, H, W) with depthwise filters (F, C, 3, 3), both called by their names in
// the op's schema.
inline Stencil3x3Shape checked_stencil_shape(const Checks& check, const Tensor& x, const char* weights_name,
                                             const Tensor& weights, const std::vector<int64_t>& dilations,
                                             int64_t stride, bool relu) {
  check.shape("x", x, {kPositiveSize, kPositiveSize, kPositiveSize, kPositiveSize});
  check.floating("x", x);
  check.require(!kOnCuda || x.scalar_type() != ScalarType::Double,
                "`x` is float64; the CUDA kernel supports float32, float16 and bfloat16");
  check.shape(weights_name, weights, {kAnySize, x.size(1), 3, 3});
  check.dtype(weights_name, weights, x.scalar_type());
  check.device(weights_name, weights, x, "x");
  const int64_t filters = weights.size(0);
  check.require(filters <= kMaxFilters, "`", weights_name, "` has ", filters, " filters; expected at most ",
                kMaxFilters);
  check.require(static_cast<int64_t>(dilations.size()) == filters, "`dilations` has ", dilations.size(),
                " values; expected one per filter, ", filters);
  check.require(stride == 1 || stride == 2, "`stride` is ", stride, "; expected 1 or 2");
  uint64_t dilated = 0;
  for (int64_t f = 0; f < filters; ++f) {
    check.require(dilations[f] == 1 || dilations[f] == 2, "`dilations` has ", dilations[f],
                  "; expected 1 or 2");
    if (dilations[f] == 2) dilated |= uint64_t{1} << f;
  }
  return {.element = element_of(kernel_type(x.scalar_type())),
          .batch = x.size(0),
          .channels = x.size(1),
          .height = x.size(2),
          .width = x.size(3),
          .filters = filters,
          .dilated = dilated,
          .stride = stride,
          .out_height = ceil_div(x.size(2), stride),
          .out_width = ceil_div(x.size(3), stride),
          .relu = relu};
}

}  // namespace autoreid_fast
