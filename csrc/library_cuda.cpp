// Facts about the CUDA library. Each csrc/<op>/ registers its own op and kernels.
#include "library.h"

#include <torch/headeronly/version.h>

namespace autoreid_fast {

std::map<std::string, std::string> facts() {
  return {{"compiler", COMPILER_NAME}, {"torch", TORCH_VERSION}, {"CUDA archs", CUDA_ARCHS}};
}

std::vector<KernelFacts> kernel_facts() {
  std::vector<KernelFacts> kernels;
  for (const ListKernelFacts list : kernel_fact_lists()) list(kernels);
  return kernels;
}

}  // namespace autoreid_fast
