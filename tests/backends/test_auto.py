"""The auto backend: it chooses by measuring, remembers, replays what it is given, and survives what fails."""

from __future__ import annotations

import json
import math
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import lth_sparse as lth
from lth_sparse.backends import auto, registry
from lth_sparse.backends.auto import AutoBackend, remembering
from lth_sparse.backends.base import Backend, Plan
from lth_sparse.backends.choices import CLOSE, CLOSE_DENSITY, MOST_SIZES, Choice, Choices, Key
from lth_sparse.backends.dense import DenseBackend
from lth_sparse.plans.layer_spec import LayerSpec
from lth_sparse.plans.pattern import Pattern

pytestmark = pytest.mark.alone
PAUSE = 0.004
Calls = list[tuple[str, str]]


class Fake(DenseBackend):
    """Dense arithmetic that pauses in the operations of `slow`, raises in those of `broken`, and counts its calls."""

    def __init__(self, name: str, calls: Calls, slow: tuple[str, ...] = (), broken: tuple[str, ...] = ()) -> None:
        self.name, self._calls, self._slow, self._broken = name, calls, slow, broken

    def _met(self, operation: str) -> None:
        self._calls.append((self.name, operation))
        if operation in self._slow:
            time.sleep(PAUSE)
        if operation in self._broken:
            raise RuntimeError(f"no {operation}\ntoday")

    def pack(self, pattern: Pattern, spec: LayerSpec) -> Plan:
        self._met("pack")
        return super().pack(pattern, spec)

    def forward(self, x: Tensor, values: Tensor, plan: Plan, bias: Tensor | None) -> Tensor:
        self._met("forward")
        return super().forward(x, values, plan, bias)

    def grad_input(self, grad_out: Tensor, values: Tensor, plan: Plan, input_shape: tuple[int, ...]) -> Tensor:
        self._met("grad_input")
        return super().grad_input(grad_out, values, plan, input_shape)

    def grad_weight(self, x: Tensor, grad_out: Tensor, plan: Plan) -> Tensor:
        self._met("grad_weight")
        return super().grad_weight(x, grad_out, plan)


Register = Callable[..., Fake]


@pytest.fixture
def calls() -> Calls:
    """(backend, operation) of every call of a fake."""
    return []


@pytest.fixture
def register(monkeypatch: pytest.MonkeyPatch, calls: Calls) -> Iterator[Register]:
    """Registers a fake: those, and auto with an empty memory, are all the backends that there are."""
    monkeypatch.setattr(registry, "_registered", {"auto": registry.get("auto")})
    monkeypatch.setattr(
        registry, "_unusable", {"auto": "", "cpp": "left out", "triton": "left out", "cuda": "left out"}
    )

    def add(name: str, slow: tuple[str, ...] = (), broken: tuple[str, ...] = ()) -> Fake:
        made: Backend = Fake(name, calls, slow, broken)
        registry._registered[name], registry._unusable[name] = made, ""
        return made

    with remembering(Choices()):
        yield add


def known() -> Choices:
    """What auto remembers."""
    backend = registry.get("auto")
    assert isinstance(backend, AutoBackend)
    return backend.choices


def layer(backend: str = "auto") -> lth.SparseConv2d:
    torch.manual_seed(0)
    mask = torch.rand(3, 2, 3, 3) < 0.5
    return lth.SparseConv2d(2, 3, 3, padding=1, mask=mask, backend=backend)


def step(module: nn.Module, batch: int = 4) -> list[Tensor]:
    """Output and gradients of a step on fixed numbers."""
    x = torch.arange(batch * 2 * 5 * 5.0).reshape(batch, 2, 5, 5).div(50).requires_grad_()
    module.zero_grad()
    output = module(x)
    output.square().sum().backward()
    gradients = [parameter.grad for parameter in module.parameters()]
    assert x.grad is not None
    assert all(gradient is not None for gradient in gradients)
    return [output.detach(), x.grad, *(gradient for gradient in gradients if gradient is not None)]


def chosen() -> dict[str, str]:
    return {key.operation: choice.backend for key, choice in known().layers.items()}


# Choosing


def test_each_operation_goes_to_its_fastest_backend(register: Register, calls: Calls) -> None:
    register("dense", slow=("forward", "grad_weight"))
    register("quick_forward", slow=("grad_input", "grad_weight"))
    register("quick_weight", slow=("forward", "grad_input"))
    module = layer()
    first = step(module)
    assert chosen() == {"forward": "quick_forward", "grad_input": "dense", "grad_weight": "quick_weight"}
    calls.clear()
    second = step(module)
    assert calls == [
        ("quick_forward", "forward"),
        ("dense", "grad_input"),
        ("quick_weight", "grad_weight"),
    ] or calls == [
        ("quick_forward", "forward"),
        ("quick_weight", "grad_weight"),
        ("dense", "grad_input"),
    ]
    for one, other, expected in zip(first, second, step(layer("dense")), strict=True):
        assert torch.equal(one, other)
        torch.testing.assert_close(one, expected)


def test_dense_keeps_what_it_is_not_clearly_beaten_at(register: Register) -> None:
    both = ("forward", "grad_input", "grad_weight")
    register("dense", slow=both)
    register("same", slow=both)
    step(layer())
    assert set(chosen().values()) == {"dense"}
    for choice in known().layers.values():
        assert choice.milliseconds.keys() == {"dense", "same"}


@pytest.mark.alone
def test_a_slow_candidate_is_called_no_oftener_than_it_takes_to_see_it(
    register: Register, calls: Calls, monkeypatch: pytest.MonkeyPatch
) -> None:
    register("dense")
    register("slow", slow=("forward",))
    layer()(torch.ones(1, 2, 5, 5))
    assert calls.count(("slow", "forward")) == 1 + auto.FEWEST_CALLS
    calls.clear()
    monkeypatch.setattr(auto, "HICCUP_SECONDS", PAUSE / 2)
    layer()(torch.ones(9, 2, 5, 5))
    assert calls.count(("slow", "forward")) == 2


def test_what_is_known_is_never_measured_again(register: Register, calls: Calls) -> None:
    register("dense")
    register("slow", slow=("forward", "grad_input", "grad_weight"))
    step(layer())
    calls.clear()
    step(layer())
    assert [call for call in calls if call[1] != "pack"] == [
        ("dense", "forward"), *[call for call in calls if call[1].startswith("grad")],
    ]  # fmt: skip
    assert len(calls) == 2 + 3


def test_another_density_layout_and_number_of_threads_are_measured(register: Register) -> None:
    register("dense")
    register("other")
    x = torch.ones(4, 2, 5, 5)
    layer()(x)
    sparser = lth.SparseConv2d(2, 3, 3, padding=1, mask=torch.arange(54).reshape(3, 2, 3, 3) < 9)
    sparser(x)
    layer()(x.contiguous(memory_format=torch.channels_last))
    threads = torch.get_num_threads()
    torch.set_num_threads(threads + 1)
    layer()(x)
    torch.set_num_threads(threads)
    layer().double()(x.double())
    assert len(known().layers) == 5
    assert {key.layout for key in known().layers} == {"contiguous", "channels_last"}


def test_with_dense_alone_nothing_is_measured(register: Register, calls: Calls) -> None:
    register("dense")
    step(layer())
    assert len(calls) == 1 + 3
    assert len(known()) == 0


def test_an_empty_batch_is_not_measured(register: Register) -> None:
    register("dense")
    register("other")
    assert layer()(torch.ones(0, 2, 5, 5)).shape == (0, 3, 5, 5)
    assert len(known()) == 0


def test_a_candidate_that_does_not_know_the_dtype_is_no_candidate(
    register: Register, monkeypatch: pytest.MonkeyPatch
) -> None:
    register("dense", slow=("forward",))
    single = register("single")
    monkeypatch.setattr(single, "supports", lambda spec, dtype, device: (dtype == torch.float32, "no"), raising=False)
    x = torch.ones(4, 2, 5, 5)
    layer().double()(x.double())
    assert len(known()) == 0
    layer()(x)
    assert chosen() == {"forward": "single"}


# What fails


def test_a_candidate_that_raises_is_out_and_its_reason_kept(register: Register) -> None:
    register("dense", slow=("forward", "grad_input", "grad_weight"))
    register("broken", broken=("forward", "grad_weight"))
    register("unpackable", broken=("pack",))
    ours = step(layer())
    for one, expected in zip(ours, step(layer("dense")), strict=True):
        torch.testing.assert_close(one, expected)
    assert chosen() == {"forward": "dense", "grad_input": "broken", "grad_weight": "dense"}
    failed = {key.operation: choice.failed for key, choice in known().layers.items()}
    assert failed["forward"] == {
        "broken": "RuntimeError: no forward today",
        "unpackable": "RuntimeError: no pack today",
    }
    assert failed["grad_input"] == {"unpackable": "RuntimeError: no pack today"}


def test_where_dense_fails_another_one_serves_and_where_all_fail_dense_says_why(register: Register) -> None:
    register("dense", broken=("forward",))
    register("other")
    assert layer()(torch.ones(1, 2, 5, 5)).shape == (1, 3, 5, 5)
    assert chosen() == {"forward": "other"}
    register("other", broken=("forward",))
    with pytest.raises(RuntimeError, match="no forward"):
        layer()(torch.ones(4, 2, 5, 5))


# Batch sizes


def key_of(batch: int) -> Key:
    return Key("forward", LayerSpec("linear", 3, 4), (batch, 3), "contiguous", 5, torch.float32, "cpu", 1)


def test_a_clear_lead_holds_at_close_batch_sizes_and_no_further() -> None:
    choices = Choices()
    clear = Choice("cpp", {"cpp": 1.0, "dense": CLOSE})
    choices.add(key_of(64), clear)
    for size in (32, 100, 128):
        assert choices.from_a_like_one(key_of(size)) == replace(clear, measured_at=64)
    for size in (31, 129):
        assert choices.from_a_like_one(key_of(size)) is None
    assert choices.from_a_like_one(key_of(100)._replace(nnz=6)) is None
    close_race = Choices()
    close_race.add(key_of(64), Choice("cpp", {"cpp": 1.0, "dense": 0.99 * CLOSE}))
    assert close_race.from_a_like_one(key_of(65)) is None
    # What was taken over settles nothing itself, or it would creep from size to size.
    choices.add(key_of(128), replace(clear, measured_at=64))
    assert choices.from_a_like_one(key_of(200)) is None


def test_a_clear_lead_holds_at_like_densities_and_no_further() -> None:
    choices = Choices()
    clear, key = Choice("cpp", {"cpp": 1.0, "dense": CLOSE_DENSITY}), key_of(64)
    choices.add(key._replace(nnz=1000), clear)
    for nnz in (770, 800, 1250, 1300):
        assert choices.from_a_like_one(key._replace(nnz=nnz)) == replace(clear, measured_live=1000)
    for nnz in (0, 769, 1301):
        assert choices.from_a_like_one(key._replace(nnz=nnz)) is None
    close_race = Choices()
    close_race.add(key._replace(nnz=1000), Choice("cpp", {"cpp": 1.0, "dense": 0.99 * CLOSE_DENSITY}))
    assert close_race.from_a_like_one(key._replace(nnz=999)) is None
    # What was taken over settles nothing itself, or it would creep from density to density.
    choices.add(key._replace(nnz=800), replace(clear, measured_live=1000))
    assert choices.from_a_like_one(key._replace(nnz=700)) is None
    taken = Choices.from_json(json.loads(json.dumps(choices.to_json())))
    assert taken.layers == choices.layers
    assert taken.from_a_like_one(key._replace(nnz=700)) is None


def test_what_was_chosen_where_nothing_is_pruned_says_nothing_of_the_rest() -> None:
    """Unpruned, the values are the dense weight already; else dense has to make it."""
    clear, key = Choice("dense", {"cpp": CLOSE_DENSITY, "dense": 1.0}), key_of(64)
    whole = math.prod(key.spec.weight_shape)
    unpruned, pruned = Choices(), Choices()
    unpruned.add(key._replace(nnz=whole), clear)
    pruned.add(key._replace(nnz=whole - 2), clear)
    assert unpruned.from_a_like_one(key._replace(nnz=whole - 1)) is None
    assert pruned.from_a_like_one(key._replace(nnz=whole - 1)) == replace(clear, measured_live=whole - 2)
    assert pruned.from_a_like_one(key._replace(nnz=whole)) is None


def test_a_layer_whose_mask_changes_a_little_is_not_measured_again(register: Register) -> None:
    register("dense", slow=("forward",))
    register("other")
    module = layer()
    module(torch.ones(1, 2, 5, 5))
    mask = module.mask.clone()
    mask.view(-1)[mask.flatten().nonzero().flatten()[0]] = False
    lth.set_masks(module, {"": mask})
    module(torch.ones(1, 2, 5, 5))
    assert [choice.measured_live is not None for choice in known().layers.values()] == [False, True]


def test_a_layer_is_not_measured_at_new_batch_sizes_for_ever(register: Register) -> None:
    register("dense")
    register("other")
    module = layer()
    for size in range(1, MOST_SIZES + 5):
        module(torch.ones(size, 2, 5, 5))
    measured = [key.batch_size for key, choice in known().layers.items() if choice.measured_at is None]
    assert measured == list(range(1, MOST_SIZES + 1))
    assert known().layers[next(k for k in known().layers if k.batch_size == MOST_SIZES + 4)].measured_at == MOST_SIZES


# Giving choices away and taking them back


def test_on_a_gpu_float32_is_chosen_for_by_what_it_is_multiplied_in() -> None:
    spec, gpu, products = LayerSpec("linear", 3, 4), torch.device("cuda"), torch.backends.cuda.matmul
    before = products.fp32_precision
    try:
        for precision in ("tf32", "ieee"):
            products.fp32_precision = precision
            assert auto._float32(spec, torch.float32, gpu) == precision
    finally:
        products.fp32_precision = before
    assert auto._float32(spec, torch.float16, gpu) == auto._float32(spec, torch.float32, torch.device("cpu")) == ""
    on_gpu = key_of(8)._replace(device="cuda", float32="tf32")
    choices = Choices()
    choices.add(on_gpu, Choice("dense"))
    assert list(Choices.from_json(json.loads(json.dumps(choices.to_json()))).layers) == [on_gpu]
    assert choices.from_a_like_one(on_gpu._replace(input_shape=(9, 3), float32="ieee")) is None


def test_choices_survive_json_and_are_replayed_without_measuring(register: Register, calls: Calls) -> None:
    register("dense")
    register("fast")
    register("broken", broken=("forward",))
    step(layer())
    text = json.dumps(known().to_json())
    # Not what would be measured: so what is replayed has been read from the text.
    restored = Choices.from_json(json.loads(text.replace('"backend": "dense"', '"backend": "fast"')))
    assert restored.include(restored)
    assert Choices.from_json(json.loads(text)).layers == known().layers
    with remembering(restored):
        module = layer()
        calls.clear()
        step(module)
        assert sorted(calls) == [("fast", "forward"), ("fast", "grad_input"), ("fast", "grad_weight")]
        # What is missing is measured and added.
        step(module, batch=1)
        assert len(restored) == 6
    assert len(known()) == 3


def test_a_restored_choice_of_a_backend_that_is_gone_is_measured_again(register: Register) -> None:
    register("dense")
    register("other", slow=("forward",))
    layer()(torch.ones(1, 2, 5, 5))
    (key,) = known().layers
    with remembering(Choices()):
        known().add(key, Choice("gone"))
        layer()(torch.ones(1, 2, 5, 5))
        assert known().layers[key].backend == "dense"


def damaged(**changes: Any) -> dict[str, Any]:
    choices = Choices()
    choices.add(key_of(4), Choice("dense", {"dense": 1.0}))
    content: dict[str, Any] = json.loads(json.dumps(choices.to_json()))
    entry = content["layers"][0]
    entry |= changes.pop("entry", {})
    entry["spec"] |= changes.pop("spec", {})
    return content | changes


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([], r"the file is \[\], expected an object"),
        ({}, '"layers" of the file is missing'),
        (damaged(steps={}), '"steps" of the file is {}, expected a list'),
        (damaged(steps=[{}]), r"steps\[0\].network is missing, expected text"),
        (damaged(layers=[3]), r"layers\[0\] is 3, expected an object"),
        (damaged(entry={"operation": "backward"}), r"layers\[0\].operation is 'backward', expected one of forward"),
        (damaged(entry={"dtype": "float33"}), "dtype is 'float33', expected a dtype"),
        (damaged(entry={"dtype": "nn"}), "dtype is 'nn', expected a dtype"),
        (damaged(entry={"input_shape": [4, 3, 1]}), r"input_shape is \[4, 3, 1\], which is no input of a linear"),
        (damaged(entry={"input_shape": [0, 3]}), "which is no input"),
        (damaged(entry={"input_shape": [-4, 3]}), "expected whole numbers of at least 0"),
        (damaged(entry={"nnz": True}), "nnz is True, expected a whole number"),
        (damaged(entry={"backend": None}), "backend is missing, expected text"),
        (damaged(entry={"milliseconds": {"dense": -1}}), "milliseconds of 'dense' is -1"),
        (damaged(entry={"milliseconds": {"dense": float("nan")}}), "milliseconds of 'dense' is nan"),
        (damaged(entry={"failed": "no"}), "failed is 'no', expected an object"),
        (damaged(entry={"measured_at": 1.5}), "measured_at is 1.5"),
        (damaged(spec={"kind": "conv3d"}), "spec.kind is 'conv3d', expected conv2d or linear"),
        (damaged(spec={"stride": [1]}), r"spec.stride is \[1\], expected two numbers"),
    ],
)
def test_damaged_choices_are_refused_by_name(content: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Choices.from_json(content)


# In company


def test_threads_that_meet_the_same_layer_measure_it_once(register: Register, calls: Calls) -> None:
    register("dense")
    register("slow", slow=("forward",))
    module, x = layer(), torch.ones(1, 2, 5, 5)
    together = threading.Barrier(4)

    def call() -> None:
        # A new thread has PyTorch's default number of threads, which is part of the key.
        torch.set_num_threads(1)
        together.wait()
        module(x)

    threads = [threading.Thread(target=call) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert calls.count(("slow", "forward")) == 1 + auto.FEWEST_CALLS


def test_a_compiled_layer_chooses_when_it_runs(register: Register) -> None:
    register("dense", slow=("forward",))
    register("fast")
    module, x = layer(), torch.ones(4, 2, 5, 5)
    torch._dynamo.reset()
    compiled = torch.compile(module, fullgraph=True, backend="aot_eager")
    with torch.no_grad():
        torch.testing.assert_close(compiled(x), layer("dense")(x))
    assert chosen() == {"forward": "fast"}


def test_the_plan_of_a_candidate_is_the_one_it_packed() -> None:
    backend, packed_for = registry.get("auto"), set()
    for spec in (LayerSpec("conv2d", 6, 4, (3, 3)), LayerSpec("conv2d", 6, 6, (3, 3), groups=6)):
        packed_for |= check_plans(backend, spec)
    assert packed_for == set(auto.candidates())


def check_plans(backend: Backend, spec: LayerSpec) -> set[str]:
    """The candidates that the layer was packed for: those that compute it."""
    pattern = Pattern.from_mask(torch.rand(spec.weight_shape) < 0.5)
    packed = backend.pack(pattern, spec)
    unpacked = backend.unpack(packed.tensors(), spec)
    assert isinstance(unpacked, auto.AutoPlan)
    for name in unpacked.slices():
        own = registry.get(name).pack(pattern, spec)
        assert all(map(torch.equal, unpacked.of(name).tensors(), own.tensors()))
    return set(unpacked.slices())
