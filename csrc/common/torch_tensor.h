// Tensors of PyTorch's stable ABI in the ops' *_torch.cpp: types, conversions, pointers, launches.
#pragma once

#include <torch/csrc/inductor/aoti_torch/c/shim.h>
#include <torch/csrc/stable/accelerator.h>
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>

#include "checks.h"
#include "element.h"

// Registers the kernels of this library's device; the schemas are defined in Python.
//   REGISTER_KERNELS(library) { library.impl("nearest", TORCH_BOX(&nearest)); }
#ifdef USE_CUDA
#define REGISTER_KERNELS(library) STABLE_TORCH_LIBRARY_IMPL(autoreid_fast, CUDA, library)
#else
#define REGISTER_KERNELS(library) STABLE_TORCH_LIBRARY_IMPL(autoreid_fast, CPU, library)
#endif

namespace autoreid_fast {

#ifdef USE_CUDA
constexpr bool kOnCuda = true;
#else
constexpr bool kOnCuda = false;
#endif

// The Element of a floating dtype.
inline Element element_of(ScalarType type) {
  switch (type) {
    case ScalarType::Half:
      return Element::float16;
    case ScalarType::BFloat16:
      return Element::bfloat16;
    case ScalarType::Double:
      return Element::float64;
    default:
      return Element::float32;
  }
}

// The dtype of sums and statistics: float64 for float64, else float32.
inline ScalarType accumulation_type(ScalarType type) {
  return type == ScalarType::Double ? ScalarType::Double : ScalarType::Float;
}

// The dtype that the kernels read: on CUDA the tensor's own, on the CPU the accumulation type.
inline ScalarType kernel_type(ScalarType type) { return kOnCuda ? type : accumulation_type(type); }

// The tensor in this dtype, itself where it has it; strides are kept.
inline Tensor cast(const Tensor& tensor, ScalarType type) {
  return tensor.scalar_type() == type ? tensor : torch::stable::to(tensor, type);
}

// A contiguous tensor of this dtype, the tensor itself where it is one.
inline Tensor contiguous_as(const Tensor& tensor, ScalarType type) {
  return torch::stable::contiguous(cast(tensor, type));
}

// A matrix whose columns are adjacent, the tensor itself where it is one.
inline Tensor adjacent_columns(const Tensor& matrix) {
  return matrix.stride(1) == 1 || matrix.size(1) == 1 ? matrix : torch::stable::contiguous(matrix);
}

template <typename T>
const T* data_of(const Tensor& tensor) {
  return static_cast<const T*>(tensor.const_data_ptr());
}
template <typename T>
T* data_of(Tensor& tensor) {
  return static_cast<T*>(tensor.mutable_data_ptr());
}

// The data, or null for a tensor without elements.
inline const void* data_or_null(const Tensor& tensor) {
  return tensor.numel() > 0 ? tensor.const_data_ptr() : nullptr;
}
inline void* data_or_null(Tensor& tensor) { return tensor.numel() > 0 ? tensor.mutable_data_ptr() : nullptr; }

#ifdef USE_CUDA
// Calls launch(stream) on the GPU of `tensor`; the error text that it returns becomes a RuntimeError.
template <typename Launch>
void launch_on(const Checks& check, const Tensor& tensor, const Launch& launch) {
  const torch::stable::accelerator::DeviceGuard guard(tensor.get_device_index());
  void* stream = nullptr;
  STABLE_TORCH_ERROR_CODE_CHECK(aoti_torch_get_current_cuda_stream(tensor.get_device_index(), &stream));
  const char* error = launch(stream);
  check.require(error == nullptr, "the CUDA launch failed: ", error);
}
#endif

}  // namespace autoreid_fast
