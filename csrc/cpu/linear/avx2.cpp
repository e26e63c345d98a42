// The kernels of linear layers for AVX2 with FMA.
#include "kernels.h"

#if defined(__x86_64__)
#include <immintrin.h>

#include <algorithm>
#include <atomic>
#include <stdexcept>
#include <type_traits>

#include "../inline.h"
#include "../target.h"

LTH_SPARSE_PUSH_AVX2
#define VECTOR_NAMESPACE avx2
#include "../vector_avx2.h"
namespace lth_sparse::avx2 {
#include "../convert.h"
#include "tasks.h"
#include "features.h"
#include "single.h"
#include "lanes.h"
#include "kernels_of.h"
}
LTH_SPARSE_POP_TARGET

namespace lth_sparse {
const LinearKernels* linear_avx2(Element element, int64_t batch, int64_t features) {
  return avx2::linear_of<avx2::Float8<16>>(element, batch, features);
}
}  // namespace lth_sparse
#else
namespace lth_sparse {
const LinearKernels* linear_avx2(Element, int64_t, int64_t) { return nullptr; }
}  // namespace lth_sparse
#endif
