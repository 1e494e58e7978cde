// The part-aware module for E edges on one source, up to one bias vector a strip: parameters and the CPU's
// launches. On CUDA the op is kernels/part_attention.py (Triton).
//
// Maths, for x (N, C, H, W) cut into M = 4 strips of rows floor(m H / M) .. floor((m + 1) H / M) - 1; per
// edge:
//   mean_m = mean of strip m (C),   v_m = P_m relu(mean_m) + p_m (h),   vhat = (v - mean_N v) rstd
//   f = vhat, or scale vhat + shift;   K = f key^T + k,   Q = f query^T + q
//   A = softmax(K Q^T) along its rows (M, M) an image,   part = A f,   bias = W2 part, or W2 relu(part)
// Backward, from g = d bias:
//   dpart = g W2 (0 where relu and part <= 0),   dA = dpart f^T,   dS = A (dA - rowsum(dA A))
//   dK = dS Q,   dQ = dS^T K,   df = A^T dpart + dK key + dQ query,   dvhat = df, or scale df
//   dv = rstd (dvhat - mean_N dvhat - vhat mean_N(dvhat vhat)); rstd dvhat where the statistics are constants
//   dmean = (sum over edges of dv P) where mean > 0, else 0;   dx = dmean / (pixels of the strip)
//   dP = dv^T relu(mean),   dkey = dK^T f,   dquery = dQ^T f,   dW2 = g^T part; d of the biases: sums
//
// Traffic: forward reads x once, backward writes d x once; all else is N M (C + E (3 h + D)) numbers and the
// parameters, E (M h C + 2 h h + D h).
#pragma once

#include <cstdint>

#include "../element.h"

namespace autoreid_fast {

constexpr int64_t kParts = 4;       // M
constexpr int64_t kParameters = 7;  // project, key and query, each a weight and a bias; fuse

struct PartAttention {
  Element element;  // float32 or float64: of everything below as well
  int64_t images, channels, height, width;
  int64_t edges, hidden, out;  // E, h, D
  // (E, M, h, C), (E, M, h), (E, h, h), (E, h), (E, h, h), (E, h), (E, D, h), contiguous.
  const void* parameters[kParameters];
  const void* affine;  // (2, E, M, h) or null
  bool batch;          // whether the statistics are the batch's
  bool relu;
  double eps;
};

struct PartAttentionForward {
  PartAttention problem;
  const void* x;           // (N, H, W, C)
  const void* statistics;  // (2, E, M, h) means and biased variances; null where they are the batch's
  void* bias;              // (E, N, M, D)
  void* means;             // (N, M, C)
  void* normalized;        // (E, N, M, h)
  void* used;              // (2, E, M, h)
};

struct PartAttentionBackward {
  PartAttention problem;
  const void* grad;   // (E, N, M, D)
  const void* means;  // these three as the forward pass gave them
  const void* normalized;
  const void* used;
  void* grad_x;                  // (N, H, W, C), or null where it is not wanted
  void* grads[kParameters + 1];  // as the parameters and affine; all null where they are not wanted
};

void part_attention_cpu(const PartAttentionForward& p);
void part_attention_backward_cpu(const PartAttentionBackward& p);

}  // namespace autoreid_fast
