// Winograd's algorithm for AVX-512 (F, VL, DQ, BW): vectors of sixteen channels.
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
#include <optional>
#include <stdexcept>

#include "../element.h"
#include "../inline.h"
#include "../scratch.h"
#include "../stream.h"
#include "../target.h"
#include "tiling.h"

LTH_SPARSE_PUSH_AVX512
#include "../vector_avx512.h"
namespace lth_sparse::avx512 {
#include "../convert.h"
#include "../transfer.h"
#include "transforms.h"
#include "products.h"
#include "staging.h"
#include "weights.h"
#include "passes.h"
}
LTH_SPARSE_POP_TARGET

namespace lth_sparse {
const WinogradKernels* winograd_avx512() { return avx512::winograd_of<avx512::Float16>(); }
}  // namespace lth_sparse
#else
namespace lth_sparse {
const WinogradKernels* winograd_avx512() { return nullptr; }
}  // namespace lth_sparse
#endif
