// The weighted sum of a node's normalised candidates, Eq. (2) of the Auto-ReID paper: parameters and CPU
// launches. On CUDA the op is kernels/mixed_op_sum/ (Triton).
//
// Maths, for K candidates z_k (N, C, H, W), weights w_k and m = N H W, per channel c:
//   zhat_k = (z_k - mean_k) rstd_k,   rstd_k = 1 / sqrt(var_k + eps);   plain candidates: zhat_k = z_k
//   y = sum_k w_k zhat_k
// Backward, from g = dy:
//   d_k  = sum over N, H, W of g (z_k - mean_k)
//   dw_k = sum_c rstd_k d_k
//   dz_k = w_k rstd_k (g - sum(g) / m - (z_k - mean_k) rstd_k^2 d_k / m)   batch statistics
//   dz_k = w_k rstd_k g                                                    constant statistics
//
// Bytes: forward reads the K candidates twice (once where the statistics are given) and writes one tensor;
// backward reads them twice and writes K gradients. A node of the default search (K = 30, N = 16, C = 32, 96
// x 32, float32) has 189 MB of candidates.
#pragma once

#include "../common/element.h"

namespace autoreid_fast {

// The normalisation of a candidate, with the numbers of autoreid_fast/ops/mixed_op_sum/.
enum MixedOpKind : int64_t {
  kPlain,  // none
  kBatch,  // batch statistics, computed by the op
  kGiven,  // batch statistics, given
  kFixed,  // constant statistics, given
};

struct MixedOpNode {
  const void* const* candidates;        // K pointers to (N, C, H, W), all contiguous or all channels_last
  const int64_t* kinds;                 // (K,) of MixedOpKind
  int64_t count;                        // K, 1..64
  int64_t images, channels, positions;  // N, C, H W
  bool channels_last;
  Element element;      // float32 or float64, of all tensors
  const void* weights;  // (K,)
  double eps;
};

struct MixedOpForward {
  MixedOpNode node;
  const void* statistics;  // (2, K, C) means and biased variances; null where no candidate is given or fixed
  void* total;             // (N, C, H, W) in the candidates' layout
  void* used;              // (2, K, C) means and variances that were used; 0 and 1 for plain candidates
};

struct MixedOpBackward {
  MixedOpNode node;
  const void* grad;        // (N, C, H, W) in the candidates' layout
  const void* statistics;  // (2, K, C) `used` of the forward pass
  void* const* grads;      // K pointers to (N, C, H, W) in the candidates' layout; null: not wanted
  void* grad_weights;      // (K,)
};

void mixed_op_sum_cpu(const MixedOpForward& p);
void mixed_op_sum_backward_cpu(const MixedOpBackward& p);

}  // namespace autoreid_fast
