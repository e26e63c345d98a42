// What lies between LTH_SPARSE_PUSH_TARGET and LTH_SPARSE_POP_TARGET is compiled for an instruction set that not every
// processor has: see csrc/README.md.
//
// GCC's pragma does so with all that follows it. Clang ignores that one; its own gives an attribute to each function, member and
// lambda that is written there. Neither reaches what the standard library instantiates for them elsewhere, such as the call of
// a std::function.
#pragma once

#define LTH_SPARSE_PRAGMA(text) _Pragma(#text)

#define LTH_SPARSE_PUSH_AVX2 LTH_SPARSE_PUSH_TARGET("avx2,fma,f16c")
#define LTH_SPARSE_PUSH_AVX512 LTH_SPARSE_PUSH_TARGET("avx512f,avx512vl,avx512dq,avx512bw,avx2,fma,f16c")

#if defined(__clang__)
#define LTH_SPARSE_PUSH_TARGET(features) \
  LTH_SPARSE_PRAGMA(clang attribute push(__attribute__((target(features))), apply_to = function))
#define LTH_SPARSE_POP_TARGET LTH_SPARSE_PRAGMA(clang attribute pop)
#else
#define LTH_SPARSE_PUSH_TARGET(features) LTH_SPARSE_PRAGMA(GCC push_options) LTH_SPARSE_PRAGMA(GCC target(features))
#define LTH_SPARSE_POP_TARGET LTH_SPARSE_PRAGMA(GCC pop_options)
#endif
