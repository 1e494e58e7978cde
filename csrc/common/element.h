// Element types of the tensors that torch hands to the kernels, and dispatch on them for the CPU.
#pragma once

#include <cstdint>

namespace autoreid_fast {

enum class Element { float32, float16, bfloat16, float64 };

constexpr int64_t element_bytes(Element element) {
  return element == Element::float64 ? 8 : element == Element::float32 ? 4 : 2;
}

// Returns run.operator()<T>() for the type T that the CPU computes in: double for float64, else float.
//   dispatch_cpu(p.element, [&]<typename T>() { forward<T>(p); });
template <typename Run>
decltype(auto) dispatch_cpu(Element element, const Run& run) {
  return element == Element::float64 ? run.template operator()<double>() : run.template operator()<float>();
}

}  // namespace autoreid_fast
