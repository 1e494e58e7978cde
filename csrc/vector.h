// Vectors of the CPU kernels, and memory to work in.
#pragma once

#include <cstdint>
#include <cstring>
#include <new>

#include "instruction_set.h"

#define ALWAYS_INLINE inline __attribute__((always_inline))
#define INLINE_LAMBDA __attribute__((always_inline))

namespace autoreid_fast {

template <typename T, int BYTES>
using Vector __attribute__((vector_size(BYTES))) = T;

// By reference: vectors have no ABI of their own to return in.
template <typename V, typename T>
ALWAYS_INLINE void load(V& vector, const T* from) {
  std::memcpy(&vector, from, sizeof(V));
}
template <typename V, typename T>
ALWAYS_INLINE void store(T* to, const V& vector) {
  std::memcpy(to, &vector, sizeof(V));
}

inline int vector_bytes(InstructionSet set) {
  return set == InstructionSet::avx512 ? 64 : set == InstructionSet::avx2 ? 32 : 16;
}

// Memory of this thread, kept from call to call (a fresh mapping costs more than the stencil of a small
// image); its contents are the caller's to write.
template <typename T>
T* thread_scratch(int64_t count) {
  constexpr std::align_val_t alignment{64};
  struct Buffer {
    void* data = nullptr;
    size_t bytes = 0;
    ~Buffer() { ::operator delete(data, alignment); }
  };
  thread_local Buffer buffer;
  const size_t wanted = count * sizeof(T);
  if (buffer.bytes < wanted) {
    ::operator delete(buffer.data, alignment);
    buffer.bytes = 0;
    buffer.data = nullptr;
    buffer.data = ::operator new(wanted, alignment);
    buffer.bytes = wanted;
  }
  return static_cast<T*>(buffer.data);
}

}  // namespace autoreid_fast
