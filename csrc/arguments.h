// What the operators are given, checked: tensors and lists of integers into the structures that the kernels take.
//
// `layer` is a convolution as 11 integers: in_channels, out_channels, and (rows, columns) of kernel, stride, padding and
// dilation, then groups. A linear layer is a 1 x 1 convolution whose input has two dimensions. Tensors must be
// contiguous, or channels_last where that exists; outputs take the layout of the input.
#pragma once

#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>
#include <torch/headeronly/core/ScalarType.h>
#include <torch/headeronly/util/Exception.h>

#include <optional>
#include <vector>

#include "cpu/correlation.h"
#include "cpu/huge_pages.h"

namespace lth_sparse {

using torch::headeronly::ScalarType;
using torch::stable::Tensor;

inline Convolution convolution(const std::vector<int64_t>& layer) {
  STD_TORCH_CHECK(layer.size() == 11, "layer: got ", layer.size(), " integers, expected 11");
  const Convolution c{layer[0],
                      layer[1],
                      {layer[2], layer[3]},
                      {layer[4], layer[5]},
                      {layer[6], layer[7]},
                      {layer[8], layer[9]},
                      layer[10]};
  bool positive = c.in_channels > 0 && c.out_channels > 0 && c.groups > 0;
  for (int d = 0; d < 2; ++d)
    positive = positive && c.kernel[d] > 0 && c.stride[d] > 0 && c.padding[d] >= 0 && c.dilation[d] > 0;
  STD_TORCH_CHECK(positive, "layer: expected positive integers, and a padding of at least 0");
  STD_TORCH_CHECK(c.in_channels % c.groups == 0 && c.out_channels % c.groups == 0, "layer: got ", c.in_channels,
                  " input and ", c.out_channels, " output channels, expected multiples of ", c.groups, " groups");
  STD_TORCH_CHECK(c.in_channels * c.taps() <= INT32_MAX && c.out_channels * c.taps() <= INT32_MAX &&
                      c.phases() * c.in_channels <= INT32_MAX,
                  "layer: expected fewer than 2^31 columns");
  return c;
}

inline std::vector<int64_t> sizes(const Tensor& tensor) {
  std::vector<int64_t> result;
  for (int64_t d = 0; d < tensor.dim(); ++d) result.push_back(tensor.size(d));
  return result;
}

/// The strides that a dense layout of these sizes has, compared where a size is not 1.
inline bool has_layout(const Tensor& tensor, bool channels_last) {
  const int64_t n = tensor.size(0), c = tensor.size(1), h = tensor.size(2), w = tensor.size(3);
  const int64_t contiguous[] = {c * h * w, h * w, w, 1}, last[] = {h * w * c, 1, w * c, c};
  if (n * c * h * w == 0) return true;
  for (int d = 0; d < 4; ++d)
    if (tensor.size(d) != 1 && tensor.stride(d) != (channels_last ? last : contiguous)[d]) return false;
  return true;
}

inline Images images(const Tensor& tensor, const char* name, int64_t channels) {
  STD_TORCH_CHECK(tensor.is_cpu(), name, ": expected a tensor on the CPU");
  STD_TORCH_CHECK(tensor.dim() == 2 || tensor.dim() == 4, name, ": got ", tensor.dim(),
                  " dimensions, expected 4, or 2 for a linear layer");
  STD_TORCH_CHECK(tensor.size(1) == channels, name, ": got ", tensor.size(1), " channels, expected ", channels);
  if (tensor.dim() == 2) {
    STD_TORCH_CHECK(tensor.is_contiguous(), name, ": expected a contiguous tensor");
    return {tensor.size(0), channels, 1, 1, true};
  }
  const bool contiguous = has_layout(tensor, false);
  STD_TORCH_CHECK(contiguous || has_layout(tensor, true), name, ": expected a contiguous or channels_last tensor");
  return {tensor.size(0), channels, tensor.size(2), tensor.size(3), !contiguous};
}

inline void check_vector(const Tensor& tensor, const char* name, ScalarType dtype, int64_t size) {
  STD_TORCH_CHECK(tensor.is_cpu() && tensor.is_contiguous() && tensor.dim() == 1, name,
                  ": expected one contiguous dimension on the CPU");
  STD_TORCH_CHECK(tensor.scalar_type() == dtype, name, ": got another dtype than expected");
  STD_TORCH_CHECK(tensor.size(0) == size, name, ": got ", tensor.size(0), " elements, expected ", size);
}

inline SparseRows sparse_rows(const Tensor& row_offsets, const Tensor& columns, const Tensor* order, int64_t rows,
                       int64_t rows_per_group, int64_t columns_per_group) {
  check_vector(row_offsets, "row_offsets", ScalarType::Int, rows + 1);
  check_vector(columns, "columns", ScalarType::Int, columns.numel());
  if (order != nullptr) check_vector(*order, "order", ScalarType::Int, columns.numel());
  const SparseRows result{row_offsets.const_data_ptr<int32_t>(),
                          columns.const_data_ptr<int32_t>(),
                          order == nullptr ? nullptr : order->const_data_ptr<int32_t>(),
                          rows,
                          rows_per_group,
                          columns_per_group};
  STD_TORCH_CHECK(result.row_offsets[0] == 0 && result.nnz() == columns.numel(),
                  "row_offsets: expected to run from 0 to ", columns.numel());
  return result;
}

inline SparseRows forward_rows(const Convolution& c, const Tensor& row_offsets, const Tensor& columns) {
  return sparse_rows(row_offsets, columns, nullptr, c.out_channels, c.out_channels / c.groups,
                     c.in_channels / c.groups * c.taps());
}

inline Images output_images(const Convolution& c, const Images& x) {
  Images output{x.count, c.out_channels, 0, 0, x.channels_last};
  const int64_t in[] = {x.height, x.width};
  int64_t* const out[] = {&output.height, &output.width};
  for (int d = 0; d < 2; ++d) {
    const int64_t room = in[d] + 2 * c.padding[d] - c.dilation[d] * (c.kernel[d] - 1) - 1;
    STD_TORCH_CHECK(room >= 0, "input: got ", x.height, " x ", x.width, ", expected no less than the kernel");
    *out[d] = room / c.stride[d] + 1;
  }
  return output;
}

inline constexpr const char* kNoGradient = "grad_out: does not have the shape of the output for this input";

/// Throws where `out` is not the output for `in`.
inline void check_output(const Convolution& c, const Images& in, const Images& out) {
  const Images expected = output_images(c, in);
  STD_TORCH_CHECK(out.count == in.count && expected.height == out.height && expected.width == out.width, kNoGradient);
}

/// The input, of `input_shape`, that has an output like grad_out.
inline Images input_images(const Convolution& c, const Images& grad_out, const std::vector<int64_t>& input_shape) {
  STD_TORCH_CHECK(input_shape.size() == 2 || input_shape.size() == 4, "input_shape: expected 2 or 4 sizes");
  Images in{input_shape[0], input_shape[1], 1, 1, grad_out.channels_last};
  if (input_shape.size() == 4) in.height = input_shape[2], in.width = input_shape[3];
  STD_TORCH_CHECK(in.channels == c.in_channels, kNoGradient);
  check_output(c, in, grad_out);
  return in;
}

inline Tensor empty_images(const Images& images, const Tensor& like) {
  if (like.dim() == 2) return torch::stable::empty({images.count, images.channels}, like.scalar_type());
  const Tensor result =
      torch::stable::empty({images.count, images.channels, images.height, images.width}, like.scalar_type(),
                           std::nullopt, std::nullopt, std::nullopt,
                           images.channels_last ? torch::headeronly::MemoryFormat::ChannelsLast
                                                : torch::headeronly::MemoryFormat::Contiguous);
  // malloc maps a large tensor afresh at every call, and 8192 faults of 4 KB for 32 MB take longer than the kernel.
  advise_huge_pages(result.mutable_data_ptr(), result.numel() * result.element_size(), 2);
  return result;
}

inline void check_dtype(const Tensor& tensor, const char* name) {
  STD_TORCH_CHECK(tensor.scalar_type() == ScalarType::Float || tensor.scalar_type() == ScalarType::Double, name,
                  ": expected float32 or float64");
}

}  // namespace lth_sparse
