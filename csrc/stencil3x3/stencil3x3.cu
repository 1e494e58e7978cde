// The 3x3 stencils on CUDA: kernels and launches.
#include <cuda_runtime.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "../float_types.cuh"
#include "../kernel_facts.cuh"
#include "stencil3x3_backward_kernel.cuh"
#include "stencil3x3_kernel.cuh"

namespace autoreid_fast {
namespace {

template <int S, typename T>
__global__ void __launch_bounds__(kThreads, 3) stencil3x3_kernel(const Stencil3x3Forward p) {
  stencil3x3_block<S, T>(p);
}

template <int S, bool WEIGHTS, typename T>
__global__ void __launch_bounds__(kThreads, 2) stencil3x3_backward_kernel(const Stencil3x3Backward p) {
  stencil3x3_backward_block<S, WEIGHTS, T>(p);
}

template <typename T>
__global__ void __launch_bounds__(kThreads)
    stencil3x3_add_slabs_kernel(const Stencil3x3Backward p, int64_t slabs) {
  stencil3x3_add_slabs_block<T>(p, slabs);
}

int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }
int64_t tiles_of(const Stencil3x3Shape& s) {
  return ceil_div(s.out_height, kTile) * ceil_div(s.out_width, kTile) * s.batch;
}
int64_t groups_of(const Stencil3x3Shape& s) { return ceil_div(s.channels, kGroup); }

// Blocks for `shares` shares of the tiles, or as many as a grid can have.
unsigned blocks_of(const Stencil3x3Shape& s, int64_t shares) {
  const int64_t most = std::numeric_limits<int32_t>::max() / groups_of(s);
  return static_cast<unsigned>(std::min(shares, most) * groups_of(s));
}

template <typename T>
void forward(const Stencil3x3Forward& p, cudaStream_t stream) {
  const auto kernel = p.shape.stride == 1 ? stencil3x3_kernel<1, T> : stencil3x3_kernel<2, T>;
  kernel<<<blocks_of(p.shape, tiles_of(p.shape)), kThreads, 0, stream>>>(p);
}

template <typename T>
void backward(const Stencil3x3Backward& p, cudaStream_t stream) {
  const Stencil3x3Shape& s = p.shape;
  if (p.grad_weights == nullptr) {
    const auto kernel =
        s.stride == 1 ? stencil3x3_backward_kernel<1, false, T> : stencil3x3_backward_kernel<2, false, T>;
    kernel<<<blocks_of(s, tiles_of(s)), kThreads, 0, stream>>>(p);
    return;
  }
  const int64_t slabs = stencil3x3_slabs_cuda(s);
  const auto kernel =
      s.stride == 1 ? stencil3x3_backward_kernel<1, true, T> : stencil3x3_backward_kernel<2, true, T>;
  kernel<<<static_cast<unsigned>(slabs * groups_of(s)), kThreads, 0, stream>>>(p);
  const int64_t sums = s.filters * 9 * s.channels;
  stencil3x3_add_slabs_kernel<T>
      <<<static_cast<unsigned>(ceil_div(sums, kGroup)), kThreads, 0, stream>>>(p, slabs);
}

const char* words(cudaError_t error) { return error == cudaSuccess ? nullptr : cudaGetErrorString(error); }

template <typename Parameters, typename Run>
const char* dispatch(const Parameters& p, const Run& run) {
  constexpr int64_t most =
      std::numeric_limits<int32_t>::max() / (64 * 9);  // sums and slabs stay within a grid
  if (p.shape.channels > most) return "too many channels for one launch";
  switch (p.shape.element) {
    case Element::float32:
      run(float{});
      break;
    case Element::float16:
      run(__half{});
      break;
    case Element::bfloat16:
      run(__nv_bfloat16{});
      break;
    case Element::float64:
      return "no kernel for float64";
  }
  return words(cudaGetLastError());
}

}  // namespace

const char* stencil3x3_cuda(const Stencil3x3Forward& p, void* stream) {
  return dispatch(p, [&](auto zero) { forward<decltype(zero)>(p, static_cast<cudaStream_t>(stream)); });
}

const char* stencil3x3_backward_cuda(const Stencil3x3Backward& p, void* stream) {
  return dispatch(p, [&](auto zero) { backward<decltype(zero)>(p, static_cast<cudaStream_t>(stream)); });
}

// Every slab the same number of tiles, but for the last ones.
int64_t stencil3x3_slabs_cuda(const Stencil3x3Shape& shape) {
  const int64_t tiles = tiles_of(shape);
  return ceil_div(tiles, ceil_div(tiles, kMaxSlabs));
}

void stencil3x3_kernel_facts(std::vector<KernelFacts>& all) {
  const auto add = [&](const char* name, auto* kernel) { all.push_back(facts_of(name, kernel, kThreads)); };
  add("stencil3x3, stride 1, float32", stencil3x3_kernel<1, float>);
  add("stencil3x3, stride 2, float32", stencil3x3_kernel<2, float>);
  add("stencil3x3, stride 1, bfloat16", stencil3x3_kernel<1, __nv_bfloat16>);
  add("stencil3x3_backward, stride 1, float32", stencil3x3_backward_kernel<1, true, float>);
  add("stencil3x3_backward, stride 2, float32", stencil3x3_backward_kernel<2, true, float>);
  add("stencil3x3_backward, stride 1, bfloat16", stencil3x3_backward_kernel<1, true, __nv_bfloat16>);
  add("stencil3x3_backward x alone, stride 1, float32", stencil3x3_backward_kernel<1, false, float>);
  add("stencil3x3 slabs, float32", stencil3x3_add_slabs_kernel<float>);
}

}  // namespace autoreid_fast
