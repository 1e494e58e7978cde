// Separable convolutions of one source on the CPU: ReLU, depthwise 3x3 and pointwise 1x1, for F pairs of
// filters that read the same r(x) = max(x, 0), and the batch statistics of the results. On CUDA the op is
// kernels/separable_conv/ (Triton).
//
// Maths, with the window of filter f at (i, j) from stencil3x3.h:
//   y_f[c, i, j] = sum over the window of depthwise_f[c, u, v] r(x[c, ..])      never stored as a whole
//   z_f[d, i, j] = sum over c of pointwise_f[d, c] y_f[c, i, j]
//   mean, biased variance of z_f[d] over images and pixels
// Backward, from dz; dx and d depthwise follow from dy as in stencil3x3.h:
//   dy_f = pointwise_f^T dz_f
//   d pointwise_f = dz_f y_f^T, with y_f computed again
// Only x and the weights are kept from forward to backward.
//
//
// Layout: channels last in memory, as in stencil3x3.h.
//
// Work, for Q = N Ho Wo pixels: forward 2 F Q C D + 18 F Q C FLOPs, backward 4 F Q C D + 54 F Q C.
// Bytes, for e bytes per element: forward reads x and writes z, (N H W C + F Q D) e; backward reads x and dz
//   and writes dx. dy passes through the cache, a few images at a time.
//
// Deterministic for any number of threads: sums are taken over parts of the work that depend only on the
// shape, and the parts are added in order.
#pragma once

#include "../stencil3x3/stencil3x3.h"

namespace autoreid_fast {

struct SeparableConvShape {
  Stencil3x3Shape stencil;  // of y: F >= 1, relu
  int64_t out_channels;     // D, >= 1
};

struct SeparableConvForward {
  SeparableConvShape shape;
  const void* x;          // (N, H, W, C) contiguous
  const void* depthwise;  // (F, C, 3, 3) contiguous
  const void* pointwise;  // (F, D, C) contiguous
  void* z;                // (F, N, Ho, Wo, D) contiguous
  void* statistics;       // (F, 2, D) contiguous: means, variances; null: not wanted
  void* workspace;        // separable_conv_workspace_cpu elements
};

struct SeparableConvBackward {
  SeparableConvShape shape;
  const void* grad;  // (F, N, Ho, Wo, D) contiguous
  const void* x;     // these three as in forward
  const void* depthwise;
  const void* pointwise;
  void* grad_x;          // (N, H, W, C) contiguous; null: not wanted
  void* grad_depthwise;  // (F, C, 3, 3) contiguous; null, like grad_pointwise: not wanted
  void* grad_pointwise;  // (F, D, C) contiguous
  void* workspace;       // separable_conv_backward_workspace_cpu elements
};

void separable_conv_cpu(const SeparableConvForward& p);
void separable_conv_backward_cpu(const SeparableConvBackward& p);

// The sizes of the workspaces in elements, for the instruction set in use.
int64_t separable_conv_workspace_cpu(const SeparableConvShape& shape, bool statistics);
int64_t separable_conv_backward_workspace_cpu(const SeparableConvShape& shape, bool weights);

}  // namespace autoreid_fast
