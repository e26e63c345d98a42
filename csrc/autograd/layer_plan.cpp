#include "layer_plan.h"

#include <torch/csrc/Exceptions.h>
#include <torch/csrc/PyInterpreter.h>
#include <torch/csrc/utils/pybind.h>

#include "../cpu/depthwise/kernels.h"
#include "../cpu/winograd/kernels.h"
#include "../layer_arguments.h"
#include "plain.h"

namespace lth_sparse {
namespace {

/// Answers that a plan keeps; whoever gives a layer images of more sizes asks again.
constexpr size_t kMostAnswers = 16;

void check_plain(const at::Tensor& tensor, const char* name, at::ScalarType dtype, at::IntArrayRef sizes) {
  TORCH_CHECK(is_plain(tensor) && tensor.scalar_type() == dtype && tensor.sizes() == sizes, "plan: got ", name, " of ",
              tensor.scalar_type(), " and ", tensor.sizes(), ", expected ", dtype, " and ", sizes, ", dense on the CPU");
}

/// The tensors of such a layer. The indices by themselves: whoever holds the given ones may put other memory under them.
std::vector<at::Tensor> checked(std::vector<at::Tensor> tensors, const Convolution& c, bool linear) {
  TORCH_CHECK(tensors.size() == 6, "plan: got ", tensors.size(), " tensors, expected 6");
  TORCH_CHECK(!linear || (c.taps() == 1 && c.phases() == 1 && c.groups == 1 && c.padding == std::array<int64_t, 2>{0, 0}),
              "plan: got a linear layer with a kernel, a stride, padding or groups");
  at::DimVector weight{c.out_channels, c.in_channels / c.groups};
  if (!linear) weight.append(c.kernel.begin(), c.kernel.end());
  check_plain(tensors[0], "a mask", at::kBool, weight);
  const int64_t nnz = tensors[2].numel();
  const std::array<int64_t, 5> sizes = {c.out_channels + 1, nnz, c.phases() * c.in_channels + 1, nnz, nnz};
  for (size_t i = 0; i < sizes.size(); ++i) {
    at::Tensor& indices = tensors[i + 1];
    check_plain(indices, "indices", at::kInt, {sizes[i]});
    TORCH_CHECK(indices.is_contiguous(), "plan: got indices that are not contiguous");
    indices = indices.detach();
  }
  return tensors;
}

/// Whether kernels of this number compute such a layer.
bool has_kernels(int number, const Convolution& c, Element element) {
  switch (number) {
    case kPython:
    case kSparse:
    case kDense: return true;
    case kWinograd2:
    case kWinograd4: return element == Element::kFloat && has_winograd(c);
    case kDepthwise: return element == Element::kFloat && has_depthwise(c);
    default: return false;
  }
}

SparseRows forward_matrix(const std::vector<at::Tensor>& tensors, const Convolution& c) {
  return {tensors[1].const_data_ptr<int32_t>(),
          tensors[2].const_data_ptr<int32_t>(),
          nullptr,
          c.out_channels,
          c.out_channels / c.groups,
          c.in_channels / c.groups * c.taps()};
}

SparseRows transposed_matrix(const std::vector<at::Tensor>& tensors, const Convolution& c) {
  const int64_t rows = c.phases() * c.in_channels;
  return {tensors[3].const_data_ptr<int32_t>(), tensors[4].const_data_ptr<int32_t>(), tensors[5].const_data_ptr<int32_t>(),
          rows, rows, 0};
}

c10::SafePyObject kept(PyObject* object) { return {py::reinterpret_borrow<py::object>(object).release().ptr(), getPyInterpreter()}; }

py::object or_none(const at::Tensor& tensor) { return tensor.defined() ? py::cast(tensor) : py::none(); }

}  // namespace

at::Tensor in_dense_layout(const at::Tensor& tensor) {
  const bool dense = tensor.is_contiguous() || (tensor.dim() == 4 && tensor.is_contiguous(at::MemoryFormat::ChannelsLast));
  return dense ? tensor : tensor.contiguous();
}

int64_t LayerPlan::generation_ = 0;

LayerPlan::LayerPlan(std::vector<at::Tensor> tensors, const Convolution& convolution, bool linear, PyObject* choose,
                     PyObject* gradients)
    : tensors(checked(std::move(tensors), convolution, linear)),
      convolution(convolution),
      linear(linear),
      rows(forward_matrix(this->tensors, convolution)),
      transposed(transposed_matrix(this->tensors, convolution)),
      mask_(in_dense_layout(this->tensors[0].detach())),
      choose_(kept(choose)),
      gradients_(kept(gradients)) {}

std::optional<Passes> LayerPlan::passes(const Question& question) {
  if (answers_generation_ != generation_ || answers_.size() >= kMostAnswers) {
    answers_.clear();
    answers_generation_ = generation_;
  }
  for (const Answer& answer : answers_)
    if (answer.question == question) return answer.passes;
  const auto& [x, threads, element, channels_last, grad_x, grad_values] = question;
  py::tuple shape(linear ? 2 : 4);
  for (size_t d = 0; d < shape.size(); ++d) shape[d] = x[d];
  // While Python answers, other threads may ask too, and what the answer depends on may change.
  const int64_t asked_at = generation_;
  const py::handle choose(choose_.ptr(getPyInterpreter()));
  const py::object chosen = choose(shape, static_cast<int>(element), channels_last, grad_x, grad_values);
  if (chosen.is_none()) return std::nullopt;
  const auto [forward, grad_input, grad_weight] = chosen.cast<std::tuple<int, int, int>>();
  for (const int number : {forward, grad_input, grad_weight})
    TORCH_CHECK(has_kernels(number, convolution, element), "choose: got kernels ", number, ", which the layer has not");
  const Passes passes{forward, grad_input, grad_weight};
  if (asked_at == generation_) answers_.push_back({question, passes});
  return passes;
}

bool LayerPlan::is_whole() const {
  const int64_t nnz = tensors[2].numel();
  return rows.row_offsets[0] == 0 && rows.nnz() == nnz && transposed.row_offsets[0] == 0 && transposed.nnz() == nnz;
}

bool LayerPlan::has_numbers(const at::Tensor& values) const {
  return element_of(values.scalar_type()) && values.dim() == 1 && values.numel() == tensors[2].numel() &&
         values.is_contiguous() && is_whole();
}

bool LayerPlan::has_output(const Images& x, const Images& out) const {
  if (!is_small(x) || x.channels != convolution.in_channels || (x.pixels() == 0 && x.count > 0)) return false;
  const Images expected = output_of(convolution, x);
  return expected.height > 0 && expected.width > 0 && out.count == expected.count && out.channels == expected.channels &&
         out.height == expected.height && out.width == expected.width && out.channels_last == x.channels_last;
}

LiveWeights LayerPlan::live(bool channels_last) const {
  const int64_t channels = convolution.in_channels / convolution.groups;
  return {mask_.const_data_ptr<bool>(), rows.row_offsets, rows.columns, convolution.out_channels, channels, convolution.taps(),
          channels_last, !mask_.is_contiguous()};
}

std::array<at::Tensor, 3> LayerPlan::gradients(const at::Tensor& grad_out, const at::Tensor& x, const at::Tensor& values,
                                               at::IntArrayRef x_sizes, std::array<bool, 3> needed) const {
  const py::gil_scoped_acquire gil;
  try {
    const py::handle compute(gradients_.ptr(getPyInterpreter()));
    const py::object made = compute(grad_out, or_none(x), or_none(values), py::tuple(py::cast(x_sizes.vec())), needed);
    const auto given = made.cast<std::tuple<std::optional<at::Tensor>, std::optional<at::Tensor>, std::optional<at::Tensor>>>();
    const auto& [grad_x, grad_values, grad_bias] = given;
    return {grad_x.value_or(at::Tensor()), grad_values.value_or(at::Tensor()), grad_bias.value_or(at::Tensor())};
  } catch (py::error_already_set& error) {
    error.restore();
    python_error thrown;
    thrown.persist();
    throw thrown;
  }
}

}  // namespace lth_sparse
