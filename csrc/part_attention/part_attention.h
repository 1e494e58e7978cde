// The part-aware module (Sec. 3.3, Fig. 2 of the Auto-ReID paper) for E edges on one source, as far as the bias
// vector that each strip adds to the fusing convolution: parameters and CPU launches. On CUDA the op is
// kernels/part_attention/ (Triton).
//
// Maths, for x (N, C, H, W) cut into M = 4 strips of rows floor(m H / M) .. floor((m + 1) H / M) - 1, per
// edge; activations are matrices with one row per strip, `a b` is a matrix product and `a * b` is elementwise:
//   mean_m = mean of strip m                                            (C)
//   v_m    = project_weight_m relu(mean_m) + project_bias_m             (h)
//   vhat   = (v - mean_N v) * rstd,   rstd = 1 / sqrt(var_N v + eps)
//   f      = vhat, or scale * vhat + shift
//   K      = f key_weight^T + key_bias,   Q = f query_weight^T + query_bias
//   A      = softmax of each row of K Q^T                               (M, M) per image
//   part   = A f,   strip_bias = part fuse_weight^T, or relu(part) fuse_weight^T
// Backward, from g = d strip_bias:
//   dpart = g fuse_weight (0 where relu and part <= 0)
//   dA = dpart f^T,   dS = A * (dA - rowsum(dA * A)),   dK = dS Q,   dQ = dS^T K
//   df = A^T dpart + dK key_weight + dQ query_weight,   dvhat = df, or scale * df
//   dv = rstd * (dvhat - mean_N dvhat - vhat * mean_N(dvhat * vhat))    batch statistics
//   dv = rstd * dvhat                                                   constant statistics
//   dmean = (sum over edges of dv project_weight) where mean > 0, else 0
//   dx = dmean / (pixels of the strip)
//   d project_weight = dv^T relu(mean),   d key_weight = dK^T f,   d query_weight = dQ^T f
//   d fuse_weight = g^T part, or g^T relu(part),   d of the biases = sums of dv, dK, dQ over images
//
// Values moved: forward reads x once; it writes means (N M C), normalized (E N M h) and strip_bias (E N M D),
// together N M (C + E (h + D)). Backward reads as many (means, normalized, grad) and writes dx once. Both read
// the parameters, E (M h C + 2 h h + D h) without the biases. Keys, queries, part and their gradients are
// computed anew for each edge and stay in the cache.
#pragma once

#include "../common/element.h"

namespace autoreid_fast {

constexpr int64_t kParts = 4;  // M

// Tensors of all edges, contiguous: the parameters (Pointer = const void*) or their gradients (void*).
template <typename Pointer>
struct PartParameters {
  Pointer project_weight;  // (E, M, h, C)
  Pointer project_bias;    // (E, M, h)
  Pointer key_weight;      // (E, h, h)
  Pointer key_bias;        // (E, h)
  Pointer query_weight;    // (E, h, h)
  Pointer query_bias;      // (E, h)
  Pointer fuse_weight;     // (E, D, h)
  Pointer affine;          // (2, E, M, h) scale and shift; null: none
};

struct PartAttention {
  Element element;                          // float32 or float64, of all tensors
  int64_t images, channels, height, width;  // N, C, H, W
  int64_t edges, hidden, out_channels;      // E, h, D
  PartParameters<const void*> parameters;
  bool batch_statistics;  // false: constant ones
  bool relu_part;
  double eps;
};

struct PartAttentionForward {
  PartAttention problem;
  const void* x;           // (N, H, W, C)
  const void* statistics;  // (2, E, M, h) means and biased variances; null where they are the batch's
  void* strip_bias;        // (E, N, M, D)
  void* means;             // (N, M, C)
  void* normalized;        // (E, N, M, h): vhat
  void* norm_statistics;   // (2, E, M, h) means and biased variances that normalise; `used` in the schema
};

struct PartAttentionBackward {
  PartAttention problem;
  const void* grad;   // (E, N, M, D)
  const void* means;  // these three as in forward
  const void* normalized;
  const void* norm_statistics;
  void* grad_x;                 // (N, H, W, C); null: not wanted
  PartParameters<void*> grads;  // all null: not wanted
};

void part_attention_cpu(const PartAttentionForward& p);
void part_attention_backward_cpu(const PartAttentionBackward& p);

}  // namespace autoreid_fast
