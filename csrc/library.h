// Facts about a native library, for `autoreid-fast doctor` and the benchmark tables.
#pragma once

#include <map>
#include <string>
#include <vector>

#define AUTOREID_FAST_EXPORT __attribute__((visibility("default")))

namespace autoreid_fast {

// Name -> value: the compiler, the torch it was built with, the instruction sets or CUDA architectures.
AUTOREID_FAST_EXPORT std::map<std::string, std::string> facts();

// Resources of one CUDA kernel on the current GPU.
struct KernelFacts {
  std::string name;
  int registers;                  // per thread
  int shared_bytes;               // per block
  int local_bytes;                // per thread: spilled registers and arrays on the stack
  int blocks_per_multiprocessor;  // resident at once
};

// One entry per CUDA kernel; none in the CPU library.
AUTOREID_FAST_EXPORT std::vector<KernelFacts> kernel_facts();

// Appends the facts of one op's kernels. Each <op>.cu registers its own:
//   const RegisterKernelFacts registered(nearest_kernel_facts);
using ListKernelFacts = void (*)(std::vector<KernelFacts>& kernels);

inline std::vector<ListKernelFacts>& kernel_fact_lists() {
  static std::vector<ListKernelFacts> lists;
  return lists;
}

struct RegisterKernelFacts {
  explicit RegisterKernelFacts(ListKernelFacts list) { kernel_fact_lists().push_back(list); }
};

// CPU library: computes with "avx512", "avx2", "portable" or the "best" of them from now on, for tests and
// benchmarks. Returns the one in use; throws std::invalid_argument if this machine lacks it.
AUTOREID_FAST_EXPORT std::string use_instruction_set(const std::string& name);

}  // namespace autoreid_fast
