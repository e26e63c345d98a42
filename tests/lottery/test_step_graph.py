"""The step that a GPU records, on the CPU: a stand-in records its operators, as a CUDA graph does its kernels."""

from __future__ import annotations

import copy
import warnings
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from lth_sparse import models
from lth_sparse.data.batches import Batches
from lth_sparse.data.dataset import Dataset
from lth_sparse.data.resident import ResidentEpoch
from lth_sparse.lottery import progress, step_graph
from lth_sparse.lottery.step_graph import WARM_UP_CALLS, StepGraph, recordable
from lth_sparse.lottery.topology import rule_of
from lth_sparse.lottery.topology.changes import Changes
from lth_sparse.lottery.training import Training, learning_rate
from lth_sparse.nn import densify, sparsify
from lth_sparse.nn.masks import Masks, apply, prunable
from lth_sparse.settings.config import PruningConfig, TrainingConfig
from tests.conftest import rows

SGD = TrainingConfig(
    optimizer="sgd", learning_rate=0.05, momentum=0.9, weight_decay=1e-3, batch_size=16, epochs=4, warmup=5,
    milestones=(0.5, 0.75), evaluate_every=3,
)  # fmt: skip
CONFIGS = {
    "sgd": SGD,
    "plain sgd": replace(SGD, momentum=0.0),
    "nesterov": replace(SGD, nesterov=True),
    "adam": replace(SGD, optimizer="adam"),
    "adamw": replace(SGD, optimizer="adamw", milestones=(), learning_rate_schedule="cosine"),
}
STEPS = 16
PERMITTED = "operation not permitted when stream is capturing"


class Operators(TorchDispatchMode):
    """Records the operators called inside on the tensors that they are called on, then undoes what they did.

    `replay` calls the same operators on the same tensors: whatever the host decided in between goes unnoticed, as in a
    CUDA graph. As there, reading a number is refused.
    """

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[tuple[Any, tuple[Any, ...], dict[str, Any], Any]] = []
        self.before: dict[int, tuple[torch.UntypedStorage, torch.UntypedStorage]] = {}
        self.made: set[int] = set()

    def __torch_dispatch__(self, operator: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if operator is torch.ops.aten._local_scalar_dense.default:
            raise RuntimeError(PERMITTED)
        for storage in storages((args, kwargs)):
            if storage.data_ptr() not in self.made and storage.data_ptr() not in self.before:
                self.before[storage.data_ptr()] = (storage, storage.clone())
        output = operator(*args, **kwargs)
        self.made |= {storage.data_ptr() for storage in storages(output)} - self.before.keys()
        self.calls.append((operator, args, kwargs, output))
        return output

    def undo(self) -> None:
        for storage, content in self.before.values():
            storage.copy_(content)

    @torch.no_grad()
    def replay(self) -> None:
        for operator, args, kwargs, output in self.calls:
            again = operator(*args, **kwargs)
            if all(returned.alias_info is None for returned in operator._schema.returns):
                for fixed, new in zip(tree_leaves(output), tree_leaves(again), strict=True):
                    if isinstance(fixed, Tensor):
                        fixed.copy_(new)


def storages(tree: Any) -> list[torch.UntypedStorage]:
    return [leaf.untyped_storage() for leaf in tree_leaves(tree) if isinstance(leaf, Tensor)]


class OnTheCpu(StepGraph):
    """A StepGraph whose recording is the stand-in's."""

    def __init__(self, device: torch.device) -> None:
        super().__init__(device)
        self.history: list[str] = []

    def _warm_up(self, function: Callable[[], None]) -> None:
        self.history.append("as it is")
        function()

    def _waits(self, function: Callable[[], None]) -> str:
        self._warm_up(function)
        return ""

    def _record(self, function: Callable[[], None]) -> Any:
        self.history.append("recorded")
        recorded = Operators()
        try:
            with recorded:
                function()
        finally:
            recorded.undo()
        return recorded


class Waiting(OnTheCpu):
    """The same, of a function in which an operation waits for the GPU."""

    def _waits(self, function: Callable[[], None]) -> str:
        self._warm_up(function)
        return "an operation at model.py:7 waits for the GPU"


@pytest.fixture
def on_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """Trainings on the CPU take the way that those on a GPU take."""
    monkeypatch.setattr("lth_sparse.lottery.training.recordable", lambda device: True)
    monkeypatch.setattr("lth_sparse.lottery.training.StepGraph", OnTheCpu)


def pruned(data: Dataset, name: str) -> tuple[nn.Module, Masks]:
    model = models.build(models.Network(name, data.image_shape, 2), seed=0)
    generator = torch.Generator().manual_seed(2)
    masks = {layer: torch.rand(w.shape, generator=generator) < 0.5 for layer, w in prunable(model).items()}
    apply(model, masks)
    return model, masks


def make(data: Dataset, config: TrainingConfig, name: str = "small", start: int = 0) -> Training:
    model, masks = pruned(data, name)
    return Training(model, masks, data, Batches(data, 16, "crop-flip", 0), config, (1, "ticket"), start)


def nothing() -> None:
    pass


def reads_a_number(module: nn.Module, inputs: Any, output: Tensor) -> None:
    """A forward hook that waits for the output."""
    output.sum().item()


def equal(one: nn.Module, other: nn.Module) -> bool:
    expected = other.state_dict()
    return all(torch.equal(value, expected[name]) for name, value in one.state_dict().items())


def by_hand(data: Dataset, config: TrainingConfig, name: str, start: int) -> nn.Module:
    """A plain loop, with PyTorch's fused optimizers and a rate that was rounded to float32."""
    model, masks = pruned(data, name)
    rate = torch.tensor(0.0)
    optimizer: torch.optim.Optimizer
    if config.optimizer == "sgd":
        optimizer = torch.optim.SGD(
            model.parameters(), rate, momentum=config.momentum, nesterov=config.nesterov, weight_decay=1e-3, fused=True
        )  # fmt: skip
    else:
        kind = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}[config.optimizer]
        optimizer = kind(model.parameters(), rate, weight_decay=1e-3, fused=True)
    sequence = Batches(data, 16, "crop-flip", 0)
    for iteration in range(start, STEPS):
        images, labels = sequence[iteration]
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(images), labels).backward()
        rate.fill_(learning_rate(config, iteration, STEPS))
        optimizer.step()
        apply(model, masks)
    return model


@pytest.mark.usefixtures("on_a_gpu")
@pytest.mark.parametrize("start", [0, 3])
@pytest.mark.parametrize("name", ["small", "resnet20"])
@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_a_recorded_training_is_a_plain_loop(tiny_data: Dataset, config: TrainingConfig, name: str, start: int) -> None:
    training = make(tiny_data, config, name, start)
    training.run(nothing, nothing)
    assert training._graph.history == ["as it is"] * WARM_UP_CALLS + ["recorded"]
    assert equal(training.model, by_hand(tiny_data, config, name, start))


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_a_recorded_training_is_the_one_on_the_cpu_but_for_rounding(
    tiny_data: Dataset, config: TrainingConfig, request: pytest.FixtureRequest
) -> None:
    usual = make(tiny_data, config)
    usual.run(nothing, nothing)
    request.getfixturevalue("on_a_gpu")
    training = make(tiny_data, config)
    training.run(nothing, nothing)
    # 16 steps of float32: each rounds its weights once, and the rate too.
    torch.testing.assert_close(training.model.state_dict(), usual.model.state_dict(), rtol=2e-5, atol=2e-6)
    assert [point.iteration for point in training.curve] == [point.iteration for point in usual.curve]
    losses = [torch.tensor([point.train_loss for point in each.curve]) for each in (training, usual)]
    torch.testing.assert_close(*losses, rtol=2e-5, atol=2e-6)


@pytest.mark.usefixtures("on_a_gpu")
def test_sparse_layers_are_recorded_too(tiny_data: Dataset) -> None:
    model, masks = pruned(tiny_data, "small")
    sparse = sparsify(copy.deepcopy(model), masks, "dense")
    trainings = [
        Training(each, masks, tiny_data, Batches(tiny_data, 16, "crop-flip", 0), SGD, (1, "ticket"))
        for each in (model, sparse)
    ]
    for training in trainings:
        training.run(nothing, nothing)
    assert [training._graph.history[-1] for training in trainings] == ["recorded"] * 2
    torch.testing.assert_close(densify(sparse).state_dict(), model.state_dict(), rtol=2e-5, atol=2e-6)


@pytest.mark.parametrize("sparse", [False, True])
def test_a_step_is_recorded_anew_after_each_change_of_the_topology(
    tiny_data: Dataset, request: pytest.FixtureRequest, sparse: bool
) -> None:
    trainings = []
    for recorded in (False, True):
        if recorded:
            request.getfixturevalue("on_a_gpu")
        model, masks = pruned(tiny_data, "small")
        trained = sparsify(copy.deepcopy(model), masks, "dense") if sparse else model
        rule = rule_of(PruningConfig(dynamic="rigl", update_every=6), {}, {}, 0, STEPS)
        assert rule is not None
        batches = Batches(tiny_data, 16, "crop-flip", 0)
        training = Training(trained, masks, tiny_data, batches, SGD, (1, "ticket"), changes=Changes(rule, model, 0))
        graphs = []
        training.run(nothing, lambda training=training, graphs=graphs: graphs.append(training._graph))
        trainings.append(training)
    usual, training = trainings
    # Before the steps 6 and 12: three graphs, the last of which warms up for 3 steps and is recorded at the fourth.
    assert [graphs.index(graph) for graph in dict.fromkeys(graphs)] == [0, 6, 12]
    assert [graph.history for graph in dict.fromkeys(graphs)] == [["as it is"] * WARM_UP_CALLS + ["recorded"]] * 3
    assert training._changes.clock.following_steps == 2 * (WARM_UP_CALLS + 1)
    assert usual._changes.clock.following_steps == 2
    assert all(torch.equal(mask, training.masks[name]) for name, mask in usual.masks.items())
    torch.testing.assert_close(training.model.state_dict(), usual.model.state_dict(), rtol=2e-5, atol=2e-6)


@pytest.mark.usefixtures("on_a_gpu")
@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
@pytest.mark.parametrize("stop_after", [1, 3])
def test_a_restored_training_ends_with_the_same_bits(
    tiny_data: Dataset, config: TrainingConfig, stop_after: int
) -> None:
    whole = make(tiny_data, config, "resnet20")
    states = []
    whole.run(lambda: states.append(copy.deepcopy(whole.state())), nothing)
    resumed = make(tiny_data, config, "resnet20")
    resumed.restore(*states[stop_after - 1])
    resumed.run(nothing, nothing)
    assert equal(resumed.model, whole.model)
    assert resumed.curve == whole.curve
    for one, other in zip(resumed.optimizer.state.values(), whole.optimizer.state.values(), strict=True):
        assert all(torch.equal(one[name], other[name]) for name in other if other[name] is not None)


def test_an_epoch_that_is_resident_gives_the_batches_and_rates_of_any_step(tiny_data: Dataset) -> None:
    batches = Batches(tiny_data, 10, "crop-flip", 0)
    resident = ResidentEpoch(batches, lambda iteration: 0.1 * iteration, torch.device("cpu"))
    for iteration in (0, 1, 2, 5, 6, 7, 4, 4, 17, 18, 3):
        resident.seek(iteration)
        images, labels, rate = resident.take()
        expected = Batches(tiny_data, 10, "crop-flip", 0)[iteration]
        assert torch.equal(images, expected[0])
        assert torch.equal(labels, expected[1])
        assert rate.item() == pytest.approx(0.1 * iteration)


def test_the_host_writes_to_the_device_once_an_epoch(tiny_data: Dataset) -> None:
    resident = ResidentEpoch(Batches(tiny_data, 16, "crop", 0), lambda _: 0.1, torch.device("cpu"))
    written = []
    for iteration in range(12):
        with Operators() as seen:
            resident.seek(iteration)
        written += [iteration] * bool(seen.calls)
        resident.take()
    assert written == [4, 8]


def test_only_gpus_record(tiny_data: Dataset) -> None:
    assert [recordable(torch.device(name)) for name in ("cpu", "cuda", "cuda:1")] == [False, True, True]
    training = make(tiny_data, SGD)
    assert training._graph is None
    assert isinstance(training.optimizer.param_groups[0]["lr"], float)
    training.warm_up()
    assert training.iteration == 0


@pytest.mark.usefixtures("on_a_gpu")
def test_a_warm_up_ends_when_the_step_is_recorded(tiny_data: Dataset) -> None:
    training = make(tiny_data, SGD)
    training.warm_up()
    assert training.iteration == WARM_UP_CALLS + 1
    assert training._graph.history[-1] == "recorded"
    training.warm_up()
    assert training.iteration == WARM_UP_CALLS + 1


@pytest.mark.usefixtures("on_a_gpu")
def test_a_training_takes_its_graph_along_when_it_goes(tiny_data: Dataset) -> None:
    training = make(tiny_data, SGD)
    training.warm_up()
    graph = weakref.ref(training._graph._recorded)
    del training
    assert graph() is None


@pytest.mark.parametrize("how", ["fails while it is recorded", "waits"])
def test_a_step_that_cannot_be_recorded_goes_on_as_it_is(
    tiny_data: Dataset, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], how: str
) -> None:
    monkeypatch.setattr("lth_sparse.lottery.training.recordable", lambda device: True)
    monkeypatch.setattr(
        "lth_sparse.lottery.training.StepGraph", OnTheCpu if how == "fails while it is recorded" else Waiting
    )
    training = make(tiny_data, SGD)
    if how == "fails while it is recorded":
        training.model.register_forward_hook(reads_a_number)
    said = progress.Progress(3)
    training.run(nothing, lambda: said.step(training))
    again = make(tiny_data, SGD)
    again.model.register_forward_hook(reads_a_number)
    again.run(nothing, lambda: said.step(again))
    assert equal(training.model, by_hand(tiny_data, SGD, "small", 0))
    assert training.iteration == STEPS
    reason = f"RuntimeError: {PERMITTED}" if how == "fails while it is recorded" else "model.py:7 waits for the GPU"
    (line,) = [line for line in capsys.readouterr().err.splitlines() if "CUDA graph" in line]
    assert line.endswith(reason)


@pytest.mark.usefixtures("on_a_gpu")
def test_a_lottery_compares_recorded_steps(
    lottery: Callable[..., tuple[int, str]], tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    timed = []

    def side_by_side(steps: list[Any], device: torch.device, most: int) -> list[float]:
        timed.extend(step.__self__._graph.settled for step in steps)
        return [1.0, 2.0]

    monkeypatch.setattr("lth_sparse.lottery.task.side_by_side", side_by_side)
    options = "--dataset digits --model lenet-300-100 --backend cpp --iterations 12 --rounds 1 --evaluate-every 6"
    status, error = lottery(*options.split(), "--out", tmp_path / "run")
    assert status == 0, error
    assert timed == [True] * 4
    assert [float(row["speedup"]) for row in rows(tmp_path / "run")] == [2.0, 2.0]


class Cuda:
    """As much of torch.cuda as StepGraph calls, which notes what happens, and on which stream."""

    def __init__(self) -> None:
        self.events: list[str] = []
        self.current = self.Stream("main", self)
        self.sync_debug_mode = 0
        self.invalidated = False

    class Stream:
        def __init__(self, name: Any, cuda: Any = None) -> None:
            self.name, self.cuda = str(name), cuda

        def wait_stream(self, other: Any) -> None:
            (self.cuda or other.cuda).events.append(f"{self.name} waits for {other.name}")

    @contextmanager
    def stream(self, stream: Any) -> Iterator[None]:
        before, self.current = self.current, stream
        try:
            yield
        finally:
            self.current = before

    @contextmanager
    def graph(self, graph: Any, stream: Any) -> Iterator[None]:
        """As PyTorch's: when the recording ends in an error, the stream stays the current one."""
        before, self.current = self.current, stream
        self.events.append("records")
        try:
            yield
        finally:
            if self.invalidated:
                raise RuntimeError("operation failed due to a previous error\n during capture")
        self.current = before

    def graphed(self) -> Any:
        cuda = self

        class Graph:
            def replay(self) -> None:
                cuda.events.append(f"replays on {cuda.current.name}")

        return Graph()

    def called(self) -> None:
        self.events.append(f"called on {self.current.name}")


@pytest.fixture
def cuda(monkeypatch: pytest.MonkeyPatch) -> Cuda:
    fake = Cuda()
    monkeypatch.setattr(step_graph, "_streams", {})
    monkeypatch.setattr(step_graph, "_broken", [])
    monkeypatch.setattr(torch.cuda, "Stream", fake.Stream)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: fake.current)
    monkeypatch.setattr(torch.cuda, "stream", fake.stream)
    monkeypatch.setattr(torch.cuda, "graph", fake.graph)
    monkeypatch.setattr(torch.cuda, "CUDAGraph", fake.graphed)
    monkeypatch.setattr(torch.cuda, "get_sync_debug_mode", lambda: fake.sync_debug_mode)
    monkeypatch.setattr(torch.cuda, "set_sync_debug_mode", lambda mode: setattr(fake, "sync_debug_mode", mode))
    return fake


SIDE = torch.device("cuda:1")
WARM_UP = [f"{SIDE} waits for main", f"called on {SIDE}", f"main waits for {SIDE}"] * WARM_UP_CALLS


def test_a_function_is_warmed_up_and_recorded_on_a_side_stream_and_replayed_on_the_current_one(cuda: Cuda) -> None:
    graph = StepGraph(SIDE)
    for _ in range(WARM_UP_CALLS + 2):
        graph(cuda.called)
    assert cuda.events == [*WARM_UP, "records", f"called on {SIDE}", "replays on main", "replays on main"]


def test_a_recording_that_fails_leaves_the_stream_as_it_was(cuda: Cuda) -> None:
    graph = StepGraph(SIDE)
    cuda.invalidated = True
    for _ in range(WARM_UP_CALLS + 2):
        graph(cuda.called)
    assert cuda.events == [*WARM_UP, "records", f"called on {SIDE}", "called on main", "called on main"]
    assert graph.refusal == "RuntimeError: operation failed due to a previous error during capture"
    assert len(step_graph._broken) == 1


def test_a_function_that_waits_for_the_gpu_is_found_out_before_it_is_recorded(cuda: Cuda) -> None:
    def waits() -> None:
        cuda.called()
        warnings.warn("This instance was constructed with capturable=True or some of", stacklevel=1)
        if cuda.sync_debug_mode == "warn":
            warnings.warn("called a synchronizing CUDA operation", stacklevel=1)

    graph = StepGraph(SIDE)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for _ in range(WARM_UP_CALLS):
            graph(waits)
    assert cuda.sync_debug_mode == 0
    assert graph.settled
    assert graph.refusal.startswith("an operation at test_step_graph.py:")
    graph(cuda.called)
    assert cuda.events == [*WARM_UP, "called on main"]
