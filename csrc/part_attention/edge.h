// The work of one edge of part_attention on the CPU, on one core; part_attention.h has the maths.
#pragma once

#include "part_attention.h"

namespace autoreid_fast::part {

template <typename T>
struct EdgeForward {
  const PartAttentionForward& p;
  const T* source;  // (N, M, C) ReLU(means), rows padded to whole vectors; the same for all edges
  int64_t edge;
};

template <typename T>
struct EdgeBackward {
  const PartAttentionBackward& p;
  const T* source;
  int64_t edge;
  T* grad_source;  // (N, M, C) padded: this edge's term of d source; null: not wanted
};

// For the instruction set in use; for float and double.
template <typename T>
void run_edge(const EdgeForward<T>& work);
template <typename T>
void run_edge(const EdgeBackward<T>& work);

}  // namespace autoreid_fast::part
