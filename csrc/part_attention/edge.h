// The work of one edge of part_attention on the CPU, on one core; part_attention.h has the maths.
#pragma once

#include "part_attention.h"

namespace autoreid_fast::part {

template <typename T>
struct EdgeForward {
  const PartAttentionForward& p;
  const T* rectified_means;  // (N, M, C) ReLU(means), rows padded to whole vectors; the same for all edges
  int64_t edge;
};

template <typename T>
struct EdgeBackward {
  const PartAttentionBackward& p;
  const T* rectified_means;
  int64_t edge;
  T* grad_rectified_means;  // (N, M, C) padded: this edge's term of the gradient; null: not wanted
};

// For the instruction set in use; for float and double.
template <typename T>
void run_edge(const EdgeForward<T>& work);
template <typename T>
void run_edge(const EdgeBackward<T>& work);

}  // namespace autoreid_fast::part
