// The passes of a layer by PyTorch's own operators, on its dense weight: what is faster where little or nothing is pruned and
// Winograd's algorithm does not apply. Linear layers with few pruned are the case that matters.
#pragma once

#include <ATen/ATen.h>

#include "layer.h"

namespace lth_sparse {

/// The layer's weight, 0 where pruned, in the layout that `x` wants: made of the values, or these themselves where nothing is
/// pruned.
at::Tensor dense_weight(const LayerPlan& plan, const at::Tensor& values, const Images& x);

/// As run_forward and those beside it (layer.h), which pass on what they are given.
at::Tensor dense_forward(const LayerPlan& plan, const Operand& x, const at::Tensor& weight, const at::Tensor& bias, bool relu);
at::Tensor dense_grad_input(const LayerPlan& plan, const Operand& grad, const at::Tensor& weight, const Images& x);
at::Tensor dense_grad_weight(const LayerPlan& plan, const Operand& x, const Operand& grad);

}  // namespace lth_sparse
