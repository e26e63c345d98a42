"""Arguments of the operators: those of a real layer, then one to three of them damaged."""

from __future__ import annotations

from typing import Any

import torch
from hypothesis import strategies as st
from torch import Tensor

from lth_sparse.backends import registry
from lth_sparse.plans.layer_spec import LayerSpec
from lth_sparse.plans.pattern import Pattern

# None of some thousands or a million: as a padding such a number is sound, and its output large.
NUMBERS = st.sampled_from(
    [0, 1, 2, 3, 7, 16, 64, -1, -(2**31), 2**21, 2**24, 2**31 - 1, 2**31, 2**32, 2**62, 2**63 - 1, -(2**63)]
)
DTYPES = st.sampled_from(
    [torch.float32, torch.float64, torch.float16, torch.int32, torch.int64, torch.uint8, torch.bool]
)


@st.composite
def layers(draw: st.DrawFn) -> tuple[LayerSpec, tuple[int, ...]]:
    """A small layer and the shape of an input that its kernel fits into."""
    images = draw(st.sampled_from([0, 1, 2, 8, 17]))
    if draw(st.integers(0, 3)) == 0:
        spec = LayerSpec("linear", draw(st.integers(1, 17)), draw(st.integers(1, 17)))
        return spec, (images, spec.in_channels)
    groups = draw(st.sampled_from([1, 1, 2]))
    winograd = draw(st.booleans())
    pairs = st.tuples(st.integers(1, 3), st.integers(1, 3))
    spec = LayerSpec(
        "conv2d",
        groups * draw(st.integers(1, 5)),
        groups * draw(st.integers(1, 5)),
        (3, 3) if winograd else draw(pairs),
        (1, 1) if winograd else draw(pairs),
        draw(st.tuples(st.integers(0, 2), st.integers(0, 2))),
        (1, 1) if winograd else draw(st.sampled_from([(1, 1), (1, 2), (2, 2), (40, 1), (60, 60)])),
        1 if winograd else groups,
    )
    least = [
        max(1, dilation * (kernel - 1) + 1 - 2 * padding)
        for dilation, kernel, padding in zip(spec.dilation, spec.kernel_size, spec.padding, strict=True)
    ]
    return spec, (images, spec.in_channels, *(size + draw(st.integers(0, 9)) for size in least))


@st.composite
def calls(draw: st.DrawFn) -> tuple[str, list[Any], bool]:
    """The name of an operator, its arguments, and whether these are as they should be."""
    spec, shape = draw(layers())
    dtype = draw(st.sampled_from([torch.float32, torch.float64]))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 3)))
    mask = torch.rand(spec.weight_shape, generator=generator) < draw(st.sampled_from([0.0, 0.1, 0.5, 1.0]))
    pattern = Pattern.from_mask(mask)
    size = spec.output_size(*shape[2:]) if spec.kind == "conv2d" else ()
    x, grad_out = torch.randn(shape, dtype=dtype), torch.randn(shape[0], spec.out_channels, *size, dtype=dtype)
    if x.dim() == 4 and draw(st.booleans()):
        x, grad_out = (images.contiguous(memory_format=torch.channels_last) for images in (x, grad_out))
    values, bias = torch.randn(pattern.nnz, dtype=dtype), torch.randn(spec.out_channels, dtype=dtype)
    operators = {**_of_layers(spec, pattern, x, grad_out, values, bias), **_of_activations(x.float())}
    name = draw(st.sampled_from(sorted(operators)))
    arguments = list(operators[name])
    damages = draw(st.integers(0, 3))
    for _ in range(damages):
        place = draw(st.integers(0, len(arguments) - 1))
        arguments[place] = draw(damaged(arguments[place]))
    return name, arguments, damages == 0


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
    if spec.kernel_size == (3, 3) and spec.stride == spec.dilation == (1, 1) and spec.groups == 1:
        single, gradient = x.float(), grad_out.float()
        found |= {
            "lth_sparse_cpu::winograd_forward": (single, values.float(), bias.float(), *matrix, layer, 4, True),
            "lth_sparse_cpu::winograd_grad_input": (gradient, values.float(), *matrix, layer, shape, 2),
            "lth_sparse_cpu::winograd_grad_weight": (single, gradient, *matrix, layer, 4),
        }
    for backend in ("dense", "cpp", "cpp/sparse"):
        plan = list(registry.get(backend).pack(pattern, spec).tensors()), list(spec.to_ints()), backend
        found |= {
            f"lth_sparse::forward {backend}": (x, values, bias, *plan),
            f"lth_sparse::grad_input {backend}": (grad_out, values, shape, *plan),
            f"lth_sparse::grad_weight {backend}": (x, grad_out, *plan),
        }
    return found


def _of_activations(x: Tensor) -> dict[str, Any]:
    if x.dim() != 4 or x.numel() == 0 or min(x.shape[2:]) < 2:
        return {}
    channels, pooled = torch.ones(x.shape[1]), torch.nn.functional.max_pool2d(x, 2)
    taken = torch.zeros_like(pooled, dtype=torch.uint8)
    last = x.is_contiguous(memory_format=torch.channels_last)
    return {
        "lth_sparse_cpu::batch_norm": (
            x,
            x,
            channels,
            channels,
            channels.clone(),
            channels.clone(),
            True,
            0.1,
            1e-5,
            0.0,
            None,
            False,
        ),
        "lth_sparse_cpu::batch_norm_backward": (
            pooled,
            x,
            None,
            channels,
            channels,
            channels,
            channels,
            taken,
            True,
            0.0,
            None,
        ),
        "lth_sparse_cpu::relu_max_pool": (x,),
        "lth_sparse_cpu::relu_max_pool_backward": (pooled, taken, list(x.shape), last, True),
    }


def damaged(argument: Any) -> st.SearchStrategy[Any]:
    """Something like the argument, but for a number, a size, a dtype, a layout."""
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
    if tensor.layout != torch.strided or tensor.is_meta:
        return None
    kinds = ["dtype", "shape", "size", "strided", "layout", "meta", "none", "sparse", "expanded", "huge and empty"]
    if tensor.dtype == torch.int32:
        kinds += ["element"] * 12 + ["reversed", "random"]
    kind = draw(st.sampled_from(kinds))
    if kind == "none":
        return None
    if kind == "element" and tensor.numel():
        changed = tensor.clone()
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
