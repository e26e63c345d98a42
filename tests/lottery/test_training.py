import copy
from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from torch import nn

from lth_sparse import models
from lth_sparse.data.batches import Batches
from lth_sparse.data.dataset import Dataset
from lth_sparse.lottery.pruning import random_like
from lth_sparse.lottery.training import Training, learning_rate
from lth_sparse.nn.masks import Masks, all_alive, apply, prunable
from lth_sparse.settings.config import TrainingConfig
from lth_sparse.system.errors import InputError

SGD = TrainingConfig(
    optimizer="sgd",
    learning_rate=0.05,
    momentum=0.9,
    weight_decay=1e-3,
    batch_size=16,
    epochs=3,
    evaluate_every=3,
)
ADAM = replace(SGD, optimizer="adam", learning_rate=0.01)
CONFIGS = {"sgd": SGD, "nesterov": replace(SGD, nesterov=True), "adam": ADAM, "adamw": replace(ADAM, optimizer="adamw")}
"""By weight decay of their own kind; the two Adams differ by nothing else."""


def half_masks(model: nn.Module) -> Masks:
    generator = torch.Generator().manual_seed(2)
    return {name: torch.rand(w.shape, generator=generator) < 0.5 for name, w in prunable(model).items()}


def make(data: Dataset, config: TrainingConfig, name: str = "small") -> tuple[Training, nn.Module, Masks]:
    model = models.build(models.Network(name, data.image_shape, 2), seed=0)
    masks = half_masks(model)
    apply(model, masks)
    return Training(model, masks, data, Batches(data, 16, "crop", 0), config, (1, "ticket")), model, masks


def nothing() -> None:
    pass


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_training_is_a_plain_loop_with_the_mask_applied_after_each_step(
    tiny_data: Dataset, config: TrainingConfig
) -> None:
    training, model, masks = make(tiny_data, config)
    plain = copy.deepcopy(model)
    training.run(nothing, nothing)

    if config.optimizer == "sgd":
        optimizer = torch.optim.SGD(
            plain.parameters(), lr=0.05, momentum=0.9, nesterov=config.nesterov, weight_decay=1e-3, fused=True
        )  # fmt: skip
    else:
        kind = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}[config.optimizer]
        optimizer = kind(plain.parameters(), lr=0.01, weight_decay=1e-3, fused=True)
    sequence = Batches(tiny_data, 16, "crop", 0)
    for iteration in range(12):
        images, labels = sequence[iteration]
        optimizer.zero_grad()
        nn.functional.cross_entropy(plain(images), labels).backward()
        optimizer.step()
        with torch.no_grad():
            for name, weight in prunable(plain).items():
                weight *= masks[name]
    expected = plain.state_dict()
    assert all(torch.equal(value, expected[name]) for name, value in model.state_dict().items())
    assert all((weight[~masks[name]] == 0).all() for name, weight in prunable(model).items())


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
@pytest.mark.parametrize("stop_after", [1, 2])
def test_a_restored_training_ends_with_the_same_bits(
    tiny_data: Dataset, config: TrainingConfig, stop_after: int
) -> None:
    whole, model, _ = make(tiny_data, config, "resnet20")
    states = []
    whole.run(lambda: states.append(copy.deepcopy(whole.state())), nothing)
    resumed, resumed_model, _ = make(tiny_data, config, "resnet20")
    resumed.restore(*states[stop_after - 1])
    assert resumed.epoch == stop_after
    resumed.run(nothing, nothing)
    expected = model.state_dict()
    assert all(torch.equal(value, expected[name]) for name, value in resumed_model.state_dict().items())
    assert resumed.curve == whole.curve
    assert resumed.early_stop == whole.early_stop
    assert all(torch.equal(resumed.best_weights[name], value) for name, value in whole.best_weights.items())


def test_a_training_that_stops_within_an_epoch_goes_on_with_the_same_bits(tiny_data: Dataset) -> None:
    """Its dropout, too: what an epoch has left to chance so far is part of the state."""

    def begun() -> Training:
        torch.manual_seed(5)
        model = nn.Sequential(nn.Flatten(), nn.Linear(64, 32), nn.Dropout(0.5), nn.Linear(32, 2))
        return Training(model, all_alive(model), tiny_data, Batches(tiny_data, 16, "crop", 0), ADAM, (1, "ticket"))

    states, whole = [], begun()
    whole.run(nothing, lambda: states.append(copy.deepcopy(whole.state())))
    for step in (1, 2, 4, 7, 11):
        resumed = begun()
        resumed.restore(*states[step - 1])
        torch.manual_seed(step)  # What other code has drawn meanwhile.
        resumed.run(nothing, nothing)
        expected = whole.model.state_dict()
        assert all(torch.equal(value, expected[name]) for name, value in resumed.model.state_dict().items()), step
        assert resumed.curve == whole.curve


def test_the_early_stop_is_the_evaluation_of_least_validation_loss(tiny_data: Dataset) -> None:
    training, _, _ = make(tiny_data, SGD)
    training.run(nothing, nothing)
    assert [point.iteration for point in training.curve] == [3, 6, 9, 12]
    best = min(training.curve, key=lambda point: point.validation_loss)
    assert training.early_stop == best.iteration
    assert training.best_loss == best.validation_loss


def test_the_learning_rate_warms_up_and_falls_tenfold() -> None:
    config = replace(SGD, learning_rate=1.0, warmup=4, milestones=(0.5, 0.75))
    rates = [learning_rate(config, iteration, 16) for iteration in range(16)]
    assert rates == pytest.approx([0.25, 0.5, 0.75, 1, 1, 1, 1, 1] + [0.1] * 4 + [0.01] * 4)


def test_the_learning_rate_follows_a_cosine_to_0_after_warm_up() -> None:
    config = replace(SGD, learning_rate=1.0, warmup=4, learning_rate_schedule="cosine")
    rates = [learning_rate(config, iteration, 16) for iteration in range(17)]
    assert rates[:5] == pytest.approx([0.25, 0.5, 0.75, 1, 1])
    assert (rates[7], rates[10], rates[13]) == pytest.approx(((1 + 0.5**0.5) / 2, 0.5, (1 - 0.5**0.5) / 2))
    assert all(one > other > 0 for one, other in pairwise(rates[4:16]))
    assert rates[16] == pytest.approx(0, abs=1e-12), "the step after the last"
    assert learning_rate(replace(config, warmup=0), 8, 16) == pytest.approx(0.5)


def test_a_training_that_begins_later_has_the_rates_of_its_steps(tiny_data: Dataset) -> None:
    """Rewinding to a step, of weights or of the learning rate alone (Renda et al. 2020), is of that step's rate."""
    config = replace(SGD, learning_rate_schedule="cosine", warmup=2)
    rates: dict[int, list[float]] = {}
    for start in (0, 7):
        model = models.build(models.Network("small", tiny_data.image_shape, 2), seed=0)
        batches = Batches(tiny_data, 16, "none", 0)
        training = Training(model, all_alive(model), tiny_data, batches, config, (1, "ticket"), start)
        seen = rates[start] = []
        training.run(nothing, lambda seen=seen, group=training.optimizer.param_groups[0]: seen.append(group["lr"]))
    assert len(rates[0]) == 12
    assert rates[7] == rates[0][7:]


def test_iterations_and_epochs_both_set_the_length(tiny_data: Dataset) -> None:
    training, _, _ = make(tiny_data, replace(SGD, epochs=None, iterations=7))
    ends = []
    training.run(lambda: ends.append(training.iteration), nothing)
    assert ends == [4, 7]
    with pytest.raises(InputError, match="--epochs or --iterations"):
        make(tiny_data, replace(SGD, epochs=None))


def test_a_diverged_training_stops_and_says_where(tiny_data: Dataset) -> None:
    training, _, _ = make(tiny_data, replace(SGD, learning_rate=1e12))
    with pytest.raises(InputError, match=r"the loss is (nan|inf), in validation"):
        training.run(nothing, nothing)
    assert training.iteration == 3


def test_a_random_mask_trains_alike(tiny_data: Dataset) -> None:
    model = models.build(models.Network("small", tiny_data.image_shape, 2), seed=0)
    masks = random_like(half_masks(model), 3)
    assert masks.keys() == all_alive(model).keys()
    apply(model, masks)
    training = Training(model, masks, tiny_data, Batches(tiny_data, 16, "none", 0), SGD, (1, "random"))
    training.run(nothing, nothing)
    assert all((weight[~masks[name]] == 0).all() for name, weight in prunable(model).items())
