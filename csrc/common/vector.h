// Vectors of the CPU kernels (GCC's vector extension).
#pragma once

#include <cstdint>
#include <cstring>

#include "instruction_set.h"

namespace autoreid_fast {

template <typename T, int BYTES>
using Vector __attribute__((vector_size(BYTES))) = T;

// Vectors are passed by reference: returning one would need an ABI that the baseline does not have.
template <typename V, typename T>
ALWAYS_INLINE void load(V& vector, const T* from) {
  std::memcpy(&vector, from, sizeof(V));
}
template <typename V, typename T>
ALWAYS_INLINE void store(T* to, const V& vector) {
  std::memcpy(to, &vector, sizeof(V));
}

// Loads the first `count` elements, at most a whole vector; the others keep their values.
template <typename V, typename T>
ALWAYS_INLINE void load_first(V& vector, const T* from, int64_t count) {
  if (count >= static_cast<int64_t>(sizeof(V) / sizeof(T))) {
    load(vector, from);
  } else {
    std::memcpy(&vector, from, count * sizeof(T));
  }
}

// Stores the first `count` elements, at most a whole vector.
template <typename V, typename T>
ALWAYS_INLINE void store_first(T* to, const V& vector, int64_t count) {
  if (count >= static_cast<int64_t>(sizeof(V) / sizeof(T))) {
    store(to, vector);
  } else {
    std::memcpy(to, &vector, count * sizeof(T));
  }
}

}  // namespace autoreid_fast
