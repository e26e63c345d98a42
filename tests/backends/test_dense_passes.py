"""Passes that the node in C++ leaves to PyTorch's dense operators: csrc/autograd/dense_passes.h."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

import lth_sparse as lth
from lth_sparse.backends import autograd_library
from lth_sparse.backends.auto import AutoBackend
from tests.poison import poisoned_memory
from tests.threads import at_threads

NODE = "SparseLayerBackward"
ALL_DENSE = {"forward": "dense", "grad_input": "dense", "grad_weight": "dense"}

pytestmark = pytest.mark.skipif(bool(autograd_library.UNUSABLE), reason=autograd_library.UNUSABLE)


def linear(live: float, dtype: torch.dtype = torch.float32, bias: bool = True) -> lth.SparseLinear:
    torch.manual_seed(0)
    return lth.SparseLinear(9, 7, bias, mask=torch.rand(7, 9) < live, backend="auto", dtype=dtype)


def conv2d(live: float, groups: int = 1, dtype: torch.dtype = torch.float32, **rest: Any) -> lth.SparseConv2d:
    torch.manual_seed(0)
    mask = torch.rand(6, 4 // groups, 3, 3) < live
    return lth.SparseConv2d(4, 6, 3, mask=mask, groups=groups, backend="auto", dtype=dtype, **{"padding": 1} | rest)


CASES: dict[str, tuple[Callable[[], Any], tuple[int, ...]]] = {
    "linear": (lambda: linear(0.8), (5, 9)),
    "linear, nothing pruned": (lambda: linear(2.0), (5, 9)),
    "linear, all pruned": (lambda: linear(-1.0), (5, 9)),
    "no bias": (lambda: linear(0.8, bias=False), (5, 9)),
    "one dimension": (lambda: linear(0.8), (9,)),
    "three dimensions": (lambda: linear(0.8), (2, 3, 9)),
    "linear, float64": (lambda: linear(0.8, torch.float64), (5, 9)),
    "linear, bfloat16": (lambda: linear(0.8, torch.bfloat16), (5, 9)),
    "conv2d": (lambda: conv2d(0.8), (3, 4, 5, 7)),
    "conv2d, nothing pruned": (lambda: conv2d(2.0), (3, 4, 5, 7)),
    "one image without N": (lambda: conv2d(0.8), (4, 5, 7)),
    "groups, stride and dilation": (lambda: conv2d(0.8, 2, stride=(2, 1), dilation=2, padding=(2, 3)), (3, 4, 5, 7)),
    "conv2d, float64": (lambda: conv2d(0.8, dtype=torch.float64), (3, 4, 5, 7)),
}


@pytest.fixture
def choose(monkeypatch: pytest.MonkeyPatch) -> Callable[[dict[str, str]], None]:
    """Settles what auto has chosen for each pass."""

    def settle(winners: dict[str, str]) -> None:
        monkeypatch.setattr(AutoBackend, "chosen", lambda _, plan, passes, *rest: [winners[each] for each in passes])
        autograd_library.forget()

    return settle


def gradients(layer: Any, x: Tensor, grad_out: Tensor) -> list[Tensor]:
    given = x.detach().clone(memory_format=torch.preserve_format).requires_grad_()
    output = layer(given)
    return [output.detach(), *torch.autograd.grad(output, [given, *layer.parameters()], grad_out)]


def by_node(layer: Any) -> bool:
    return NODE in layer(torch.zeros(CASES_OF[type(layer)], dtype=layer.values.dtype)).grad_fn.name()


CASES_OF = {lth.SparseLinear: (5, 9), lth.SparseConv2d: (3, 4, 5, 7)}


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("case", CASES)
def test_the_numbers_are_those_of_the_dense_backend(
    case: str, layout: torch.memory_format, choose: Callable[[dict[str, str]], None]
) -> None:
    choose(ALL_DENSE)
    make, shape = CASES[case]
    layer = make()
    assert by_node(layer)
    x = torch.randn(shape).to(layer.values.dtype)
    x = x.contiguous(memory_format=layout) if x.dim() == 4 else x
    grad_out = torch.randn_like(layer(x).detach())
    with poisoned_memory():
        results = gradients(layer, x, grad_out)
    layer.backend = "dense"
    for result, same in zip(results, gradients(layer, x, grad_out), strict=True):
        assert result.stride() == same.stride()
        torch.testing.assert_close(result, same, rtol=0, atol=0)


@pytest.mark.parametrize("pass_by_dense", ["forward", "grad_input", "grad_weight"])
@pytest.mark.parametrize("make", [lambda: linear(0.6), lambda: conv2d(0.6)], ids=["linear", "conv2d"])
def test_one_pass_alone(make: Callable[[], Any], pass_by_dense: str, choose: Callable[[dict[str, str]], None]) -> None:
    layer = make()
    shape = CASES_OF[type(layer)]
    x = torch.randn(shape)
    choose(dict.fromkeys(ALL_DENSE, "cpp/sparse"))
    grad_out = torch.randn_like(layer(x).detach())
    choose(dict.fromkeys(ALL_DENSE, "cpp/sparse") | {pass_by_dense: "dense"})
    results = gradients(layer, x, grad_out)
    assert by_node(layer)
    exact = layer.double()
    exact.backend = "dense"
    for result, expected in zip(results, gradients(exact, x.double(), grad_out.double()), strict=True):
        torch.testing.assert_close(result.double(), expected, rtol=1e-5, atol=1e-6)


def test_relu_comes_with_it(choose: Callable[[dict[str, str]], None]) -> None:
    choose(ALL_DENSE)
    layer, x = conv2d(0.8), torch.randn(3, 4, 5, 7)
    assert torch.equal(layer._output(x, relu=True), layer(x).relu())


def test_values_must_not_be_written_to_before_the_backward_pass(choose: Callable[[dict[str, str]], None]) -> None:
    """So the weight that the forward pass made serves the backward pass too."""
    choose(ALL_DENSE)
    layer, x = linear(0.8), torch.randn(5, 9, requires_grad=True)
    output = layer(x)
    with torch.no_grad():
        layer.values.mul_(2)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        output.sum().backward()


def test_a_mask_of_any_strides(choose: Callable[[dict[str, str]], None]) -> None:
    choose(ALL_DENSE)
    mask = (torch.rand(9, 7, generator=torch.Generator().manual_seed(0)) < 0.7).t()
    layer, x = lth.SparseLinear(9, 7, mask=torch.ones(7, 9, dtype=torch.bool), backend="auto"), torch.randn(5, 9)
    layer.load_state_dict(layer.state_dict() | {"mask": mask, "values": torch.randn(int(mask.sum()))}, assign=True)
    assert by_node(layer)
    torch.testing.assert_close(layer(x), layer.to_dense()(x))


def test_the_same_bits_at_every_call_of_as_many_threads(choose: Callable[[dict[str, str]], None]) -> None:
    choose(ALL_DENSE)
    layer, x, grad_out = conv2d(0.8), torch.randn(30, 4, 12, 12), torch.randn(30, 6, 12, 12)
    for threads in (1, 2):
        first, second = at_threads(lambda: gradients(layer, x, grad_out), threads, threads)
        assert all(map(torch.equal, first, second))
