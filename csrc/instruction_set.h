// The widest vector unit of the machine we run on, chosen once at run time.
#pragma once

#include <stdexcept>
#include <string>

namespace autoreid_fast {

enum class InstructionSet { portable, avx2, avx512 };

// A function with one of these carries its own code for that unit; what it calls must be always_inline.
#if defined(__x86_64__)
#define AUTOREID_FAST_AVX2 __attribute__((target("avx2,fma")))
#define AUTOREID_FAST_AVX512 __attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,avx2,fma")))
#else
#define AUTOREID_FAST_AVX2
#define AUTOREID_FAST_AVX512
#endif

inline InstructionSet best_instruction_set() {
#if defined(__x86_64__)
  if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
      __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl")) {
    return InstructionSet::avx512;
  }
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) return InstructionSet::avx2;
#endif
  return InstructionSet::portable;
}

inline InstructionSet& instruction_set() {
  static InstructionSet chosen = best_instruction_set();
  return chosen;
}

inline std::string name_of(InstructionSet set) {
  return set == InstructionSet::avx512 ? "avx512" : set == InstructionSet::avx2 ? "avx2" : "portable";
}

}  // namespace autoreid_fast
