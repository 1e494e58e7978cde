// Registers, memory and occupancy of the CUDA kernels.
#pragma once

#include <cuda_runtime.h>

#include <stdexcept>

#include "../library.h"

namespace autoreid_fast {

// Asks the CUDA runtime about a kernel launched in blocks of `threads` on the current GPU.
template <typename Kernel>
KernelFacts facts_of(const char* name, Kernel* kernel, int threads) {
  cudaFuncAttributes attributes{};
  int blocks = 0;
  cudaError_t error = cudaFuncGetAttributes(&attributes, kernel);
  if (error == cudaSuccess) {
    error = cudaOccupancyMaxActiveBlocksPerMultiprocessor(&blocks, kernel, threads, 0);
  }
  if (error != cudaSuccess) {
    throw std::runtime_error(std::string(name) + ": " + cudaGetErrorString(error));
  }
  return {name, attributes.numRegs, static_cast<int>(attributes.sharedSizeBytes),
          static_cast<int>(attributes.localSizeBytes), blocks};
}

}  // namespace autoreid_fast
