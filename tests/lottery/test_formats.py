"""In which memory format a training is computed: measured where that is worth it, reused where that leaves no doubt."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from lth_sparse import models
from lth_sparse.backends.choices import Choices, FormatChoice, FormatKey, StepKey
from lth_sparse.data.dataset import Dataset
from lth_sparse.lottery import formats
from lth_sparse.lottery.choosing import Chooser
from lth_sparse.lottery.formats import Formats
from lth_sparse.lottery.task import Task, Way
from lth_sparse.lottery.training import Training
from lth_sparse.nn.masks import Masks, all_alive
from lth_sparse.settings import config
from lth_sparse.storage.record import Chosen
from lth_sparse.storage.run_directory import RunDirectory
from lth_sparse.system.memory_formats import MEMORY_FORMATS, put_in_format

CPU = torch.device("cpu")


def task_of(data: Dataset, model: str = "small", steps: int = 1000) -> Task:
    settings = config.build({"model": model, "iterations": steps, "batch_size": 16})
    return Task(settings, data, models.Network(model, data.image_shape, len(data.classes)), CPU)


def halved(task: Task, times: int) -> Masks:
    """Of every layer the first part of the weights: a half of a half, `times` over."""
    masks = {}
    for name, mask in all_alive(task.model).items():
        flat = torch.zeros(mask.numel(), dtype=torch.bool)
        flat[: mask.numel() >> times] = True
        masks[name] = flat.view(mask.shape)
    return masks


def key(masks: Masks) -> StepKey:
    live = tuple(int(mask.sum()) for mask in masks.values())
    return StepKey("small", (1, 8, 8), 16, "adam", live, "cpu", torch.get_num_threads(), "winograd 4x4, fused")


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[list[float]]:
    """What the next measurements find, in milliseconds of contiguous and channels_last; it is taken from the front."""
    found: list[list[float]] = []

    def side_by_side(steps: Sequence[Callable[[], None]], device: torch.device, fewest: int, most: int) -> list[float]:
        for step in steps:
            step()
        return found.pop(0)

    monkeypatch.setattr(formats, "side_by_side", side_by_side)
    return found


def test_the_faster_format_is_chosen_and_measured_once_for_all_masks_of_a_size(
    tiny_data: Dataset, clock: list[list[float]]
) -> None:
    task, choices = task_of(tiny_data), Choices()
    chosen = Formats(task, choices, 1000)
    masks = halved(task, 1)
    clock.extend([[1.0, 2.0], [2.0, 1.0]])
    assert chosen.way("cpp", key(masks), masks, 1) == Way("cpp", "contiguous")
    other = {name: mask.flip(0) for name, mask in masks.items()}
    assert chosen.way("cpp", key(other), other, 1) == Way("cpp", "contiguous"), "as sparse, so chosen alike"
    assert chosen.way("dense", key(masks), masks, 1) == Way("dense", "channels_last")
    for times in (0, 2, 5):
        masks = halved(task, times)
        assert chosen.way("dense", key(masks), masks, 1).memory_format == "channels_last", "whatever is masked"
    assert not clock


def test_a_clear_lead_holds_down_to_half_the_weights_and_a_close_race_is_run_again(
    tiny_data: Dataset, clock: list[list[float]]
) -> None:
    task, choices = task_of(tiny_data), Choices()
    chosen = Formats(task, choices, 1000)
    dense, half, quarter = (halved(task, times) for times in (0, 1, 2))
    clock.append([1.0, 1.2])
    chosen.way("cpp", key(dense), dense, 0)
    assert chosen.way("cpp", key(half), half, 1).memory_format == "contiguous"
    reused = choices.formats[FormatKey(key(half), "cpp")]
    assert reused.measured_at == sum(mask.numel() for mask in dense.values())
    clock.append([1.05, 1.0])
    assert chosen.way("cpp", key(quarter), quarter, 2).memory_format == "channels_last", "what was reused is not again"
    clock.append([1.0, 2.0])
    eighth = halved(task, 3)
    assert chosen.way("cpp", key(eighth), eighth, 3).memory_format == "contiguous", "a lead of 5 % is not clear"
    assert not clock


def test_a_denser_mask_is_not_chosen_by_a_sparser_one(tiny_data: Dataset, clock: list[list[float]]) -> None:
    task = task_of(tiny_data)
    chosen = Formats(task, Choices(), 1000)
    clock.extend([[1.0, 2.0], [2.0, 1.0]])
    for times, expected in ((1, "contiguous"), (0, "channels_last")):
        masks = halved(task, times)
        assert chosen.way("cpp", key(masks), masks, 1).memory_format == expected


@pytest.mark.parametrize(
    ("model", "steps", "expected"), [("small", 999, "channels_last"), ("lenet-300-100", 5000, "contiguous")]
)
def test_nothing_is_measured_where_it_would_not_pay(
    tiny_data: Dataset, clock: list[list[float]], model: str, steps: int, expected: str
) -> None:
    task, choices = task_of(tiny_data, model, steps), Choices()
    masks = all_alive(task.model)
    assert Formats(task, choices, 1000).way("dense", key(masks), masks, 0).memory_format == expected
    assert not choices.formats


def test_on_a_gpu_nothing_is_measured(tiny_data: Dataset, clock: list[list[float]]) -> None:
    task = task_of(tiny_data)
    task.device = torch.device("cuda")
    masks = all_alive(task.model)
    assert Formats(task, Choices(), 1000).way("dense", key(masks), masks, 0).memory_format == "channels_last"


def test_both_sides_of_a_comparison_are_in_their_own_better_format(
    tiny_data: Dataset, clock: list[list[float]], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Measured here: dense in contiguous, ours in channels_last; the contest, and then the training, has both so."""
    task = task_of(tiny_data)
    chooser = Chooser(task, "auto", Choices(), RunDirectory(tmp_path, print))
    seen: list[list[Way]] = []
    ways: dict[Training, Way] = {}
    make = task.contestant

    def contestant(way: Way, masks: Masks, round: int) -> Training:
        training = make(way, masks, round)
        ways[training] = way
        return training

    def times(contestants: Sequence[Training], most: int) -> list[float]:
        seen.append([ways[training] for training in contestants])
        return [1.0, 2.0]

    monkeypatch.setattr(task, "contestant", contestant)
    monkeypatch.setattr(task, "times", times)
    monkeypatch.setattr("lth_sparse.lottery.choosing.candidates", lambda: ["dense", "cpp"])
    by_cpp = Chosen(1, "conv1a", 0.5, "forward", "cpp", {"cpp": 1.0}, "")
    monkeypatch.setattr("lth_sparse.lottery.choosing.layers_chosen", lambda *_: [by_cpp])
    clock.extend([[1.0, 2.0], [2.0, 1.0]])
    way, rows = chooser.choose(halved(task, 1), 1)
    assert seen == [[Way("auto", "channels_last"), Way("dense", "contiguous")]]
    assert way == Way("auto", "channels_last")
    assert rows[-1].sentence() == (
        "sparse layers train it, channels_last: a step takes auto 1.00 (dense 2.00) ms; "
        "auto channels_last 1.00 (contiguous 2.00) ms; dense contiguous 1.00 (channels_last 2.00) ms"
    )
    assert (tmp_path / "choices.json").exists()


@pytest.mark.parametrize("name", MEMORY_FORMATS)
def test_a_contestant_computes_in_its_format_whatever_the_task_is_in(tiny_data: Dataset, name: str) -> None:
    task = task_of(tiny_data)
    for current in MEMORY_FORMATS:
        task.put_in_format(current)
        contestant = task.contestant(Way("dense", name), all_alive(task.model), 0)
        weight = next(weight for weight in contestant.model.parameters() if weight.dim() == 4 and weight.shape[1] > 1)
        assert weight.is_contiguous(memory_format=MEMORY_FORMATS[name])
        contestant.step()
        assert task.memory_format == current


def test_a_network_that_was_in_another_format_computes_the_same_bits() -> None:
    """1x1 weights are contiguous in both formats; only their strides tell PyTorch in which they are."""
    torch.manual_seed(0)
    fresh = put_in_format(models.build(models.Network("resnet20", (3, 16, 16), 10), seed=0), "contiguous")
    moved = models.build(models.Network("resnet20", (3, 16, 16), 10), seed=0)
    put_in_format(moved, "channels_last")
    assert all(weight.stride()[1] == 1 for weight in moved.parameters() if weight.dim() == 4), "1x1 weights too"
    put_in_format(moved, "contiguous")
    pairs = zip(fresh.parameters(), moved.parameters(), strict=True)
    assert all(one.stride() == other.stride() for one, other in pairs)
    images = torch.randn(4, 3, 16, 16)
    layouts: list[tuple[int, ...]] = []
    shortcut = next(layer for layer in moved.modules() if isinstance(layer, nn.Conv2d) and layer.kernel_size == (1, 1))
    shortcut.register_forward_hook(lambda *hooked: layouts.append(hooked[2].stride()))
    assert torch.equal(fresh(images), moved(images))
    assert layouts[0][1] != 1, "its output is in NCHW"


def test_the_choices_survive_json_and_say_what_is_wrong_with_them() -> None:
    choices = Choices()
    step = StepKey("small", (1, 8, 8), 16, "adam", (3, 4), "cpu", 2)
    choices.formats[FormatKey(step, "cpp")] = FormatChoice("contiguous", {"contiguous": 1.0, "channels_last": 1.5}, 9)
    choices.formats[FormatKey(step._replace(live=()), "dense")] = FormatChoice("channels_last", {"channels_last": 2.0})
    written = json.dumps(choices.to_json())
    read = Choices.from_json(json.loads(written))
    assert read.formats == choices.formats
    assert len(read) == 2
    assert read.made_elsewhere("cpu", 3) == 2
    assert not Choices().include(read)
    assert read.include(Choices())
    assert not Choices.from_json({"layers": [], "steps": []}).formats, "files of version 0.1.0 have none"
    for change, said in (
        (
            {"memory_format": "nchw"},
            r"formats\[0\] has memory format 'nchw', expected one of contiguous, channels_last",
        ),
        ({"milliseconds": {"channels_last": 1.0}}, r"formats\[0\].milliseconds has no time of contiguous"),
        ({"milliseconds": {"contiguous": -1.0}}, r"formats\[0\].milliseconds of 'contiguous' is -1.0"),
        ({"live": "all"}, r"live"),
        ({"backend": 3}, r"formats\[0\].backend is 3, expected text"),
    ):
        data = json.loads(written)
        data["formats"][0] = data["formats"][0] | change
        with pytest.raises(ValueError, match=said):
            Choices.from_json(data)


def test_the_lead_is_that_over_the_other_format() -> None:
    choice = FormatChoice("contiguous", {"contiguous": 2.0, "channels_last": 3.0})
    assert choice.lead == 1.5
    assert replace(choice, milliseconds={"contiguous": 2.0}).lead == float("inf")
