// The kernels of linear layers for every processor, and for float64.
#include <algorithm>
#include <atomic>
#include <stdexcept>

#include "../inline.h"
#include "../vector_portable.h"
#include "kernels.h"

namespace lth_sparse::portable {
#include "tasks.h"
#include "features.h"
#include "single.h"
#include "lanes.h"
#include "kernels_of.h"
}  // namespace lth_sparse::portable

namespace lth_sparse {
const LinearKernels<float>* linear_portable(int64_t batch, int64_t features) {
  return portable::linear_of<portable::Array<float, 8>>(batch, features);
}
const LinearKernels<double>* linear_doubles(int64_t batch, int64_t features) {
  return portable::linear_of<portable::Array<double, 8>>(batch, features);
}
}  // namespace lth_sparse
