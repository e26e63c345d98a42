// Winograd's algorithm for every processor.
#include <algorithm>
#include <atomic>
#include <optional>
#include <stdexcept>

#include "../inline.h"
#include "../scratch.h"
#include "../stream.h"
#include "../vector_portable.h"
#include "kernels.h"
#include "tiling.h"

namespace lth_sparse::portable {
#include "../convert.h"
#include "../transfer.h"
#include "transforms.h"
#include "products.h"
#include "staging.h"
#include "weights.h"
#include "passes.h"
}

namespace lth_sparse {
const WinogradKernels* winograd_portable() { return portable::winograd_of<portable::Array<float, 8>>(); }
}  // namespace lth_sparse
