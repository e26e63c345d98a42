// The kernels for AVX2 with FMA.
#include "kernels.h"

#if defined(__x86_64__)
#include <immintrin.h>

#include <algorithm>
#include <cmath>
#include <type_traits>

#include "element.h"
#include "entries.h"
#include "inline.h"
#include "plain.h"
#include "target.h"

LTH_SPARSE_PUSH_AVX2
#define VECTOR_NAMESPACE avx2
#include "vector_avx2.h"
namespace lth_sparse::avx2 {
#include "convert.h"
#include "panel_transfer.h"
#include "transfer.h"
#include "tiles.h"
#include "engine.h"
}
LTH_SPARSE_POP_TARGET

namespace lth_sparse {
const Kernels* avx2_kernels(int) { return avx2::kernels_of<avx2::Float8<16>>(); }
}  // namespace lth_sparse
#else
namespace lth_sparse {
const Kernels* avx2_kernels(int) { return nullptr; }
}  // namespace lth_sparse
#endif
