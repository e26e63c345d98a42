// The operators of the sparse C++ kernels: schemas, shape checks and nothing else. What they are given: arguments.h.
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>
#include <torch/headeronly/core/ScalarType.h>
#include <torch/headeronly/util/Exception.h>

#include <algorithm>
#include <cstring>
#include <optional>
#include <string>
#include <tuple>
#include <vector>

#include "arguments.h"
#include "cpu/blocking.h"
#include "cpu/dispatch.h"
#include "passes.h"
#include "torch_threads.h"

namespace lth_sparse {
namespace {

/// A 1 x 1 convolution with neither stride nor padding does not know which pixels are neighbours. When channels_last it is
/// a linear layer of its pixels; when contiguous its images are single rows.
void flatten_pixels(const Convolution& c, Images& x, Images& output) {
  if (x.channels_last != output.channels_last || x.pixels() != output.pixels() || c.taps() > 1 || c.phases() > 1) return;
  for (Images* const images : {&x, &output}) {
    const int64_t pixels = images->pixels();
    images->height = 1;
    images->width = images->channels_last ? 1 : pixels;
    if (images->channels_last) images->count *= pixels;
  }
}

struct Chosen {
  Blocking blocking;
  const Kernels* kernels;
  const Parallel& threads;
};

/// Products up to which one thread is done before another would have woken.
constexpr int64_t kFewProducts = int64_t{1} << 16;

bool has_few_products(const Correlation& c, int64_t nnz) {
  return nnz * c.in.count * c.positions(0) * c.positions(1) <= kFewProducts;
}

Chosen choose(const Correlation& correlation, int64_t nnz, Element element, bool summed) {
  const bool doubles = element == Element::kDouble;
  const Machine machine = doubles ? Machine{8, 16} : instruction_set().machine;
  const bool few = has_few_products(correlation, nnz);
  const int64_t threads = few ? 1 : torch::stable::get_num_threads();
  const Blocking blocking = choose_blocking(correlation, nnz, element, machine, threads, summed);
  const auto kernels_of_width = doubles ? &double_kernels : instruction_set().kernels;
  return {blocking, kernels_of_width(blocking.width), few ? one_thread : parallel};
}

void correlate(const Correlation& correlation, const SparseRows& rows, Element element, const void* in, const void* values,
               const void* bias, bool relu, void* out) {
  if (correlation.out.count * correlation.out.image_step() == 0) return;
  const Chosen chosen = choose(correlation, rows.nnz(), element, false);
  chosen.kernels->correlate(correlation, rows, chosen.blocking, element, in, values, bias, relu, out, chosen.threads);
}

LinearLayer linear_layer(const Convolution& c, const SparseRows& rows, const SparseRows& transposed, const Images& x) {
  return {rows, transposed, c.in_channels, c.out_channels, x.count, torch::stable::get_num_threads()};
}

/// Calls use(kernels, threads) if there are kernels for the layer as a linear one, or returns false.
template <class Use>
bool as_linear(const Convolution& c, const SparseRows& rows, const Images& x, Element element, const Use& use) {
  const bool linear = c.taps() == 1 && c.phases() == 1 && c.padding[0] == 0 && c.padding[1] == 0 && x.pixels() == 1;
  if (!linear || x.count == 0) return false;
  const int64_t features = std::max(c.in_channels, c.out_channels);
  const LinearKernels* const kernels = element == Element::kDouble ? linear_doubles(x.count, features)
                                                                   : instruction_set().linear(element, x.count, features);
  if (kernels == nullptr) return false;
  use(*kernels, rows.nnz() * x.count <= kFewProducts ? one_thread : parallel);
  return true;
}

Tensor forward(const Tensor& x, const Tensor& values, const std::optional<Tensor>& bias, const Tensor& row_offsets,
               const Tensor& columns, const std::vector<int64_t>& layer, bool relu) {
  const Convolution c = convolution(layer);
  const Element element = element_of(x, "input");
  const Images in = images(x, "input", c, c.in_channels);
  const SparseRows rows = forward_rows(c, row_offsets, columns);
  check_vector(values, "values", x.scalar_type(), rows.nnz());
  if (bias.has_value()) check_vector(*bias, "bias", x.scalar_type(), c.out_channels);
  const Images out = output_images(c, in);
  Tensor output = empty_images(out, x);
  sparse_forward(c, rows, in, out, element, x.const_data_ptr(), values.const_data_ptr(),
                 bias.has_value() ? bias->const_data_ptr() : nullptr, relu, output.mutable_data_ptr());
  return output;
}

Tensor grad_input(const Tensor& grad_out, const Tensor& values, const Tensor& row_offsets, const Tensor& columns,
                  const Tensor& transposed_row_offsets, const Tensor& transposed_columns, const Tensor& order,
                  const std::vector<int64_t>& layer, const std::vector<int64_t>& input_shape) {
  const Convolution c = convolution(layer);
  const Element element = element_of(grad_out, "grad_out");
  const Images in = images(grad_out, "grad_out", c, c.out_channels);
  const Images out = input_images(c, in, grad_out.dim(), input_shape);
  const SparseRows rows = forward_rows(c, row_offsets, columns);
  const SparseRows transposed = sparse_rows(transposed_row_offsets, transposed_columns, &order, c.phases() * c.in_channels,
                                            c.phases() * c.in_channels, 0);
  STD_TORCH_CHECK(rows.nnz() == transposed.nnz(), "columns: got ", rows.nnz(), " elements, and transposed_columns ",
                  transposed.nnz(), ", expected as many");
  check_vector(values, "values", grad_out.scalar_type(), rows.nnz());
  Tensor grad = empty_images(out, grad_out);
  sparse_grad_input(c, rows, transposed, in, out, element, grad_out.const_data_ptr(), values.const_data_ptr(),
                    grad.mutable_data_ptr());
  return grad;
}

Tensor grad_weight(const Tensor& x, const Tensor& grad_out, const Tensor& row_offsets, const Tensor& columns,
                   const std::vector<int64_t>& layer) {
  const Convolution c = convolution(layer);
  const Element element = element_of(x, "input");
  STD_TORCH_CHECK(x.scalar_type() == grad_out.scalar_type(), "grad_out: expected the dtype of the input");
  const Images in = images(x, "input", c, c.in_channels), out = images(grad_out, "grad_out", c, c.out_channels);
  STD_TORCH_CHECK(x.dim() == grad_out.dim(), kNoGradient);
  check_output(c, in, out);
  const SparseRows rows = forward_rows(c, row_offsets, columns);
  Tensor grad = torch::stable::empty({rows.nnz()}, x.scalar_type());
  sparse_grad_weight(c, rows, in, out, element, x.const_data_ptr(), grad_out.const_data_ptr(),
                     grad.mutable_data_ptr());
  return grad;
}

std::tuple<Tensor, Tensor, Tensor> pack(const Tensor& row_offsets, const Tensor& columns,
                                        const std::vector<int64_t>& layer) {
  const Convolution c = convolution(layer);
  const SparseRows rows = forward_rows(c, row_offsets, columns);
  STD_TORCH_CHECK(rows.offsets_ascend(0, rows.rows) && !any_outside(rows.columns, 0, rows.nnz(), rows.columns_per_group),
                  kNoMask);
  const auto integers = [](int64_t size) { return torch::stable::empty({size}, ScalarType::Int); };
  Tensor offsets = integers(c.phases() * c.in_channels + 1), transposed = integers(rows.nnz()), order = integers(rows.nnz());
  transpose(c, rows, offsets.mutable_data_ptr<int32_t>(), transposed.mutable_data_ptr<int32_t>(),
            order.mutable_data_ptr<int32_t>());
  return {offsets, transposed, order};
}

/// `mask`: [out, in] or [out, in / groups, kernel height, kernel width].
LiveWeights live_weights(const Tensor& mask, const Tensor& row_offsets, const Tensor& columns, bool channels_last) {
  STD_TORCH_CHECK(mask.is_cpu() && mask.scalar_type() == ScalarType::Bool, "mask: expected a bool tensor on the CPU");
  STD_TORCH_CHECK((mask.dim() == 2 || mask.dim() == 4) && mask.numel() > 0 && mask.numel() <= INT32_MAX, "mask: got ",
                  mask.dim(), " dimensions and ", mask.numel(), " elements, expected 2 or 4, and 1 to 2^31 - 1");
  STD_TORCH_CHECK(mask.is_contiguous() || (mask.dim() == 4 && has_layout(mask, true)),
                  "mask: expected a contiguous or channels_last tensor");
  STD_TORCH_CHECK(!channels_last || mask.dim() == 4, "channels_last: expected a mask of 4 dimensions");
  const SparseRows rows = sparse_rows(row_offsets, columns, nullptr, mask.size(0), mask.size(0), 0);
  const int64_t taps = mask.dim() == 4 ? mask.size(2) * mask.size(3) : 1;
  return {mask.const_data_ptr<bool>(), rows.row_offsets, rows.columns, rows.rows, mask.size(1), taps, channels_last,
          !mask.is_contiguous()};
}

/// Calls `use` with an element type of this size: 2, 4 or 8.
template <typename Use>
void with_element(int64_t bytes, const Use& use) {
  switch (bytes) {
    case 2: return use(uint16_t());
    case 4: return use(uint32_t());
    case 8: return use(uint64_t());
    default: return use(uint64_t());
  }
}

void check_element(const Tensor& tensor, const char* name) {
  const int64_t bytes = tensor.element_size();
  STD_TORCH_CHECK(bytes == 2 || bytes == 4 || bytes == 8, name, ": got elements of ", bytes, " bytes, expected 2, 4 or 8");
}

Tensor scatter_weight(const Tensor& values, const Tensor& mask, const Tensor& row_offsets, const Tensor& columns,
                      bool channels_last) {
  const LiveWeights live = live_weights(mask, row_offsets, columns, channels_last);
  check_vector(values, "values", values.scalar_type(), live.nnz());
  check_element(values, "values");
  Tensor weight = torch::stable::empty(sizes(mask), values.scalar_type(), std::nullopt, std::nullopt, std::nullopt,
                                       channels_last ? torch::headeronly::MemoryFormat::ChannelsLast
                                                     : torch::headeronly::MemoryFormat::Contiguous);
  scatter_values(live, values.element_size(), values.const_data_ptr(), weight.mutable_data_ptr());
  return weight;
}

Tensor gather_weight(const Tensor& weight, const Tensor& mask, const Tensor& row_offsets, const Tensor& columns) {
  STD_TORCH_CHECK(weight.is_cpu() && sizes(weight) == sizes(mask), "weight: expected the mask's shape, on the CPU");
  const bool contiguous = weight.is_contiguous();
  STD_TORCH_CHECK(contiguous || (weight.dim() == 4 && has_layout(weight, true)),
                  "weight: expected a contiguous or channels_last tensor");
  check_element(weight, "weight");
  const LiveWeights live = live_weights(mask, row_offsets, columns, !contiguous);
  Tensor values = torch::stable::empty({live.nnz()}, weight.scalar_type());
  gather_values(live, weight.element_size(), weight.const_data_ptr(), values.mutable_data_ptr());
  return values;
}

std::string refuses(const std::vector<int64_t>& layer) {
  const char* const reason = refusal(any_convolution(layer));
  return reason == nullptr ? "" : reason;
}

std::string instructions() { return instruction_set().name; }

}  // namespace

void sparse_forward(const Convolution& layer, const SparseRows& rows, Images x_images, Images out_images, Element element,
                    const void* x, const void* values, const void* bias, bool relu, void* out) {
  flatten_pixels(layer, x_images, out_images);
  const bool linear = as_linear(layer, rows, x_images, element, [&](const LinearKernels& kernels, const Parallel& threads) {
    kernels.forward(linear_layer(layer, rows, {}, x_images), x, values, bias, relu, out, threads);
  });
  if (!linear) correlate(forward_correlation(layer, x_images, out_images), rows, element, x, values, bias, relu, out);
}

void sparse_grad_input(const Convolution& layer, const SparseRows& rows, const SparseRows& transposed, Images out_images,
                       Images x_images, Element element, const void* grad_out, const void* values, void* grad_x) {
  flatten_pixels(layer, x_images, out_images);
  const bool linear = as_linear(layer, rows, x_images, element, [&](const LinearKernels& kernels, const Parallel& threads) {
    kernels.grad_input(linear_layer(layer, rows, transposed, x_images), grad_out, values, grad_x, threads);
  });
  if (!linear)
    correlate(grad_input_correlation(layer, out_images, x_images), transposed, element, grad_out, values, nullptr, false, grad_x);
}

void sparse_grad_weight(const Convolution& layer, const SparseRows& rows, Images x_images, Images out_images, Element element,
                        const void* x, const void* grad_out, void* grad_values) {
  const int64_t nnz = rows.nnz();
  if (nnz == 0) return;
  if (x_images.count == 0) {
    std::memset(grad_values, 0, nnz * bytes_of(element));
    return;
  }
  flatten_pixels(layer, x_images, out_images);
  const bool linear = as_linear(layer, rows, x_images, element, [&](const LinearKernels& kernels, const Parallel& threads) {
    kernels.grad_weight(linear_layer(layer, rows, {}, x_images), x, grad_out, grad_values, threads);
  });
  if (linear) return;
  const Correlation correlation = forward_correlation(layer, x_images, out_images);
  const Chosen chosen = choose(correlation, nnz, element, true);
  chosen.kernels->grad_weight(correlation, rows, chosen.blocking, element, x, grad_out, grad_values, chosen.threads);
}

void scatter_values(const LiveWeights& live, int64_t bytes, const void* values, void* weight) {
  with_element(bytes, [&](auto element) {
    using T = decltype(element);
    scatter(live, static_cast<const T*>(values), static_cast<T*>(weight), parallel);
  });
}

void gather_values(const LiveWeights& live, int64_t bytes, const void* weight, void* values) {
  with_element(bytes, [&](auto element) {
    using T = decltype(element);
    gather(live, static_cast<const T*>(weight), static_cast<T*>(values), parallel);
  });
}

STABLE_TORCH_LIBRARY(lth_sparse_cpu, library) {
  library.def("pack(Tensor row_offsets, Tensor columns, int[] layer) -> (Tensor, Tensor, Tensor)");
  library.def(
      "forward(Tensor x, Tensor values, Tensor? bias, Tensor row_offsets, Tensor columns, int[] layer, bool relu=False) -> "
      "Tensor");
  library.def(
      "grad_input(Tensor grad_out, Tensor values, Tensor row_offsets, Tensor columns, Tensor transposed_row_offsets, "
      "Tensor transposed_columns, Tensor order, int[] layer, int[] input_shape) -> Tensor");
  library.def(
      "grad_weight(Tensor x, Tensor grad_out, Tensor row_offsets, Tensor columns, int[] layer) -> Tensor");
  library.def(
      "scatter_weight(Tensor values, Tensor mask, Tensor row_offsets, Tensor columns, bool channels_last) -> Tensor");
  library.def("gather_weight(Tensor weight, Tensor mask, Tensor row_offsets, Tensor columns) -> Tensor");
  library.def("refuses(int[] layer) -> str");
  library.def("instruction_set() -> str");
}

STABLE_TORCH_LIBRARY_IMPL(lth_sparse_cpu, CPU, library) {
  library.impl("pack", TORCH_BOX(&pack));
  library.impl("forward", TORCH_BOX(&forward));
  library.impl("grad_input", TORCH_BOX(&grad_input));
  library.impl("grad_weight", TORCH_BOX(&grad_weight));
  library.impl("scatter_weight", TORCH_BOX(&scatter_weight));
  library.impl("gather_weight", TORCH_BOX(&gather_weight));
}

STABLE_TORCH_LIBRARY_IMPL(lth_sparse_cpu, CompositeExplicitAutograd, library) {
  library.impl("refuses", TORCH_BOX(&refuses));
  library.impl("instruction_set", TORCH_BOX(&instructions));
}

}  // namespace lth_sparse
