// The kernels of one instruction set, as the operators call them.
#pragma once

#include "correlation.h"
#include "parallel.h"
#include "scratch.h"

namespace lth_sparse {

template <typename T>
struct Kernels {
  /// out = the correlation of `in`, with bias [out.channels] or null; what is below 0 becomes 0 if `relu`.
  void (*correlate)(const Correlation&, const SparseRows&, const Blocking&, const T* in, const T* values,
                    const T* bias, bool relu, T* out, const Parallel&);
  /// The gradient of the values: for each entry the sum, over images and output positions, of in * grad_out.
  void (*grad_weight)(const Correlation&, const SparseRows&, const Blocking&, const T* in, const T* grad_out,
                      T* grad_values, const Parallel&);
};

/// By the width of the blocking; null where this build or this processor has none.
const Kernels<float>* avx512_kernels(int width);
const Kernels<float>* avx2_kernels(int width);
const Kernels<float>* portable_kernels(int width);
const Kernels<double>* double_kernels(int width);

}  // namespace lth_sparse
