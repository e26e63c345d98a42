// Depthwise convolutions for AVX-512 (F, VL, DQ, BW).
#include "kernels.h"

#if defined(__x86_64__)
#if !defined(__clang__)
// GCC 12 warns of its own undefined operands in <immintrin.h> (its bug 105593).
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#pragma GCC diagnostic ignored "-Wuninitialized"
#endif
#include <immintrin.h>

#include <algorithm>
#include <type_traits>

#include "../activations.h"
#include "../element.h"
#include "../inline.h"
#include "../stream.h"
#include "../target.h"
#include "weights.h"

LTH_SPARSE_PUSH_AVX512
#include "../vector_avx512.h"
namespace lth_sparse::avx512 {
#include "../each_vector.h"
#include "window.h"
#include "planes.h"
#include "rows.h"
#include "small_planes.h"
#include "passes.h"
}
LTH_SPARSE_POP_TARGET

namespace lth_sparse {
const DepthwiseKernels* depthwise_avx512(const Convolution& c) { return avx512::depthwise_of<avx512::Float16>(c); }
}  // namespace lth_sparse
#else
namespace lth_sparse {
const DepthwiseKernels* depthwise_avx512(const Convolution&) { return nullptr; }
}  // namespace lth_sparse
#endif
