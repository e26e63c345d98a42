#include "dispatch.h"

#if defined(__x86_64__)
#include <cpuid.h>
#endif

#include <cstdlib>
#include <stdexcept>
#include <string>

namespace lth_sparse {
namespace {

constexpr InstructionSet kSets[] = {
    {"avx512", {16, 32}, &avx512_kernels, &winograd_avx512, &depthwise_avx512, &avx512_activations, &linear_avx512,
     &inference::kernels_avx512},
    {"avx2", {8, 16}, &avx2_kernels, &winograd_avx2, &depthwise_avx2, &avx2_activations, &linear_avx2, &inference::kernels_avx2},
    {"portable", {8, 16}, &portable_kernels, &winograd_portable, &depthwise_portable, &portable_activations, &linear_portable,
     &inference::kernels_portable},
};

#if defined(__x86_64__)
/// Whether there are conversions of float16, for which clang's __builtin_cpu_supports has no word.
bool has_f16c() {
  unsigned a, b, c, d;
  return __get_cpuid(1, &a, &b, &c, &d) && (c & bit_F16C) != 0;
}
#endif

bool runs(const std::string& name) {
#if defined(__x86_64__)
  __builtin_cpu_init();
  const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && has_f16c();
  if (name == "avx512")
    return avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512vl") &&
           __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512bw");
  if (name == "avx2") return avx2;
#endif
  return name == "portable";
}

const InstructionSet& choose() {
  const char* const forced = std::getenv("LTH_SPARSE_CPU");
  for (const InstructionSet& set : kSets) {
    if (forced != nullptr && std::string(forced) != set.name) continue;
    if (runs(set.name)) return set;
    if (forced != nullptr)
      throw std::runtime_error("LTH_SPARSE_CPU=" + std::string(forced) + ": this processor does not run it");
  }
  throw std::runtime_error("LTH_SPARSE_CPU=" + std::string(forced) + ": expected avx512, avx2 or portable");
}

}  // namespace

const InstructionSet& instruction_set() {
  static const InstructionSet& chosen = choose();
  return chosen;
}

}  // namespace lth_sparse
