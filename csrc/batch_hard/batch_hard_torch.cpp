// Batch-hard triplet loss: argument checks and allocation, compiled into both libraries.
#include <tuple>

#include "../common/torch_tensor.h"
#include "batch_hard.h"

namespace autoreid_fast {
namespace {

constexpr int64_t kMaxAnchors = 4096;
constexpr Checks kCheck{"batch_hard"};

// The features with adjacent columns, in the dtype that the kernels read.
Tensor readable(const Tensor& features) {
  kCheck.shape("features", features, {kPositiveSize, kPositiveSize});
  kCheck.floating("features", features);
  kCheck.require(features.size(0) <= kMaxAnchors, "`features` has more than ", kMaxAnchors, " rows");
  kCheck.require(!kOnCuda || features.scalar_type() != ScalarType::Double,
                 "`features` is float64; the CUDA kernel supports float32, float16 and bfloat16");
  return adjacent_columns(cast(features, kernel_type(features.scalar_type())));
}

// (N,) of this dtype on the device of the features, contiguous.
Tensor per_anchor(const char* name, const Tensor& tensor, const Tensor& features, ScalarType type) {
  kCheck.shape(name, tensor, {features.size(0)});
  kCheck.dtype(name, tensor, type);
  kCheck.device(name, tensor, features, "features");
  return torch::stable::contiguous(tensor);
}

}  // namespace

std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor> batch_hard(const Tensor& features, const Tensor& labels,
                                                              double margin, bool printed) {
  const Tensor x = readable(features);
  const Tensor y = per_anchor("labels", labels, features, ScalarType::Long);
  const int64_t count = x.size(0);
  const ScalarType type = accumulation_type(x.scalar_type());
  Tensor loss = torch::stable::new_empty(x, {}, type);
  Tensor positive = torch::stable::new_empty(y, {count});
  Tensor negative = torch::stable::new_empty(y, {count});
  Tensor positive_distance = torch::stable::new_empty(x, {count}, type);
  Tensor negative_distance = torch::stable::new_empty(x, {count}, type);
  Tensor workspace =
      kOnCuda ? torch::stable::new_empty(y, {2 * count + 1}) : torch::stable::new_empty(x, {count, count});
  const BatchHardForward p{.features = x.const_data_ptr(),
                           .element = element_of(x.scalar_type()),
                           .labels = data_of<int64_t>(y),
                           .count = count,
                           .dim = x.size(1),
                           .row_stride = x.stride(0),
                           .margin = margin,
                           .printed = printed,
                           .loss = loss.mutable_data_ptr(),
                           .positive = data_of<int64_t>(positive),
                           .negative = data_of<int64_t>(negative),
                           .positive_distance = positive_distance.mutable_data_ptr(),
                           .negative_distance = negative_distance.mutable_data_ptr(),
                           .workspace = workspace.mutable_data_ptr()};
#ifdef USE_CUDA
  launch_on(kCheck, x, [&](void* stream) { return batch_hard_cuda(p, stream); });
#else
  batch_hard_cpu(p);
#endif
  return {loss, positive, negative, positive_distance, negative_distance};
}

Tensor batch_hard_backward(const Tensor& grad_loss, const Tensor& features, const Tensor& positive,
                           const Tensor& negative, const Tensor& positive_distance,
                           const Tensor& negative_distance, double margin, bool printed) {
  const Tensor x = readable(features);
  const ScalarType type = accumulation_type(x.scalar_type());
  kCheck.require(grad_loss.numel() == 1, "`grad_loss` has ", grad_loss.numel(), " elements; expected 1");
  kCheck.dtype("grad_loss", grad_loss, type);
  kCheck.device("grad_loss", grad_loss, features, "features");
  const Tensor positives = per_anchor("positive", positive, features, ScalarType::Long);
  const Tensor negatives = per_anchor("negative", negative, features, ScalarType::Long);
  const Tensor positive_distances = per_anchor("positive_distance", positive_distance, features, type);
  const Tensor negative_distances = per_anchor("negative_distance", negative_distance, features, type);
#ifndef USE_CUDA
  kCheck.indices<int64_t>("positive", positives, x.size(0), -1);
  kCheck.indices<int64_t>("negative", negatives, x.size(0), -1);
#endif
  Tensor grad_features = torch::stable::new_empty(x, {x.size(0), x.size(1)});
  const BatchHardBackward p{.grad_loss = grad_loss.const_data_ptr(),
                            .features = x.const_data_ptr(),
                            .element = element_of(x.scalar_type()),
                            .count = x.size(0),
                            .dim = x.size(1),
                            .row_stride = x.stride(0),
                            .positive = data_of<int64_t>(positives),
                            .negative = data_of<int64_t>(negatives),
                            .positive_distance = positive_distances.const_data_ptr(),
                            .negative_distance = negative_distances.const_data_ptr(),
                            .margin = margin,
                            .printed = printed,
                            .grad_features = grad_features.mutable_data_ptr()};
#ifdef USE_CUDA
  launch_on(kCheck, x, [&](void* stream) { return batch_hard_backward_cuda(p, stream); });
#else
  batch_hard_backward_cpu(p);
#endif
  return cast(grad_features, features.scalar_type());
}

REGISTER_KERNELS(library) {
  library.impl("batch_hard", TORCH_BOX(&batch_hard));
  library.impl("batch_hard_backward", TORCH_BOX(&batch_hard_backward));
}

}  // namespace autoreid_fast
