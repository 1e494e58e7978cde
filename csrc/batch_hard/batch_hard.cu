// Batch-hard triplet loss on CUDA: kernels and launches.
#include <cuda_runtime.h>

#include "../float_types.cuh"
#include "../kernel_facts.cuh"
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
  const unsigned tiles = static_cast<unsigned>((p.count + tile - 1) / tile);
  const auto kernel = tile == 4 ? batch_hard_kernel<4, T> : batch_hard_kernel<8, T>;
  kernel<<<dim3(tiles, tiles), kThreads, 0, stream>>>(p);
}

template <typename T>
void backward(const BatchHardBackward& p, cudaStream_t stream) {
  const int64_t columns = kThreads * kSlice<T>;
  const dim3 grid(static_cast<unsigned>((p.dim + columns - 1) / columns), static_cast<unsigned>(p.count));
  batch_hard_backward_kernel<T><<<grid, kThreads, 0, stream>>>(p);
}

const char* words(cudaError_t error) { return error == cudaSuccess ? nullptr : cudaGetErrorString(error); }

}  // namespace

const char* batch_hard_cuda(const BatchHardForward& p, void* stream) {
  const auto on = static_cast<cudaStream_t>(stream);
  const cudaError_t error = cudaMemsetAsync(p.workspace, 0, (2 * p.count + 1) * sizeof(Slot), on);
  if (error != cudaSuccess) return words(error);
  switch (p.element) {
    case Element::float32:
      forward<float>(p, on);
      break;
    case Element::float16:
      forward<__half>(p, on);
      break;
    case Element::bfloat16:
      forward<__nv_bfloat16>(p, on);
      break;
    case Element::float64:
      return "no kernel for float64";
  }
  return words(cudaGetLastError());
}

const char* batch_hard_backward_cuda(const BatchHardBackward& p, void* stream) {
  const auto on = static_cast<cudaStream_t>(stream);
  switch (p.element) {
    case Element::float32:
      backward<float>(p, on);
      break;
    case Element::float16:
      backward<__half>(p, on);
      break;
    case Element::bfloat16:
      backward<__nv_bfloat16>(p, on);
      break;
    case Element::float64:
      return "no kernel for float64";
  }
  return words(cudaGetLastError());
}

void batch_hard_kernel_facts(std::vector<KernelFacts>& all) {
  all.push_back(facts_of("batch_hard, tile 4, float32", batch_hard_kernel<4, float>, kThreads));
  all.push_back(facts_of("batch_hard, tile 8, float32", batch_hard_kernel<8, float>, kThreads));
  all.push_back(facts_of("batch_hard, tile 4, bfloat16", batch_hard_kernel<4, __nv_bfloat16>, kThreads));
  all.push_back(facts_of("batch_hard, tile 8, bfloat16", batch_hard_kernel<8, __nv_bfloat16>, kThreads));
  all.push_back(facts_of("batch_hard_backward, float32", batch_hard_backward_kernel<float>, kThreads));
  all.push_back(
      facts_of("batch_hard_backward, bfloat16", batch_hard_backward_kernel<__nv_bfloat16>, kThreads));
}

}  // namespace autoreid_fast
