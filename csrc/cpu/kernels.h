// The kernels of one instruction set, as the operators call them.
#pragma once

#include "correlation.h"
#include "element.h"
#include "parallel.h"
#include "scratch.h"

namespace lth_sparse {

/// All tensors of a call have one type of elements.
struct Kernels {
  /// out = the correlation of `in`, with bias [out.channels] or null; what is below 0 becomes 0 if `relu`.
  void (*correlate)(const Correlation&, const SparseRows&, const Blocking&, Element, const void* in, const void* values,
                    const void* bias, bool relu, void* out, const Parallel&);
  /// The gradient of the values: for each entry the sum, over images and output positions, of in * grad_out.
  void (*grad_weight)(const Correlation&, const SparseRows&, const Blocking&, Element, const void* in, const void* grad_out,
                      void* grad_values, const Parallel&);
};

/// For every type but doubles, by the width of the blocking; null where this build or this processor has none.
const Kernels* avx512_kernels(int width);
const Kernels* avx2_kernels(int width);
const Kernels* portable_kernels(int width);
/// For doubles.
const Kernels* double_kernels(int width);

}  // namespace lth_sparse
