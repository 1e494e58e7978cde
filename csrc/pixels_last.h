// Images with their channels last in memory, which is how the stencils take them.
#pragma once

#include "torch_tensor.h"

namespace autoreid_fast {

inline bool has_pixels_last(const Tensor& tensor) {
  const int64_t dims = tensor.dim();
  int64_t adjacent = 1;  // the stride of the next dimension from within
  for (int64_t k = 0; k < dims; ++k) {
    const int64_t d = k == 0 ? dims - 3 : k < 3 ? dims - k : dims - 1 - k;  // C, W, H, and out
    if (tensor.size(d) != 1 && tensor.stride(d) != adjacent) return false;
    adjacent *= tensor.size(d);
  }
  return true;
}

// A tensor with the memory of (.., C, H, W) as a contiguous (.., H, W, C): itself where that is so. On the
// CPU half types become float32.
inline Tensor pixels_last(const Tensor& tensor) {
  Tensor last = tensor;
  if (!has_pixels_last(last)) {
    const int64_t dims = tensor.dim();
    last = torch::stable::transpose(last, dims - 3, dims - 1);
    last = torch::stable::contiguous(torch::stable::transpose(last, dims - 3, dims - 2));
  }
#ifndef USE_CUDA
  const ScalarType type = tensor.scalar_type();
  if (type == ScalarType::Half || type == ScalarType::BFloat16) {
    last = torch::stable::to(last, ScalarType::Float);  // keeps the strides
  }
#endif
  return last;
}

// A new (.., H, W, C) as the (.., C, H, W) that it is, in the given dtype.
inline Tensor pixels_first(Tensor made, ScalarType type) {
  const int64_t dims = made.dim();
  if (made.scalar_type() != type) made = torch::stable::to(made, type);
  made = torch::stable::transpose(made, dims - 3, dims - 2);
  return torch::stable::transpose(made, dims - 3, dims - 1);
}

inline Tensor plain(const Tensor& tensor, ScalarType type) {
  return torch::stable::contiguous(tensor.scalar_type() == type ? tensor : torch::stable::to(tensor, type));
}

}  // namespace autoreid_fast
