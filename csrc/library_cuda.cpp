// The CUDA library's account of itself. Each csrc/<op>/<op>_torch.cpp registers its op.
#include <torch/headeronly/version.h>

#include "library.h"

namespace autoreid_fast {

void batch_hard_kernel_facts(std::vector<KernelFacts>& all);
void k_reciprocal_kernel_facts(std::vector<KernelFacts>& all);
void stencil3x3_kernel_facts(std::vector<KernelFacts>& all);
void nearest_kernel_facts(std::vector<KernelFacts>& all);
void rank_gallery_kernel_facts(std::vector<KernelFacts>& all);

std::map<std::string, std::string> facts() {
  return {{"compiler", COMPILER_NAME}, {"torch", TORCH_VERSION}, {"CUDA archs", CUDA_ARCHS}};
}

std::vector<KernelFacts> kernel_facts() {
  std::vector<KernelFacts> all;
  batch_hard_kernel_facts(all);
  k_reciprocal_kernel_facts(all);
  stencil3x3_kernel_facts(all);
  nearest_kernel_facts(all);
  rank_gallery_kernel_facts(all);
  return all;
}

}  // namespace autoreid_fast
