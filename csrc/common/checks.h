// Argument checks of the dispatcher ops, in their *_torch.cpp.
//
// The public functions in autoreid_fast/ops/<op>/ have already refused bad calls and said what to do. These
// checks keep a direct call of torch.ops.autoreid_fast.<op> from reading or writing out of bounds. A failure
// is a RuntimeError that names the op and the argument.
#pragma once

#include <torch/csrc/stable/device.h>
#include <torch/csrc/stable/tensor.h>
#include <torch/headeronly/core/ScalarType.h>

#include <sstream>
#include <stdexcept>
#include <string>
#include <vector>

namespace autoreid_fast {

using torch::headeronly::ScalarType;
using torch::stable::Tensor;

// Sizes in an expected shape.
constexpr int64_t kAnySize = -1;
constexpr int64_t kPositiveSize = -2;

inline const char* name_of(ScalarType type) {
  switch (type) {
    case ScalarType::Float:
      return "float32";
    case ScalarType::Half:
      return "float16";
    case ScalarType::BFloat16:
      return "bfloat16";
    case ScalarType::Double:
      return "float64";
    case ScalarType::Long:
      return "int64";
    case ScalarType::Int:
      return "int32";
    case ScalarType::Byte:
      return "uint8";
    case ScalarType::Bool:
      return "bool";
    default:
      return "of another dtype";
  }
}

// "(2, 3)", with "any" and ">= 1" for kAnySize and kPositiveSize.
inline std::string text_of(const std::vector<int64_t>& shape) {
  std::string text = "(";
  for (size_t d = 0; d < shape.size(); ++d) {
    if (d > 0) text += ", ";
    text += shape[d] == kAnySize ? "any" : shape[d] == kPositiveSize ? ">= 1" : std::to_string(shape[d]);
  }
  return text + ")";
}

inline std::vector<int64_t> shape_of(const Tensor& tensor) {
  std::vector<int64_t> shape;
  for (int64_t d = 0; d < tensor.dim(); ++d) shape.push_back(tensor.size(d));
  return shape;
}

struct Checks {
  const char* op;

  // Throws "<op>: <words>" unless the condition holds.
  template <typename... Words>
  void require(bool condition, const Words&... words) const {
    if (condition) return;
    std::ostringstream message;
    message << op << ": ";
    (message << ... << words);
    throw std::runtime_error(message.str());
  }

  void floating(const char* name, const Tensor& tensor) const {
    const ScalarType type = tensor.scalar_type();
    require(type == ScalarType::Float || type == ScalarType::Half || type == ScalarType::BFloat16 ||
                type == ScalarType::Double,
            "`", name, "` is ", name_of(type), "; expected float32, float16, bfloat16 or float64");
  }

  void shape(const char* name, const Tensor& tensor, const std::vector<int64_t>& sizes) const {
    bool fits = tensor.dim() == static_cast<int64_t>(sizes.size());
    for (int64_t d = 0; fits && d < tensor.dim(); ++d) {
      const int64_t size = tensor.size(d), expected = sizes[d];
      fits = expected == kAnySize || (expected == kPositiveSize ? size > 0 : size == expected);
    }
    if (fits) return;
    require(false, "`", name, "` has shape ", text_of(shape_of(tensor)), "; expected ", text_of(sizes));
  }

  void dtype(const char* name, const Tensor& tensor, ScalarType type) const {
    require(tensor.scalar_type() == type, "`", name, "` is ", name_of(tensor.scalar_type()), "; expected ",
            name_of(type));
  }

  void device(const char* name, const Tensor& tensor, const Tensor& like, const char* like_name) const {
    require(tensor.device() == like.device(), "`", name, "` is on another device than `", like_name, "`");
  }

#ifndef USE_CUDA
  // Checks of values. On CUDA they would need a host sync: there the caller has to be right.

  // Index tensors of int64 or int32, contiguous: every value is from `first` to count - 1.
  template <typename Index>
  void indices(const char* name, const Tensor& tensor, int64_t count, int64_t first = 0) const {
    const Index* values = static_cast<const Index*>(tensor.const_data_ptr());
    bool fits = true;
    for (int64_t k = 0; k < tensor.numel(); ++k) fits &= first <= values[k] && values[k] < count;
    require(fits, "`", name, "` has a value that is not from ", first, " to ", count - 1);
  }

  // Offsets of lists, (lists + 1,) int64 contiguous: they ascend, and none is outside of the entries.
  void ranges(const char* name, const Tensor& tensor, int64_t entries) const {
    const int64_t* values = static_cast<const int64_t*>(tensor.const_data_ptr());
    const int64_t lists = tensor.numel() - 1;
    bool fits = lists >= 0 && values[0] >= 0 && values[lists] <= entries;
    for (int64_t k = 0; k < lists; ++k) fits &= values[k] <= values[k + 1];
    require(fits, "`", name, "` does not ascend between 0 and the number of entries, ", entries);
  }

  // As `ranges`, and the lists have all entries.
  void offsets(const char* name, const Tensor& tensor, int64_t entries) const {
    ranges(name, tensor, entries);
    const int64_t* values = static_cast<const int64_t*>(tensor.const_data_ptr());
    require(values[0] == 0 && values[tensor.numel() - 1] == entries, "`", name,
            "` does not go from 0 to the number of entries, ", entries);
  }
#endif
};

}  // namespace autoreid_fast
