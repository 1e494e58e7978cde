// The part-aware module: argument checks and allocation, CPU only (on CUDA the op is Triton). The schemas are
// defined in autoreid_fast/ops/part_attention.py.
#ifndef USE_CUDA

#include <optional>
#include <tuple>
#include <vector>

#include "../torch_tensor.h"
#include "part_attention.h"

namespace autoreid_fast {
namespace {

using Optional = std::optional<Tensor>;

#define CHECK(condition, ...) STD_TORCH_CHECK(condition, "part_attention: ", __VA_ARGS__)

// The arguments as the kernels take them, alive beside their pointers.
class Problem {
 public:
  Problem(const Tensor& x, const std::vector<Tensor>& parameters, const Optional& affine, bool batch,
          bool relu, double eps) {
    CHECK(x.dim() == 4 && x.numel() > 0 && x.size(2) >= kParts, "x must be (N, C, H, W), H >= 4, no 0");
    element_of(x, "part_attention", "x");
    dtype = x.scalar_type();
    type = dtype == ScalarType::Double ? ScalarType::Double : ScalarType::Float;
    CHECK(static_cast<int64_t>(parameters.size()) == kParameters, "parameters must be ", kParameters);
    const Tensor &project = parameters[0], &fuse = parameters[kParameters - 1];
    CHECK(project.dim() == 4 && project.numel() > 0, "project_weight must be (E, M, h, C)");
    CHECK(fuse.dim() == 3 && fuse.numel() > 0, "fuse_weight must be (E, D, h)");
    const int64_t edges = project.size(0), hidden = project.size(2), out = fuse.size(1);
    shapes_ = {{edges, kParts, hidden, x.size(1)},
               {edges, kParts, hidden},
               {edges, hidden, hidden},
               {edges, hidden},
               {edges, hidden, hidden},
               {edges, hidden},
               {edges, out, hidden},
               {2, edges, kParts, hidden}};
    arguments = {.element = type == ScalarType::Double ? Element::float64 : Element::float32,
                 .images = x.size(0),
                 .channels = x.size(1),
                 .height = x.size(2),
                 .width = x.size(3),
                 .edges = edges,
                 .hidden = hidden,
                 .out = out,
                 .parameters = {},
                 .affine = nullptr,
                 .batch = batch,
                 .relu = relu,
                 .eps = eps};
    for (int64_t i = 0; i < kParameters; ++i) arguments.parameters[i] = readable(parameters[i], shapes_[i]);
    has_affine_ = affine.has_value();
    if (affine) arguments.affine = readable(*affine, shapes_[kParameters]);
  }
  Problem(const Problem&) = delete;

  // A contiguous tensor of this shape and the accumulation type.
  const void* readable(const Tensor& tensor, const std::vector<int64_t>& shape) {
    bool fits = tensor.scalar_type() == type && tensor.dim() == static_cast<int64_t>(shape.size());
    for (size_t d = 0; fits && d < shape.size(); ++d) fits = tensor.size(d) == shape[d];
    CHECK(fits, "a parameter or what the forward pass gave has the wrong shape or dtype");
    kept_.push_back(torch::stable::contiguous(tensor));
    return kept_.back().const_data_ptr();
  }
  const std::vector<int64_t>& statistics() const { return shapes_[kParameters]; }
  std::vector<int64_t> rows(int64_t columns) const {
    return {arguments.edges, arguments.images, kParts, columns};
  }
  std::vector<int64_t> means() const { return {arguments.images, kParts, arguments.channels}; }
  Tensor empty(const std::vector<int64_t>& shape) const { return torch::stable::empty(shape, type); }
  // Gradients of the parameters, and of affine where there is one.
  std::vector<Tensor> gradients() const {
    std::vector<Tensor> grads;
    for (int64_t i = 0; i < kParameters + has_affine_; ++i) grads.push_back(empty(shapes_[i]));
    return grads;
  }
  Tensor narrowed(const Tensor& tensor) const {
    return dtype == type ? tensor : torch::stable::to(tensor, dtype);
  }

  ScalarType dtype, type;
  PartAttention arguments;

 private:
  std::vector<std::vector<int64_t>> shapes_;
  bool has_affine_;
  std::vector<Tensor> kept_;
};

// (N, C, H, W) as a contiguous (N, H, W, C), itself where it lies so.
Tensor pixels_last(const Tensor& x, ScalarType type) {
  Tensor last = torch::stable::transpose(torch::stable::transpose(x, 1, 3), 1, 2);
  if (last.scalar_type() != type) last = torch::stable::to(last, type);
  return torch::stable::contiguous(last);
}

}  // namespace

std::tuple<Tensor, Tensor, Tensor, Tensor> part_attention(
    const Tensor& x, const Tensor& project_weight, const Tensor& project_bias, const Tensor& key_weight,
    const Tensor& key_bias, const Tensor& query_weight, const Tensor& query_bias, const Tensor& fuse_weight,
    const Optional& affine, const Optional& statistics, bool relu, double eps) {
  Problem problem(x,
                  {project_weight, project_bias, key_weight, key_bias, query_weight, query_bias, fuse_weight},
                  affine, !statistics.has_value(), relu, eps);
  const Tensor image = pixels_last(x, problem.type);
  Tensor bias = problem.empty(problem.rows(problem.arguments.out));
  Tensor means = problem.empty(problem.means());
  Tensor normalized = problem.empty(problem.rows(problem.arguments.hidden));
  Tensor used = problem.empty(problem.statistics());
  const void* given = statistics ? problem.readable(*statistics, problem.statistics()) : nullptr;
  part_attention_cpu({.problem = problem.arguments,
                      .x = image.const_data_ptr(),
                      .statistics = given,
                      .bias = bias.mutable_data_ptr(),
                      .means = means.mutable_data_ptr(),
                      .normalized = normalized.mutable_data_ptr(),
                      .used = used.mutable_data_ptr()});
  return {problem.narrowed(bias), means, normalized, used};
}

std::tuple<Tensor, std::vector<Tensor>> part_attention_backward(const Tensor& grad, const Tensor& x,
                                                                const std::vector<Tensor>& parameters,
                                                                const Optional& affine, const Tensor& means,
                                                                const Tensor& normalized, const Tensor& used,
                                                                bool batch, bool relu, double eps,
                                                                bool need_x, bool need_parameters) {
  Problem problem(x, parameters, affine, batch, relu, eps);
  const PartAttention& p = problem.arguments;
  CHECK(grad.scalar_type() == problem.dtype, "the gradient must have the dtype of x");
  const Tensor widened = problem.dtype == problem.type ? grad : torch::stable::to(grad, problem.type);
  Tensor grad_x = problem.empty({need_x ? p.images : 0, p.height, p.width, p.channels});
  std::vector<Tensor> grads;
  if (need_parameters) grads = problem.gradients();
  PartAttentionBackward work{.problem = p,
                             .grad = problem.readable(widened, problem.rows(p.out)),
                             .means = problem.readable(means, problem.means()),
                             .normalized = problem.readable(normalized, problem.rows(p.hidden)),
                             .used = problem.readable(used, problem.statistics()),
                             .grad_x = need_x ? grad_x.mutable_data_ptr() : nullptr,
                             .grads = {}};
  for (size_t i = 0; i < grads.size(); ++i) work.grads[i] = grads[i].mutable_data_ptr();
  part_attention_backward_cpu(work);
  grad_x = torch::stable::transpose(problem.narrowed(grad_x), 1, 2);
  return {torch::stable::transpose(grad_x, 1, 3), grads};
}

STABLE_TORCH_LIBRARY_IMPL(autoreid_fast, CPU, library) {
  library.impl("part_attention", TORCH_BOX(&part_attention));
  library.impl("part_attention_backward", TORCH_BOX(&part_attention_backward));
}

}  // namespace autoreid_fast

#endif
