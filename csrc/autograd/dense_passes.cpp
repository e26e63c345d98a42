#include "dense_passes.h"

namespace lth_sparse {

using at::Tensor;

namespace {

/// What is given on, in the layout of `images`: PyTorch may have chosen another.
Tensor in_layout(const LayerPlan& plan, Tensor result, const Images& images) {
  if (plan.linear) return result;
  return result.contiguous(images.channels_last ? at::MemoryFormat::ChannelsLast : at::MemoryFormat::Contiguous);
}

at::DimVector weight_sizes(const LayerPlan& plan) { return at::DimVector(plan.mask().sizes()); }

/// Of x or of the weight. Of the one whose gradient it is only sizes and layout are read, so that may be uninitialised.
Tensor convolution_backward(const LayerPlan& plan, const Tensor& grad, const Tensor& x, const Tensor& weight, bool of_x) {
  const Convolution& c = plan.convolution;
  const auto [grad_x, grad_weight, grad_bias] =
      at::convolution_backward(grad, x, weight, at::OptionalIntArrayRef(), c.stride, c.padding, c.dilation,
                               /*transposed=*/false, {0, 0}, c.groups, {of_x, !of_x, false});
  return of_x ? grad_x : grad_weight;
}

}  // namespace

Tensor dense_weight(const LayerPlan& plan, const Tensor& values, const Images& x) {
  const at::DimVector sizes = weight_sizes(plan);
  const bool channels_last = !plan.linear && x.channels_last;
  if (values.numel() == plan.mask().numel()) {
    const Tensor weight = values.view(sizes);
    return channels_last ? weight.contiguous(at::MemoryFormat::ChannelsLast) : weight;
  }
  const Tensor weight = empty(sizes, values, channels_last);
  kernels->scatter_values(plan.live(channels_last), values.element_size(), values.const_data_ptr(), weight.mutable_data_ptr());
  return weight;
}

Tensor dense_forward(const LayerPlan& plan, const Operand& x, const Tensor& weight, const Tensor& bias, bool relu) {
  const Convolution& c = plan.convolution;
  Tensor output = plan.linear ? at::linear(x.tensor, weight, bias)
                              : at::conv2d(x.tensor, weight, bias, c.stride, c.padding, c.dilation, c.groups);
  output = in_layout(plan, std::move(output), x.images);
  return relu ? output.relu_() : output;
}

Tensor dense_grad_input(const LayerPlan& plan, const Operand& grad, const Tensor& weight, const Images& x) {
  if (plan.linear) return at::mm(grad.tensor, weight);
  const Tensor like = empty({x.count, x.channels, x.height, x.width}, grad.tensor, x.channels_last);
  return in_layout(plan, convolution_backward(plan, grad.tensor, like, weight, true), x);
}

Tensor dense_grad_weight(const LayerPlan& plan, const Operand& x, const Operand& grad) {
  Tensor gradient = plan.linear ? at::mm(grad.tensor.t(), x.tensor)
                                : convolution_backward(plan, grad.tensor, x.tensor,
                                                       empty(weight_sizes(plan), x.tensor, x.images.channels_last), false);
  if (gradient.numel() == plan.rows.nnz()) return gradient.contiguous().view(-1);
  gradient = in_dense_layout(gradient);
  const Tensor values = at::empty({plan.rows.nnz()}, gradient.options());
  kernels->gather_values(plan.live(!gradient.is_contiguous()), gradient.element_size(), gradient.const_data_ptr(),
                         values.mutable_data_ptr());
  return values;
}

}  // namespace lth_sparse
