// Feature tensors as a KeyProblem, for the *_torch.cpp of the ops on keys.
#pragma once

#include "../common/torch_tensor.h"
#include "key_tiles.h"

namespace autoreid_fast {

// A KeyProblem and the tensors that its pointers refer to.
struct KeyTensors {
  Tensor query, gallery;  // columns adjacent
  KeyProblem problem;

  KeyTensors(const Checks& check, const Tensor& query_features, const Tensor& gallery_features, bool cosine)
      : query(readable(check, "query", query_features)),
        gallery(readable(check, "gallery", gallery_features)) {
    check.shape("gallery", gallery, {kAnySize, query.size(1)});
    check.dtype("gallery", gallery, query.scalar_type());
    check.device("gallery", gallery, query, "query");
    check.require(query.size(1) < (int64_t{1} << 30), "`query` has 2^30 columns or more");
    problem = {features_of(query), features_of(gallery), query.size(1), cosine, nullptr};
  }

 private:
  static Tensor readable(const Checks& check, const char* name, const Tensor& features) {
    check.shape(name, features, {kAnySize, kPositiveSize});
    check.floating(name, features);
    check.require(features.scalar_type() != ScalarType::Double, "`", name,
                  "` is float64; expected float32, float16 or bfloat16");
    return adjacent_columns(features);
  }

  static Features features_of(const Tensor& tensor) {
    return {tensor.const_data_ptr(), element_of(tensor.scalar_type()), tensor.size(0), tensor.stride(0)};
  }
};

}  // namespace autoreid_fast
