"""The line between two networks: a barrier that is known in closed form, and sparse layers beside dense ones."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from lth_sparse import models, sparsify
from lth_sparse.data.dataset import Dataset, Split
from lth_sparse.lottery.instability import POINTS, barrier, between, evaluated
from lth_sparse.lottery.proof import Weights, copy_of
from lth_sparse.nn.masks import Masks, apply, prunable

MARGINS = (1, 2, 4)
BIAS = 0.5
FORMS = ("module", "dense", "cpp")


def images() -> Dataset:
    """Of two pixels and a third that is dark; the first is the brighter one in class 0, the second in class 1."""
    pixels = torch.tensor([[margin, 0, 0] for margin in MARGINS] + [[0, margin, 0] for margin in MARGINS])
    split = Split(pixels.to(torch.uint8).view(-1, 1, 1, 3), torch.arange(2).repeat_interleave(len(MARGINS)))
    return Dataset("two pixels", "", ("0", "1"), split, split, split, torch.zeros(1), torch.full((1,), 1 / 255))


def two_pixels(swapped: bool) -> tuple[nn.Sequential, Masks]:
    """Class 1 by the second pixel less the first, plus BIAS, by two hidden neurons that can be swapped: of each
    layer four weights are left."""
    hidden, output = nn.Linear(3, 3, bias=False), nn.Linear(3, 2)
    neurons = torch.eye(2).flip(0) if swapped else torch.eye(2)
    with torch.no_grad():
        for layer in (hidden, output):
            layer.weight.zero_()
            layer.weight[:2, :2] = neurons
        output.bias.copy_(torch.tensor([0.0, BIAS]))
    model = nn.Sequential(nn.Flatten(), hidden, nn.ReLU(), output)
    masks = {name: torch.zeros_like(weight, dtype=torch.bool) for name, weight in prunable(model).items()}
    for mask in masks.values():
        mask[:2, :2] = True
    return model, masks


def in_form(form: str, model: nn.Module, masks: Masks) -> nn.Module:
    return model if form == "module" else sparsify(model, masks, backend=form)


@pytest.mark.parametrize("form", FORMS)
def test_between_a_network_and_itself_with_two_neurons_swapped_the_barrier_is_the_one_that_is_worked_out(
    form: str,
) -> None:
    """At a, both layers are (1 - a) I + a P, their product ((1 - a)^2 + a^2) I + 2 a (1 - a) P, and an image of class 0
    is taken for 1 where (1 - 2 a)^2 times its margin is below the bias."""
    data, (model, masks) = images(), two_pixels(swapped=True)
    found = evaluated(in_form(form, model, masks), copy_of(two_pixels(swapped=False)[0]), [data.test], data)
    errors = [1 - each.accuracy for (each,) in found]
    expected = [sum((1 - 2 * number / 29) ** 2 * margin < BIAS for margin in MARGINS) / 6 for number in range(POINTS)]
    assert POINTS == 30
    assert errors == pytest.approx(expected)
    assert (errors[0], errors[-1], barrier(errors)) == (0, 0, pytest.approx(0.5))


@pytest.mark.parametrize("form", FORMS)
def test_between_equal_ends_there_is_none(form: str) -> None:
    data, (model, masks) = images(), two_pixels(swapped=False)
    twin = copy_of(model)
    found = evaluated(in_form(form, model, masks), twin, [data.test, data.train], data)
    assert len({(each.loss, each.accuracy) for point in found for each in point}) == 1
    assert barrier([1 - test.accuracy for test, _ in found]) == 0


def test_a_barrier_is_held_against_the_mean_of_the_ends() -> None:
    assert barrier([0.1, 0.5, 0.3]) == pytest.approx(0.3)
    assert barrier([0.1, 0.1, 0.3]) == pytest.approx(0.1)


def trained(model: nn.Module, masks: Masks, seed: int) -> Weights:
    """Weights and running statistics as a training might leave them, and counters."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for value in model.state_dict().values():
            if value.is_floating_point():
                value.add_(0.3 * torch.rand(value.shape, generator=generator))
            else:
                value.fill_(7)
    apply(model, masks)
    return copy_of(model)


@pytest.fixture
def pair(tiny_data: Dataset) -> tuple[nn.Module, Masks, Weights, Weights]:
    """A network with BatchNorm, masks, and two ends."""
    model = models.build(models.Network("resnet20", tiny_data.image_shape, 2), seed=0)
    generator = torch.Generator().manual_seed(3)
    masks = {name: torch.rand(w.shape, generator=generator) < 0.2 for name, w in prunable(model).items()}
    first = trained(model, masks, 1)
    return model, masks, first, trained(model, masks, 2)


def test_sparse_layers_find_what_the_dense_masked_network_finds(
    tiny_data: Dataset, pair: tuple[nn.Module, Masks, Weights, Weights]
) -> None:
    model, masks, first, second = pair
    expected = evaluated(copy.deepcopy(model), first, [tiny_data.test, tiny_data.train], tiny_data)
    sparse = sparsify(copy.deepcopy(model), masks, backend="cpp")
    found = evaluated(sparse, first, [tiny_data.test, tiny_data.train], tiny_data)
    assert len({each.loss for (each, _) in expected}) == POINTS
    for given, wanted in zip(found, expected, strict=True):
        for one, other in zip(given, wanted, strict=True):
            assert one.loss == pytest.approx(other.loss, rel=1e-4)
            assert one.accuracy == other.accuracy
    for name, value in copy_of(sparse).items():
        assert torch.equal(value, second[name]), name


def test_what_is_interpolated_are_values_and_running_statistics_and_the_ends_are_exact(
    pair: tuple[nn.Module, Masks, Weights, Weights],
) -> None:
    model, masks, first, second = pair
    sparse = sparsify(model, masks, backend="cpp")
    states: list[dict[str, Tensor]] = []
    for weights in (first, second):
        sparse.load_state_dict(weights)
        states.append({name: value.clone() for name, value in sparse.state_dict().items()})
    one, other = states
    for position, state in ((0.0, one), (1.0, other)):
        assert all(torch.equal(value, state[name]) for name, value in between(one, other, position).items())
    middle = between(one, other, 0.5)
    live = {name: int(mask.sum()) for name, mask in masks.items()}
    assert {name: middle[f"{name}.values"].numel() for name in masks} == live
    statistics = [name for name in middle if name.endswith("running_var")]
    for name in [*statistics, *(f"{layer}.values" for layer in masks)]:
        assert torch.allclose(middle[name], (one[name] + other[name]) / 2)
        assert not torch.equal(one[name], other[name])
    assert statistics
    assert all(middle[name] == 7 for name in middle if name.endswith("num_batches_tracked"))
