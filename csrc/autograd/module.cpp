// What Python calls: `plan`, `call`, the passes alone, `forget` and `connect`, as lth_sparse/backends/autograd_node.py says.
//
// Of PyTorch's full ABI, for the stable one has no nodes of autograd; so it is loaded only by the PyTorch that it was built for,
// which `kBuiltFor` lets Python read without loading it.
#include <ATen/Parallel.h>
#include <ATen/core/dispatch/Dispatcher.h>
#include <torch/csrc/Exceptions.h>
#include <torch/csrc/autograd/python_variable.h>
#include <torch/csrc/utils/pybind.h>

#include <cstring>

#include "../layer_arguments.h"
#include "layer.h"
#include "plain.h"

namespace lth_sparse {
namespace {

using at::Tensor;

constexpr const char* kBuiltFor = "lth_sparse: built for torch " LTH_SPARSE_TORCH;

constexpr const char* kPlan = "lth_sparse._autograd.plan";

void drop(PyObject* capsule) { delete static_cast<std::shared_ptr<LayerPlan>*>(PyCapsule_GetPointer(capsule, kPlan)); }

py::capsule plan(std::vector<Tensor> tensors, const std::vector<int64_t>& layer, bool linear, const py::object& choose,
                 const py::object& gradients) {
  TORCH_CHECK(kernels != nullptr, "plan: expected a call of connect that returned true before");
  auto* const made = new std::shared_ptr<LayerPlan>(
      std::make_shared<LayerPlan>(std::move(tensors), convolution(layer), linear, choose.ptr(), gradients.ptr()));
  return py::capsule(made, kPlan, drop);
}

/// Whether PyTorch would not look for a __torch_function__: a Tensor or a Parameter, no other subclass.
bool is_tensor(PyObject* object) { return THPVariable_CheckExact(object); }

bool fits(const LayerPlan& plan, const Tensor& x, const Tensor& values, const Tensor& bias) {
  const Convolution& c = plan.convolution;
  const int64_t dim = x.dim();
  if (plan.linear ? dim < 1 || x.size(-1) != c.in_channels : (dim != 3 && dim != 4) || x.size(-3) != c.in_channels) return false;
  if (x.numel() > INT32_MAX || !plan.has_numbers(values)) return false;
  if (bias.defined() && (bias.dim() != 1 || bias.numel() != c.out_channels || !bias.is_contiguous())) return false;
  const at::ScalarType dtype = values.scalar_type();
  return x.scalar_type() == dtype && (!bias.defined() || bias.scalar_type() == dtype);
}

/// The kernels for it, where they are not Python's.
std::optional<Passes> passes_in_here(LayerPlan& plan, const Images& x, const Tensor& like, bool grad_x, bool grad_values) {
  const std::optional<Passes> passes =
      plan.passes({{x.count, x.channels, x.height, x.width}, at::get_num_threads(), *element_of(like.scalar_type()),
                   !plan.linear && x.channels_last, grad_x, grad_values});
  return passes && !passes->in_python() ? passes : std::nullopt;
}

/// (plan, x, values, bias or None, mask, how often that had been written to, relu): the output, or None for who has to go the
/// other way.
PyObject* call(PyObject*, PyObject* const* arguments, Py_ssize_t count) {
  HANDLE_TH_ERRORS
  TORCH_CHECK(count == 7, "call: got ", count, " arguments, expected 7");
  const auto* const capsule = static_cast<std::shared_ptr<LayerPlan>*>(PyCapsule_GetPointer(arguments[0], kPlan));
  if (capsule == nullptr) return nullptr;
  LayerPlan& plan = **capsule;
  PyObject *const x_object = arguments[1], *const bias_object = arguments[3];
  if (!is_tensor(x_object) || !is_tensor(arguments[2]) || !(bias_object == Py_None || is_tensor(bias_object)) ||
      !is_tensor(arguments[4]) || !is_plain_eager())
    Py_RETURN_NONE;
  const Tensor &x = THPVariable_Unpack(x_object), &values = THPVariable_Unpack(arguments[2]);
  const Tensor bias = bias_object == Py_None ? Tensor() : THPVariable_Unpack(bias_object);
  const Tensor& mask = THPVariable_Unpack(arguments[4]);
  if (!is_plain(x) || !is_plain(values) || (bias.defined() && !is_plain(bias)) || !mask.is_same(plan.tensors[0]) ||
      mask.is_inference() || mask._version() != PyLong_AsLongLong(arguments[5]) || !fits(plan, x, values, bias))
    Py_RETURN_NONE;

  const bool graded = at::GradMode::is_enabled(), relu = arguments[6] == Py_True;
  const bool grad_x = graded && x.requires_grad(), grad_values = graded && values.requires_grad();
  Operand given;
  {
    const at::AutoDispatchBelowADInplaceOrView below_autograd;
    given = operand(plan, x);
  }
  const Images& images = given.images;
  if (!is_small(images)) Py_RETURN_NONE;
  const Images out = output_of(plan.convolution, images);
  if (out.height < 1 || out.width < 1 || (images.count > 0 && images.pixels() == 0)) Py_RETURN_NONE;
  const std::optional<Passes> passes = passes_in_here(plan, images, values, grad_x, grad_values);
  if (!passes) Py_RETURN_NONE;
  Tensor output;
  {
    const py::gil_scoped_release no_gil;
    output = forward(*capsule, *passes, x, given, values, bias, relu);
  }
  return THPVariable_Wrap(std::move(output));
  END_HANDLE_TH_ERRORS
}

LayerPlan& plan_of(const py::capsule& capsule) {
  // Not capsule.get_pointer, which takes a capsule of any name.
  auto* const plan = static_cast<std::shared_ptr<LayerPlan>*>(PyCapsule_GetPointer(capsule.ptr(), kPlan));
  if (plan == nullptr) throw py::error_already_set();
  return **plan;
}

bool is_batch(const LayerPlan& plan, const Tensor& tensor) { return is_plain(tensor) && tensor.dim() == (plan.linear ? 2 : 4); }

/// The passes below autograd, which the operators' kernels in Python call; nothing where that goes another way.
std::optional<Tensor> forward_pass(const py::capsule& capsule, const Tensor& x, const Tensor& values,
                                   const std::optional<Tensor>& bias) {
  LayerPlan& plan = plan_of(capsule);
  const Tensor given_bias = bias.value_or(Tensor());
  if (!is_batch(plan, x) || !is_plain(values) || (given_bias.defined() && !is_plain(given_bias)) ||
      !fits(plan, x, values, given_bias))
    return std::nullopt;
  const Operand given = operand(plan, x);
  if (!is_small(given.images)) return std::nullopt;
  const Images out = output_of(plan.convolution, given.images);
  if (out.height < 1 || out.width < 1 || (!plan.linear && given.images.pixels() == 0)) return std::nullopt;
  const auto passes = passes_in_here(plan, given.images, values, false, false);
  if (!passes) return std::nullopt;
  const py::gil_scoped_release no_gil;
  return run_forward(plan, passes->forward, given, weights_of(plan, passes->forward, values, given.images), given_bias, false);
}

std::optional<Tensor> grad_input_pass(const py::capsule& capsule, const Tensor& grad_out, const Tensor& values,
                                      const std::vector<int64_t>& x_sizes) {
  LayerPlan& plan = plan_of(capsule);
  if (!is_batch(plan, grad_out) || !is_plain(values) || x_sizes.size() != static_cast<size_t>(grad_out.dim()) ||
      !plan.has_numbers(values) || grad_out.scalar_type() != values.scalar_type())
    return std::nullopt;
  const Operand grad = operand(plan, grad_out);
  const Images x{x_sizes[0], x_sizes[1], plan.linear ? 1 : x_sizes[2], plan.linear ? 1 : x_sizes[3], grad.images.channels_last};
  if (!plan.has_output(x, grad.images)) return std::nullopt;
  const auto passes = passes_in_here(plan, x, values, true, false);
  if (!passes) return std::nullopt;
  const py::gil_scoped_release no_gil;
  return run_grad_input(plan, passes->grad_input, grad, weights_of(plan, passes->grad_input, values, x), x);
}

std::optional<Tensor> grad_weight_pass(const py::capsule& capsule, const Tensor& x, const Tensor& grad_out) {
  LayerPlan& plan = plan_of(capsule);
  const at::ScalarType dtype = x.scalar_type();
  if (!is_batch(plan, x) || !is_batch(plan, grad_out) || !element_of(dtype) || grad_out.scalar_type() != dtype ||
      x.numel() > INT32_MAX || !plan.is_whole())
    return std::nullopt;
  const Operand given = operand(plan, x), grad = operand(plan, grad_out);
  if (!plan.has_output(given.images, grad.images)) return std::nullopt;
  const auto passes = passes_in_here(plan, given.images, x, false, true);
  if (!passes) return std::nullopt;
  const py::gil_scoped_release no_gil;
  return run_grad_weight(plan, passes->grad_weight, given, grad);
}

/// Whether the library of the kernels, which has been loaded, is compiled of the same sources; then it is what is called. Nobody
/// else gives an address.
bool connect() {
  const auto operators = c10::Dispatcher::singleton().findSchemaOrThrow("lth_sparse_cpu::kernel_table", "");
  const auto* const table = reinterpret_cast<const KernelTable*>(operators.typed<int64_t()>().call());
  if (std::strcmp(table->sources, LTH_SPARSE_SOURCES) != 0) return false;
  kernels = table;
  return true;
}

PyMethodDef kCall = {"call", reinterpret_cast<PyCFunction>(reinterpret_cast<void (*)()>(&call)), METH_FASTCALL, nullptr};

}  // namespace
}  // namespace lth_sparse

PYBIND11_MODULE(TORCH_EXTENSION_NAME, module) {
  module.doc() = lth_sparse::kBuiltFor;
  module.def("plan", &lth_sparse::plan);
  module.def("forward", &lth_sparse::forward_pass);
  module.def("grad_input", &lth_sparse::grad_input_pass);
  module.def("grad_weight", &lth_sparse::grad_weight_pass);
  module.def("connect", &lth_sparse::connect);
  module.def("forget", &lth_sparse::LayerPlan::forget);
  module.attr("call") = py::reinterpret_steal<py::object>(PyCFunction_New(&lth_sparse::kCall, nullptr));
}
