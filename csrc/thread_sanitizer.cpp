// torch's parallel_for on std::thread, only for ThreadSanitizer (AUTOREID_FAST_SANITIZE=thread).
//
// torch's own parallel_for uses an OpenMP runtime that is not instrumented: ThreadSanitizer does not see its
// barriers and reports every hand-over between threads as a race. It does see std::thread. The two symbols
// below are defined in the library and hidden, so the library uses them instead of torch's.
#include <torch/csrc/stable/c/shim.h>

#include <algorithm>
#include <exception>
#include <thread>
#include <vector>

#include "common/arithmetic.h"

namespace {

constexpr int64_t kThreads = 4;
thread_local bool in_parallel = false;  // a nested region stays on its thread, as in torch

}  // namespace

extern "C" {

__attribute__((visibility("hidden"))) AOTITorchError torch_get_num_threads(uint32_t* count) {
  *count = kThreads;
  return AOTI_TORCH_SUCCESS;
}

__attribute__((visibility("hidden"))) AOTITorchError torch_parallel_for(int64_t begin, int64_t end, int64_t,
                                                                        ParallelFunc body, void* context) {
  if (begin >= end) return AOTI_TORCH_SUCCESS;
  // The grain size is ignored: small tests use several threads too.
  const int64_t count = in_parallel ? 1 : std::min(kThreads, end - begin);
  const int64_t per_thread = autoreid_fast::ceil_div(end - begin, count);
  std::vector<std::exception_ptr> errors(count);
  const auto run = [&](int64_t index) {
    const int64_t first = begin + index * per_thread, last = std::min(first + per_thread, end);
    const bool nested = in_parallel;
    in_parallel = true;
    try {
      if (first < last) body(first, last, context);
    } catch (...) {
      errors[index] = std::current_exception();
    }
    in_parallel = nested;
  };
  std::vector<std::thread> threads;
  for (int64_t index = 1; index < count; ++index) threads.emplace_back(run, index);
  run(0);
  for (std::thread& thread : threads) thread.join();
  return std::any_of(errors.begin(), errors.end(), [](const auto& error) { return error != nullptr; })
             ? AOTI_TORCH_FAILURE
             : AOTI_TORCH_SUCCESS;
}
}
