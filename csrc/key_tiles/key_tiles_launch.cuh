// Launches that the ops on keys share.
#pragma once

#include "../common/float_types.cuh"
#include "../common/launch.cuh"
#include "key_tiles_kernel.cuh"

namespace autoreid_fast {

inline dim3 key_grid(const KeyProblem& p) {
  return dim3(block_count(p.query.count, kKeyTile), block_count(p.gallery.count, kKeyTile));
}

template <typename T>
__global__ void __launch_bounds__(kKeyThreads)
    key_terms_kernel(const Features features, int64_t dim, bool cosine, float* terms) {
  key_terms_thread<T>(features, dim, cosine, terms);
}

// Writes the terms of all rows to `workspace`: Q floats, then G floats.
template <typename T>
KeyTerms launch_terms(const KeyProblem& p, float* workspace, cudaStream_t stream) {
  float* gallery_terms = workspace + p.query.count;
  if (p.query.count > 0) {
    key_terms_kernel<T><<<block_count(p.query.count, kKeyThreads), kKeyThreads, 0, stream>>>(
        p.query, p.dim, p.cosine, workspace);
  }
  if (p.gallery.count > 0) {
    key_terms_kernel<T><<<block_count(p.gallery.count, kKeyThreads), kKeyThreads, 0, stream>>>(
        p.gallery, p.dim, p.cosine, gallery_terms);
  }
  return {workspace, gallery_terms};
}

}  // namespace autoreid_fast
