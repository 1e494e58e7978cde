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

// Refuses an x, or a first or last parameter, that sizes cannot be read from.
void check_sizes(const Tensor& x, const std::vector<Tensor>& parameters) {
  kCheck.shape("x", x, {kPositiveSize, kPositiveSize, kPositiveSize, kPositiveSize});
  kCheck.floating("x", x);
  kCheck.require(x.size(2) >= kParts, "`x` has height ", x.size(2), "; expected at least ", kParts);
  kCheck.require(parameters.size() == kParameterCount, "`parameters` has ", parameters.size(),
                 " tensors; expected ", kParameterCount);
  kCheck.shape("project_weight", parameters.front(), {kPositiveSize, kParts, kPositiveSize, x.size(1)});
  kCheck.shape("fuse_weight", parameters.back(), {kPositiveSize, kPositiveSize, kPositiveSize});
}

// In the order of `kNames`.
std::array<Shape, kParameterCount + 1> parameter_shapes(int64_t edges, int64_t hidden, int64_t channels,
                                                        int64_t out_channels) {
  const Shape projection = {edges, kParts, hidden}, square = {edges, hidden, hidden}, bias = {edges, hidden};
  return {Shape{edges, kParts, hidden, channels},
          projection,
          square,
          bias,
          square,
          bias,
          Shape{edges, out_channels, hidden},
          Shape{2, edges, kParts, hidden}};
}

// The problem in the type of the kernels, and the tensors that its pointers refer to.
class Problem {
 public:
  Problem(const Tensor& x, const std::vector<Tensor>& parameters, const std::optional<Tensor>& affine,
          bool batch_statistics, bool relu, double eps) {
    check_sizes(x, parameters);
    const int64_t edges = parameters.front().size(0), hidden = parameters.front().size(2);
    const int64_t out_channels = parameters.back().size(1);
    shapes_ = parameter_shapes(edges, hidden, x.size(1), out_channels);
    dtype = x.scalar_type();
    type = accumulation_type(dtype);
    std::array<const void*, kParameterCount + 1> pointers = {};
    for (size_t i = 0; i < kParameterCount; ++i)
      pointers[i] = checked_data(kNames[i], parameters[i], shapes_[i]);
    has_affine_ = affine.has_value();
    if (affine) pointers.back() = checked_data("affine", *affine, shapes_.back());
    arguments = {.element = element_of(type),
                 .images = x.size(0),
                 .channels = x.size(1),
                 .height = x.size(2),
                 .width = x.size(3),
                 .edges = edges,
                 .hidden = hidden,
                 .out_channels = out_channels,
                 .parameters = as_struct(pointers),
                 .batch_statistics = batch_statistics,
                 .relu_part = relu,
                 .eps = eps};
  }
  Problem(const Problem&) = delete;

  // Checks shape and dtype of a tensor and returns its data, contiguous; they live as long as the problem.
  const void* checked_data(const char* name, const Tensor& tensor, const Shape& shape) {
    kCheck.shape(name, tensor, shape);
    kCheck.dtype(name, tensor, type);
    tensors_.push_back(torch::stable::contiguous(tensor));
    return tensors_.back().const_data_ptr();
  }

  Shape statistics_shape() const { return {2, arguments.edges, kParts, arguments.hidden}; }
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
      statistics ? problem.checked_data("statistics", *statistics, problem.statistics_shape()) : nullptr;
  const Tensor image = pixels(x, problem.type);
  Tensor strip_bias = problem.empty(problem.rows_shape(problem.arguments.out_channels));
  Tensor means = problem.empty(problem.means_shape());
  Tensor normalized = problem.empty(problem.rows_shape(problem.arguments.hidden));
  Tensor norm_statistics = problem.empty(problem.statistics_shape());
  part_attention_cpu({.problem = problem.arguments,
                      .x = image.const_data_ptr(),
                      .statistics = given,
                      .strip_bias = strip_bias.mutable_data_ptr(),
                      .means = means.mutable_data_ptr(),
                      .normalized = normalized.mutable_data_ptr(),
                      .norm_statistics = norm_statistics.mutable_data_ptr()});
  return {cast(strip_bias, problem.dtype), means, normalized, norm_statistics};
}

std::tuple<Tensor, std::vector<Tensor>> part_attention_backward(const Tensor& grad, const Tensor& x,
                                                                const std::vector<Tensor>& parameters,
                                                                const std::optional<Tensor>& affine,
                                                                const Tensor& means, const Tensor& normalized,
                                                                const Tensor& norm_statistics,
                                                                bool batch_statistics, bool relu, double eps,
                                                                bool need_x, bool need_parameters) {
  Problem problem(x, parameters, affine, batch_statistics, relu, eps);
  const PartAttention& p = problem.arguments;
  kCheck.dtype("grad", grad, problem.dtype);
  Tensor grad_x = problem.empty({need_x ? p.images : 0, p.height, p.width, p.channels});
  std::vector<Tensor> grads;
  if (need_parameters) grads = problem.empty_gradients();
  std::array<void*, kParameterCount + 1> pointers = {};
  for (size_t i = 0; i < grads.size(); ++i) pointers[i] = grads[i].mutable_data_ptr();
  part_attention_backward_cpu(
      {.problem = p,
       .grad = problem.checked_data("grad", cast(grad, problem.type), problem.rows_shape(p.out_channels)),
       .means = problem.checked_data("means", means, problem.means_shape()),
       .normalized = problem.checked_data("normalized", normalized, problem.rows_shape(p.hidden)),
       .norm_statistics = problem.checked_data("used", norm_statistics, problem.statistics_shape()),
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
