// The kernels of inference without any instruction set, in the sixteen lanes of AVX-512, for what is tested of its layouts
// where there is none.
#include "kernels.h"

#include <algorithm>

#include "../inline.h"
#include "../vector_portable.h"

namespace lth_sparse::portable {
#include "tiles.h"
}

namespace lth_sparse::inference {
const Kernels* kernels_portable() { return portable::TableOf<portable::Array<float, 16>, 4, 6>::get(); }
}  // namespace lth_sparse::inference
