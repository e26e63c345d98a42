"""What only a GPU can show of training: that its step is a CUDA graph, which changes nothing but the time.

What of it does not need one is in test_step_graph.py.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from lth_sparse import models
from lth_sparse.backends import registry
from lth_sparse.data.batches import Batches
from lth_sparse.data.dataset import Dataset
from lth_sparse.lottery.step_graph import StepGraph
from lth_sparse.lottery.training import Training
from lth_sparse.nn import sparsify
from lth_sparse.nn.masks import apply, prunable
from lth_sparse.settings.config import TrainingConfig
from lth_sparse.system.memory_formats import MEMORY_FORMATS
from tests.conftest import rows

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")
CUDA = torch.device("cuda", 0)
SGD = TrainingConfig(
    optimizer="sgd", learning_rate=0.05, momentum=0.9, weight_decay=1e-3, batch_size=16, epochs=4, warmup=5,
    milestones=(0.5, 0.75), evaluate_every=6,
)  # fmt: skip
CONFIGS = {
    "sgd": SGD,
    "plain sgd": replace(SGD, momentum=0.0),
    "nesterov": replace(SGD, nesterov=True),
    "adam": replace(SGD, optimizer="adam"),
    "adamw": replace(SGD, optimizer="adamw", milestones=(), learning_rate_schedule="cosine"),
}
BACKENDS = [name for name, reason in registry.backends().items() if not reason and name != "cpp"]
TOLERANCE = {"rtol": 1e-5, "atol": 1e-6}
"""Of float32. The kernels are the same; a library may take another algorithm when it is recorded."""


class Eager(StepGraph):
    """Calls the function as it is, every time."""

    def __call__(self, function: Callable[[], None]) -> None:
        function()


def make(data: Dataset, config: TrainingConfig, name: str = "small", backend: str = "dense") -> Training:
    model = models.build(models.Network(name, data.image_shape, 2), seed=0)
    layout = MEMORY_FORMATS[models.faster_format(model)]
    model = model.to(CUDA).to(memory_format=layout)
    generator = torch.Generator().manual_seed(2)
    masks = {layer: (torch.rand(w.shape, generator=generator) < 0.3).to(CUDA) for layer, w in prunable(model).items()}
    apply(model, masks)
    if backend != "dense":
        model = sparsify(model, masks, backend)
    data = data.to(CUDA, layout)
    return Training(model, masks, data, Batches(data, 16, "crop-flip", 0), config, (1, "ticket"))


def trained(training: Training) -> dict[str, torch.Tensor]:
    training.run(lambda: None, lambda: None)
    return {name: value.clone() for name, value in training.model.state_dict().items()}


def recorded(training: Training) -> bool:
    return training._graph is not None and training._graph._recorded is not None


def reads_a_number(module: nn.Module, inputs: Any, output: torch.Tensor) -> None:
    """A forward hook that waits for the GPU."""
    output.sum().item()


@pytest.fixture(autouse=True)
def deterministic() -> Iterator[None]:
    """As a run is."""
    before = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(True, warn_only=True)
    yield
    torch.use_deterministic_algorithms(before)


@pytest.mark.parametrize("name", ["small", "resnet20"])
@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_a_recorded_training_is_the_one_that_is_not(
    tiny_data: Dataset, config: TrainingConfig, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    training = make(tiny_data, config, name)
    weights = trained(training)
    assert training.not_recorded == ""
    assert recorded(training)
    monkeypatch.setattr("lth_sparse.lottery.training.StepGraph", Eager)
    expected = make(tiny_data, config, name)
    torch.testing.assert_close(weights, trained(expected), **TOLERANCE)
    assert [point.iteration for point in training.curve] == [point.iteration for point in expected.curve]


@pytest.mark.parametrize("backend", BACKENDS)
def test_every_backend_is_recorded(tiny_data: Dataset, backend: str, monkeypatch: pytest.MonkeyPatch) -> None:
    training = make(tiny_data, SGD, "resnet20", backend)
    weights = trained(training)
    assert training.not_recorded == ""
    assert recorded(training)
    monkeypatch.setattr("lth_sparse.lottery.training.StepGraph", Eager)
    torch.testing.assert_close(weights, trained(make(tiny_data, SGD, "resnet20", backend)), **TOLERANCE)


def test_the_images_and_their_augmentation_are_those_of_the_cpu(tiny_data: Dataset) -> None:
    for augmentation in ("none", "crop", "crop-flip"):
        for iteration in (0, 5):
            expected = Batches(tiny_data, 16, augmentation, 0)[iteration]
            given = Batches(tiny_data.to(CUDA, torch.contiguous_format), 16, augmentation, 0)[iteration]
            assert all(torch.equal(one.cpu(), other) for one, other in zip(given, expected, strict=True))


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_a_restored_training_goes_on_as_the_whole_one(tiny_data: Dataset, config: TrainingConfig) -> None:
    whole = make(tiny_data, config, "resnet20")
    states: list[Any] = []
    whole.run(lambda: states.append(copy.deepcopy(whole.state())), lambda: None)
    resumed = make(tiny_data, config, "resnet20")
    tensors, data = states[1]
    # As a file gives them back.
    resumed.restore({name: value.cpu() for name, value in tensors.items()}, data)
    torch.testing.assert_close(trained(resumed), dict(whole.model.state_dict()), **TOLERANCE)


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_nothing_waits_between_two_evaluations(tiny_data: Dataset, config: TrainingConfig) -> None:
    training = make(tiny_data, config, "resnet20")
    training.warm_up()
    assert recorded(training)
    before = torch.cuda.get_sync_debug_mode()
    torch.cuda.set_sync_debug_mode("error")
    try:
        for _ in range(2 * training._batches.per_epoch + 1):
            training.step()
    finally:
        torch.cuda.set_sync_debug_mode(before)


def test_a_step_that_waits_is_not_recorded(tiny_data: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    training = make(tiny_data, SGD)
    training.model.register_forward_hook(reads_a_number)
    weights = trained(training)
    assert "waits for the GPU" in training.not_recorded
    monkeypatch.setattr("lth_sparse.lottery.training.StepGraph", Eager)
    torch.testing.assert_close(weights, trained(make(tiny_data, SGD)), **TOLERANCE)


def test_a_step_that_refuses_to_be_recorded_goes_on_as_it_is(
    tiny_data: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        if torch.cuda.is_current_stream_capturing():
            raise NotImplementedError("not in a graph")

    training = make(tiny_data, SGD)
    training.model.register_forward_hook(refuse)
    weights = trained(training)
    assert training.not_recorded == "NotImplementedError: not in a graph"
    monkeypatch.setattr("lth_sparse.lottery.training.StepGraph", Eager)
    torch.testing.assert_close(weights, trained(make(tiny_data, SGD)), **TOLERANCE)


def test_a_lottery_times_recorded_steps(lottery: Callable[..., tuple[int, str]], tmp_path: Path) -> None:
    options = "--dataset digits --model conv2 --device cuda --iterations 30 --rounds 1 --evaluate-every 10"
    status, error = lottery(*options.split(), "--out", tmp_path / "run")
    assert status == 0, error
    assert "CUDA graph" not in error
    assert all(float(row["step_ms"]) > 0 for row in rows(tmp_path / "run"))


def test_a_recording_that_breaks_off_does_no_harm(tiny_data: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    """The last test, for PyTorch does not promise what it leaves behind."""

    def as_it_is(self: StepGraph, function: Callable[[], None]) -> str:
        self._warm_up(function)
        return ""

    monkeypatch.setattr(StepGraph, "_waits", as_it_is)
    training = make(tiny_data, SGD)
    training.model.register_forward_hook(reads_a_number)
    weights = trained(training)
    assert training.not_recorded
    following = make(tiny_data, SGD)
    torch.testing.assert_close(trained(following), weights, **TOLERANCE)
    assert recorded(following)
