// Images with their channels last in memory, the layout of the CPU kernels and of the stencils on CUDA.
#pragma once

#include "torch_tensor.h"

namespace autoreid_fast {

// Whether the memory of (.., C, H, W) is that of a contiguous (.., H, W, C).
inline bool is_channels_last(const Tensor& tensor) {
  const int64_t dims = tensor.dim();
  int64_t contiguous_stride = 1;
  for (int64_t k = 0; k < dims; ++k) {  // C, W, H, then the leading dimensions from the last to the first
    const int64_t d = k == 0 ? dims - 3 : k < 3 ? dims - k : dims - 1 - k;
    if (tensor.size(d) != 1 && tensor.stride(d) != contiguous_stride) return false;
    contiguous_stride *= tensor.size(d);
  }
  return true;
}

// (.., C, H, W) in any layout as a tensor with the memory of a contiguous (.., H, W, C), in kernel_type.
inline Tensor channels_last(const Tensor& tensor) {
  Tensor last = tensor;
  if (!is_channels_last(last)) {
    const int64_t dims = tensor.dim();
    last = torch::stable::transpose(last, dims - 3, dims - 1);
    last = torch::stable::contiguous(torch::stable::transpose(last, dims - 3, dims - 2));
  }
  return cast(last, kernel_type(tensor.scalar_type()));
}

// A new contiguous (.., H, W, C) as a view (.., C, H, W), in this dtype.
inline Tensor channels_first_view(const Tensor& tensor, ScalarType type) {
  const int64_t dims = tensor.dim();
  const Tensor view = torch::stable::transpose(cast(tensor, type), dims - 3, dims - 2);
  return torch::stable::transpose(view, dims - 3, dims - 1);
}

}  // namespace autoreid_fast
