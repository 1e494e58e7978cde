// Launches that the ops on keys share.
#pragma once

#include <cuda_runtime.h>

#include "../float_types.cuh"
#include "key_tiles_kernel.cuh"

namespace autoreid_fast {

inline const char* words_of(cudaError_t error) {
  return error == cudaSuccess ? nullptr : cudaGetErrorString(error);
}

inline unsigned blocks_of(int64_t threads) {
  return static_cast<unsigned>((threads + kKeyThreads - 1) / kKeyThreads);
}

inline dim3 tiles_of(const KeyProblem& p) {
  return dim3(static_cast<unsigned>((p.query.count + kKeyTile - 1) / kKeyTile),
              static_cast<unsigned>((p.gallery.count + kKeyTile - 1) / kKeyTile));
}

template <typename T>
__global__ void __launch_bounds__(kKeyThreads)
    key_terms_kernel(const Features features, int64_t dim, bool cosine, float* terms) {
  key_terms_thread<T>(features, dim, cosine, terms);
}

// Terms of all rows to `workspace`: Q, then G floats.
template <typename T>
KeyTerms launch_terms(const KeyProblem& p, float* workspace, cudaStream_t stream) {
  float* gallery = workspace + p.query.count;
  if (p.query.count > 0) {
    key_terms_kernel<T>
        <<<blocks_of(p.query.count), kKeyThreads, 0, stream>>>(p.query, p.dim, p.cosine, workspace);
  }
  if (p.gallery.count > 0) {
    key_terms_kernel<T>
        <<<blocks_of(p.gallery.count), kKeyThreads, 0, stream>>>(p.gallery, p.dim, p.cosine, gallery);
  }
  return {workspace, gallery};
}

// What `run` says for the features' type, given as run.operator()<T>().
template <typename Run>
const char* by_element(Element element, Run run) {
  switch (element) {
    case Element::float32:
      return run.template operator()<float>();
    case Element::float16:
      return run.template operator()<__half>();
    case Element::bfloat16:
      return run.template operator()<__nv_bfloat16>();
    case Element::float64:
      break;
  }
  return "no kernel for float64";
}

}  // namespace autoreid_fast
