// The operators of Winograd's algorithm: schemas, shape checks and nothing else. What they are given: arguments.h.
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

Convolution winograd_layer(const std::vector<int64_t>& layer, int64_t tile) {
  const Convolution c = convolution(layer);
  STD_TORCH_CHECK(has_winograd(c), "layer: expected a 3 x 3 convolution of stride 1, without dilation and groups");
  STD_TORCH_CHECK(tile == 2 || tile == 4, "tile: got ", tile, ", expected 2 or 4");
  return c;
}

void check_float(const Tensor& tensor, const char* name) {
  STD_TORCH_CHECK(tensor.scalar_type() == ScalarType::Float, name, ": expected float32");
}

Tensor forward(const Tensor& x, const Tensor& values, const std::optional<Tensor>& bias, const Tensor& row_offsets,
               const Tensor& columns, const std::vector<int64_t>& layer, int64_t tile, bool relu) {
  const Convolution c = winograd_layer(layer, tile);
  check_float(x, "input");
  const Images in = images(x, "input", c, c.in_channels);
  const SparseRows rows = forward_rows(c, row_offsets, columns);
  check_vector(values, "values", ScalarType::Float, rows.nnz());
  if (bias.has_value()) check_vector(*bias, "bias", ScalarType::Float, c.out_channels);
  const Images out = output_images(c, in);
  Tensor output = empty_images(out, x);
  winograd_forward(c, rows, in, out, static_cast<int>(tile), x.const_data_ptr<float>(), values.const_data_ptr<float>(),
                   bias.has_value() ? bias->const_data_ptr<float>() : nullptr, relu, output.mutable_data_ptr<float>());
  return output;
}

Tensor grad_input(const Tensor& grad_out, const Tensor& values, const Tensor& row_offsets, const Tensor& columns,
                  const std::vector<int64_t>& layer, const std::vector<int64_t>& input_shape, int64_t tile) {
  const Convolution c = winograd_layer(layer, tile);
  check_float(grad_out, "grad_out");
  const Images in = images(grad_out, "grad_out", c, c.out_channels);
  const Images out = input_images(c, in, grad_out.dim(), input_shape);
  const SparseRows rows = forward_rows(c, row_offsets, columns);
  check_vector(values, "values", ScalarType::Float, rows.nnz());
  Tensor grad = empty_images(out, grad_out);
  winograd_grad_input(c, rows, in, out, static_cast<int>(tile), grad_out.const_data_ptr<float>(),
                      values.const_data_ptr<float>(), grad.mutable_data_ptr<float>());
  return grad;
}

Tensor grad_weight(const Tensor& x, const Tensor& grad_out, const Tensor& row_offsets, const Tensor& columns,
                   const std::vector<int64_t>& layer, int64_t tile) {
  const Convolution c = winograd_layer(layer, tile);
  check_float(x, "input");
  check_float(grad_out, "grad_out");
  const Images in = images(x, "input", c, c.in_channels), out = images(grad_out, "grad_out", c, c.out_channels);
  check_output(c, in, out);
  const SparseRows rows = forward_rows(c, row_offsets, columns);
  Tensor grad = torch::stable::empty({rows.nnz()}, ScalarType::Float);
  winograd_grad_weight(c, rows, in, out, static_cast<int>(tile), x.const_data_ptr<float>(), grad_out.const_data_ptr<float>(),
                       grad.mutable_data_ptr<float>());
  return grad;
}

void correlate(const Correlation& correlation, const SparseRows& rows, bool transposed, int tile, const float* in,
               const float* values, const float* bias, bool relu, float* out) {
  if (correlation.out.count * correlation.out.image_step() == 0) return;
  instruction_set().winograd()->correlate(correlation, rows, transposed, tile,
                                          static_cast<int>(torch::stable::get_num_threads()), in, values, bias, relu, out,
                                          parallel);
}

}  // namespace

void winograd_forward(const Convolution& layer, const SparseRows& rows, Images x_images, Images out_images, int tile,
                      const float* x, const float* values, const float* bias, bool relu, float* out) {
  correlate(forward_correlation(layer, x_images, out_images), rows, false, tile, x, values, bias, relu, out);
}

void winograd_grad_input(const Convolution& layer, const SparseRows& rows, Images out_images, Images x_images, int tile,
                         const float* grad_out, const float* values, float* grad_x) {
  correlate(grad_input_correlation(layer, out_images, x_images), rows, true, tile, grad_out, values, nullptr, false, grad_x);
}

void winograd_grad_weight(const Convolution& layer, const SparseRows& rows, Images x_images, Images out_images, int tile,
                          const float* x, const float* grad_out, float* grad_values) {
  if (rows.nnz() == 0) return;
  if (x_images.count == 0) {
    std::fill_n(grad_values, rows.nnz(), 0.0f);
    return;
  }
  instruction_set().winograd()->grad_weight(forward_correlation(layer, x_images, out_images), rows, tile,
                                            static_cast<int>(torch::stable::get_num_threads()), x, grad_out, grad_values,
                                            parallel);
}

STABLE_TORCH_LIBRARY_FRAGMENT(lth_sparse_cpu, library) {
  library.def(
      "winograd_forward(Tensor x, Tensor values, Tensor? bias, Tensor row_offsets, Tensor columns, int[] layer, int tile, "
      "bool relu=False) -> Tensor");
  library.def(
      "winograd_grad_input(Tensor grad_out, Tensor values, Tensor row_offsets, Tensor columns, int[] layer, "
      "int[] input_shape, int tile) -> Tensor");
  library.def(
      "winograd_grad_weight(Tensor x, Tensor grad_out, Tensor row_offsets, Tensor columns, int[] layer, int tile) -> Tensor");
}

STABLE_TORCH_LIBRARY_IMPL(lth_sparse_cpu, CPU, library) {
  library.impl("winograd_forward", TORCH_BOX(&forward));
  library.impl("winograd_grad_input", TORCH_BOX(&grad_input));
  library.impl("winograd_grad_weight", TORCH_BOX(&grad_weight));
}

}  // namespace lth_sparse
