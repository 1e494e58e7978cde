// Separable convolutions of one source on the CPU: ReLU, depthwise 3x3 and pointwise 1x1, F pairs of filters
// that all read r(x) = max(x, 0), with the batch statistics of what comes out.
//
// Maths, with stencil3x3.h's window of filter f at (i, j):
//   y_f[c, i, j] = sum over the window of a_f[c, u, v] r(x[c, ..])      depthwise, never stored whole
//   z_f[d, i, j] = sum over c of b_f[d, c] y_f[c, i, j]                 pointwise
//   mean, variance (biased) of z_f[d] over images and pixels
// Backward, from dz: dy_f = b_f^T dz_f; db_f = dz_f y_f^T with y_f computed again; dx and da_f from dy_f as
// in stencil3x3.h. Nothing but x and the weights is kept from forward to backward.
//
// Layout: pixels last, as stencil3x3.h. Work, with Q = N Ho Wo pixels: 2 F Q C D + 18 F Q C FLOPs forward,
// 4 F Q C D + 54 F Q C backward. Bytes at e bytes an element: forward reads x and writes z, (Q C + F Q D) e;
// backward reads x and dz and writes dx; dy passes through the cache by a few images at a time.
// Deterministic for any number of threads: sums are taken over shares of the work that the shape alone
// decides, and those in order.
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
  void* statistics;       // (F, 2, D) contiguous, of x's element, or null: not wanted
  void* workspace;        // separable_conv_workspace_cpu elements
};

struct SeparableConvBackward {
  SeparableConvShape shape;
  const void* grad;  // (F, N, Ho, Wo, D) contiguous
  const void* x;     // as in forward, and so are the weights
  const void* depthwise;
  const void* pointwise;
  void* grad_x;          // (N, H, W, C) contiguous, or null: not wanted
  void* grad_depthwise;  // (F, C, 3, 3) contiguous, or null, and so is the next
  void* grad_pointwise;  // (F, D, C) contiguous
  void* workspace;       // separable_conv_backward_workspace_cpu elements
};

void separable_conv_cpu(const SeparableConvForward& p);
void separable_conv_backward_cpu(const SeparableConvBackward& p);

// In elements, for the instruction set in use.
int64_t separable_conv_workspace_cpu(const SeparableConvShape& shape, bool statistics);
int64_t separable_conv_backward_workspace_cpu(const SeparableConvShape& shape, bool weights);

}  // namespace autoreid_fast
