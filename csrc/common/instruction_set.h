// Instruction sets of the CPU, and kernels that are compiled once for each of them.
//
// A kernel is a struct with one function template over the bytes of a vector:
//
//   struct Scale {
//     template <int BYTES>
//     ALWAYS_INLINE static void run(const float* x, float* y, int64_t count) { ... }
//   };
//
// `variant<Scale>()` returns a pointer to the `run` that was compiled for the instruction set in use:
// AVX-512 (BYTES = 64), AVX2 with FMA (32) or the compiler's baseline (16). Everything that `run` calls must
// be ALWAYS_INLINE, lambdas INLINE_LAMBDA: a function that is not inlined keeps the baseline.
#pragma once

#include <stdexcept>
#include <string>

#define ALWAYS_INLINE inline __attribute__((always_inline))
#define INLINE_LAMBDA __attribute__((always_inline))

#if defined(__x86_64__)
#define TARGET_AVX2 __attribute__((target("avx2,fma")))
#define TARGET_AVX512 __attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,avx2,fma")))
#else
#define TARGET_AVX2
#define TARGET_AVX512
#endif

namespace autoreid_fast {

enum class InstructionSet { portable, avx2, avx512 };  // ascending

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

// The instruction set in use: the best one, unless `use_instruction_set` (library.h) chose another.
inline InstructionSet& instruction_set() {
  static InstructionSet in_use = best_instruction_set();
  return in_use;
}

inline std::string name_of(InstructionSet set) {
  return set == InstructionSet::avx512 ? "avx512" : set == InstructionSet::avx2 ? "avx2" : "portable";
}

constexpr int vector_bytes(InstructionSet set) {
  return set == InstructionSet::avx512 ? 64 : set == InstructionSet::avx2 ? 32 : 16;
}

// Returns the pointer for the instruction set in use.
template <typename Function>
Function* choose(Function* avx512, Function* avx2, Function* portable) {
  const InstructionSet set = instruction_set();
  return set == InstructionSet::avx512 ? avx512 : set == InstructionSet::avx2 ? avx2 : portable;
}

template <typename Kernel, typename Signature = decltype(&Kernel::template run<16>)>
struct Variants;

template <typename Kernel, typename Result, typename... Arguments>
struct Variants<Kernel, Result (*)(Arguments...)> {
  TARGET_AVX512 static Result avx512(Arguments... arguments) {
    return Kernel::template run<64>(arguments...);
  }
  TARGET_AVX2 static Result avx2(Arguments... arguments) { return Kernel::template run<32>(arguments...); }
  static Result portable(Arguments... arguments) { return Kernel::template run<16>(arguments...); }
};

template <typename Kernel>
auto variant() {
  return choose(Variants<Kernel>::avx512, Variants<Kernel>::avx2, Variants<Kernel>::portable);
}

}  // namespace autoreid_fast
