// The kernels without scratch: a live weight times the pixels that it meets, one after the other.
//
// Where taps lie so far apart, or images are so small beside them, that nearly all of a strip with its padding would be
// padding, these take the place of the engine's: they read and write the tensors alone, and multiply no padding.
#pragma once

#include <cstdint>

#include "correlation.h"
#include "parallel.h"

namespace lth_sparse {

/// As Kernels::correlate, which is given a blocking in addition, of elements E, computed in T.
template <typename T, typename E>
void correlate_plainly(const Correlation& c, const SparseRows& matrix, const E* in, const T* values, const T* bias, bool relu,
                       E* out, const Parallel& parallel);

/// As Kernels::grad_weight.
template <typename T, typename E>
void grad_weight_plainly(const Correlation& c, const SparseRows& matrix, const E* in, const E* grad_out, T* grad_values,
                         const Parallel& parallel);

/// The gradient of the value at `place`, an entry of row `row`: a sum over the products of real pixels alone.
template <typename T, typename E>
T gradient_of_value(const Correlation& c, const SparseRows& matrix, int64_t row, int64_t place, const E* in, const E* grad_out);

}  // namespace lth_sparse
