// torch's parallel_for, made of std::thread: for ThreadSanitizer alone (AUTOREID_FAST_SANITIZE=thread).
//
// torch's own runs on an OpenMP runtime that is not instrumented, so that ThreadSanitizer does not see its
// barriers and calls every hand-over a race. The starts and joins here it does see. The library takes these
// two symbols from here instead of from torch, since they are defined in it and hidden.
#include <torch/csrc/stable/c/shim.h>

#include <algorithm>
#include <exception>
#include <thread>
#include <vector>

namespace {

constexpr int64_t kThreads = 4;
thread_local bool inside = false;  // a nested region runs on its own thread alone, as torch's does

}  // namespace

extern "C" {

__attribute__((visibility("hidden"))) AOTITorchError torch_get_num_threads(uint32_t* count) {
  *count = kThreads;
  return AOTI_TORCH_SUCCESS;
}

__attribute__((visibility("hidden"))) AOTITorchError torch_parallel_for(int64_t begin, int64_t end, int64_t,
                                                                        ParallelFunc body, void* context) {
  if (begin >= end) return AOTI_TORCH_SUCCESS;
  const int64_t count = inside ? 1 : std::min(kThreads, end - begin);  // small tests have threads, too
  const int64_t share = (end - begin + count - 1) / count;
  std::vector<std::exception_ptr> errors(count);
  const auto run = [&](int64_t index) {
    const int64_t first = begin + index * share, last = std::min(first + share, end);
    const bool outer = inside;
    inside = true;
    try {
      if (first < last) body(first, last, context);
    } catch (...) {
      errors[index] = std::current_exception();
    }
    inside = outer;
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
