// The kernels of linear layers for AVX-512 (F, VL, DQ): vectors of sixteen floats, or of eight.
#include "kernels.h"

#if defined(__x86_64__)
#if !defined(__clang__)
// GCC 12 warns of its own undefined operands in <immintrin.h> (its bug 105593).
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#pragma GCC diagnostic ignored "-Wuninitialized"
#endif
#include <immintrin.h>

#include <algorithm>
#include <atomic>
#include <stdexcept>
#include <type_traits>

#include "../inline.h"
#include "../target.h"

LTH_SPARSE_PUSH_AVX512
#define VECTOR_NAMESPACE avx512
#include "../vector_avx2.h"
#include "../vector_avx512.h"
namespace lth_sparse::avx512 {
#include "../convert.h"
#include "tasks.h"
#include "features.h"
#include "single.h"
#include "lanes.h"
#include "kernels_of.h"
}
LTH_SPARSE_POP_TARGET

namespace lth_sparse {
const LinearKernels* linear_avx512(Element element, int64_t batch, int64_t features) {
  return avx512::linear_of<avx512::Float16, avx512::Float8<32>>(element, batch, features);
}
}  // namespace lth_sparse
#else
namespace lth_sparse {
const LinearKernels* linear_avx512(Element, int64_t, int64_t) { return nullptr; }
}  // namespace lth_sparse
#endif
