"""What a run settles before it trains a round: the backend of the whole step, and what is said of its layers."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
import torch

from lth_sparse import models
from lth_sparse.backends import auto
from lth_sparse.backends.auto import remembering
from lth_sparse.backends.choices import Choice, Choices, Key
from lth_sparse.data.dataset import Dataset
from lth_sparse.lottery.choice_rows import layers_chosen
from lth_sparse.lottery.choosing import Chooser
from lth_sparse.lottery.task import Task, Way
from lth_sparse.lottery.training import Training
from lth_sparse.nn import SparseConv2d
from lth_sparse.nn.masks import Masks, all_alive
from lth_sparse.settings import config
from lth_sparse.storage.record import STEP, Chosen
from lth_sparse.storage.run_directory import RunDirectory

CPU = torch.device("cpu")


@pytest.fixture
def task(tiny_data: Dataset) -> Task:
    settings = config.build({"model": "small", "iterations": 10, "batch_size": 8})
    return Task(settings, tiny_data, models.Network("small", tiny_data.image_shape, 2), CPU)


def whole_steps_take(task: Task, patch: pytest.MonkeyPatch, found: list[float]) -> None:
    def times(contestants: Sequence[Training], most: int) -> list[float]:
        return found

    patch.setattr(task, "times", times)


@pytest.mark.parametrize(("auto_ms", "by"), [(1.0, "auto"), (3.0, "dense")])
def test_a_round_with_nothing_pruned_is_measured_where_cpp_is_a_candidate(
    task: Task, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, auto_ms: float, by: str
) -> None:
    monkeypatch.setattr("lth_sparse.lottery.choosing.candidates", lambda: ["dense", "cpp/winograd"])
    clear = Choice("cpp/sparse", {"dense": 3.0, "cpp/sparse": 1.0})
    monkeypatch.setattr(auto, "_measure", lambda calls, failed, device: clear)
    whole_steps_take(task, monkeypatch, [auto_ms, 2.0])
    chooser = Chooser(task, "auto", Choices(), RunDirectory(tmp_path, print))
    with remembering(chooser.choices):
        way, rows = chooser.choose(all_alive(task.model), 0)
    assert way.backend == by
    assert {row.layer for row in rows} == {"", *all_alive(task.model)}
    assert "nothing is pruned" not in rows[-1].sentence()


@pytest.mark.parametrize(("device", "candidates"), [("cpu", ["dense", "triton"]), ("cuda", ["dense", "cpp", "cuda"])])
def test_elsewhere_dense_trains_it_and_nothing_is_measured(
    task: Task, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, device: str, candidates: list[str]
) -> None:
    monkeypatch.setattr("lth_sparse.lottery.choosing.candidates", lambda: candidates)
    task.device = torch.device(device)
    chooser = Chooser(task, "auto", Choices(), RunDirectory(tmp_path, print))
    way, rows = chooser.choose(all_alive(task.model), 0)
    assert way.backend == "dense"
    assert [(row.operation, row.note) for row in rows] == [(STEP, "nothing is pruned")]
    assert not len(chooser.choices)


def test_what_is_said_of_a_layer_is_of_the_format_that_it_trains_in(tiny_data: Dataset) -> None:
    """Both formats were measured, and in the other one another backend was faster."""
    settings = config.build({"model": "small", "iterations": 10, "batch_size": 8})
    task = Task(settings, tiny_data, models.Network("small", tiny_data.image_shape, 2), CPU)
    masks = all_alive(task.model)
    training = task.contestant(Way("dense", "channels_last"), masks, 0)
    contestant = task.contestant(Way("cpp", "channels_last"), masks, 0)
    layer = contestant.model.conv2a
    assert isinstance(layer, SparseConv2d)
    choices = Choices()
    for layout, backend in (("channels_last", "cpp"), ("contiguous", "dense")):
        of_layer = ("forward", layer.spec, (8, 16, 4, 4), layout, layer.pattern.nnz)
        choices.add(Key(*of_layer, torch.float32, "cpu", torch.get_num_threads()), Choice(backend))
    for memory_format, expected in (("channels_last", "cpp"), ("contiguous", "dense")):
        rows = layers_chosen(contestant.model, contestant.step, choices, 0, memory_format)
        assert [(row.layer, row.backend) for row in rows] == [("conv2a", expected)]
    assert not layers_chosen(training.model, training.step, choices, 0, "contiguous"), "it has no sparse layers"


def pruned(task: Task, live: int) -> Masks:
    """`live` weights in every layer."""
    masks = {name: torch.zeros(mask.shape, dtype=torch.bool) for name, mask in all_alive(task.model).items()}
    for mask in masks.values():
        mask.view(-1)[:live] = True
    return masks


def test_a_step_that_auto_leads_at_clearly_is_not_measured_again_until_half_is_gone(
    task: Task, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clear = Choice("cpp/sparse", {"dense": 3.0, "cpp/sparse": 1.0})
    monkeypatch.setattr(auto, "_measure", lambda calls, failed, device: clear)
    monkeypatch.setattr("lth_sparse.lottery.choosing.candidates", lambda: ["dense", "cpp/sparse"])
    chooser = Chooser(task, "auto", Choices(), RunDirectory(tmp_path, print))
    asked: list[int] = []

    def times(contestants: Sequence[Training], most: int) -> list[float]:
        asked.append(most)
        return found

    monkeypatch.setattr(task, "times", times)
    with remembering(chooser.choices):
        found = [1.0, 1.2]
        assert chooser.choose(pruned(task, 100), 1)[0].backend == "auto"
        way, rows = chooser.choose(pruned(task, 60), 2)
        assert (len(asked), way.backend) == (1, "auto")
        assert rows[-1].note.startswith("measured with 500 live weights")
        # What was taken over settles nothing itself, or it would creep.
        found = [1.0, 1.05]
        chooser.choose(pruned(task, 40), 3)
        assert len(asked) == 2
        chooser.choose(pruned(task, 39), 4)
        assert len(asked) == 3, "the lead at 40 was within what a clock drifts"
    assert chooser.seconds > 0


@pytest.mark.parametrize(("iterations", "most"), [(10, 5), (700, 7), (50_000, 30)])
def test_a_short_training_is_not_worth_many_steps_of_choosing(
    tiny_data: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, iterations: int, most: int
) -> None:
    settings = config.build({"model": "small", "iterations": iterations, "batch_size": 8})
    task = Task(settings, tiny_data, models.Network("small", tiny_data.image_shape, 2), CPU)
    monkeypatch.setattr("lth_sparse.lottery.choosing.candidates", lambda: ["dense", "cpp/sparse"])
    asked: list[int] = []

    def times(contestants: Sequence[Training], most: int) -> list[float]:
        asked.append(most)
        return [1.0, 2.0]

    monkeypatch.setattr(task, "times", times)
    by_cpp = Chosen(1, "conv1a", 0.5, "forward", "cpp", {"cpp": 1.0}, "")
    monkeypatch.setattr("lth_sparse.lottery.choosing.layers_chosen", lambda *_: [by_cpp])
    Chooser(task, "auto", Choices(), RunDirectory(tmp_path, print), worthwhile=10**9).choose(pruned(task, 10), 1)
    assert asked == [most]
