// A layer's forward pass by the kernels, with its node in autograd's graph.
#pragma once

#include <ATen/ATen.h>

#include <memory>

#include "../kernel_table.h"
#include "layer_plan.h"

namespace lth_sparse {

/// Of the library of the kernels; set once, when this one is loaded.
extern const KernelTable* kernels;

/// An input of the kernels: x, or a gradient, as [N, C] or [N, C, H, W] in a dense layout.
struct Operand {
  at::Tensor tensor;
  Images images;
};

/// Uninitialised, of the dtype of `like`; channels_last where that exists and is asked for.
at::Tensor empty(at::IntArrayRef sizes, const at::Tensor& like, bool channels_last);

/// Copied where it has another layout. `tensor` has a layer's dimensions, or those that nn.Linear and nn.Conv2d allow besides.
Operand operand(const LayerPlan& plan, const at::Tensor& tensor);

/// What those kernels multiply with for such an input: the values, or the dense weight made of them.
at::Tensor weights_of(const LayerPlan& plan, int by, const at::Tensor& values, const Images& x);

/// The passes alone, by those kernels, below autograd. `weights` are those of weights_of; `bias` may be undefined; what is below
/// 0 becomes 0 if `relu`. `grad` is in the layout of `x`. All is plain, and fits.
at::Tensor run_forward(const LayerPlan& plan, int by, const Operand& x, const at::Tensor& weights, const at::Tensor& bias,
                       bool relu);
at::Tensor run_grad_input(const LayerPlan& plan, int by, const Operand& grad, const at::Tensor& weights, const Images& x);
at::Tensor run_grad_weight(const LayerPlan& plan, int by, const Operand& x, const Operand& grad);

/// The output for `x`, a Operand of `given`, by `passes`. Who asks for gradients gets them: x, values and bias may want some.
/// `bias` may be undefined. All is plain, and fits.
at::Tensor forward(const std::shared_ptr<LayerPlan>& plan, const Passes& passes, const at::Tensor& given, const Operand& x,
                   const at::Tensor& values, const at::Tensor& bias, bool relu);

}  // namespace lth_sparse
