// The kernels for every processor, and for float64, which is there to check gradients with.
#include <algorithm>
#include <cmath>
#include <type_traits>

#include "entries.h"
#include "kernels.h"
#include "plain.h"
#include "vector_portable.h"

namespace lth_sparse::portable {
#include "convert.h"
#include "panel_transfer.h"
#include "transfer.h"
#include "tiles.h"
#include "engine.h"
}

namespace lth_sparse {
const Kernels* portable_kernels(int) { return portable::kernels_of<portable::Array<float, 8>>(); }
const Kernels* double_kernels(int) { return portable::kernels_of<portable::Array<double, 8>>(); }
}  // namespace lth_sparse
