// Functions that take or return vectors must be inlined, not only for speed: under a target pragma GCC 12 ends a function
// that returns a structure around a 256-bit vector with vzeroupper, which clears half of the result.
#pragma once

#define LTH_SPARSE_INLINE inline __attribute__((always_inline))
/// The same for a lambda, after its parameters.
#define LTH_SPARSE_INLINE_LAMBDA __attribute__((always_inline))

// Before a loop over what registers hold: GCC 12 left some of them rolled, seven wide, and kept their vectors in memory.
#if defined(__clang__)
#define LTH_SPARSE_UNROLL _Pragma("unroll")
#else
#define LTH_SPARSE_UNROLL _Pragma("GCC unroll 32")
#endif

namespace lth_sparse {

/// The pointer, of whose making the compiler forgets everything: what is read near it is addressed by it and a constant. GCC 12
/// adds the constants up with what the pointer was made of, and has more addresses to keep than there are registers.
template <class T>
LTH_SPARSE_INLINE T* in_a_register(T* pointer) {
  asm("" : "+r"(pointer));
  return pointer;
}

}  // namespace lth_sparse
