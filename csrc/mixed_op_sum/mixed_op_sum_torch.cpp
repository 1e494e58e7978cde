// A node's weighted sum: argument checks and allocation, CPU only.
#include <optional>
#include <tuple>
#include <vector>

#include "../common/channels_last.h"
#include "mixed_op_sum.h"

namespace autoreid_fast {
namespace {

using torch::headeronly::MemoryFormat;

constexpr int64_t kMaxCandidates = 64;
constexpr Checks kCheck{"mixed_op_sum"};

// A contiguous tensor of this dtype and shape.
Tensor checked(const char* name, const Tensor& tensor, ScalarType type, const std::vector<int64_t>& shape) {
  kCheck.shape(name, tensor, shape);
  kCheck.dtype(name, tensor, type);
  return torch::stable::contiguous(tensor);
}

// The candidates in the dtype and layout of the kernels, and the tensors that the pointers of `node` refer
// to.
class Candidates {
 public:
  Candidates(const std::vector<Tensor>& candidates, const Tensor& weights, const std::vector<int64_t>& kinds,
             double eps)
      : kinds_(kinds) {
    count = static_cast<int64_t>(candidates.size());
    kCheck.require(1 <= count && count <= kMaxCandidates, "`candidates` has ", count,
                   " tensors; expected 1 to ", kMaxCandidates);
    kCheck.require(static_cast<int64_t>(kinds.size()) == count, "`kinds` has ", kinds.size(),
                   " values; expected one per candidate, ", count);
    for (const int64_t kind : kinds) {
      kCheck.require(kPlain <= kind && kind <= kFixed, "`kinds` has ", kind, "; expected ", kPlain, " to ",
                     kFixed);
    }
    const Tensor& first = candidates[0];
    kCheck.shape("candidates", first, {kPositiveSize, kPositiveSize, kPositiveSize, kPositiveSize});
    kCheck.floating("candidates", first);
    dtype = first.scalar_type();
    type = accumulation_type(dtype);
    shape = shape_of(first);
    const bool last = is_channels_last(first) && !first.is_contiguous();
    layout = last ? MemoryFormat::ChannelsLast : MemoryFormat::Contiguous;
    for (const Tensor& candidate : candidates) {
      tensors_.push_back(readable("candidates", candidate));
      pointers_.push_back(tensors_.back().const_data_ptr());
    }
    weights_ = checked("weights", weights, type, {count});
    node = {.candidates = pointers_.data(),
            .kinds = kinds_.data(),
            .count = count,
            .images = shape[0],
            .channels = shape[1],
            .positions = shape[2] * shape[3],
            .channels_last = last,
            .element = element_of(type),
            .weights = weights_.const_data_ptr(),
            .eps = eps};
  }
  Candidates(const Candidates&) = delete;

  // A tensor of the candidates' shape and dtype, in the type and layout of the kernels.
  Tensor readable(const char* name, const Tensor& tensor) const {
    kCheck.shape(name, tensor, shape);
    kCheck.dtype(name, tensor, dtype);
    return torch::stable::contiguous(cast(tensor, type), layout);
  }
  // A new tensor of the candidates' shape, in the type and layout of the kernels.
  Tensor empty_candidate() const {
    return torch::stable::empty(shape, type, std::nullopt, std::nullopt, std::nullopt, layout);
  }
  Tensor empty(std::initializer_list<int64_t> sizes) const { return torch::stable::empty(sizes, type); }

  int64_t count;
  std::vector<int64_t> shape;
  ScalarType dtype, type;  // of the candidates; of the kernels
  MemoryFormat layout;
  MixedOpNode node;

 private:
  std::vector<int64_t> kinds_;
  std::vector<Tensor> tensors_;
  std::vector<const void*> pointers_;
  Tensor weights_;
};

}  // namespace

std::tuple<Tensor, Tensor> mixed_op_sum(const std::vector<Tensor>& candidates, const Tensor& weights,
                                        const std::vector<int64_t>& kinds,
                                        const std::optional<Tensor>& statistics, double eps) {
  const Candidates inputs(candidates, weights, kinds, eps);
  const int64_t channels = inputs.shape[1];
  std::optional<Tensor> given;
  if (statistics) given = checked("statistics", *statistics, inputs.type, {2, inputs.count, channels});
  for (const int64_t kind : kinds) {
    kCheck.require(given || kind == kPlain || kind == kBatch, "`statistics` is None, but `kinds` has ", kind,
                   ", a candidate with given statistics");
  }
  Tensor total = inputs.empty_candidate();
  Tensor used = inputs.empty({2, inputs.count, channels});
  mixed_op_sum_cpu({.node = inputs.node,
                    .statistics = given ? given->const_data_ptr() : nullptr,
                    .total = total.mutable_data_ptr(),
                    .used = used.mutable_data_ptr()});
  return {cast(total, inputs.dtype), used};
}

std::tuple<std::vector<Tensor>, Tensor> mixed_op_sum_backward(const Tensor& grad,
                                                              const std::vector<Tensor>& candidates,
                                                              const Tensor& weights,
                                                              const std::vector<int64_t>& kinds,
                                                              const Tensor& statistics, double eps,
                                                              const std::vector<int64_t>& wanted) {
  const Candidates inputs(candidates, weights, kinds, eps);
  const Tensor used = checked("statistics", statistics, inputs.type, {2, inputs.count, inputs.shape[1]});
  const Tensor grad_total = inputs.readable("grad", grad);
  std::vector<Tensor> grads;
  std::vector<void*> pointers(inputs.count, nullptr);
  for (const int64_t k : wanted) {
    kCheck.require(0 <= k && k < inputs.count && pointers[k] == nullptr, "`wanted` has ", k,
                   "; expected different indices of candidates, 0 to ", inputs.count - 1);
    grads.push_back(inputs.empty_candidate());
    pointers[k] = grads.back().mutable_data_ptr();
  }
  Tensor grad_weights = inputs.empty({inputs.count});
  mixed_op_sum_backward_cpu({.node = inputs.node,
                             .grad = grad_total.const_data_ptr(),
                             .statistics = used.const_data_ptr(),
                             .grads = pointers.data(),
                             .grad_weights = grad_weights.mutable_data_ptr()});
  for (Tensor& tensor : grads) tensor = cast(tensor, inputs.dtype);
  return {grads, grad_weights};
}

REGISTER_KERNELS(library) {
  library.impl("mixed_op_sum", TORCH_BOX(&mixed_op_sum));
  library.impl("mixed_op_sum_backward", TORCH_BOX(&mixed_op_sum_backward));
}

}  // namespace autoreid_fast
