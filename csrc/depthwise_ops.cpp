// The operators of depthwise convolutions: schemas, shape checks and nothing else. What they are given: arguments.h.
#include <torch/csrc/stable/library.h>

#include <algorithm>
#include <optional>
#include <vector>

#include "arguments.h"
#include "cpu/dispatch.h"
#include "passes.h"
#include "torch_threads.h"

namespace lth_sparse {
namespace {

Convolution depthwise_convolution(const std::vector<int64_t>& layer) {
  const Convolution c = convolution(layer);
  STD_TORCH_CHECK(has_depthwise(c),
                  "layer: expected a convolution of each channel by itself (groups, in_channels and out_channels are equal), with a "
                  "kernel of 3 x 3 or 5 x 5, stride 1 or 2, and no dilation");
  return c;
}

Images float_images(const Tensor& tensor, const char* name, const Convolution& c, int64_t channels) {
  STD_TORCH_CHECK(tensor.scalar_type() == ScalarType::Float, name, ": expected float32");
  STD_TORCH_CHECK(tensor.dim() == 4, name, ": got ", tensor.dim(), " dimensions, expected 4");
  return images(tensor, name, c, channels);
}

Tensor forward(const Tensor& x, const Tensor& values, const std::optional<Tensor>& bias, const Tensor& row_offsets,
               const Tensor& columns, const std::vector<int64_t>& layer, bool relu) {
  const Convolution c = depthwise_convolution(layer);
  const Images in = float_images(x, "input", c, c.in_channels);
  const SparseRows rows = forward_rows(c, row_offsets, columns);
  check_vector(values, "values", ScalarType::Float, rows.nnz());
  if (bias.has_value()) check_vector(*bias, "bias", ScalarType::Float, c.out_channels);
  const Images out = output_images(c, in);
  Tensor output = empty_images(out, x);
  depthwise_forward(c, rows, in, out, x.const_data_ptr<float>(), values.const_data_ptr<float>(),
                    bias.has_value() ? bias->const_data_ptr<float>() : nullptr, relu, output.mutable_data_ptr<float>());
  return output;
}

Tensor grad_input(const Tensor& grad_out, const Tensor& values, const Tensor& row_offsets, const Tensor& columns,
                  const std::vector<int64_t>& layer, const std::vector<int64_t>& input_shape) {
  const Convolution c = depthwise_convolution(layer);
  const Images out = float_images(grad_out, "grad_out", c, c.out_channels);
  const Images in = input_images(c, out, grad_out.dim(), input_shape);
  const SparseRows rows = forward_rows(c, row_offsets, columns);
  check_vector(values, "values", ScalarType::Float, rows.nnz());
  Tensor grad = empty_images(in, grad_out);
  depthwise_grad_input(c, rows, out, in, grad_out.const_data_ptr<float>(), values.const_data_ptr<float>(),
                       grad.mutable_data_ptr<float>());
  return grad;
}

Tensor grad_weight(const Tensor& x, const Tensor& grad_out, const Tensor& row_offsets, const Tensor& columns,
                   const std::vector<int64_t>& layer) {
  const Convolution c = depthwise_convolution(layer);
  Images in = float_images(x, "input", c, c.in_channels);
  const Images out = float_images(grad_out, "grad_out", c, c.out_channels);
  check_output(c, in, out);
  // Which of the two is in one layout only says which it is.
  in.channels_last = in.channels_last || out.channels_last;
  STD_TORCH_CHECK(has_layout(x, in.channels_last) && has_layout(grad_out, in.channels_last),
                  "grad_out: expected the memory format of the input");
  const SparseRows rows = forward_rows(c, row_offsets, columns);
  Tensor grad = torch::stable::empty({rows.nnz()}, ScalarType::Float);
  depthwise_grad_weight(c, rows, in, out, x.const_data_ptr<float>(), grad_out.const_data_ptr<float>(),
                        grad.mutable_data_ptr<float>());
  return grad;
}

/// Single pixels lie the same way in both layouts, and whole vectors of channels are faster.
DepthwiseLayer depthwise_layer(const Convolution& c, const SparseRows& rows, Images in, Images out) {
  in.channels_last = out.channels_last = in.channels_last || (in.pixels() == 1 && out.pixels() == 1);
  return {rows, in, out, c.padding};
}

const DepthwiseKernels& kernels(const Convolution& c) { return *instruction_set().depthwise(c); }

}  // namespace

void depthwise_forward(const Convolution& layer, const SparseRows& rows, Images x_images, Images out_images, const float* x,
                       const float* values, const float* bias, bool relu, float* out) {
  if (out_images.count == 0) return;
  kernels(layer).forward(depthwise_layer(layer, rows, x_images, out_images), x, values, bias, relu, out, parallel);
}

void depthwise_grad_input(const Convolution& layer, const SparseRows& rows, Images out_images, Images x_images,
                          const float* grad_out, const float* values, float* grad_x) {
  if (x_images.count == 0) return;
  kernels(layer).grad_input(depthwise_layer(layer, rows, x_images, out_images), grad_out, values, grad_x, parallel);
}

void depthwise_grad_weight(const Convolution& layer, const SparseRows& rows, Images x_images, Images out_images, const float* x,
                           const float* grad_out, float* grad_values) {
  if (rows.nnz() == 0) return;
  if (x_images.count == 0) {
    std::fill_n(grad_values, rows.nnz(), 0.0f);
    return;
  }
  kernels(layer).grad_weight(depthwise_layer(layer, rows, x_images, out_images), x, grad_out, grad_values, parallel);
}

STABLE_TORCH_LIBRARY_FRAGMENT(lth_sparse_cpu, library) {
  library.def(
      "depthwise_forward(Tensor x, Tensor values, Tensor? bias, Tensor row_offsets, Tensor columns, int[] layer, "
      "bool relu=False) -> Tensor");
  library.def(
      "depthwise_grad_input(Tensor grad_out, Tensor values, Tensor row_offsets, Tensor columns, int[] layer, "
      "int[] input_shape) -> Tensor");
  library.def(
      "depthwise_grad_weight(Tensor x, Tensor grad_out, Tensor row_offsets, Tensor columns, int[] layer) -> Tensor");
}

STABLE_TORCH_LIBRARY_IMPL(lth_sparse_cpu, CPU, library) {
  library.impl("depthwise_forward", TORCH_BOX(&forward));
  library.impl("depthwise_grad_input", TORCH_BOX(&grad_input));
  library.impl("depthwise_grad_weight", TORCH_BOX(&grad_weight));
}

}  // namespace lth_sparse
