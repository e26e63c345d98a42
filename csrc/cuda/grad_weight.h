// grad_weight: products of a layer's input with the gradient of its output, at live weights only.
#pragma once

#include "packed_weight.h"

namespace lth_sparse::cuda {

/// How the work is divided: part p has the tiles from p * tiles_each on.
struct Parts {
  int32_t count, tiles_each;
};

/// Writes all of grad_values [nnz]: the geometry is that of the forward pass. `partial` is room for the sums of each
/// part, [parts][column_count * 16]; each of a part's sums is added up in one order, and so are the parts: the same bits
/// each time. Waits for nothing.
template <typename A>
void grad_weight(const Geometry& geometry, const Tiling& tiling, const Grid& grid, const Blocks& blocks,
                 const Parts& parts, const typename A::Element* input, const Steps& input_steps,
                 const typename A::Element* gradient, const Steps& gradient_steps, int32_t* codes,
                 typename A::Sum* partial, typename A::Element* grad_values, const device::Stream& stream);

}  // namespace lth_sparse::cuda
