// Launching CUDA kernels: grids and error texts.
#pragma once

#include <cuda_runtime.h>

#include "arithmetic.h"

namespace autoreid_fast {

// `cudaGetErrorString(error)`, or nullptr on success.
inline const char* error_text(cudaError_t error) {
  return error == cudaSuccess ? nullptr : cudaGetErrorString(error);
}

// The error text of the launches since the last call, or nullptr.
inline const char* launch_error() { return error_text(cudaGetLastError()); }

// The number of blocks that cover `count` items, `per_block` in each.
inline unsigned block_count(int64_t count, int64_t per_block) {
  return static_cast<unsigned>(ceil_div(count, per_block));
}

}  // namespace autoreid_fast
