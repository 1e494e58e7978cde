// The 3x3 stencils on CUDA: kernels and launches.
#include <algorithm>
#include <cmath>
#include <limits>

#include "../common/float_types.cuh"
#include "../common/kernel_facts.cuh"
#include "../common/launch.cuh"
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

constexpr int64_t kMaxGrid = std::numeric_limits<int32_t>::max();

int64_t tiles_of(const Stencil3x3Shape& s) {
  return ceil_div(s.out_height, kTile) * ceil_div(s.out_width, kTile) * s.batch;
}
int64_t groups_of(const Stencil3x3Shape& s) { return ceil_div(s.channels, kGroup); }

// One block per tile and group of channels, or as many as a grid can have; a block then has several tiles.
unsigned grid_of(const Stencil3x3Shape& s) {
  return static_cast<unsigned>(std::min(tiles_of(s), kMaxGrid / groups_of(s)) * groups_of(s));
}

template <typename T>
void forward(const Stencil3x3Forward& p, cudaStream_t stream) {
  const auto kernel = p.shape.stride == 1 ? stencil3x3_kernel<1, T> : stencil3x3_kernel<2, T>;
  kernel<<<grid_of(p.shape), kThreads, 0, stream>>>(p);
}

template <typename T>
void backward(const Stencil3x3Backward& p, cudaStream_t stream) {
  const Stencil3x3Shape& s = p.shape;
  if (p.grad_weights == nullptr) {
    const auto kernel =
        s.stride == 1 ? stencil3x3_backward_kernel<1, false, T> : stencil3x3_backward_kernel<2, false, T>;
    kernel<<<grid_of(s), kThreads, 0, stream>>>(p);
    return;
  }
  const int64_t slabs = stencil3x3_slabs_cuda(s);
  const auto kernel =
      s.stride == 1 ? stencil3x3_backward_kernel<1, true, T> : stencil3x3_backward_kernel<2, true, T>;
  kernel<<<static_cast<unsigned>(slabs * groups_of(s)), kThreads, 0, stream>>>(p);
  const int64_t sums = s.filters * 9 * s.channels;
  stencil3x3_add_slabs_kernel<T><<<block_count(sums, kGroup), kThreads, 0, stream>>>(p, slabs);
}

void list_kernels(std::vector<KernelFacts>& kernels) {
  const auto add = [&](const char* name, auto* kernel) {
    kernels.push_back(facts_of(name, kernel, kThreads));
  };
  add("stencil3x3, stride 1, float32", stencil3x3_kernel<1, float>);
  add("stencil3x3, stride 2, float32", stencil3x3_kernel<2, float>);
  add("stencil3x3, stride 1, bfloat16", stencil3x3_kernel<1, __nv_bfloat16>);
  add("stencil3x3_backward, stride 1, float32", stencil3x3_backward_kernel<1, true, float>);
  add("stencil3x3_backward, stride 2, float32", stencil3x3_backward_kernel<2, true, float>);
  add("stencil3x3_backward, stride 1, bfloat16", stencil3x3_backward_kernel<1, true, __nv_bfloat16>);
  add("stencil3x3_backward, only x, stride 1, float32", stencil3x3_backward_kernel<1, false, float>);
  add("stencil3x3 slabs, float32", stencil3x3_add_slabs_kernel<float>);
}
const RegisterKernelFacts kRegistered(list_kernels);

constexpr int64_t kMaxChannels = kMaxGrid / (kMaxFilters * 9);  // F 9 C sums fit into a grid

const char* too_many_channels(const Stencil3x3Shape& s) {
  return s.channels > kMaxChannels ? "too many channels for one launch" : nullptr;
}

}  // namespace

const char* stencil3x3_cuda(const Stencil3x3Forward& p, void* stream) {
  if (const char* error = too_many_channels(p.shape)) return error;
  return dispatch_cuda(p.shape.element, [&]<typename T>() {
    forward<T>(p, static_cast<cudaStream_t>(stream));
    return launch_error();
  });
}

const char* stencil3x3_backward_cuda(const Stencil3x3Backward& p, void* stream) {
  if (const char* error = too_many_channels(p.shape)) return error;
  return dispatch_cuda(p.shape.element, [&]<typename T>() {
    backward<T>(p, static_cast<cudaStream_t>(stream));
    return launch_error();
  });
}

// All slabs have the same number of tiles but the last ones.
int64_t stencil3x3_slabs_cuda(const Stencil3x3Shape& shape) {
  const int64_t tiles = tiles_of(shape);
  return ceil_div(tiles, ceil_div(tiles, kMaxSlabs));
}

}  // namespace autoreid_fast
