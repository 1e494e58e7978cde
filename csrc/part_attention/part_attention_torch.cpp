// The part-aware module: argument checks and allocation, CPU only.
#include <array>
#include <optional>
#include <tuple>
#include <vector>

#include "../common/torch_tensor.h"
#include "part_attention.h"

namespace autoreid_fast {
namespace {

using Shape = std::vector<int64_t>;

constexpr Checks kCheck{"part_attention"};

// The parameters in the order of the schema, then affine; names as in `PartParameters`.
constexpr size_t kParameterCount = 7;
constexpr std::array<const char*, kParameterCount + 1> kNames = {
    "project_weight", "project_bias", "key_weight",  "key_bias",
    "query_weight",   "query_bias",   "fuse_weight", "affine"};

template <typename Pointer>
PartParameters<Pointer> as_struct(const std::array<Pointer, kParameterCount + 1>& pointers) {
  const auto& [project_weight, project_bias, key_weight, key_bias, query_weight, query_bias, fuse_weight,
               affine] = pointers;
  return {project_weight, project_bias, key_weight, key_bias, query_weight, query_bias, fuse_weight, affine};
}

// The problem in the type of the kernels, and the tensors that its pointers refer to.
class Problem {
 public:
  Problem(const Tensor& x, const std::vector<Tensor>& parameters, const std::optional<Tensor>& affine,
          bool batch, bool relu, double eps) {
    kCheck.shape("x", x, {kPositiveSize, kPositiveSize, kPositiveSize, kPositiveSize});
    kCheck.floating("x", x);
    kCheck.require(x.size(2) >= kParts, "`x` has height ", x.size(2), "; expected at least ", kParts);
    kCheck.require(parameters.size() == kParameterCount, "`parameters` has ", parameters.size(),
                   " tensors; expected ", kParameterCount);
    const Tensor &project = parameters.front(), &fuse = parameters.back();
    kCheck.shape("project_weight", project, {kPositiveSize, kParts, kPositiveSize, x.size(1)});
    kCheck.shape("fuse_weight", fuse, {kPositiveSize, kPositiveSize, kPositiveSize});
    const int64_t edges = project.size(0), hidden = project.size(2), out = fuse.size(1);
    const Shape projection = {edges, kParts, hidden}, square = {edges, hidden, hidden},
                bias = {edges, hidden};
    shapes_ = {Shape{edges, kParts, hidden, x.size(1)},
               projection,
               square,
               bias,
               square,
               bias,
               Shape{edges, out, hidden},
               Shape{2, edges, kParts, hidden}};
    dtype = x.scalar_type();
    type = accumulation_type(dtype);
    std::array<const void*, kParameterCount + 1> pointers = {};
    for (size_t i = 0; i < kParameterCount; ++i) pointers[i] = readable(kNames[i], parameters[i], shapes_[i]);
    has_affine_ = affine.has_value();
    if (affine) pointers.back() = readable("affine", *affine, shapes_.back());
    arguments = {.element = element_of(type),
                 .images = x.size(0),
                 .channels = x.size(1),
                 .height = x.size(2),
                 .width = x.size(3),
                 .edges = edges,
                 .hidden = hidden,
                 .out = out,
                 .parameters = as_struct(pointers),
                 .batch = batch,
                 .relu = relu,
                 .eps = eps};
  }
  Problem(const Problem&) = delete;

  // The data of a tensor of this shape and the type of the kernels, contiguous; it lives as long as the
  // problem.
  const void* readable(const char* name, const Tensor& tensor, const Shape& shape) {
    kCheck.shape(name, tensor, shape);
    kCheck.dtype(name, tensor, type);
    tensors_.push_back(torch::stable::contiguous(tensor));
    return tensors_.back().const_data_ptr();
  }

  const Shape& statistics_shape() const { return shapes_.back(); }
  Shape means_shape() const { return {arguments.images, kParts, arguments.channels}; }
  // One row per edge, image and strip.
  Shape rows_shape(int64_t columns) const { return {arguments.edges, arguments.images, kParts, columns}; }

  Tensor empty(const Shape& shape) const { return torch::stable::empty(shape, type); }
  // Gradients of the parameters, and of affine where there is one.
  std::vector<Tensor> empty_gradients() const {
    std::vector<Tensor> grads;
    for (size_t i = 0; i < kParameterCount + has_affine_; ++i) grads.push_back(empty(shapes_[i]));
    return grads;
  }

  ScalarType dtype, type;  // of x; of the kernels
  PartAttention arguments;

 private:
  std::array<Shape, kParameterCount + 1> shapes_;
  bool has_affine_;
  std::vector<Tensor> tensors_;
};

// (N, C, H, W) as a contiguous (N, H, W, C) of this type.
Tensor pixels(const Tensor& x, ScalarType type) {
  return contiguous_as(torch::stable::transpose(torch::stable::transpose(x, 1, 3), 1, 2), type);
}

}  // namespace

std::tuple<Tensor, Tensor, Tensor, Tensor> part_attention(
    const Tensor& x, const Tensor& project_weight, const Tensor& project_bias, const Tensor& key_weight,
    const Tensor& key_bias, const Tensor& query_weight, const Tensor& query_bias, const Tensor& fuse_weight,
    const std::optional<Tensor>& affine, const std::optional<Tensor>& statistics, bool relu, double eps) {
  Problem problem(x,
                  {project_weight, project_bias, key_weight, key_bias, query_weight, query_bias, fuse_weight},
                  affine, !statistics.has_value(), relu, eps);
  const void* given =
      statistics ? problem.readable("statistics", *statistics, problem.statistics_shape()) : nullptr;
  const Tensor image = pixels(x, problem.type);
  Tensor bias = problem.empty(problem.rows_shape(problem.arguments.out));
  Tensor means = problem.empty(problem.means_shape());
  Tensor normalized = problem.empty(problem.rows_shape(problem.arguments.hidden));
  Tensor used = problem.empty(problem.statistics_shape());
  part_attention_cpu({.problem = problem.arguments,
                      .x = image.const_data_ptr(),
                      .statistics = given,
                      .bias = bias.mutable_data_ptr(),
                      .means = means.mutable_data_ptr(),
                      .normalized = normalized.mutable_data_ptr(),
                      .used = used.mutable_data_ptr()});
  return {cast(bias, problem.dtype), means, normalized, used};
}

std::tuple<Tensor, std::vector<Tensor>> part_attention_backward(
    const Tensor& grad, const Tensor& x, const std::vector<Tensor>& parameters,
    const std::optional<Tensor>& affine, const Tensor& means, const Tensor& normalized, const Tensor& used,
    bool batch, bool relu, double eps, bool need_x, bool need_parameters) {
  Problem problem(x, parameters, affine, batch, relu, eps);
  const PartAttention& p = problem.arguments;
  kCheck.dtype("grad", grad, problem.dtype);
  Tensor grad_x = problem.empty({need_x ? p.images : 0, p.height, p.width, p.channels});
  std::vector<Tensor> grads;
  if (need_parameters) grads = problem.empty_gradients();
  std::array<void*, kParameterCount + 1> pointers = {};
  for (size_t i = 0; i < grads.size(); ++i) pointers[i] = grads[i].mutable_data_ptr();
  part_attention_backward_cpu(
      {.problem = p,
       .grad = problem.readable("grad", cast(grad, problem.type), problem.rows_shape(p.out)),
       .means = problem.readable("means", means, problem.means_shape()),
       .normalized = problem.readable("normalized", normalized, problem.rows_shape(p.hidden)),
       .used = problem.readable("used", used, problem.statistics_shape()),
       .grad_x = data_or_null(grad_x),
       .grads = as_struct(pointers)});
  const Tensor view = torch::stable::transpose(cast(grad_x, problem.dtype), 1, 2);
  return {torch::stable::transpose(view, 1, 3), grads};
}

REGISTER_KERNELS(library) {
  library.impl("part_attention", TORCH_BOX(&part_attention));
  library.impl("part_attention_backward", TORCH_BOX(&part_attention_backward));
}

}  // namespace autoreid_fast
