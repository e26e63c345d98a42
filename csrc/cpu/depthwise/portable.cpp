// Depthwise convolutions for every processor.
#include <algorithm>
#include <type_traits>

#include "../activations.h"
#include "../inline.h"
#include "../stream.h"
#include "../vector_portable.h"
#include "kernels.h"
#include "weights.h"

// What registers hold elsewhere are arrays here, and loops over them unrolled would be 3 MB that take minutes to compile.
#undef LTH_SPARSE_UNROLL
#define LTH_SPARSE_UNROLL

namespace lth_sparse::portable {
#include "../each_vector.h"
#include "window.h"
#include "planes.h"
#include "rows.h"
#include "small_planes.h"
#include "passes.h"
}

namespace lth_sparse {
const DepthwiseKernels* depthwise_portable(const Convolution& c) {
  return portable::depthwise_of<portable::Array<float, 8>>(c);
}
}  // namespace lth_sparse
