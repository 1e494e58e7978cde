// A node's weighted sum: argument checks and allocation, CPU only (on CUDA the op is Triton). The schemas are
// defined in autoreid_fast/ops/mixed_op_sum.py.
#ifndef USE_CUDA

#include <optional>
#include <tuple>
#include <vector>

#include "../torch_tensor.h"
#include "mixed_op_sum.h"

namespace autoreid_fast {
namespace {

using torch::headeronly::MemoryFormat;

constexpr int64_t kMaxCandidates = 64;

#define CHECK(condition, ...) STD_TORCH_CHECK(condition, "mixed_op_sum: ", __VA_ARGS__)

bool is_channels_last(const Tensor& z) {
  const int64_t strides[4] = {z.size(1) * z.size(2) * z.size(3), 1, z.size(3) * z.size(1), z.size(1)};
  for (int64_t d = 0; d < 4; ++d) {
    if (z.size(d) != 1 && z.stride(d) != strides[d]) return false;
  }
  return !z.is_contiguous();
}

// (K or 2, K, C) of the accumulation type, contiguous.
Tensor numbers(const Tensor& tensor, ScalarType type, std::initializer_list<int64_t> shape,
               const char* name) {
  bool fits = tensor.dim() == static_cast<int64_t>(shape.size()) && tensor.scalar_type() == type;
  for (int64_t d = 0; fits && d < tensor.dim(); ++d) fits = tensor.size(d) == shape.begin()[d];
  CHECK(fits, name, " has the wrong shape or dtype");
  return torch::stable::contiguous(tensor);
}

// The candidates as the kernels take them, alive beside their pointers.
class Node {
 public:
  Node(const std::vector<Tensor>& candidates, const Tensor& weights, const std::vector<int64_t>& kinds,
       double eps)
      : kinds_(kinds) {
    count = static_cast<int64_t>(candidates.size());
    CHECK(1 <= count && count <= kMaxCandidates, "from 1 to ", kMaxCandidates, " candidates");
    CHECK(static_cast<int64_t>(kinds.size()) == count, "one kind a candidate");
    for (const int64_t kind : kinds) CHECK(kPlain <= kind && kind <= kFixed, "no such kind: ", kind);
    const Tensor& first = candidates[0];
    CHECK(first.dim() == 4 && first.numel() > 0, "candidates must be (N, C, H, W), none of them 0");
    element_of(first, "mixed_op_sum", "candidates");
    dtype = first.scalar_type();
    type = dtype == ScalarType::Double ? ScalarType::Double : ScalarType::Float;
    layout = is_channels_last(first) ? MemoryFormat::ChannelsLast : MemoryFormat::Contiguous;
    for (int64_t d = 0; d < 4; ++d) shape[d] = first.size(d);
    for (const Tensor& z : candidates) {
      kept_.push_back(readable(z));
      pointers_.push_back(kept_.back().const_data_ptr());
    }
    weights_ = numbers(weights, type, {count}, "weights");
    parameters = {.candidates = pointers_.data(),
                  .kinds = kinds_.data(),
                  .count = count,
                  .images = shape[0],
                  .channels = shape[1],
                  .positions = shape[2] * shape[3],
                  .channels_last = layout == MemoryFormat::ChannelsLast,
                  .element = type == ScalarType::Double ? Element::float64 : Element::float32,
                  .weights = weights_.const_data_ptr(),
                  .eps = eps};
  }
  Node(const Node&) = delete;

  // A tensor of the candidates' shape and dtype as the kernels take it.
  Tensor readable(const Tensor& z) const {
    bool same = z.dim() == 4 && z.scalar_type() == dtype;
    for (int64_t d = 0; same && d < 4; ++d) same = z.size(d) == shape[d];
    CHECK(same, "candidates and the gradient must have one shape and dtype");
    const Tensor widened = dtype == type ? z : torch::stable::to(z, type);
    return torch::stable::contiguous(widened, layout);
  }
  // A tensor for the kernels to write.
  Tensor writable() const {
    return torch::stable::empty({shape, 4}, type, std::nullopt, std::nullopt, std::nullopt, layout);
  }
  Tensor narrowed(const Tensor& z) const { return dtype == type ? z : torch::stable::to(z, dtype); }
  Tensor empty(std::initializer_list<int64_t> sizes) const { return torch::stable::empty(sizes, type); }

  int64_t count, shape[4];
  ScalarType dtype, type;
  MemoryFormat layout;
  MixedOpNode parameters;

 private:
  std::vector<int64_t> kinds_;
  std::vector<Tensor> kept_;
  std::vector<const void*> pointers_;
  Tensor weights_;
};

}  // namespace

std::tuple<Tensor, Tensor> mixed_op_sum(const std::vector<Tensor>& candidates, const Tensor& weights,
                                        const std::vector<int64_t>& kinds,
                                        const std::optional<Tensor>& statistics, double eps) {
  const Node node(candidates, weights, kinds, eps);
  const int64_t channels = node.shape[1];
  std::optional<Tensor> given;
  if (statistics) given = numbers(*statistics, node.type, {2, node.count, channels}, "statistics");
  for (const int64_t kind : kinds) {
    CHECK(given || kind == kPlain || kind == kBatch, "a given or fixed candidate needs statistics");
  }
  Tensor total = node.writable();
  Tensor used = node.empty({2, node.count, channels});
  mixed_op_sum_cpu({.node = node.parameters,
                    .statistics = given ? given->const_data_ptr() : nullptr,
                    .total = total.mutable_data_ptr(),
                    .used = used.mutable_data_ptr()});
  return {node.narrowed(total), used};
}

std::tuple<std::vector<Tensor>, Tensor> mixed_op_sum_backward(const Tensor& grad,
                                                              const std::vector<Tensor>& candidates,
                                                              const Tensor& weights,
                                                              const std::vector<int64_t>& kinds,
                                                              const Tensor& statistics, double eps,
                                                              const std::vector<int64_t>& wanted) {
  const Node node(candidates, weights, kinds, eps);
  const Tensor used = numbers(statistics, node.type, {2, node.count, node.shape[1]}, "statistics");
  const Tensor g = node.readable(grad);
  std::vector<Tensor> grads;
  std::vector<void*> pointers(node.count, nullptr);
  for (const int64_t k : wanted) {
    CHECK(0 <= k && k < node.count && pointers[k] == nullptr, "wanted must be numbers of candidates");
    grads.push_back(node.writable());
    pointers[k] = grads.back().mutable_data_ptr();
  }
  Tensor grad_weights = node.empty({node.count});
  mixed_op_sum_backward_cpu({.node = node.parameters,
                             .grad = g.const_data_ptr(),
                             .statistics = used.const_data_ptr(),
                             .grads = pointers.data(),
                             .grad_weights = grad_weights.mutable_data_ptr()});
  for (Tensor& each : grads) each = node.narrowed(each);
  return {grads, grad_weights};
}

STABLE_TORCH_LIBRARY_IMPL(autoreid_fast, CPU, library) {
  library.impl("mixed_op_sum", TORCH_BOX(&mixed_op_sum));
  library.impl("mixed_op_sum_backward", TORCH_BOX(&mixed_op_sum_backward));
}

}  // namespace autoreid_fast

#endif
