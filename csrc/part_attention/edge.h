// What one edge makes of the strips' means on the CPU, and what flows back; part_attention.h has the maths.
#pragma once

#include "part_attention.h"

namespace autoreid_fast::part {

// The strips' ReLU(mean) as every edge reads it: (N, M, C) with rows padded to whole vectors.
template <typename T>
struct EdgeForward {
  const PartAttentionForward& p;
  const T* source;
  int64_t edge;
};

template <typename T>
struct EdgeBackward {
  const PartAttentionBackward& p;
  const T* source;
  int64_t edge;
  T* grad_means;  // (N, M, C) padded: this edge's share, before ReLU's; null where d x is not wanted
};

// For the instruction set in use; for float and double.
template <typename T>
void run_edge(const EdgeForward<T>& work);
template <typename T>
void run_edge(const EdgeBackward<T>& work);

}  // namespace autoreid_fast::part
