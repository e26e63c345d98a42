// The kernels of inference for AVX2 with FMA: vectors of eight pixels or images.
#include "kernels.h"

#if defined(__x86_64__)
#include <immintrin.h>

#include <algorithm>

#include "../inline.h"
#include "../target.h"

LTH_SPARSE_PUSH_AVX2
#define VECTOR_NAMESPACE avx2
#include "../vector_avx2.h"
namespace lth_sparse::avx2 {
#include "tiles.h"
}
LTH_SPARSE_POP_TARGET

namespace lth_sparse::inference {
const Kernels* kernels_avx2() { return avx2::TableOf<avx2::Float8<16>, 4, 2>::get(); }
}  // namespace lth_sparse::inference
#else
namespace lth_sparse::inference {
const Kernels* kernels_avx2() { return nullptr; }
}  // namespace lth_sparse::inference
#endif
