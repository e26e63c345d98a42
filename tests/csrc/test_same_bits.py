"""Every operator of torch.ops.lth_sparse_cpu, and layers by them, give the same bits at 1, 2, 3 and 7 threads."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import lth_sparse as lth
from lth_sparse.backends import cpu_operators
from lth_sparse.nn import beginnings
from lth_sparse.plans.layer_spec import LayerSpec
from lth_sparse.plans.pattern import Pattern
from tests.threads import at_threads

pytestmark = pytest.mark.skipif(
    bool(cpu_operators.UNUSABLE), reason=f"the C++ operators cannot be used here: {cpu_operators.UNUSABLE}"
)
THREADS = (1, 2, 3, 7)
LAYOUTS = {"contiguous": torch.contiguous_format, "channels_last": torch.channels_last}
COMPUTE_NOTHING = {"refuses", "instruction_set", "kernel_table"}
ELSEWHERE = {f"inference_{name}" for name in ("network", "run", "times", "bytes", "release")}
"""tests/inference/test_engine.py: a network is made for a number of threads."""

# Enough products for several threads, and no size that their number divides.
CONVOLUTIONS = {
    "3 x 3": (LayerSpec("conv2d", 37, 29, (3, 3), padding=(1, 1)), (5, 37, 19, 17), 0.1),
    "stride and groups": (LayerSpec("conv2d", 38, 26, (3, 3), stride=(2, 2), groups=2), (5, 38, 19, 17), 0.3),
    "1 x 1": (LayerSpec("conv2d", 61, 47, (1, 1)), (3, 61, 19, 17), 0.2),
}
WINOGRAD = {
    "winograd": (LayerSpec("conv2d", 37, 29, (3, 3), padding=(1, 1)), (5, 37, 19, 17), 0.9),
    "winograd, few channels": (LayerSpec("conv2d", 3, 65, (3, 3), padding=(1, 1)), (3, 3, 33, 31), 0.9),
}
DEPTHWISE = {
    "depthwise 3 x 3": (LayerSpec("conv2d", 43, 43, (3, 3), padding=(1, 1), groups=43), (5, 43, 19, 37), 0.7),
    "depthwise 5 x 5": (
        LayerSpec("conv2d", 43, 43, (5, 5), stride=(2, 2), padding=(2, 2), groups=43), (5, 43, 19, 37), 0.7,
    ),
}  # fmt: skip
LINEAR = {f"linear, {rows} rows": (LayerSpec("linear", 501, 303), (rows, 501), 0.6) for rows in (1, 8, 100)}
IMAGES = (7, 33, 18, 22)
CLAMPS = {"ReLU": (0.0, None), "ReLU6": (0.0, 6.0), "none": (None, None)}

Call = tuple[str, tuple[Any, ...]]


def operands(
    spec: LayerSpec, shape: tuple[int, ...], density: float, dtype: torch.dtype, layout: torch.memory_format
) -> tuple[Pattern, Tensor, Tensor, Tensor, Tensor]:
    """Pattern, x, values, bias and grad_out."""
    generator = torch.Generator().manual_seed(0)

    def random(*sizes: int) -> Tensor:
        tensor = torch.randn(sizes, generator=generator).to(dtype)
        return tensor.contiguous(memory_format=layout) if tensor.dim() == 4 else tensor

    pattern = Pattern.from_mask(torch.rand(spec.weight_shape, generator=generator) < density)
    size = spec.output_size(*shape[2:]) if spec.kind == "conv2d" else ()
    values, bias = random(pattern.nnz), random(spec.out_channels)
    return pattern, random(*shape), values, bias, random(shape[0], spec.out_channels, *size)


def of_sparse_kernels(
    spec: LayerSpec, shape: tuple[int, ...], density: float, dtype: torch.dtype, layout: torch.memory_format
) -> Iterator[Call]:
    pattern, x, values, bias, grad_out = operands(spec, shape, density, dtype, layout)
    matrix, layer = pattern.tensors()[1:], list(spec.to_ints()[1:])
    transposed = torch.ops.lth_sparse_cpu.pack(*matrix, layer)
    yield "pack", (*matrix, layer)
    for relu in (False, True):
        yield "forward", (x, values, bias, *matrix, layer, relu)
    yield "grad_input", (grad_out, values, *matrix, *transposed, layer, list(shape))
    yield "grad_weight", (x, grad_out, *matrix, layer)
    last = layout == torch.channels_last and spec.kind == "conv2d"
    yield "scatter_weight", (values, pattern.mask, *matrix, last)
    yield "gather_weight", (torch.ops.lth_sparse_cpu.scatter_weight(values, pattern.mask, *matrix, False),
                            pattern.mask, *matrix)  # fmt: skip


def of_other_kernels(
    prefix: str,
    tile: tuple[int, ...],
    spec: LayerSpec,
    shape: tuple[int, ...],
    density: float,
    layout: torch.memory_format,
) -> Iterator[Call]:
    """Winograd's, which are given the size of a tile, and depthwise ones."""
    pattern, x, values, bias, grad_out = operands(spec, shape, density, torch.float32, layout)
    given = (*pattern.tensors()[1:], list(spec.to_ints()[1:]))
    for relu in (False, True):
        yield f"{prefix}_forward", (x, values, bias, *given, *tile, relu)
    yield f"{prefix}_grad_input", (grad_out, values, *given, list(shape), *tile)
    yield f"{prefix}_grad_weight", (x, grad_out, *given, *tile)


def of_activations(layout: torch.memory_format) -> Iterator[Call]:
    generator = torch.Generator().manual_seed(0)
    channels = IMAGES[1]

    def images(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator).contiguous(memory_format=layout)

    def vector() -> Tensor:
        return torch.rand(channels, generator=generator) + 0.5

    x, residual, grad_out = images(*IMAGES), images(*IMAGES), images(*IMAGES)
    pooled = images(*IMAGES[:2], IMAGES[2] // 2, IMAGES[3] // 2)
    operators = torch.ops.lth_sparse_cpu
    for of_batch in (True, False):
        for bounds in CLAMPS.values():
            for added, pool in ((None, False), (residual, False), (None, True)):
                if pool and bounds != CLAMPS["ReLU"]:
                    continue
                given = (x, added, vector(), vector(), vector(), vector(), of_batch, 0.1, 1e-5, *bounds, pool)
                yield "batch_norm", given
                output, mean, inverse, taken = operators.batch_norm(*copy.deepcopy(given))
                kept = output if added is not None and bounds != CLAMPS["none"] else None
                yield "batch_norm_backward", (
                    pooled if pool else grad_out, x, kept, given[2], given[3], mean, inverse, taken if pool else None,
                    of_batch, *bounds,
                )  # fmt: skip
    yield "relu_max_pool", (x,)
    _, taken = operators.relu_max_pool(x)
    for summed in (False, True):
        yield "relu_max_pool_backward", (pooled, taken, list(IMAGES), layout == torch.channels_last, summed)


def calls() -> dict[str, list[Call]]:
    """What is called, by the kind of layer, its dtype and its layout."""
    found: dict[str, list[Call]] = {}
    for dtype in cpu_operators.DTYPES:
        for name, case in LINEAR.items():
            found[f"{name}, {dtype}"] = list(of_sparse_kernels(*case, dtype, torch.contiguous_format))
    for layout_name, layout in LAYOUTS.items():
        for dtype in cpu_operators.DTYPES:
            for name, case in CONVOLUTIONS.items():
                found[f"{name}, {dtype}, {layout_name}"] = list(of_sparse_kernels(*case, dtype, layout))
        for name, case in WINOGRAD.items():
            for tile in (2, 4):
                found[f"{name} {tile}, {layout_name}"] = list(of_other_kernels("winograd", (tile,), *case, layout))
        for name, case in DEPTHWISE.items():
            found[f"{name}, {layout_name}"] = list(of_other_kernels("depthwise", (), *case, layout))
        found[f"activations, {layout_name}"] = list(of_activations(layout))
    return found


@pytest.fixture(scope="module")
def all_calls() -> dict[str, list[Call]]:
    return calls()


def test_no_operator_is_missing(all_calls: dict[str, list[Call]]) -> None:
    prefix = "lth_sparse_cpu::"
    there = {name.removeprefix(prefix) for name in torch._C._dispatch_get_all_op_names() if name.startswith(prefix)}
    assert {operator for given in all_calls.values() for operator, _ in given} == there - COMPUTE_NOTHING - ELSEWHERE


def bits(tensor: Tensor) -> Tensor:
    """Which tell -0 from 0."""
    return tensor.view({1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}[tensor.element_size()])


def assert_same_bits(compute: Callable[[], list[Tensor]], what: str) -> None:
    one, *others = at_threads(compute, *THREADS)
    for threads, found in zip(THREADS[1:], others, strict=True):
        for ours, theirs in zip(found, one, strict=True):
            assert torch.equal(bits(ours), bits(theirs)), f"{what}, {threads} threads"


def test_operators(all_calls: dict[str, list[Call]]) -> None:
    for case, given in all_calls.items():
        for operator, arguments in given:

            def compute(operator: str = operator, arguments: tuple[Any, ...] = arguments) -> list[Tensor]:
                # Statistics of BatchNorm are written in place.
                own = copy.deepcopy(arguments)
                output = getattr(torch.ops.lth_sparse_cpu, operator)(*own)
                written = [each for each in own if isinstance(each, Tensor)]
                return [*(output if isinstance(output, tuple) else (output,)), *written]

            assert_same_bits(compute, f"{operator} of {case}")


@pytest.mark.parametrize("outputs", [1, 29])
def test_layers_with_what_follows_them(outputs: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Gradients of biases and of ReLU are no operators."""
    monkeypatch.setattr(beginnings, "FEWEST_RECTIFIED", 1)
    torch.manual_seed(0)
    for kind in (nn.Conv2d(5, outputs, 3, padding=1), nn.Linear(5, outputs)):
        for follower in (nn.Identity(), nn.ReLU()):
            mask = torch.rand(kind.weight.shape) < 0.5
            sparse = lth.sparsify(nn.Sequential(copy.deepcopy(kind), follower), {"0": mask}, "cpp")
            model = lth.fuse(sparse)
            x = torch.randn((5, 5, 119, 117) if isinstance(kind, nn.Conv2d) else (40_003, 5))

            def compute(model: nn.Module = model, x: Tensor = x) -> list[Tensor]:
                given = x.clone().requires_grad_()
                output = model(given)
                loss = (output * output).mean()
                return [output.detach(), *torch.autograd.grad(loss, [given, *model.parameters()])]

            assert_same_bits(compute, f"{model}")
