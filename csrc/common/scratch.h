// Aligned memory for intermediate results on the CPU.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <new>

namespace autoreid_fast {

constexpr std::align_val_t kAlignment{64};  // a cache line, and a vector of AVX-512

struct AlignedDelete {
  void operator()(void* data) const { ::operator delete(data, kAlignment); }
};

// An aligned buffer, uninitialised.
template <typename T>
using AlignedBuffer = std::unique_ptr<T[], AlignedDelete>;

template <typename T>
AlignedBuffer<T> aligned_buffer(int64_t count) {
  return AlignedBuffer<T>(static_cast<T*>(::operator new(count * sizeof(T), kAlignment)));
}

// Memory of this thread, kept from call to call: mapping fresh pages costs more than the stencil of a small
// image. Uninitialised; valid until the thread asks for the same T again.
template <typename T>
T* thread_scratch(int64_t count) {
  thread_local AlignedBuffer<T> buffer;
  thread_local int64_t capacity = 0;
  if (capacity < count) {
    capacity = 0;
    buffer = nullptr;
    buffer = aligned_buffer<T>(count);
    capacity = count;
  }
  return buffer.get();
}

}  // namespace autoreid_fast
