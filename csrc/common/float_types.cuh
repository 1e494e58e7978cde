// The float types of CUDA: conversions, and dispatch on them.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include "element.h"

namespace autoreid_fast {

__device__ __forceinline__ float to_float(float value) { return value; }
__device__ __forceinline__ float to_float(__half value) { return __half2float(value); }
__device__ __forceinline__ float to_float(__nv_bfloat16 value) { return __bfloat162float(value); }

// Rounds to the nearest, ties to even.
template <typename T>
__device__ __forceinline__ T from_float(float value);
template <>
__device__ __forceinline__ float from_float<float>(float value) {
  return value;
}
template <>
__device__ __forceinline__ __half from_float<__half>(float value) {
  return __float2half_rn(value);
}
template <>
__device__ __forceinline__ __nv_bfloat16 from_float<__nv_bfloat16>(float value) {
  return __float2bfloat16_rn(value);
}

// Returns the error text, or nullptr, of run.operator()<T>() for the type T of `element`.
template <typename Run>
const char* dispatch_cuda(Element element, const Run& run) {
  switch (element) {
    case Element::float32:
      return run.template operator()<float>();
    case Element::float16:
      return run.template operator()<__half>();
    case Element::bfloat16:
      return run.template operator()<__nv_bfloat16>();
    case Element::float64:
      break;
  }
  return "there is no CUDA kernel for float64";
}

}  // namespace autoreid_fast
