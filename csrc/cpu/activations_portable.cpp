// What lies between convolutions, for every processor.
#include <algorithm>
#include <type_traits>
#include <vector>

#include "activations.h"
#include "batch_norm.h"
#include "inline.h"
#include "stream.h"
#include "vector_portable.h"

namespace lth_sparse::portable {
#include "each_vector.h"
#include "pooling.h"
#include "row_parts.h"
#include "rectification.h"
#include "batch_norm_rows.h"
#include "batch_norm_planes.h"
#include "activations_of.h"
}

namespace lth_sparse {
const Activations* portable_activations() { return portable::activations_of<portable::Array<float, 8>>(); }
}  // namespace lth_sparse
