"""The sparse operators and their autograd: the only file that knows the backward pass.

Three operators serve convolutions and linear layers on every backend. A call carries the tensors, the plan as
its flat tensors, the spec as its integers and the backend's name, which is all that a dispatcher can carry:

    lth_sparse::forward      x, values, bias      -> output
    lth_sparse::grad_input   grad_out, values     -> the gradient of x
    lth_sparse::grad_weight  x, grad_out          -> the gradient of values, [nnz]

Memory formats are settled here for all backends: an output has the format of x, a gradient of x that of
grad_out (`lth_sparse.backends.base.memory_format`); a linear layer's are contiguous.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd import Function, forward_ad
from typing_extensions import Self

from lth_sparse import reference
from lth_sparse.backends import autograd_node, registry
from lth_sparse.backends.base import Backend, Plan, forward_relu, memory_format
from lth_sparse.backends.kept import Kept, keeping
from lth_sparse.operators import arguments, flops, known_plans, vmapping
from lth_sparse.plans.layer_spec import LayerSpec
from lth_sparse.plans.pattern import Pattern
from lth_sparse.plans.written_masks import refuse_written
from lth_sparse.system import differentiation
from lth_sparse.system.errors import BackendError

_NO_SECOND = "sparse layers have no second derivative: use lth_sparse.densify(model) to differentiate twice"
_STRIDED = torch.strided
_NOT_PLAIN = AttributeError, RuntimeError
"""What other things than tensors raise, and nested tensors, when they are asked for a shape."""
_AUTOCAST_FROM = (torch.float16, torch.bfloat16, torch.float32)


def conv2d(
    x: Tensor,
    values: Tensor,
    bias: Tensor | None,
    plan: Plan,
    backend: str,
    input_padding: tuple[int, int, int, int] = (0, 0, 0, 0),
    padding_mode: str = "zeros",
    relu: bool = False,
) -> Tensor:
    """Sparse convolution of x [N, C_in, H, W] or [C_in, H, W] with values [nnz] and bias [C_out].

    `plan` is one that `backend` packed. `input_padding` (left, right, top, bottom) is done in `padding_mode`,
    as nn.Conv2d names it, before the operator, which pads with zeros by `plan.spec.padding` in addition. `relu`: of
    the output, in the kernel's store where the backend has it and no gradient is asked for.
    Returns [N, C_out, H_out, W_out], or without N. Raises TypeError for a wrong dtype, ValueError for a wrong
    shape, size or device.
    """
    spec = plan.spec
    channels = spec.in_channels
    try:
        fits = x.layout is _STRIDED and x.dim() in (3, 4) and x.shape[-3] == channels
    except _NOT_PLAIN:
        fits = False
    if not fits:
        _check_kind(x)
        raise ValueError(f"input: got shape {tuple(x.shape)}, expected [N, {channels}, H, W] or [{channels}, H, W]")
    x, values, bias = _checked(x, values, bias, plan, backend)
    images = x if x.dim() == 4 else x.unsqueeze(0)
    if any(input_padding):
        images = F.pad(images, input_padding, mode="constant" if padding_mode == "zeros" else padding_mode)
    height, width = images.shape[2:]
    if min(spec.output_size(height, width)) < 1:
        raise ValueError(
            f"input: got shape {tuple(x.shape)}, {height} x {width} before zero padding of {spec.padding}, "
            f"expected no less than the kernel of {spec.kernel_size} with dilation {spec.dilation}"
        )
    if not height * width and images.shape[0]:
        raise ValueError(f"input: got shape {tuple(x.shape)}, images without a pixel, expected at least one")
    output = _run(images, values, bias, plan, backend, relu)
    return output if x.dim() == 4 else output.squeeze(0)


def linear(x: Tensor, values: Tensor, bias: Tensor | None, plan: Plan, backend: str, relu: bool = False) -> Tensor:
    """Sparse x @ weight.T + bias of x [..., in] with values [nnz] and bias [out]: [..., out].

    `plan` is one that `backend` packed; `relu` as for `conv2d`. Raises TypeError for a wrong dtype,
    ValueError for a wrong shape, size or device.
    """
    spec = plan.spec
    try:
        fits = x.layout is _STRIDED and x.dim() >= 1 and x.shape[-1] == spec.in_channels
    except _NOT_PLAIN:
        fits = False
    if not fits:
        _check_kind(x)
        raise ValueError(f"input: got shape {tuple(x.shape)}, expected [..., {spec.in_channels}]")
    x, values, bias = _checked(x, values, bias, plan, backend)
    rows = x if x.dim() == 2 else x.reshape(-1, spec.in_channels)
    output = _run(rows, values, bias, plan, backend, relu)
    return output if x.dim() == 2 else output.view(*x.shape[:-1], spec.out_channels)


def _check_kind(x: Tensor) -> None:
    """Refuse what no layer takes, whatever its shape: no tensor, nested or sparse ones."""
    if not isinstance(x, Tensor):
        raise TypeError(f"input: got {type(x).__name__}, expected a tensor: torch.as_tensor(input)")
    if x.is_nested:
        remedy = "torch.nested.to_padded_tensor(input, 0.0)"
        raise TypeError(f"input: got a nested tensor, expected one with a size in each dimension: {remedy}")
    if x.layout is not torch.strided:
        raise TypeError(f"input: got layout {x.layout}, expected a dense tensor: input.to_dense()")


def _check_size(x: Tensor) -> None:
    if x.numel() >= 2**31:
        raise ValueError(f"input: got shape {tuple(x.shape)}, {x.numel()} elements, expected fewer than 2^31")


def _checked(
    x: Tensor, values: Tensor, bias: Tensor | None, plan: Plan, backend: str
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Cast as autocast asks for, as PyTorch's own layers do; then refuse what does not fit together."""
    if values.shape != (plan.pattern.nnz,):
        raise ValueError(f"values: got shape {tuple(values.shape)}, expected ({plan.pattern.nnz},), the live weights")
    if x.device != values.device:
        raise ValueError(f"input: got a tensor on {x.device}, expected {values.device}, where the layer is")
    device_type = x.device.type
    if torch.is_autocast_enabled(device_type) and x.dtype in _AUTOCAST_FROM and values.dtype in _AUTOCAST_FROM:
        dtype = torch.get_autocast_dtype(device_type)
        supported, reason = registry.get(backend).supports(plan.spec, dtype, x.device)
        if not supported:
            raise BackendError(f'backend "{backend}" cannot compute under autocast: {reason}')
        x, values, bias = x.to(dtype), values.to(dtype), None if bias is None else bias.to(dtype)
    if x.dtype != values.dtype:
        remedy = "input.dequantize()" if x.is_quantized else f"input.to({values.dtype})"
        raise TypeError(f"input: got dtype {x.dtype}, expected {values.dtype}, the layer's own: {remedy}")
    return x, values, bias


_modes = torch._C._len_torch_dispatch_stack
_transforms = torch._C._are_functorch_transforms_active
_is_tracing = torch._C._is_tracing


def _run(x: Tensor, values: Tensor, bias: Tensor | None, plan: Plan, backend: str, relu: bool) -> Tensor:
    # Whoever traces must see an operator: compilers, modes and tensors that are more than numbers. All others are
    # spared the dispatcher, which takes every list apart and puts it together again, three times a training
    # step: 65 microseconds a layer, as much as a small batch takes.
    output: Tensor
    if torch.compiler.is_compiling() or type(x) is not Tensor or _transforms() or _is_tracing():
        if torch.onnx.is_in_onnx_export():
            # Which knows PyTorch's operators alone.
            output = reference.forward(x, values, bias, plan.pattern.mask, plan.spec)
        else:
            output = _FORWARD(x, values, bias, plan.tensors(), plan.spec.to_ints(), backend)
    elif _modes():
        # They see what lies below autograd, so that the operator need not be called to come to its autograd kernel.
        output = _differentiable(_Dispatched(plan.tensors(), plan.spec.to_ints(), backend), x, values, bias)
    else:
        way = _Straight(registry.get(backend), plan)
        if relu and not (torch.is_grad_enabled() or forward_ad._current_level >= 0):
            return way.forward_relu(x, values, bias)
        output = _differentiable(way, x, values, bias)
    return F.relu(output) if relu else output


class _Straight:
    """The way to a backend by a call, which settles the memory formats."""

    def __init__(self, backend: Backend, plan: Plan) -> None:
        self.backend, self.plan = backend, plan

    @classmethod
    def unpack(cls, tensors: Sequence[Tensor], ints: Sequence[int], name: str) -> Self:
        """The way that an operator's last three arguments describe."""
        backend = registry.get(name)
        return cls(backend, backend.unpack(tensors, LayerSpec.from_ints(tuple(ints))))

    def forward(self, x: Tensor, values: Tensor, bias: Tensor | None) -> Tensor:
        _check_size(x)
        output = self.backend.forward(x, values, self.plan, bias)
        return output.contiguous(memory_format=memory_format(x))

    def forward_relu(self, x: Tensor, values: Tensor, bias: Tensor | None) -> Tensor:
        _check_size(x)
        output = forward_relu(self.backend, x, values, self.plan, bias)
        return output.contiguous(memory_format=memory_format(x))

    def grad_input(self, grad_out: Tensor, values: Tensor, input_shape: Sequence[int]) -> Tensor:
        gradient = self.backend.grad_input(grad_out, values, self.plan, tuple(input_shape))
        return gradient.contiguous(memory_format=memory_format(grad_out))

    def grad_weight(self, x: Tensor, grad_out: Tensor) -> Tensor:
        return self.backend.grad_weight(x, grad_out, self.plan).contiguous()


class _Dispatched:
    """The way to a backend through the dispatcher, below autograd."""

    def __init__(self, tensors: Sequence[Tensor], ints: Sequence[int], name: str) -> None:
        self.plan = (tensors, ints, name)

    def forward(self, x: Tensor, values: Tensor, bias: Tensor | None) -> Tensor:
        return self._call(_FORWARD, x, values, bias, *self.plan)

    def grad_input(self, grad_out: Tensor, values: Tensor, input_shape: Sequence[int]) -> Tensor:
        return self._call(_GRAD_INPUT, grad_out, values, input_shape, *self.plan)

    def grad_weight(self, x: Tensor, grad_out: Tensor) -> Tensor:
        return self._call(_GRAD_WEIGHT, x, grad_out, *self.plan)

    @staticmethod
    def _call(operator: Callable[..., Tensor], *arguments: Any) -> Tensor:
        with torch._C._AutoDispatchBelowAutograd():
            return operator(*arguments)


def _differentiable(way: _Straight | _Dispatched, x: Tensor, values: Tensor, bias: Tensor | None) -> Tensor:
    if not (torch.is_grad_enabled() or forward_ad._current_level >= 0):
        return way.forward(x, values, bias)
    output: Tensor
    if isinstance(way, _Straight):
        output = _Layer.apply(x, values, bias, way)
    else:
        output = differentiation.apply(_Layer, x, values, bias, way)
    return output


def _gradient(compute: Callable[..., Tensor], *arguments: Any) -> Tensor:
    gradient: Tensor = differentiation.only_once(_NO_SECOND, compute, *arguments)
    return gradient


def _gradients(
    way: _Straight | _Dispatched,
    grad_out: Tensor,
    x: Tensor | None,
    values: Tensor | None,
    input_shape: Sequence[int],
    needed: Sequence[bool],
) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
    """Those of x, values and bias that are needed; x and values may be None where no needed one depends on them."""
    grad_x = grad_values = grad_bias = None
    if needed[0]:
        grad_x = _gradient(way.grad_input, grad_out, values, input_shape)
    if needed[1]:
        grad_values = _gradient(way.grad_weight, x, grad_out)
    if needed[2]:
        grad_bias = grad_out.sum((0, 2, 3) if grad_out.dim() == 4 else 0)
    return grad_x, grad_values, grad_bias


def node(plan: Plan, backend: str) -> autograd_node.Node | None:
    """The way of a layer with this plan past Python, if there is one: `lth_sparse.backends.autograd_library.call`."""
    way = _Straight(registry.get(backend), plan)
    watched = _Dispatched(plan.tensors(), plan.spec.to_ints(), backend)
    dims = 1 if plan.spec.kind == "linear" else 3

    def batched(tensor: Tensor) -> Tensor:
        # As the layer was given it, x may be without N, or have several dimensions in its place.
        if tensor.dim() == dims + 1:
            return tensor
        return tensor.unsqueeze(0) if tensor.dim() == dims else tensor.flatten(0, -1 - dims)

    def gradients(
        grad_out: Tensor,
        x: Tensor | None,
        values: Tensor | None,
        input_shape: tuple[int, ...],
        needed: tuple[bool, bool, bool],
    ) -> tuple[Tensor | None, ...]:
        shape = (math.prod(input_shape[:-dims]), *input_shape[-dims:])
        # Whoever traces or looks on must see an operator.
        by = watched if type(grad_out) is not Tensor or _modes() else way
        grad_x, *others = _gradients(by, batched(grad_out), None if x is None else batched(x), values, shape, needed)
        return (grad_x if grad_x is None or shape == input_shape else grad_x.view(input_shape), *others)

    made = autograd_node.node(way.backend, plan, gradients)
    if made is not None:
        known_plans.remember(made, plan, backend)
    return made


class _Layer(Function):
    """One layer's forward and backward pass, for any backend."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, values: Tensor, bias: Tensor | None, way: _Straight | _Dispatched) -> Tensor:
        # What an operator makes for itself is not its caller's to keep.
        kept = None
        if isinstance(way, _Straight):
            kept = Kept() if ctx.needs_input_grad[0] else None
            with keeping(kept):
                output = way.forward(x, values, bias)
        else:
            with differentiation.for_outer_transforms():
                output = way.forward(x, values, bias)
        if forward_ad._current_level >= 0:
            ctx.save_for_forward(x, values)
        ctx.save_for_backward(x, values, kept.weight if kept else None)
        ctx.way = way
        return output

    @staticmethod
    def backward(ctx: Any, grad_out: Tensor) -> tuple[Tensor | None, ...]:
        x, values, weight = ctx.saved_tensors
        with keeping(Kept(weight)):
            return *_gradients(ctx.way, grad_out, x, values, x.shape, ctx.needs_input_grad), None

    @staticmethod
    def jvp(ctx: Any, x: Tensor, values: Tensor, bias: Tensor | None, _: None) -> Tensor:
        # In one direction: a layer is linear in x, and in values and bias together.
        at_x, at_values = ctx.saved_tensors
        if _transforms():
            with differentiation.for_outer_transforms():
                return ctx.way.forward(x, at_values, bias) + ctx.way.forward(at_x, values, None)
        return _differentiable(ctx.way, x, at_values, bias) + _differentiable(ctx.way, at_x, values, None)


# The operators: their schemas, and what each dispatch key does with a call. register_autograd and custom_op would
# write the autograd kernels for us, but a training step of a tiny layer takes 1.4 and 1.6 times as long with them.
_LIBRARY = torch.library.Library("lth_sparse", "FRAGMENT")
_PLAN = "Tensor[] plan, int[] spec, str backend"
# The fake implementations promise memory formats, so a compiler may not choose other ones for the inputs.
_TAGS = (torch.Tag.pt2_compliant_tag, torch.Tag.needs_exact_strides)
_LIBRARY.define(f"forward(Tensor x, Tensor values, Tensor? bias, {_PLAN}) -> Tensor", tags=_TAGS)
_LIBRARY.define(f"grad_input(Tensor grad_out, Tensor values, SymInt[] input_shape, {_PLAN}) -> Tensor", tags=_TAGS)
_LIBRARY.define(f"grad_weight(Tensor x, Tensor grad_out, {_PLAN}) -> Tensor", tags=_TAGS)
_FORWARD = torch.ops.lth_sparse.forward.default
_GRAD_INPUT = torch.ops.lth_sparse.grad_input.default
_GRAD_WEIGHT = torch.ops.lth_sparse.grad_weight.default


# In the kernels, `plan` stands for an operator's last three arguments.


def _forward_kernel(x: Tensor, values: Tensor, bias: Tensor | None, *plan: Any) -> Tensor:
    if (known := known_plans.forward(x, values, bias, *plan)) is not None:
        return known
    way = _Straight.unpack(*plan)
    arguments.check_forward(way.plan, x, values, bias)
    refuse_written(way.plan.pattern)
    return way.forward(x, values, bias)


def _forward_autograd(x: Tensor, values: Tensor, bias: Tensor | None, *plan: Any) -> Tensor:
    return _differentiable(_Dispatched(*plan), x, values, bias)


def _forward_fake(
    x: Tensor, values: Tensor, bias: Tensor | None, tensors: Sequence[Tensor], ints: Sequence[int], name: str
) -> Tensor:
    spec = LayerSpec.from_ints(tuple(ints))
    size = spec.output_size(x.shape[2], x.shape[3]) if spec.kind == "conv2d" else ()
    return _empty((x.shape[0], spec.out_channels, *size), x)


def _grad_input_kernel(grad_out: Tensor, values: Tensor, input_shape: Sequence[int], *plan: Any) -> Tensor:
    if (known := known_plans.grad_input(grad_out, values, input_shape, *plan)) is not None:
        return known
    way = _Straight.unpack(*plan)
    arguments.check_grad_input(way.plan, grad_out, values, input_shape)
    return way.grad_input(grad_out, values, input_shape)


def _grad_input_autograd(grad_out: Tensor, values: Tensor, input_shape: Sequence[int], *plan: Any) -> Tensor:
    return _gradient(_Dispatched(*plan).grad_input, grad_out, values, input_shape)


def _grad_input_fake(grad_out: Tensor, values: Tensor, input_shape: Sequence[int], *plan: Any) -> Tensor:
    return _empty(input_shape, grad_out)


def _grad_weight_kernel(x: Tensor, grad_out: Tensor, *plan: Any) -> Tensor:
    if (known := known_plans.grad_weight(x, grad_out, *plan)) is not None:
        return known
    way = _Straight.unpack(*plan)
    arguments.check_grad_weight(way.plan, x, grad_out)
    return way.grad_weight(x, grad_out)


def _grad_weight_autograd(x: Tensor, grad_out: Tensor, *plan: Any) -> Tensor:
    return _gradient(_Dispatched(*plan).grad_weight, x, grad_out)


def _grad_weight_fake(x: Tensor, grad_out: Tensor, tensors: Sequence[Tensor], ints: Sequence[int], name: str) -> Tensor:
    return x.new_empty(Pattern(*tensors[: Pattern.TENSORS]).nnz)


def _empty(shape: Sequence[int], like: Tensor) -> Tensor:
    return torch.empty(shape, dtype=like.dtype, device=like.device, memory_format=memory_format(like))


for _name, _kernel, _autograd, _fake in (
    ("forward", _forward_kernel, _forward_autograd, _forward_fake),
    ("grad_input", _grad_input_kernel, _grad_input_autograd, _grad_input_fake),
    ("grad_weight", _grad_weight_kernel, _grad_weight_autograd, _grad_weight_fake),
):
    _LIBRARY.impl(_name, _kernel, "CPU")
    _LIBRARY.impl(_name, _kernel, "CUDA")
    _LIBRARY.impl(_name, _autograd, "Autograd")
    torch.library.register_fake(f"lth_sparse::{_name}", _fake, lib=_LIBRARY)
    torch.library.register_vmap(f"lth_sparse::{_name}", vmapping.RULES[_name], lib=_LIBRARY)
flops.register()
