// Facts about the CPU library. Each csrc/<op>/<op>_torch.cpp registers its own op.
#include <torch/headeronly/version.h>

#include "common/instruction_set.h"
#include "library.h"

namespace autoreid_fast {

std::map<std::string, std::string> facts() {
#if defined(__x86_64__)
  const std::string sets = "avx512 avx2 portable";
#else
  const std::string sets = "portable";
#endif
  return {{"compiler", COMPILER_NAME},
          {"torch", TORCH_VERSION},
          {"instruction sets", sets},
          {"instruction set in use", name_of(instruction_set())}};
}

std::vector<KernelFacts> kernel_facts() { return {}; }

std::string use_instruction_set(const std::string& name) {
  const InstructionSet best = best_instruction_set();
  for (const InstructionSet set : {InstructionSet::portable, InstructionSet::avx2, InstructionSet::avx512}) {
    if (set <= best && (name == name_of(set) || (name == "best" && set == best))) {
      instruction_set() = set;
      return name_of(set);
    }
  }
  throw std::invalid_argument("this machine has no instruction set '" + name + "'; its best is '" +
                              name_of(best) + "'");
}

}  // namespace autoreid_fast
