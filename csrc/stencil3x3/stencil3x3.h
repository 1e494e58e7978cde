// 3x3 stencils of one source: max pool, average pool and F depthwise filters from one read of x.
//
// Maths, for x (N, C, H, W), stride s in {1, 2} and filters w_f (C, 3, 3) of dilation d_f in {1, 2}. The
// outputs have Ho = ceil(H / s) by Wo = ceil(W / s) pixels. The window of dilation d at (i, j) holds the
// pixels (s i + d (u - 1), s j + d (v - 1)), u, v in {0, 1, 2}, that lie in the image.
//   max[i, j] = maximum over the window, d = 1
//   avg[i, j] = mean over the window's pixels, d = 1 (count_include_pad=False)
//   y_f[i, j] = sum over the window of w_f[u, v] r(x), d = d_f, r = ReLU or the identity
// Of equal maxima the first in row-major order is chosen; NaN is the largest value, and of several the last
// is chosen (as in torch.nn.functional.max_pool2d).
//
// Backward; each pixel gathers from the windows that hold it:
//   dx = r'(x) sum_f sum_windows w_f[u, v] dy_f
//        + sum_windows davg / count
//        + sum_(windows whose maximum it is) dmax
//   dw_f[u, v] = sum over images and windows of r(x[s i + d (u - 1), s j + d (v - 1)]) dy_f[i, j]
// The place of the maximum is found again from x instead of being saved: x is read anyway, and only x is kept
// for the backward pass. dw is the sum of slabs, one per fixed range of the work, added in a fixed order:
// deterministic for any number of threads.
//
// Layout: channels last in memory, (N, H, W, C), as torch.channels_last. The filtered (F, N, Ho, Wo, C) are F
// matrices of (N Ho Wo, C): the left side of one batched GEMM with the pointwise weights.
//
// Bytes, for e bytes per element, P = N C H W, Q = N C Ho Wo: forward reads P e and writes (F + 2) Q e;
// backward reads P e + (F + 2) Q e and writes P e. Work: 18 F Q FLOPs forward, 36 F Q backward.
#pragma once

#include "../common/element.h"

namespace autoreid_fast {

constexpr int64_t kMaxFilters = 64;  // bits of Stencil3x3Shape::dilated

struct Stencil3x3Shape {
  Element element;                // CPU: float32 or float64; CUDA: float32, float16 or bfloat16
  int64_t batch;                  // N >= 1
  int64_t channels;               // C >= 1
  int64_t height, width;          // H, W >= 1
  int64_t filters;                // F, 0..64
  uint64_t dilated;               // bit f: filter f has dilation 2
  int64_t stride;                 // 1 or 2
  int64_t out_height, out_width;  // ceil(H / stride), ceil(W / stride)
  bool relu;                      // r is ReLU; the pools always read x itself
};

struct Stencil3x3Forward {
  Stencil3x3Shape shape;
  const void* x;        // (N, H, W, C) contiguous
  const void* weights;  // (F, C, 3, 3) contiguous
  void* max_pool;       // (N, Ho, Wo, C) contiguous; null: not wanted
  void* avg_pool;       // (N, Ho, Wo, C) contiguous; null: not wanted
  void* filtered;       // (F, N, Ho, Wo, C) contiguous
};

struct Stencil3x3Backward {
  Stencil3x3Shape shape;
  const void* grad_max;       // (N, Ho, Wo, C) contiguous; null: zero
  const void* grad_avg;       // (N, Ho, Wo, C) contiguous; null: zero
  const void* grad_filtered;  // (F, N, Ho, Wo, C) contiguous; not read if F = 0
  const void* x;              // (N, H, W, C) contiguous
  const void* weights;        // (F, C, 3, 3) contiguous
  void* grad_x;               // (N, H, W, C) contiguous; null: not wanted
  void* grad_weights;         // (F, C, 3, 3) contiguous; null: not wanted
  void* slabs;  // (slabs, F, 9, C) float64 for float64 x, else float32; null where grad_weights is
};

void stencil3x3_cpu(const Stencil3x3Forward& p);
void stencil3x3_backward_cpu(const Stencil3x3Backward& p);

// On `stream` (a cudaStream_t). They return CUDA's error text, or nullptr on success.
const char* stencil3x3_cuda(const Stencil3x3Forward& p, void* stream);
const char* stencil3x3_backward_cuda(const Stencil3x3Backward& p, void* stream);

// The number of slabs to allocate; on the CPU it depends on the instruction set in use.
int64_t stencil3x3_slabs_cpu(const Stencil3x3Shape& shape);
int64_t stencil3x3_slabs_cuda(const Stencil3x3Shape& shape);

}  // namespace autoreid_fast
