#include "dense_passes.h"

namespace lth_sparse {

using at::Tensor;

namespace {

at::MemoryFormat layout(const Images& images) {
  return images.channels_last ? at::MemoryFormat::ChannelsLast : at::MemoryFormat::Contiguous;
}

/// What is given on, in the layout of `images`: PyTorch may have chosen another.
Tensor in_layout(const LayerPlan& plan, Tensor result, const Images& images) {
  return plan.linear ? result : result.contiguous(layout(images));
}

at::DimVector weight_sizes(const LayerPlan& plan) { return at::DimVector(plan.tensors[0].sizes()); }

/// Memory of which nothing is read: the backward pass of a convolution wants the sizes and the layout of what it does not need.
Tensor unread(at::IntArrayRef sizes, const Images& images, const Tensor& like) {
  return at::empty(sizes, like.options().memory_format(layout(images)));
}

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
  if (values.numel() == plan.tensors[0].numel()) {
    const Tensor weight = values.view(sizes);
    return channels_last ? weight.contiguous(at::MemoryFormat::ChannelsLast) : weight;
  }
  const Tensor weight = plan.linear ? at::empty(sizes, values.options()) : unread(sizes, x, values);
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
  const Tensor like = unread({x.count, x.channels, x.height, x.width}, x, grad.tensor);
  return in_layout(plan, convolution_backward(plan, grad.tensor, like, weight, true), x);
}

Tensor dense_grad_weight(const LayerPlan& plan, const Operand& x, const Operand& grad) {
  Tensor gradient = plan.linear ? at::mm(grad.tensor.t(), x.tensor)
                                : convolution_backward(plan, grad.tensor, x.tensor,
                                                       unread(weight_sizes(plan), x.images, x.tensor), false);
  if (gradient.numel() == plan.rows.nnz()) return gradient.contiguous().view(-1);
  if (!gradient.is_contiguous() && !gradient.is_contiguous(at::MemoryFormat::ChannelsLast)) gradient = gradient.contiguous();
  const Tensor values = at::empty({plan.rows.nnz()}, gradient.options());
  kernels->gather_values(plan.live(!gradient.is_contiguous()), gradient.element_size(), gradient.const_data_ptr(),
                         values.mutable_data_ptr());
  return values;
}

}  // namespace lth_sparse
