// What a native library says of itself, for `autoreid-fast doctor` and the benchmark tables.
#pragma once

#include <map>
#include <string>
#include <vector>

#define AUTOREID_FAST_EXPORT __attribute__((visibility("default")))

namespace autoreid_fast {

// Name -> value: compiler, instruction sets or CUDA archs, the torch it was built with.
AUTOREID_FAST_EXPORT std::map<std::string, std::string> facts();

// Registers, bytes of shared and local memory and resident blocks, one entry a CUDA kernel; it asks the
// current GPU. The CPU library has none.
struct KernelFacts {
  std::string name;
  int registers, shared_bytes, local_bytes, blocks_per_multiprocessor;
};
AUTOREID_FAST_EXPORT std::vector<KernelFacts> kernel_facts();

// CPU library: compute with "avx512", "avx2" or "portable" from now on, or with the best one ("best").
// Returns what is used; throws std::invalid_argument if this machine lacks it. For tests and benchmarks.
AUTOREID_FAST_EXPORT std::string use_instruction_set(const std::string& name);

}  // namespace autoreid_fast
