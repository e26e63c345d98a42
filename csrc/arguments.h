// What the operators are given, checked: tensors and lists of integers into the structures that the kernels take.
//
// Layers are read in layer.h. Tensors must be contiguous, or channels_last where that exists; outputs take the layout of
// the input.
#pragma once

#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>
#include <torch/headeronly/core/ScalarType.h>
#include <torch/headeronly/util/Exception.h>

#include <optional>
#include <vector>

#include "cpu/correlation.h"
#include "cpu/huge_pages.h"
#include "dtypes.h"
#include "layer_arguments.h"

namespace lth_sparse {

using torch::headeronly::ScalarType;
using torch::stable::Tensor;

inline std::vector<int64_t> sizes(const Tensor& tensor) {
  std::vector<int64_t> result;
  for (int64_t d = 0; d < tensor.dim(); ++d) result.push_back(tensor.size(d));
  return result;
}

/// Whether the strides are those that a dense layout of these sizes has, compared where a size is not 1.
inline bool has_layout(const Tensor& tensor, bool channels_last) {
  if (tensor.numel() == 0) return true;
  constexpr int kContiguous[] = {3, 2, 1, 0}, kLast[] = {1, 3, 2, 0};
  int64_t stride = 1;  // Of what lies in memory, as far as it was seen to: no product of sizes that are only claimed.
  for (const int d : channels_last ? kLast : kContiguous) {
    if (tensor.size(d) != 1 && tensor.stride(d) != stride) return false;
    stride *= tensor.size(d);
  }
  return true;
}

inline void check_sizes(const Images& x, const char* name) {
  STD_TORCH_CHECK(is_small(x), name, ": got an image of ", x.channels, " x ", x.height, " x ", x.width,
                  ", expected fewer than 2^31 elements");
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
  const Images result{tensor.size(0), channels, tensor.size(2), tensor.size(3), !contiguous};
  check_sizes(result, name);
  return result;
}

/// The input or output of a layer.
inline Images images(const Tensor& tensor, const char* name, const Convolution& c, int64_t channels) {
  const bool linear = c.taps() == 1 && c.phases() == 1 && c.padding[0] == 0 && c.padding[1] == 0;
  STD_TORCH_CHECK(linear || tensor.dim() != 2, name, ": got 2 dimensions, expected 4: the layer is not linear");
  return images(tensor, name, channels);
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
  STD_TORCH_CHECK(x.pixels() > 0 || x.count == 0, "input: got ", x.height, " x ", x.width, ", expected at least a pixel");
  const Images output = output_of(c, x);
  STD_TORCH_CHECK(output.height > 0 && output.width > 0, "input: got ", x.height, " x ", x.width,
                  ", expected no less than the kernel");
  return output;
}

inline constexpr const char* kNoGradient = "grad_out: does not have the shape of the output for this input";

/// Throws where `out` is not the output for `in`.
inline void check_output(const Convolution& c, const Images& in, const Images& out) {
  const Images expected = output_images(c, in);
  STD_TORCH_CHECK(out.count == in.count && expected.height == out.height && expected.width == out.width, kNoGradient);
}

/// The input, of `input_shape`, that has an output like grad_out, a tensor of so many dimensions.
inline Images input_images(const Convolution& c, const Images& grad_out, int64_t dimensions,
                           const std::vector<int64_t>& input_shape) {
  STD_TORCH_CHECK(static_cast<int64_t>(input_shape.size()) == dimensions, "input_shape: expected ", dimensions, " sizes");
  Images in{input_shape[0], input_shape[1], 1, 1, grad_out.channels_last};
  if (dimensions == 4) in.height = input_shape[2], in.width = input_shape[3];
  STD_TORCH_CHECK(in.channels == c.in_channels, kNoGradient);
  check_sizes(in, "input_shape");
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

/// What the sparse kernels take the tensor's elements for.
inline Element element_of(const Tensor& tensor, const char* name) {
  const std::optional<Element> element = element_of(tensor.scalar_type());
  STD_TORCH_CHECK(element.has_value(), name, ": expected float32, float64, bfloat16 or float16");
  return *element;
}

}  // namespace lth_sparse
