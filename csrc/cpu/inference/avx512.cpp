// The kernels of inference for AVX-512 (F, VL, DQ, BW): vectors of sixteen pixels or images.
#include "kernels.h"

#if defined(__x86_64__)
#if !defined(__clang__)
// GCC 12 warns of its own undefined operands in <immintrin.h> (its bug 105593).
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#pragma GCC diagnostic ignored "-Wuninitialized"
#endif
#include <immintrin.h>

#include <algorithm>

#include "../inline.h"
#include "../target.h"

LTH_SPARSE_PUSH_AVX512
#define VECTOR_NAMESPACE avx512
#include "../vector_avx512.h"
namespace lth_sparse::avx512 {
#include "tiles.h"
}
LTH_SPARSE_POP_TARGET

namespace lth_sparse::inference {
const Kernels* kernels_avx512() { return avx512::TableOf<avx512::Float16, 4, 6>::get(); }
}  // namespace lth_sparse::inference
#else
namespace lth_sparse::inference {
const Kernels* kernels_avx512() { return nullptr; }
}  // namespace lth_sparse::inference
#endif
