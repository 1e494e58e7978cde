// Batch-hard triplet loss (Hermans et al., 2017): parameters and launches.
//
// Maths, for features x (N rows of D), labels y and margin m:
//   d_ij = |x_i - x_j|
//   p_i  = argmax d_ij over j != i with y_j = y_i,   n_i = argmin d_ij over j with y_j != y_i
//   e_i  = d(i, p_i) - d(i, n_i)
//   loss = mean over valid i of max(0, m + e_i)      hinge
//          mean over valid i of max(m, e_i)          printed: Eq. (4) of the Auto-ReID paper
// An anchor i is valid if it has a positive and a negative; otherwise p_i = n_i = -1 and its distances are 0.
// Of equal distances the one with the lower index is chosen. NaN counts as the hardest distance, so it
// reaches the loss.
//
// Gradient, for g = d loss and V valid anchors:
//   dx_r = g / V sum over pairs (i, j) that contain row r of w_ij (x_r - x_other)
// An active anchor i (its term is not at the constant side of the max) contributes the pair (i, p_i) with
// weight w = 1 / d(i, p_i) and the pair (i, n_i) with w = -1 / d(i, n_i); w = 0 where the distance is 0.
//
// Work: forward N (N - 1) / 2 D subtractions and multiply-adds (8.4 M at N = 64, D = 2048), backward 4 N D.
// Bytes: forward reads the features once (512 KiB at N = 64, D = 2048, float32); backward reads and writes
// them once.
#pragma once

#include "../common/element.h"

namespace autoreid_fast {

struct BatchHardForward {
  const void* features;   // (count, dim) of `element`, columns adjacent, rows `row_stride` elements apart
  Element element;        // CPU: float32 or float64; CUDA: float32, float16 or bfloat16
  const int64_t* labels;  // (count,) contiguous
  int64_t count;          // N, 1..4096
  int64_t dim;            // D, >= 1
  int64_t row_stride;     // in elements
  double margin;
  bool printed;             // false: hinge
  void* loss;               // () float64 for float64 features, else float32
  int64_t* positive;        // (count,)
  int64_t* negative;        // (count,)
  void* positive_distance;  // (count,) of the type of the loss
  void* negative_distance;  // (count,) of the type of the loss
  void* workspace;          // CPU: (count, count) squared distances; CUDA: (2 count + 1) words of 8 bytes
};

struct BatchHardBackward {
  const void* grad_loss;  // () of the type of the loss
  const void* features;   // as in forward, up to row_stride
  Element element;
  int64_t count;
  int64_t dim;
  int64_t row_stride;
  const int64_t* positive;        // (count,) and the next three: the results of forward
  const int64_t* negative;        // (count,)
  const void* positive_distance;  // (count,)
  const void* negative_distance;  // (count,)
  double margin;
  bool printed;
  void* grad_features;  // (count, dim) of `element`, contiguous
};

void batch_hard_cpu(const BatchHardForward& p);
void batch_hard_backward_cpu(const BatchHardBackward& p);

// On `stream` (a cudaStream_t). They return CUDA's error text, or nullptr on success.
const char* batch_hard_cuda(const BatchHardForward& p, void* stream);
const char* batch_hard_backward_cuda(const BatchHardBackward& p, void* stream);

}  // namespace autoreid_fast
