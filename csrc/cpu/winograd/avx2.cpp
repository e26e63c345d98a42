// Winograd's algorithm for AVX2 with FMA: vectors of eight channels.
#include "kernels.h"

#if defined(__x86_64__)
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

LTH_SPARSE_PUSH_AVX2
#define VECTOR_NAMESPACE avx2
#include "../vector_avx2.h"
namespace lth_sparse::avx2 {
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
const WinogradKernels* winograd_avx2() { return avx2::winograd_of<avx2::Float8<16>>(); }
}  // namespace lth_sparse
#else
namespace lth_sparse {
const WinogradKernels* winograd_avx2() { return nullptr; }
}  // namespace lth_sparse
#endif
