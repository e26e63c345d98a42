// The kernels of linear layers for every processor, and for float64.
#include <algorithm>
#include <atomic>
#include <stdexcept>
#include <type_traits>

#include "../inline.h"
#include "../vector_portable.h"
#include "kernels.h"

namespace lth_sparse::portable {
#include "../convert.h"
#include "tasks.h"
#include "features.h"
#include "single.h"
#include "lanes.h"
#include "kernels_of.h"
}  // namespace lth_sparse::portable

namespace lth_sparse {
const LinearKernels* linear_portable(Element element, int64_t batch, int64_t features) {
  return portable::linear_of<portable::Array<float, 8>>(element, batch, features);
}
const LinearKernels* linear_doubles(int64_t batch, int64_t features) {
  return portable::linear_of<portable::Array<double, 8>>(Element::kDouble, batch, features);
}
}  // namespace lth_sparse
