// Depthwise convolutions for AVX2 with FMA.
#include "kernels.h"

#if defined(__x86_64__)
#include <immintrin.h>

#include <algorithm>
#include <type_traits>

#include "../activations.h"
#include "../element.h"
#include "../inline.h"
#include "../stream.h"
#include "../target.h"
#include "weights.h"

LTH_SPARSE_PUSH_AVX2
#define VECTOR_NAMESPACE avx2
#include "../vector_avx2.h"
namespace lth_sparse::avx2 {
#include "../each_vector.h"
#include "window.h"
#include "planes.h"
#include "rows.h"
#include "small_planes.h"
#include "passes.h"
}
LTH_SPARSE_POP_TARGET

namespace lth_sparse {
const DepthwiseKernels* depthwise_avx2(const Convolution& c) { return avx2::depthwise_of<avx2::Float8<16>>(c); }
}  // namespace lth_sparse
#else
namespace lth_sparse {
const DepthwiseKernels* depthwise_avx2(const Convolution&) { return nullptr; }
}  // namespace lth_sparse
#endif
