// Batch-hard triplet loss: parameters and launches.
//
// Maths, for features x (N rows of D), labels y, margin m:
//   d_ij = |x_i - x_j|,   p_i = argmax_{j != i, y_j = y_i} d_ij,   n_i = argmin_{y_j != y_i} d_ij
//   e_i  = d(i, p_i) - d(i, n_i)
//   loss = mean over valid i of max(0, m + e_i) ("hinge") or max(m, e_i) ("printed", Eq. (4))
// An anchor is valid if it has both a positive and a negative; the rest have p = n = -1 and distances 0.
// Equal distances: the lower index. A NaN distance counts as the hardest, so that it reaches the loss.
//   d loss / d x_r = g / V * sum over pairs (r, j) of w (x_r - x_j), V the number of valid anchors, where an
//   active anchor i (e_i above the kink) gives its pair (i, p_i) weight 1 / d(i, p_i) and its pair (i, n_i)
//   weight -1 / d(i, n_i), 0 where that distance is 0; a pair counts for both of its rows.
//
// Work: N (N - 1) / 2 pairs x D x (subtract, fused multiply-add) forward: 8.4 M lane operations at N = 64,
// D = 2048. Backward: 4 N differences of D. Traffic: features read once forward (512 KiB), read and written
// once backward.
#pragma once

#include <cstdint>

#include "../element.h"

namespace autoreid_fast {

struct BatchHardForward {
  const void* features;   // (count, dim) of `element`, columns adjacent, rows `row_stride` elements apart
  Element element;        // CPU: float32, float64. CUDA: float32, float16, bfloat16
  const int64_t* labels;  // (count,) contiguous
  int64_t count;          // N, 1..4096
  int64_t dim;            // D, >= 1
  int64_t row_stride;     // in elements
  double margin;
  bool printed;             // Eq. (4) as printed instead of the hinge
  void* loss;               // () float64 for float64 features, else float32; and so are the distances
  int64_t* positive;        // (count,)
  int64_t* negative;        // (count,)
  void* positive_distance;  // (count,)
  void* negative_distance;  // (count,)
  void* workspace;          // CPU: (count, count) squared distances. CUDA: 2 count + 1 words of 8 bytes
};

struct BatchHardBackward {
  const void* grad_loss;  // () float64 for float64 features, else float32; and so are the distances
  const void* features;   // (count, dim) as above
  Element element;
  int64_t count;
  int64_t dim;
  int64_t row_stride;
  const int64_t* positive;        // (count,) -1 for anchors that are not valid
  const int64_t* negative;        // (count,)
  const void* positive_distance;  // (count,)
  const void* negative_distance;  // (count,)
  double margin;
  bool printed;
  void* grad_features;  // (count, dim) of `element`, contiguous
};

void batch_hard_cpu(const BatchHardForward& p);
void batch_hard_backward_cpu(const BatchHardBackward& p);

// On `stream` (a cudaStream_t). They return nullptr, or CUDA's words for what went wrong.
const char* batch_hard_cuda(const BatchHardForward& p, void* stream);
const char* batch_hard_backward_cuda(const BatchHardBackward& p, void* stream);

}  // namespace autoreid_fast
