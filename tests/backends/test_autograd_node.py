"""The autograd node in C++: the same numbers as in Python, in PyTorch's own graph, and out of everybody's way."""

from __future__ import annotations

import copy
import pickle
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.autograd import forward_ad
from torch.fx.experimental.proxy_tensor import make_fx
from torch.overrides import TorchFunctionMode
from torch.profiler import ProfilerActivity, profile
from torch.utils._python_dispatch import TorchDispatchMode

import lth_sparse as lth
from lth_sparse import doctor, ops
from lth_sparse.backends import auto, autograd_library, registry, winograd
from lth_sparse.backends.auto import remembering
from lth_sparse.backends.choices import Choice, Choices
from lth_sparse.verification import installation
from tests.poison import poisoned_memory
from tests.threads import at_threads

NODE = "SparseLayerBackward"
IN_PYTHON = "_LayerBackward"

pytestmark = pytest.mark.skipif(bool(autograd_library.UNUSABLE), reason=autograd_library.UNUSABLE)


def linear(backend: str = "cpp", bias: bool = True, dtype: torch.dtype | None = None) -> lth.SparseLinear:
    torch.manual_seed(0)
    return lth.SparseLinear(9, 7, bias, mask=torch.rand(7, 9) < 0.4, backend=backend, dtype=dtype)


def conv2d(backend: str = "cpp", live: float = 0.4, **rest: Any) -> lth.SparseConv2d:
    torch.manual_seed(0)
    groups = rest.get("groups", 1)
    mask = torch.rand(6, 4 // groups, 3, 3) < live
    return lth.SparseConv2d(4, 6, 3, mask=mask, backend=backend, **{"padding": 1} | rest)


def unpruned() -> lth.SparseConv2d:
    """Of those that Winograd's algorithm is chosen for."""
    torch.manual_seed(0)
    return lth.SparseConv2d(32, 32, 3, padding=1, backend="cpp")


def depthwise() -> lth.SparseConv2d:
    torch.manual_seed(0)
    return lth.SparseConv2d(5, 5, 3, padding=1, groups=5, mask=torch.rand(5, 1, 3, 3) < 0.7, backend="cpp")


def made_by(output: Tensor) -> str:
    assert output.grad_fn is not None
    return output.grad_fn.name()


CASES: dict[str, tuple[Callable[[], Any], tuple[int, ...]]] = {
    "linear": (linear, (5, 9)),
    "one row": (linear, (1, 9)),
    "no rows": (linear, (0, 9)),
    "one dimension": (linear, (9,)),
    "three dimensions": (linear, (2, 3, 9)),
    "no bias": (lambda: linear(bias=False), (5, 9)),
    "float64": (lambda: linear(dtype=torch.float64), (5, 9)),
    "conv2d": (conv2d, (3, 4, 5, 7)),
    "one image without N": (conv2d, (4, 5, 7)),
    "no images": (conv2d, (0, 4, 5, 7)),
    "Winograd": (unpruned, (4, 32, 12, 12)),
    "stride and groups": (lambda: conv2d(stride=(2, 1), groups=2), (3, 4, 5, 7)),
    "dilation": (lambda: conv2d(dilation=2, padding=(0, 3)), (3, 4, 5, 7)),
    "depthwise": (depthwise, (3, 5, 9, 6)),
    "depthwise, no images": (depthwise, (0, 5, 9, 6)),
    "nothing live": (lambda: conv2d(live=0.0), (3, 4, 5, 7)),
}


def gradients(layer: Any, x: Tensor, grad_out: Tensor, node: str) -> list[Tensor]:
    """The output, and the gradients of x and the parameters. The backward pass is that of `node`."""
    given = x.detach().clone(memory_format=torch.preserve_format).requires_grad_()
    output = layer(given)
    # Of a view that PyTorch made of it in Python, or of the node itself.
    functions = [output.grad_fn, *(each for each, _ in output.grad_fn.next_functions)]
    assert node in [each.name() for each in functions if each is not None]
    return [output.detach(), *torch.autograd.grad(output, [given, *layer.parameters()], grad_out)]


def without_node(layer: Any) -> Any:
    found = copy.deepcopy(layer)
    found._node = None
    return found


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("case", CASES)
def test_the_numbers(case: str, layout: torch.memory_format) -> None:
    make, shape = CASES[case]
    layer = make()
    x = torch.randn(shape, dtype=layer.values.dtype)
    x = x.contiguous(memory_format=layout) if x.dim() == 4 else x
    with torch.no_grad():
        grad_out = torch.randn_like(layer(x))
    with poisoned_memory():
        results = gradients(layer, x, grad_out, NODE)
    in_python = gradients(without_node(layer), x, grad_out, IN_PYTHON)
    for result, same in zip(results, in_python, strict=True):
        assert result.stride() == same.stride()
        torch.testing.assert_close(result, same, rtol=0, atol=0)
    dense = layer.to_dense().double()
    given = x.detach().double().requires_grad_()
    output = dense(given)
    weight, *bias = torch.autograd.grad(output, [*dense.parameters(), given], grad_out.double())
    exact = [output, bias.pop(), layer.pattern.gather(weight), *bias]
    tolerance = 1e-12 if x.dtype == torch.float64 else 2e-5
    for result, expected in zip(results, exact, strict=True):
        largest = float(expected.detach().abs().max()) if expected.numel() else 0.0
        torch.testing.assert_close(result.double(), expected, rtol=0, atol=tolerance * largest)


@pytest.mark.parametrize("given", ["transposed", "expanded", "sliced"])
def test_inputs_and_gradients_of_any_strides(given: str) -> None:
    layer = linear()

    def strided(rows: int, columns: int) -> Tensor:
        if given == "transposed":
            return torch.randn(columns, rows).t()
        sliced = torch.randn(rows, 2 * columns)[:, ::2]
        return torch.randn(1, columns).expand(rows, -1) if given == "expanded" else sliced

    x, grad_out = strided(5, 9), strided(5, 7)
    plain = gradients(layer, x.contiguous(), grad_out.contiguous(), NODE)
    for result, expected in zip(gradients(layer, x, grad_out, NODE), plain, strict=True):
        torch.testing.assert_close(result, expected, rtol=0, atol=1e-6)


def test_gradients_in_another_layout_than_the_input() -> None:
    layer, x = conv2d(), torch.randn(3, 4, 5, 7)
    grad_out = torch.randn(3, 6, 5, 7)
    plain = gradients(layer, x, grad_out, NODE)
    mixed = gradients(layer, x, grad_out.contiguous(memory_format=torch.channels_last), NODE)
    for result, expected in zip(mixed, plain, strict=True):
        torch.testing.assert_close(result, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("wanted", ["x", "values", "bias"])
def test_who_needs_no_gradient_gets_none(wanted: str) -> None:
    layer, x = linear(), torch.randn(5, 9, requires_grad=wanted == "x")
    layer.values.requires_grad_(wanted == "values")
    layer.bias.requires_grad_(wanted == "bias")
    output = layer(x)
    assert made_by(output) == NODE
    output.sum().backward()
    found = {"x": x.grad, "values": layer.values.grad, "bias": layer.bias.grad}
    assert [name for name, gradient in found.items() if gradient is not None] == [wanted]


def test_no_gradient_at_all() -> None:
    layer, x = linear(), torch.randn(5, 9)
    expected = layer(x).detach()
    with torch.no_grad():
        assert layer(x).grad_fn is None
    with torch.inference_mode():
        output = layer(x)
        assert output.is_inference()
        assert torch.equal(output, expected)
        assert torch.equal(layer(torch.ones_like(x)), layer(torch.ones(5, 9)))
    layer.requires_grad_(False)
    assert not layer(x).requires_grad


def test_what_was_saved_must_not_be_written_to() -> None:
    layer, x = linear(), torch.randn(5, 9)
    output = layer(x)
    x.add_(1)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        output.sum().backward()
    given = torch.randn(5, 9, requires_grad=True)
    output = layer(given)
    with torch.no_grad():
        layer.values.add_(1)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        output.sum().backward()


def test_twice_through_the_graph() -> None:
    layer, x = linear(), torch.randn(5, 9, requires_grad=True)
    output = layer(x).sum()
    first = torch.autograd.grad(output, x, retain_graph=True)[0]
    assert torch.equal(torch.autograd.grad(output, x)[0], first)
    with pytest.raises(RuntimeError, match="backward through the graph a second time"):
        output.backward()


def test_there_is_no_second_derivative() -> None:
    layer, x = linear(), torch.randn(5, 9, requires_grad=True)
    output = layer(x)
    assert made_by(output) == NODE
    (gradient,) = torch.autograd.grad(output.square().sum(), x, create_graph=True)
    with pytest.raises(NotImplementedError, match="sparse layers have no second derivative"):
        gradient.sum().backward()


class Seen(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.names.append(func.name())
        return func(*args, **(kwargs or {}))


def test_a_dispatch_mode_sees_operators() -> None:
    layer, x = linear(), torch.randn(5, 9, requires_grad=True)
    plain = gradients(layer, x, torch.ones(5, 7), NODE)
    with Seen() as seen:
        watched = gradients(layer, x, torch.ones(5, 7), IN_PYTHON)
    passes = [name for name in seen.names if name.startswith("lth_sparse::")]
    assert passes == ["lth_sparse::forward", "lth_sparse::grad_input", "lth_sparse::grad_weight"]
    for result, expected in zip(watched, plain, strict=True):
        assert torch.equal(result, expected)


OPERATORS = torch.ops.lth_sparse


def refuse(*_: Any) -> Any:
    raise AssertionError("the plan was to be known")


@pytest.mark.parametrize(
    "case", ["linear", "float64", "no rows", "no bias", "conv2d", "stride and groups", "depthwise"]
)
def test_operators_of_a_living_layer_unpack_no_plan(case: str, monkeypatch: pytest.MonkeyPatch) -> None:
    make, shape = CASES[case]
    layer = make()
    x = torch.randn(shape, dtype=layer.values.dtype)
    grad_out = torch.randn_like(layer(x).detach())
    with poisoned_memory(), Seen():
        expected = gradients(layer, x, grad_out, IN_PYTHON)
    monkeypatch.setattr(ops._Straight, "unpack", refuse)
    with poisoned_memory(), Seen():
        found = gradients(layer, x, grad_out, IN_PYTHON)
    for result, same in zip(found, expected, strict=True):
        assert torch.equal(result, same)
        assert result.stride() == same.stride()
    assert torch.equal(found[0], layer(x))


def test_operators_whose_plan_is_another_unpack_it() -> None:
    layer, x = linear(), torch.randn(5, 9)
    tensors, ints = layer.plan.tensors(), layer.spec.to_ints()
    expected = OPERATORS.forward(x, layer.values, layer.bias, tensors, ints, "cpp")
    # As many tensors, of which one is another; no such backend; a mask that was written to; and none that lives.
    copied = [*tensors[:-1], tensors[-1].clone()]
    assert torch.equal(OPERATORS.forward(x, layer.values, layer.bias, copied, ints, "cpp"), expected)
    with pytest.raises(ValueError, match="plan: got a mask"):
        OPERATORS.forward(x, layer.values, layer.bias, tensors, (0, 4, *ints[2:]), "cpp")
    layer.mask[layer.mask.nonzero()[0].tolist()] = False
    with pytest.raises(ValueError, match="written in place"):
        OPERATORS.forward(x, layer.values, layer.bias, tensors, ints, "cpp")
    values, bias = layer.values, layer.bias
    tensors = [t.clone() for t in linear().plan.tensors()]
    assert torch.equal(OPERATORS.forward(x, values, bias, tensors, ints, "cpp"), expected)


@pytest.mark.parametrize(
    "call",
    [
        lambda plan, x, v, g: OPERATORS.forward(x[:, :8], v, None, *plan),
        lambda plan, x, v, g: OPERATORS.forward(x, v[1:], None, *plan),
        lambda plan, x, v, g: OPERATORS.forward(x.double(), v, None, *plan),
        lambda plan, x, v, g: OPERATORS.grad_input(g[:, 1:], v, (5, 9), *plan),
        lambda plan, x, v, g: OPERATORS.grad_input(g, v, (4, 9), *plan),
        lambda plan, x, v, g: OPERATORS.grad_input(g, v, (5, 9, 1), *plan),
        lambda plan, x, v, g: OPERATORS.grad_input(g.double(), v, (5, 9), *plan),
        lambda plan, x, v, g: OPERATORS.grad_weight(x[1:], g, *plan),
        lambda plan, x, v, g: OPERATORS.grad_weight(x, g.double(), *plan),
    ],
)
def test_what_does_not_fit_a_known_plan_is_refused(call: Callable[..., Tensor]) -> None:
    layer = linear()
    plan = (layer.plan.tensors(), layer.spec.to_ints(), "cpp")
    with torch.no_grad(), pytest.raises(ValueError, match="got"):
        call(plan, torch.randn(5, 9), layer.values, torch.randn(5, 7))


@pytest.mark.parametrize("backend", ["dense", "cpp", "auto"])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("shape", [(2, 1, 5, 4), (1, 1, 1, 3)])
def test_images_of_one_channel_have_the_format_of_their_strides(
    shape: tuple[int, ...], layout: torch.memory_format, backend: str
) -> None:
    torch.manual_seed(0)
    layer = lth.SparseConv2d(shape[1], 6, 3, padding=1, mask=torch.rand(6, shape[1], 3, 3) < 0.5, backend=backend)
    x = torch.randn(shape).to(memory_format=layout)
    for _ in range(2):  # auto measures, and then calls what it chose.
        output = layer(x)
        assert output.stride() == torch.empty(output.shape, memory_format=layout).stride()
    with Seen():
        assert layer(x).stride() == output.stride()
    torch.testing.assert_close(output, layer.to_dense()(x))


def test_a_dispatch_mode_around_the_backward_pass_alone() -> None:
    layer, x = linear(), torch.randn(5, 9, requires_grad=True)
    output = layer(x)
    assert made_by(output) == NODE
    with Seen() as seen:
        output.sum().backward()
    assert {"lth_sparse::grad_input", "lth_sparse::grad_weight"} <= set(seen.names)


class Functions(TorchFunctionMode):
    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return func(*args, **(kwargs or {}))


class Subclass(Tensor):
    pass


@contextmanager
def forward_mode() -> Iterator[None]:
    with forward_ad.dual_level():
        yield


@pytest.mark.parametrize(
    "watch",
    [Functions, forward_mode, torch.random.fork_rng, lambda: torch.autocast("cpu", torch.float16, enabled=False)],
)
def test_who_else_looks_on(watch: Callable[[], Any]) -> None:
    layer, x = linear(), torch.randn(5, 9)
    expected = layer(x)
    with watch():
        output = layer(x)
    assert torch.equal(output, expected)
    assert made_by(output) == (IN_PYTHON if watch in (Functions, forward_mode) else NODE)


def test_autocast() -> None:
    layer, x = linear("auto"), torch.randn(5, 9)
    layer(x)
    assert made_by(layer(x)) in (NODE, IN_PYTHON)
    with torch.autocast("cpu", torch.bfloat16):
        assert layer(x).dtype == torch.bfloat16
    output = layer(x)
    with torch.autocast("cpu", torch.bfloat16):
        output.sum().backward()
    assert layer.values.grad is not None
    assert layer.values.grad.dtype == torch.float32


def test_a_subclass() -> None:
    layer, x = linear(), torch.randn(5, 9).as_subclass(Subclass)
    assert made_by(layer(x)) != NODE
    assert torch.equal(layer(x).as_subclass(Tensor), layer(x.as_subclass(Tensor)))


def test_tensors_that_are_not_what_their_memory_says() -> None:
    layer = linear()
    x = torch.randn(5, 9, dtype=torch.complex64).conj().imag
    assert x.is_neg()
    torch.testing.assert_close(layer(x), layer(x.clone()))
    torch.testing.assert_close(layer(x), layer(x.resolve_neg()))


def test_transforms_of_torch_func() -> None:
    layer, x = linear(), torch.randn(5, 9)
    expected = torch.autograd.grad(layer(x).square().sum(), layer.values)[0]
    values = layer.values.detach()

    def loss(values: Tensor) -> Tensor:
        return torch.func.functional_call(layer, {"values": values}, (x,)).square().sum()

    torch.testing.assert_close(torch.func.grad(loss)(values), expected)
    torch.testing.assert_close(torch.func.vmap(layer)(x.expand(3, 5, 9)), layer(x).expand(3, 5, 7))
    tangent = torch.func.jvp(layer, (x,), (x,))[1]
    torch.testing.assert_close(tangent, layer(x) - layer.bias)
    output = layer(x)
    (batched,) = torch.autograd.grad(output, layer.values, torch.ones(2, 5, 7), is_grads_batched=True)
    torch.testing.assert_close(batched[1], torch.autograd.grad(layer(x).sum(), layer.values)[0])


def test_what_traces_sees_an_operator() -> None:
    layer, x = linear(), torch.randn(5, 9)
    expected = layer(x)
    assert "lth_sparse.forward" in make_fx(layer)(x).code
    exported = torch.export.export(layer, (x,))
    assert "lth_sparse.forward" in exported.graph_module.code
    torch.testing.assert_close(exported.module()(x), expected)
    traced = torch.jit.trace(layer, x)
    torch.testing.assert_close(traced(x + 1), layer(x + 1))


def test_a_compiled_layer_has_the_operator_in_its_graph() -> None:
    graphs: list[torch.fx.GraphModule] = []

    def look(graph: torch.fx.GraphModule, _: Any) -> Any:
        graphs.append(graph)
        return graph.forward

    layer, x = linear(), torch.randn(5, 9)
    expected = layer(x)
    compiled = torch.compile(layer, backend=look, fullgraph=True)
    torch.testing.assert_close(compiled(x), expected)
    assert "lth_sparse.forward" in graphs[0].code


def test_hooks() -> None:
    layer, x = linear(), torch.randn(5, 9, requires_grad=True)
    seen: list[str] = []
    layer.register_forward_hook(lambda *_: seen.append("forward"))
    layer.register_full_backward_hook(lambda *_: seen.append("backward"))
    layer.values.register_hook(lambda _: seen.append("values"))
    packed: list[tuple[int, ...]] = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: packed.append(tuple(t.shape)) or t.clone(), lambda t: t):
        output = layer(x)
    output.register_hook(lambda gradient: seen.append("output") or 2 * gradient)
    output.sum().backward()
    assert sorted(seen) == ["backward", "forward", "output", "values"]
    assert packed == [(5, 9), tuple(layer.values.shape)]
    assert layer.bias.grad is not None
    assert torch.equal(layer.bias.grad, torch.full((7,), 10.0))


def test_hooks_on_the_creation_of_nodes() -> None:
    layer, x = linear(), torch.randn(5, 9, requires_grad=True)
    made: list[str] = []
    with torch.autograd.graph.node_creation_hook(lambda node: made.append(node.name())):
        layer(x)
    assert made[-1] == NODE
    assert made.count(NODE) == 1


@pytest.mark.filterwarnings("ignore:Anomaly Detection", "ignore:Error detected in SparseLayerBackward")
def test_anomaly_mode_names_the_node() -> None:
    layer, x = linear(), torch.randn(5, 9, requires_grad=True)
    with torch.autograd.detect_anomaly():
        output = layer(x)
        with pytest.raises(RuntimeError, match=f"{NODE}' returned nan values"):
            output.backward(torch.full((5, 7), torch.nan))


def test_a_profile_names_its_passes() -> None:
    layer, x = linear(), torch.randn(5, 9, requires_grad=True)
    with profile(activities=[ProfilerActivity.CPU]) as profiled:
        layer(x).sum().backward()
    names = {event.key for event in profiled.key_averages()}
    assert {f"lth_sparse_cpu::{each}" for each in ("forward", "grad_input", "grad_weight")} <= names


def test_many_threads_and_few() -> None:
    layer, x, grad_out = conv2d(), torch.randn(30, 4, 12, 12), torch.randn(30, 6, 12, 12)
    one, two = at_threads(lambda: gradients(layer, x, grad_out, NODE), 1, 2)
    assert all(map(torch.equal, one, two))
    found: list[list[Tensor]] = []
    threads = [threading.Thread(target=lambda: found.append(gradients(layer, x, grad_out, NODE))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 4
    for results in found:
        assert all(map(torch.equal, results, two))


def test_copies_have_a_node_of_their_own() -> None:
    layer, x = linear(), torch.randn(5, 9)
    expected = layer(x)
    for other in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
        assert made_by(other(x)) == NODE
        assert torch.equal(other(x), expected)
    double = copy.deepcopy(layer).double()
    assert made_by(double(x.double())) == NODE
    torch.testing.assert_close(double(x.double()).float(), expected)


def test_a_mask_that_is_written_to_counts() -> None:
    layer, x = linear(), torch.randn(5, 9)
    layer(x)
    with torch.no_grad():
        layer.mask.copy_(layer.mask.flip(0))
    expected = nn.functional.linear(x, layer.to_dense().weight, layer.bias)
    torch.testing.assert_close(layer(x), expected)
    assert made_by(layer(x)) == NODE


def test_what_does_not_fit_is_refused_as_in_python() -> None:
    layer = linear()
    with pytest.raises(ValueError, match=r"input: got shape \(5, 8\), expected \[\.\.\., 9\]"):
        layer(torch.randn(5, 8))
    with pytest.raises(TypeError, match=r"input: got dtype torch\.float64, expected torch\.float32"):
        layer(torch.randn(5, 9).double())
    with pytest.raises(TypeError, match="input: got list, expected a tensor"):
        layer([1.0])
    with pytest.raises(ValueError, match="expected no less than the kernel"):
        conv2d(padding=0)(torch.randn(1, 4, 2, 2))


def test_a_plan_that_was_damaged_is_refused_by_the_kernels() -> None:
    layer = linear()
    layer.pattern.column_indices.fill_(9)
    with pytest.raises(RuntimeError, match="not those of a mask of this layer"):
        layer(torch.randn(5, 9))


def test_what_pads_first_goes_through_python() -> None:
    layer, x = conv2d(padding_mode="circular"), torch.randn(3, 4, 5, 7)
    assert made_by(layer(x)) == IN_PYTHON
    torch.testing.assert_close(layer(x), layer.to_dense()(x))


def test_depthwise_kernels_are_called_under_their_names() -> None:
    layer, x = depthwise(), torch.randn(3, 5, 9, 6, requires_grad=True)
    with profile(activities=[ProfilerActivity.CPU]) as profiled:
        layer(x).sum().backward()
    found = {event.key for event in profiled.key_averages() if event.key.startswith("lth_sparse_cpu::")}
    assert found == {f"lth_sparse_cpu::depthwise_{name}" for name in ("forward", "grad_input", "grad_weight")}


@pytest.mark.parametrize("setting", ["off", "2x2"])
def test_another_setting_of_winograd_counts_at_once(setting: str) -> None:
    layer, x = unpruned(), torch.randn(4, 32, 12, 12)

    def operators() -> set[str]:
        with profile(activities=[ProfilerActivity.CPU]) as profiled:
            layer(x)
        return {event.key for event in profiled.key_averages() if event.key.startswith("lth_sparse_cpu::")}

    before, by_4x4 = operators(), layer(x)
    with winograd.limited(setting):
        now, output = operators(), layer(x)
    assert before == operators() == {"lth_sparse_cpu::winograd_forward"}
    assert now == {"lth_sparse_cpu::forward" if setting == "off" else "lth_sparse_cpu::winograd_forward"}
    assert not torch.equal(output, by_4x4)


def test_an_answer_that_is_out_of_date_when_it_comes_is_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """As where, while one thread asks, another sets Winograd's algorithm off and calls the layer with other images."""
    layer, x, backend = unpruned(), torch.randn(4, 32, 12, 12), registry.get("cpp")
    chosen, asked = backend.chosen, []

    def slowly(*question: Any) -> Any:
        answer = chosen(*question)
        asked.append(question)
        if len(asked) == 1:
            winograd.set_winograd("off")
            layer(x[:2])
        return answer

    monkeypatch.setattr(backend, "chosen", slowly)
    with winograd.limited("4x4"):
        layer(x)
        output = layer(x)
        monkeypatch.undo()
        assert torch.equal(output, unpruned()(x))
    assert len(asked) == 3


@pytest.mark.parametrize("grad_out", [torch.ones(5, 7), torch.ones(7, 5).t()], ids=["contiguous", "strided"])
def test_auto_is_asked_what_it_has_chosen(grad_out: Tensor, monkeypatch: pytest.MonkeyPatch) -> None:
    layer, x = linear("auto"), torch.randn(5, 9, requires_grad=True)
    for winner, expected in (("cpp/sparse", NODE), ("dense", NODE)):
        monkeypatch.setattr(auto, "_winner", lambda seconds, failed, winner=winner: Choice(winner))
        with remembering(Choices()):
            first = layer(x)
            assert made_by(first) == IN_PYTHON  # Nothing was known yet: it is measured in Python.
            first.backward(grad_out)
            assert made_by(layer(x)) == expected


def test_other_backends_have_none() -> None:
    layer = linear("dense")
    assert layer._node is None
    assert made_by(layer(torch.randn(5, 9))) == IN_PYTHON
    layer.backend = "cpp"
    assert made_by(layer(torch.randn(5, 9))) == NODE


def test_relu_in_the_store_without_gradients() -> None:
    model = nn.Sequential(linear(), nn.ReLU()).eval()
    inference, x = lth.for_inference(model), torch.randn(5, 9)
    with torch.no_grad():
        assert torch.equal(inference(x), model(x))
    torch.testing.assert_close(inference(x), model(x))


def test_a_library_for_another_torch_is_not_opened(monkeypatch: pytest.MonkeyPatch) -> None:
    built_for = torch.__version__
    monkeypatch.setattr(torch, "__version__", "2.99.0")
    module, reason = autograd_library.load()
    assert module is None
    assert reason == (
        f"it was built for torch {built_for}, and this is 2.99.0: run 'pip install --no-build-isolation -e .'"
    )
    module, reason = autograd_library.load("lth_sparse._not_there")
    assert module is None
    assert reason.startswith("it is not built for this Python")


def test_a_library_of_other_sources_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(autograd_library._module, "connect", lambda: False)
    assert autograd_library.load()[1].startswith("it was built of other sources than the kernels")


def test_a_file_that_says_nothing(tmp_path: Path) -> None:
    (tmp_path / "empty.so").write_bytes(b"")
    assert autograd_library.torch_of(tmp_path / "empty.so") == ""


def test_the_doctor_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "with the autograd node in C++" in dict(installation.backends_here())["cpp"]
    monkeypatch.setattr(autograd_library, "UNUSABLE", "it was built for torch 1")
    said = "without the autograd node in C++, so that small layers spend their time in Python: it was built for torch 1"
    assert said in dict(doctor.SECTIONS["backends"]())["cpp"]
    assert linear()._node is None
    assert made_by(linear()(torch.randn(5, 9))) == IN_PYTHON
