// The kernels for AVX-512 (F, VL, DQ, BW), with vectors of sixteen floats or of eight.
#include "kernels.h"

#if defined(__x86_64__)
#if !defined(__clang__)
// GCC 12 warns of its own undefined operands in <immintrin.h> (its bug 105593).
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#pragma GCC diagnostic ignored "-Wuninitialized"
#endif
#include <immintrin.h>

#include <algorithm>
#include <cmath>
#include <type_traits>

#include "element.h"
#include "entries.h"
#include "inline.h"
#include "plain.h"
#include "target.h"

LTH_SPARSE_PUSH_AVX512
#define VECTOR_NAMESPACE avx512
#include "vector_avx2.h"
#include "vector_avx512.h"
namespace lth_sparse::avx512 {
#include "convert.h"
#include "panel_transfer.h"
#include "transfer.h"
#include "tiles.h"
#include "engine.h"
}
LTH_SPARSE_POP_TARGET

namespace lth_sparse {
const Kernels* avx512_kernels(int width) {
  return width == 16 ? avx512::kernels_of<avx512::Float16>() : avx512::kernels_of<avx512::Float8<32>, avx512::Float16>();
}
}  // namespace lth_sparse
#else
namespace lth_sparse {
const Kernels* avx512_kernels(int) { return nullptr; }
}  // namespace lth_sparse
#endif
