// What lies between convolutions, for AVX2 with FMA.
#include "activations.h"

#if defined(__x86_64__)
#include <immintrin.h>

#include <algorithm>
#include <type_traits>
#include <vector>

#include "batch_norm.h"
#include "element.h"
#include "inline.h"
#include "stream.h"
#include "target.h"

LTH_SPARSE_PUSH_AVX2
#define VECTOR_NAMESPACE avx2
#include "vector_avx2.h"
namespace lth_sparse::avx2 {
#include "each_vector.h"
#include "pooling.h"
#include "row_parts.h"
#include "rectification.h"
#include "batch_norm_rows.h"
#include "batch_norm_planes.h"
#include "activations_of.h"
}
LTH_SPARSE_POP_TARGET

namespace lth_sparse {
const Activations* avx2_activations() { return avx2::activations_of<avx2::Float8<16>>(); }
}  // namespace lth_sparse
#else
namespace lth_sparse {
const Activations* avx2_activations() { return nullptr; }
}  // namespace lth_sparse
#endif
