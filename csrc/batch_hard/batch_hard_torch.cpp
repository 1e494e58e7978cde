// Batch-hard triplet loss: argument checks and allocation, compiled once into each library. The schema is
// defined in autoreid_fast/ops/batch_hard.py.
#include <tuple>

#include "../torch_tensor.h"
#include "batch_hard.h"

namespace autoreid_fast {
namespace {

constexpr int64_t kMaxAnchors = 4096;

#define CHECK(condition, ...) STD_TORCH_CHECK(condition, "batch_hard: ", __VA_ARGS__)

// Features as the kernels take them: adjacent columns; on the CPU half types become float32.
Tensor readable(const Tensor& features) {
  CHECK(features.dim() == 2 && features.size(0) >= 1 && features.size(0) <= kMaxAnchors &&
            features.size(1) >= 1,
        "features must be (N, D) with 1 <= N <= ", kMaxAnchors, " and D >= 1");
  const Element element = element_of(features, "batch_hard", "features");
#ifdef USE_CUDA
  CHECK(element != Element::float64,
        "features are float64: the CUDA kernel takes float32, float16 and bfloat16");
#else
  if (element == Element::float16 || element == Element::bfloat16) {
    return torch::stable::contiguous(torch::stable::to(features, ScalarType::Float));
  }
#endif
  return features.stride(1) == 1 || features.size(1) == 1 ? features : torch::stable::contiguous(features);
}

// One entry an anchor, of the given type, on the device of features; contiguous.
Tensor column(const Tensor& tensor, const Tensor& features, ScalarType type, const char* name) {
  CHECK(tensor.dim() == 1 && tensor.size(0) == features.size(0), name,
        " must be (N,), one a row of features");
  CHECK(tensor.scalar_type() == type, name, " has the wrong dtype");
  CHECK(tensor.device() == features.device(), name, " must be on the device of features");
  return torch::stable::contiguous(tensor);
}

ScalarType accumulation_type(const Tensor& x) {
  return x.scalar_type() == ScalarType::Double ? ScalarType::Double : ScalarType::Float;
}

}  // namespace

std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor> batch_hard(const Tensor& features, const Tensor& labels,
                                                              double margin, bool printed) {
  const Tensor x = readable(features);
  const Tensor y = column(labels, features, ScalarType::Long, "labels");
  const int64_t count = x.size(0);
  const ScalarType type = accumulation_type(x);
  Tensor loss = torch::stable::new_empty(x, {}, type);
  Tensor positive = torch::stable::new_empty(y, {count});
  Tensor negative = torch::stable::new_empty(y, {count});
  Tensor positive_distance = torch::stable::new_empty(x, {count}, type);
  Tensor negative_distance = torch::stable::new_empty(x, {count}, type);
#ifdef USE_CUDA
  Tensor workspace = torch::stable::new_empty(y, {2 * count + 1});
#else
  Tensor workspace = torch::stable::new_empty(x, {count, count});
#endif
  const BatchHardForward p{.features = x.const_data_ptr(),
                           .element = element_of(x, "batch_hard", "features"),
                           .labels = static_cast<const int64_t*>(y.const_data_ptr()),
                           .count = count,
                           .dim = x.size(1),
                           .row_stride = x.stride(0),
                           .margin = margin,
                           .printed = printed,
                           .loss = loss.mutable_data_ptr(),
                           .positive = static_cast<int64_t*>(positive.mutable_data_ptr()),
                           .negative = static_cast<int64_t*>(negative.mutable_data_ptr()),
                           .positive_distance = positive_distance.mutable_data_ptr(),
                           .negative_distance = negative_distance.mutable_data_ptr(),
                           .workspace = workspace.mutable_data_ptr()};
#ifdef USE_CUDA
  const torch::stable::accelerator::DeviceGuard guard(x.get_device_index());
  const char* error = batch_hard_cuda(p, current_stream(x));
  CHECK(error == nullptr, error);
#else
  batch_hard_cpu(p);
#endif
  return {loss, positive, negative, positive_distance, negative_distance};
}

Tensor batch_hard_backward(const Tensor& grad_loss, const Tensor& features, const Tensor& positive,
                           const Tensor& negative, const Tensor& positive_distance,
                           const Tensor& negative_distance, double margin, bool printed) {
  const Tensor x = readable(features);
  const ScalarType type = accumulation_type(x);
  CHECK(grad_loss.numel() == 1 && grad_loss.scalar_type() == type && grad_loss.device() == features.device(),
        "grad_loss must be a scalar on the device and of the type of the loss");
  const Tensor p_index = column(positive, features, ScalarType::Long, "positive");
  const Tensor n_index = column(negative, features, ScalarType::Long, "negative");
  const Tensor p_distance = column(positive_distance, features, type, "positive_distance");
  const Tensor n_distance = column(negative_distance, features, type, "negative_distance");
  Tensor grad = torch::stable::new_empty(x, {x.size(0), x.size(1)});
  const BatchHardBackward p{.grad_loss = grad_loss.const_data_ptr(),
                            .features = x.const_data_ptr(),
                            .element = element_of(x, "batch_hard", "features"),
                            .count = x.size(0),
                            .dim = x.size(1),
                            .row_stride = x.stride(0),
                            .positive = static_cast<const int64_t*>(p_index.const_data_ptr()),
                            .negative = static_cast<const int64_t*>(n_index.const_data_ptr()),
                            .positive_distance = p_distance.const_data_ptr(),
                            .negative_distance = n_distance.const_data_ptr(),
                            .margin = margin,
                            .printed = printed,
                            .grad_features = grad.mutable_data_ptr()};
#ifdef USE_CUDA
  const torch::stable::accelerator::DeviceGuard guard(x.get_device_index());
  const char* error = batch_hard_backward_cuda(p, current_stream(x));
  CHECK(error == nullptr, error);
  return grad;
#else
  batch_hard_backward_cpu(p);
  return torch::stable::to(grad, features.scalar_type());
#endif
}

#ifdef USE_CUDA
STABLE_TORCH_LIBRARY_IMPL(autoreid_fast, CUDA, library) {
#else
STABLE_TORCH_LIBRARY_IMPL(autoreid_fast, CPU, library) {
#endif
  library.impl("batch_hard", TORCH_BOX(&batch_hard));
  library.impl("batch_hard_backward", TORCH_BOX(&batch_hard_backward));
}

}  // namespace autoreid_fast
