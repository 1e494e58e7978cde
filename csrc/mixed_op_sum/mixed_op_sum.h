// A node's weighted sum of normalised candidates, Eq. (2): parameters and the CPU's launches. On CUDA the op
// is kernels/mixed_op_sum.py (Triton).
//
// Maths, for K candidates z_k (N, C, H, W), weights w_k, m = N H W, per channel c:
//   zhat_k = (z_k - mean_k) rstd_k,   rstd_k = 1 / sqrt(var_k + eps)      (plain candidates: zhat_k = z_k)
//   y = sum_k w_k zhat_k
//   d_k = sum g (z_k - mean_k)        (over N, H, W: what both of these need)
//   dw_k = sum_c rstd_k d_k
//   dz_k = w_k rstd_k (g - sum(g) / m - (z_k - mean_k) rstd_k^2 d_k / m)   under batch statistics,
//   dz_k = w_k rstd_k g                                                    where they are constants.
//
// Traffic: forward reads the K candidates twice (once where the statistics are given) and writes one tensor;
// backward reads them twice and writes their gradients. A node of the default search (K = 35, N = 16, C = 32,
// 96 x 32) has 220 MB of candidates.
#pragma once

#include <cstdint>

#include "../element.h"

namespace autoreid_fast {

enum MixedOpKind : int64_t { kPlain, kBatch, kGiven, kFixed };  // as reference/mixed_op_sum.py has them

struct MixedOpNode {
  const void* const* candidates;        // K pointers to (N, C, H, W), all contiguous or all channels_last
  const int64_t* kinds;                 // (K,) of MixedOpKind
  int64_t count;                        // K, 1..64
  int64_t images, channels, positions;  // N, C, H * W
  bool channels_last;
  Element element;      // float32 or float64: of everything below as well
  const void* weights;  // (K,)
  double eps;
};

struct MixedOpForward {
  MixedOpNode node;
  const void* statistics;  // (2, K, C) means and biased variances; null where no candidate is given or fixed
  void* total;             // (N, C, H, W) laid out as the candidates
  void* used;              // (2, K, C) what was normalised by; 0 and 1 for plain candidates
};

struct MixedOpBackward {
  MixedOpNode node;
  const void* grad;        // (N, C, H, W) laid out as the candidates
  const void* statistics;  // (2, K, C) the `used` of the forward pass
  void* const* grads;      // K pointers, laid out as the candidates; null for those that are not wanted
  void* grad_weights;      // (K,)
};

void mixed_op_sum_cpu(const MixedOpForward& p);
void mixed_op_sum_backward_cpu(const MixedOpBackward& p);

}  // namespace autoreid_fast
