"""Arguments of the operators and of the layers' node: those of a real layer, then up to three of them damaged."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from hypothesis import strategies as st
from torch import Tensor

from lth_sparse import ops
from lth_sparse.backends import autograd_library, registry
from lth_sparse.backends.autograd_node import Node
from lth_sparse.backends.base import Plan
from lth_sparse.inference import engine
from lth_sparse.inference.engine import Engine, Kind
from lth_sparse.inference.lowering import ANY_PADDING
from lth_sparse.plans.layer_spec import LayerSpec
from lth_sparse.plans.pattern import Pattern

# None of some thousands or a million: as a padding such a number is sound, and its output large.
NUMBERS = st.sampled_from(
    [0, 1, 2, 3, 7, 16, 64, -1, -(2**31), 2**21, 2**24, 2**31 - 1, 2**31, 2**32, 2**62, 2**63 - 1, -(2**63)]
)
DTYPES = st.sampled_from(
    [torch.float32, torch.float64, torch.float16, torch.int32, torch.int64, torch.uint8, torch.bool]
)


CALLS = 10
"""In an example: a layer takes longer to make than they do."""


class Call(NamedTuple):
    """`operator`: its name, with its namespace. `sound`: nothing is damaged. `node`: what has to live meanwhile."""

    operator: str
    function: Callable[..., Any]
    arguments: list[Any]
    sound: bool
    node: Node | None
    network: Engine | None


@st.composite
def layers(draw: st.DrawFn) -> tuple[LayerSpec, tuple[int, ...]]:
    """A small layer and the shape of an input that its kernel fits into."""
    images = draw(st.sampled_from([0, 1, 2, 8, 17]))
    kind = draw(st.sampled_from(["linear", "depthwise", "winograd", "any", "any"]))
    if kind == "linear":
        spec = LayerSpec("linear", draw(st.integers(1, 17)), draw(st.integers(1, 17)))
        return spec, (images, spec.in_channels)
    padding = draw(st.tuples(st.integers(0, 2), st.integers(0, 2)))
    if kind == "depthwise":
        channels, side, stride = (
            draw(st.sampled_from([1, 3, 8, 17])),
            draw(st.sampled_from([3, 5])),
            draw(st.integers(1, 2)),
        )
        spec = LayerSpec("conv2d", channels, channels, (side, side), (stride, stride), padding, (1, 1), channels)
    elif kind == "winograd":
        spec = LayerSpec("conv2d", draw(st.integers(1, 10)), draw(st.integers(1, 10)), (3, 3), (1, 1), padding)
    else:
        groups = draw(st.sampled_from([1, 1, 2]))
        pairs = st.tuples(st.integers(1, 3), st.integers(1, 3))
        spec = LayerSpec(
            "conv2d",
            groups * draw(st.integers(1, 5)),
            groups * draw(st.integers(1, 5)),
            draw(pairs),
            draw(pairs),
            padding,
            draw(st.sampled_from([(1, 1), (1, 2), (2, 2), (40, 1), (60, 60)])),
            groups,
        )
    least = [
        max(1, dilation * (kernel - 1) + 1 - 2 * padding)
        for dilation, kernel, padding in zip(spec.dilation, spec.kernel_size, spec.padding, strict=True)
    ]
    return spec, (images, spec.in_channels, *(size + draw(st.integers(0, 9)) for size in least))


@st.composite
def calls(draw: st.DrawFn) -> list[Call]:
    """Of one layer."""
    spec, shape = draw(layers())
    dtype = draw(st.sampled_from([torch.float32, torch.float32, torch.float64, torch.bfloat16]))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 3)))
    mask = torch.rand(spec.weight_shape, generator=generator) < draw(st.sampled_from([0.0, 0.1, 0.5, 1.0]))
    pattern = Pattern.from_mask(mask)
    size = spec.output_size(*shape[2:]) if spec.kind == "conv2d" else ()
    x, grad_out = torch.randn(shape, dtype=dtype), torch.randn(shape[0], spec.out_channels, *size, dtype=dtype)
    if x.dim() == 4 and draw(st.booleans()):
        x, grad_out = (images.contiguous(memory_format=torch.channels_last) for images in (x, grad_out))
    values, bias = torch.randn(pattern.nnz, dtype=dtype), torch.randn(spec.out_channels, dtype=dtype)
    given = spec, pattern, x, grad_out, values, bias
    packed = registry.get("cpp/sparse").pack(pattern, spec)
    node = ops.node(packed, "cpp/sparse")
    of_inference, network = _of_inference(spec, pattern, x, values, bias)
    operators = _of_layers(*given) | _of_activations(x.float()) | of_inference
    if node is not None:
        operators |= _of_the_node(packed, node, *given)
    names, found = sorted(operators), []
    for _ in range(CALLS):
        name = draw(st.sampled_from(names))
        arguments = list(operators[name])
        damages = draw(st.integers(0, 3))
        for _ in range(damages):
            place = draw(st.integers(0, len(arguments) - 1))
            arguments[place] = draw(damaged(arguments[place]))
        operator = name.split()[0]
        found.append(Call(operator, _function(operator), arguments, damages == 0, node, network))
    return found


def _function(operator: str) -> Callable[..., Any]:
    namespace, name = operator.split("::")
    if namespace == "node":
        return forward_and_backward if name == "forward_and_backward" else getattr(autograd_library, name)
    if name == "inference_network":
        return lambda *arguments: Engine(torch.ops.lth_sparse_cpu.inference_network(*arguments), [], {})
    return getattr(getattr(torch.ops, namespace), name)


def _of_layers(
    spec: LayerSpec, pattern: Pattern, x: Tensor, grad_out: Tensor, values: Tensor, bias: Tensor
) -> dict[str, Any]:
    layer, matrix, shape = list(spec.to_ints()[1:]), pattern.tensors()[1:], list(x.shape)
    transposed = torch.ops.lth_sparse_cpu.pack(*matrix, layer)
    dense = torch.zeros(spec.weight_shape, dtype=values.dtype)
    found: dict[str, Any] = {
        "lth_sparse_cpu::pack": (*matrix, layer),
        "lth_sparse_cpu::refuses": (layer,),
        "lth_sparse_cpu::forward": (x, values, bias, *matrix, layer, True),
        "lth_sparse_cpu::grad_input": (grad_out, values, *matrix, *transposed, layer, shape),
        "lth_sparse_cpu::grad_weight": (x, grad_out, *matrix, layer),
        "lth_sparse_cpu::scatter_weight": (values, pattern.mask, *matrix, False),
        "lth_sparse_cpu::gather_weight": (dense, pattern.mask, *matrix),
    }
    single, gradient, numbers = x.float(), grad_out.float(), values.float()
    if _supported("cpp/winograd", spec):
        found |= {
            "lth_sparse_cpu::winograd_forward": (single, numbers, bias.float(), *matrix, layer, 4, True),
            "lth_sparse_cpu::winograd_grad_input": (gradient, numbers, *matrix, layer, shape, 2),
            "lth_sparse_cpu::winograd_grad_weight": (single, gradient, *matrix, layer, 4),
        }
    if _supported("cpp/depthwise", spec):
        found |= {
            "lth_sparse_cpu::depthwise_forward": (single, numbers, bias.float(), *matrix, layer, True),
            "lth_sparse_cpu::depthwise_grad_input": (gradient, numbers, *matrix, layer, shape),
            "lth_sparse_cpu::depthwise_grad_weight": (single, gradient, *matrix, layer),
        }
    for backend in ("dense", "cpp", "cpp/sparse"):
        plan = list(registry.get(backend).pack(pattern, spec).tensors()), list(spec.to_ints()), backend
        found |= {
            f"lth_sparse::forward {backend}": (x, values, bias, *plan),
            f"lth_sparse::grad_input {backend}": (grad_out, values, shape, *plan),
            f"lth_sparse::grad_weight {backend}": (x, grad_out, *plan),
        }
    return found


def _supported(backend: str, spec: LayerSpec) -> bool:
    return registry.get(backend).supports(spec, torch.float32, torch.device("cpu"))[0]


def _of_the_node(
    packed: Plan,
    node: Node,
    spec: LayerSpec,
    pattern: Pattern,
    x: Tensor,
    grad_out: Tensor,
    values: Tensor,
    bias: Tensor,
) -> dict[str, Any]:
    plan, shape, mask = node.plan, list(x.shape), pattern.mask
    known = list(packed.tensors()), list(spec.to_ints()), "cpp/sparse"
    layer, linear = list(spec.to_ints()[1:]), spec.kind == "linear"
    kernels = [5, 5, 5] if len(x) % 2 else [1, 1, 1]
    if x.dtype == torch.float32 and _supported("cpp/winograd", spec):
        kernels = [4, 2, 4]
    if x.dtype == torch.float32 and _supported("cpp/depthwise", spec):
        kernels = [3, 3, 3]
    tensors, given = list(packed.tensors()), (x, values, bias)
    later = x, values, tensors, grad_out
    return {
        "node::call": (plan, *given, mask, mask._version, True),
        "node::forward": (plan, *given),
        "node::grad_input": (plan, grad_out, values, shape),
        "node::grad_weight": (plan, x, grad_out),
        "node::forward_and_backward": (tensors, layer, linear, kernels, *given, True, *later),
        "node::forward_and_backward without ReLU": (tensors, layer, linear, kernels, *given, False, *later),
        # Its plan is known, as long as nothing of it is damaged.
        "lth_sparse::forward known": (*given, *known),
        "lth_sparse::grad_input known": (grad_out, values, shape, *known),
        "lth_sparse::grad_weight known": (x, grad_out, *known),
    }


def forward_and_backward(
    tensors: list[Tensor],
    layer: list[int],
    linear: bool,
    kernels: list[int],
    x: Tensor,
    values: Tensor,
    bias: Tensor | None,
    relu: bool,
    x_later: Tensor,
    values_later: Tensor,
    tensors_later: list[Tensor],
    grad_out: Tensor,
) -> None:
    """A layer's node is made, called, and called backward with any gradient after its tensors have been replaced."""

    def in_python(*_: Any) -> tuple[None, None, None]:
        return None, None, None

    swapped = x_later is not x, values_later is not values
    held = [tensor.clone() for tensor in tensors]
    plan = autograd_library.plan(held, layer, linear, lambda *_: tuple(kernels), in_python)
    x, values = x.detach().requires_grad_(), values.detach().requires_grad_()
    output = autograd_library.call(plan, x, values, bias, held[0], held[0]._version, relu)
    if output is None:
        return
    if swapped[0]:
        x.data = x_later.data
    if swapped[1]:
        values.data = values_later.data
    for tensor, later in zip(held, tensors_later, strict=False):
        if tensor.shape == later.shape:
            tensor.copy_(later)
        tensor.data = later
    del held  # The plan has to have what it needs.
    assert output.grad_fn is not None
    with torch.no_grad():
        output.grad_fn(grad_out)


def _of_activations(x: Tensor) -> dict[str, Any]:
    if x.dim() != 4 or x.numel() == 0 or min(x.shape[2:]) < 2:
        return {}
    channels, pooled = torch.ones(x.shape[1]), torch.nn.functional.max_pool2d(x, 2)
    taken = torch.zeros_like(pooled, dtype=torch.uint8)
    last = x.is_contiguous(memory_format=torch.channels_last)
    moments = channels, channels, channels, channels
    written = [each.clone() for each in moments]
    return {
        "lth_sparse_cpu::batch_norm pooled": (x, None, *written, True, 0.1, 1e-5, 0.0, None, True),
        "lth_sparse_cpu::batch_norm added": (x, x, *written, False, 0.1, 1e-5, 0.0, 6.0, False),
        "lth_sparse_cpu::batch_norm_backward pooled": (pooled, x, None, *moments, taken, True, 0.0, None),
        "lth_sparse_cpu::batch_norm_backward added": (x, x, x, *moments, None, False, 0.0, 6.0),
        "lth_sparse_cpu::relu_max_pool": (x,),
        "lth_sparse_cpu::relu_max_pool_backward": (pooled, taken, list(x.shape), last, True),
    }


def _of_inference(
    spec: LayerSpec, pattern: Pattern, x: Tensor, values: Tensor, bias: Tensor
) -> tuple[dict[str, Any], Engine | None]:
    """A network of the layer, a pool and an addition; what is called with its number is made beforehand, and there as
    long as the engine is that is given with it."""
    if spec.kind != "conv2d" or x.numel() == 0 or max(spec.padding) > ANY_PADDING or engine.refuses():
        return {}, None
    channels, height, width = spec.out_channels, *spec.output_size(*x.shape[2:])
    shapes = [*x.shape[1:], *(channels, height, width) * 3]
    pool = [channels, channels, 1, 1, 1, 1, 0, 0, 1, 1, channels]
    program = [4, *shapes, 5, Kind.INPUT, 0, Kind.CONVOLUTION, 1, 0, -1, *spec.to_ints()[1:]]
    program += [Kind.MAX_POOL, 2, 1, *pool, Kind.ADD, 3, 2, 1, Kind.OUTPUT, 3]
    program = [int(number) for number in program]
    described = program, [-1.0, 1.0] * 5, *pattern.tensors()[1:], values.float(), bias.float()
    number = torch.ops.lth_sparse_cpu.inference_network(*described)
    image = x.float().contiguous()
    found = {
        "lth_sparse_cpu::inference_network": described,
        "lth_sparse_cpu::inference_run": (number, [image]),
        "lth_sparse_cpu::inference_times": (number, [image]),
        "lth_sparse_cpu::inference_bytes": (number, True),
        "lth_sparse_cpu::inference_release": (-1,),
    }
    return found, Engine(number, [], {})


def damaged(argument: Any) -> st.SearchStrategy[Any]:
    """Something like the argument, but for a number, a size, a dtype, a layout."""
    if type(argument).__name__ == "PyCapsule":
        return st.sampled_from([None, 0, torch.utils.dlpack.to_dlpack(torch.ones(3))])
    if isinstance(argument, Tensor):
        return damaged_tensors(argument)
    if isinstance(argument, list):
        return damaged_lists(argument)
    if isinstance(argument, str):
        return st.sampled_from(["dense", "cpp", "cpp/winograd", "auto", "triton", "", "nothing"])
    if isinstance(argument, bool):
        return st.booleans()
    if isinstance(argument, float):
        return st.floats()
    if argument is None:
        return st.sampled_from([torch.ones(1), torch.ones(2, 3, 4, 4)])
    return NUMBERS


@st.composite
def damaged_lists(draw: st.DrawFn, argument: list[Any]) -> list[Any]:
    kind = draw(st.sampled_from(["element", "element", "element", "shorter", "longer", "empty"]))
    if kind == "empty" or not argument:
        return []
    place = draw(st.integers(0, len(argument) - 1))
    if kind == "shorter":
        return argument[:place] + argument[place + 1 :]
    if kind == "longer":
        return [*argument[:place], argument[place], *argument[place:]]
    return [*argument[:place], draw(damaged(argument[place])), *argument[place + 1 :]]


@st.composite
def damaged_tensors(draw: st.DrawFn, tensor: Tensor) -> Tensor | None:
    if tensor.layout != torch.strided or tensor.is_meta or max(tensor.shape, default=0) > 1000:
        return None
    kinds = ["dtype", "shape", "size", "strided", "layout", "meta", "none", "sparse", "expanded", "huge and empty"]
    if tensor.dtype == torch.int32:
        kinds += ["element"] * 12 + ["reversed", "random"]
    kind = draw(st.sampled_from(kinds))
    if kind == "none":
        return None
    if kind == "element" and tensor.numel():
        changed = tensor.clone(memory_format=torch.contiguous_format)
        near = st.integers(-2, tensor.numel() + 2)
        value = draw(st.one_of(near, NUMBERS.filter(lambda number: -(2**31) <= number < 2**31)))
        changed.view(-1)[draw(st.integers(0, tensor.numel() - 1))] = value
        return changed
    if kind == "random" and tensor.numel():
        return torch.randint(-3, tensor.numel() + 3, tensor.shape, dtype=torch.int32)
    if kind == "dtype":
        return tensor.to(draw(DTYPES))
    if kind == "shape":
        shape = draw(st.lists(st.integers(0, 5), max_size=5))
        return torch.zeros(shape, dtype=tensor.dtype)
    if kind == "size" and tensor.dim():
        dimension, change = draw(st.integers(0, tensor.dim() - 1)), draw(st.sampled_from([-1, 1, 3]))
        shape = [max(0, size + change * (d == dimension)) for d, size in enumerate(tensor.shape)]
        return torch.zeros(shape, dtype=tensor.dtype)
    if kind == "strided" and tensor.dim():
        return torch.stack([tensor, tensor], -1)[..., 0]
    if kind == "layout" and tensor.dim() == 4:
        return tensor.transpose(2, 3).contiguous().transpose(2, 3)
    if kind == "meta":
        return tensor.to("meta")
    if kind == "sparse":
        return tensor.to_sparse()
    if kind == "expanded" and tensor.dim():
        return tensor.flatten()[:1].expand(tensor.shape) if tensor.numel() else tensor
    if kind == "huge and empty":
        return torch.empty(0, draw(st.sampled_from([1, 2**31, 2**62])), dtype=tensor.dtype)
    return tensor.flip(0) if tensor.dim() else tensor
