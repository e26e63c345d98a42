// What lies between convolutions, for AVX-512 (F, VL, DQ, BW).
#include "activations.h"

#if defined(__x86_64__)
#if !defined(__clang__)
// GCC 12 warns of its own undefined operands in <immintrin.h> (its bug 105593).
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#pragma GCC diagnostic ignored "-Wuninitialized"
#endif
#include <immintrin.h>

#include <algorithm>
#include <type_traits>
#include <vector>

#include "batch_norm.h"
#include "element.h"
#include "inline.h"
#include "stream.h"
#include "target.h"

LTH_SPARSE_PUSH_AVX512
#include "vector_avx512.h"
namespace lth_sparse::avx512 {
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
const Activations* avx512_activations() { return avx512::activations_of<avx512::Float16>(); }
}  // namespace lth_sparse
#else
namespace lth_sparse {
const Activations* avx512_activations() { return nullptr; }
}  // namespace lth_sparse
#endif
