// What the torch layers of the ops on keys share: feature tensors as a KeyProblem.
#pragma once

#include "../torch_tensor.h"
#include "key_tiles.h"

namespace autoreid_fast {

// Features as the kernels take them: columns adjacent.
inline Tensor readable_features(const Tensor& features, const char* op, const char* name) {
  STD_TORCH_CHECK(features.dim() == 2 && features.size(1) >= 1, op, ": ", name,
                  " must be (N, D) with D >= 1");
  STD_TORCH_CHECK(element_of(features, op, name) != Element::float64, op, ": ", name,
                  " must be float32, float16 or bfloat16");
  return features.stride(1) == 1 || features.size(1) == 1 ? features : torch::stable::contiguous(features);
}

inline Features features_of(const Tensor& features, const char* op) {
  return {features.const_data_ptr(), element_of(features, op, "features"), features.size(0),
          features.stride(0)};
}

// `query` and `gallery` as `readable_features` made them; they must outlive the problem.
inline KeyProblem key_problem(const Tensor& query, const Tensor& gallery, bool cosine, const char* op) {
  STD_TORCH_CHECK(query.size(1) == gallery.size(1), op, ": query and gallery differ in their columns");
  STD_TORCH_CHECK(query.size(1) < (int64_t{1} << 30), op, ": more than 2^30 columns");
  STD_TORCH_CHECK(query.scalar_type() == gallery.scalar_type(), op, ": query and gallery differ in type");
  STD_TORCH_CHECK(query.device() == gallery.device(), op, ": query and gallery are on different devices");
  return {features_of(query, op), features_of(gallery, op), query.size(1), cosine, nullptr};
}

}  // namespace autoreid_fast
