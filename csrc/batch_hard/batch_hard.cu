// Batch-hard triplet loss on CUDA: kernels and launches.
#include "../common/float_types.cuh"
#include "../common/kernel_facts.cuh"
#include "../common/launch.cuh"
#include "batch_hard_kernel.cuh"

namespace autoreid_fast {
namespace {

constexpr int64_t kLargeTileFrom = 128;  // N from which 8 x 8 tiles still fill the GPU

template <int TILE, typename T>
__global__ void __launch_bounds__(kThreads) batch_hard_kernel(const BatchHardForward p) {
  batch_hard_block<TILE, T>(p);
}

template <typename T>
__global__ void __launch_bounds__(kThreads) batch_hard_backward_kernel(const BatchHardBackward p) {
  batch_hard_backward_block<T>(p);
}

template <typename T>
void forward(const BatchHardForward& p, cudaStream_t stream) {
  const int tile = p.count < kLargeTileFrom ? 4 : 8;
  const unsigned tiles = block_count(p.count, tile);
  const auto kernel = tile == 4 ? batch_hard_kernel<4, T> : batch_hard_kernel<8, T>;
  kernel<<<dim3(tiles, tiles), kThreads, 0, stream>>>(p);
}

template <typename T>
void backward(const BatchHardBackward& p, cudaStream_t stream) {
  const dim3 grid(block_count(p.dim, kThreads * kSlice<T>), static_cast<unsigned>(p.count));
  batch_hard_backward_kernel<T><<<grid, kThreads, 0, stream>>>(p);
}

void list_kernels(std::vector<KernelFacts>& kernels) {
  const auto add = [&](const char* name, auto* kernel) {
    kernels.push_back(facts_of(name, kernel, kThreads));
  };
  add("batch_hard, tile 4, float32", batch_hard_kernel<4, float>);
  add("batch_hard, tile 8, float32", batch_hard_kernel<8, float>);
  add("batch_hard, tile 4, bfloat16", batch_hard_kernel<4, __nv_bfloat16>);
  add("batch_hard, tile 8, bfloat16", batch_hard_kernel<8, __nv_bfloat16>);
  add("batch_hard_backward, float32", batch_hard_backward_kernel<float>);
  add("batch_hard_backward, bfloat16", batch_hard_backward_kernel<__nv_bfloat16>);
}
const RegisterKernelFacts kRegistered(list_kernels);

}  // namespace

const char* batch_hard_cuda(const BatchHardForward& p, void* stream) {
  const auto cuda_stream = static_cast<cudaStream_t>(stream);
  const cudaError_t error = cudaMemsetAsync(p.workspace, 0, (2 * p.count + 1) * sizeof(Slot), cuda_stream);
  if (error != cudaSuccess) return error_text(error);
  return dispatch_cuda(p.element, [&]<typename T>() {
    forward<T>(p, cuda_stream);
    return launch_error();
  });
}

const char* batch_hard_backward_cuda(const BatchHardBackward& p, void* stream) {
  return dispatch_cuda(p.element, [&]<typename T>() {
    backward<T>(p, static_cast<cudaStream_t>(stream));
    return launch_error();
  });
}

}  // namespace autoreid_fast
