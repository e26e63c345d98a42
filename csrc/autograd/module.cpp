// What Python calls: `plan`, `call`, `forget` and `connect`, as lth_sparse/backends/autograd_node.py says.
//
// Of PyTorch's full ABI, for the stable one has no nodes of autograd; so it is loaded only by the PyTorch that it was built for,
// which `kBuiltFor` lets Python read without loading it.
#include <ATen/Parallel.h>
#include <torch/csrc/Exceptions.h>
#include <torch/csrc/autograd/python_variable.h>
#include <torch/csrc/utils/pybind.h>

#include <cstring>

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
  const Convolution convolution{layer.at(0), layer.at(1), {layer.at(2), layer.at(3)}, {layer.at(4), layer.at(5)},
                                {layer.at(6), layer.at(7)}, {layer.at(8), layer.at(9)}, layer.at(10)};
  auto* const made = new std::shared_ptr<LayerPlan>(
      std::make_shared<LayerPlan>(std::move(tensors), convolution, linear, choose.ptr(), gradients.ptr()));
  return py::capsule(made, kPlan, drop);
}

/// Whether PyTorch would not look for a __torch_function__: a Tensor or a Parameter, no other subclass.
bool is_tensor(PyObject* object) { return THPVariable_CheckExact(object); }

bool fits(const LayerPlan& plan, const Tensor& x, const Tensor& values, const Tensor& bias) {
  const Convolution& c = plan.convolution;
  const int64_t dim = x.dim();
  if (plan.linear ? dim < 1 || x.size(-1) != c.in_channels : (dim != 3 && dim != 4) || x.size(-3) != c.in_channels) return false;
  if (x.numel() > INT32_MAX || values.dim() != 1 || values.numel() != plan.rows.nnz() || !values.is_contiguous()) return false;
  if (bias.defined() && (bias.dim() != 1 || bias.numel() != c.out_channels || !bias.is_contiguous())) return false;
  const at::ScalarType dtype = values.scalar_type();
  return element_of(dtype) && x.scalar_type() == dtype && (!bias.defined() || bias.scalar_type() == dtype);
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
  const Images out = output_of(plan.convolution, images);
  if (out.height < 1 || out.width < 1 || (images.count > 0 && images.pixels() == 0)) Py_RETURN_NONE;
  const std::optional<Passes> passes =
      plan.passes({{images.count, images.channels, images.height, images.width}, at::get_num_threads(),
                   *element_of(values.scalar_type()), !plan.linear && images.channels_last, grad_x, grad_values});
  if (!passes || passes->in_python()) Py_RETURN_NONE;
  Tensor output;
  {
    const py::gil_scoped_release no_gil;
    output = forward(*capsule, *passes, x, given, values, bias, relu);
  }
  return THPVariable_Wrap(std::move(output));
  END_HANDLE_TH_ERRORS
}

/// Whether the table at this address is that of a library compiled of the same sources; then it is what is called.
bool connect(int64_t address) {
  const auto* const table = reinterpret_cast<const KernelTable*>(address);
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
  module.def("connect", &lth_sparse::connect);
  module.def("forget", &lth_sparse::LayerPlan::forget);
  module.attr("call") = py::reinterpret_steal<py::object>(PyCFunction_New(&lth_sparse::kCall, nullptr));
}
