// The correlation of a dense input with a sparse matrix: forward pass and grad_input.
#pragma once

#include "packed_weight.h"

namespace lth_sparse::cuda {

/// Writes all of `output` that the geometry reaches: the correlation of input with a packed weight (packed_weight.h),
/// plus bias [channels of the output], which may be null. Waits for nothing.
template <typename A>
void correlate(const Geometry& geometry, const Tiling& tiling, const Grid& grid, const Blocks& blocks,
               const typename A::Element* input, const Steps& input_steps, const typename A::Element* weight,
               const int32_t* codes, const typename A::Element* bias, typename A::Element* output,
               const Steps& output_steps, const device::Stream& stream);

}  // namespace lth_sparse::cuda
